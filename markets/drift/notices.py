"""A node's word over its websocket that a transaction is final: a hint to look at once, no more.

One connection for each transaction, so there is nothing to keep alive and nothing to lose but time:
whatever goes wrong here, the next look comes as it would have without.
"""

import json
import warnings
from typing import Any
from urllib.parse import urlsplit

import anyio
from solders.errors import SerdeJSONError
from solders.rpc.responses import SignatureNotification
from solders.signature import Signature
from websockets.exceptions import WebSocketException

with warnings.catch_warnings():
    # solana's socket stands on a part of websockets that is to go some day
    warnings.simplefilter("ignore", DeprecationWarning)
    from solana.rpc.commitment import Finalized
    from solana.rpc.websocket_api import SolanaWsClientProtocol, SubscriptionError, connect

_SCHEMES = {"http": "ws", "https": "wss"}
_CLOSE_S = 0.2
_MALFORMED = (AttributeError, KeyError, SerdeJSONError, TypeError, ValueError)


class NoNotice(Exception):
    """The socket did not come to tell."""


def socket_of(url: str) -> str:
    """Where nodes have their websocket: one port up from a port that is named, else the same."""
    parts = urlsplit(url)
    place = parts.netloc
    if parts.port is not None:
        place = f"{place.removesuffix(f':{parts.port}')}:{parts.port + 1}"
    return parts._replace(scheme=_SCHEMES.get(parts.scheme, parts.scheme), netloc=place).geturl()


async def wait_until_final(url: str, signature: str, timeout_s: float) -> None:
    """Wait for the first notice of a signature, which may be wrong, late, or never come.

    NoNotice where the socket cannot be had within ``timeout_s``, or ends.
    """
    try:
        with anyio.fail_after(timeout_s):
            socket: Any = await connect(url, create_protocol=_Socket, close_timeout=_CLOSE_S)
        try:
            await socket.signature_subscribe(Signature.from_string(signature), Finalized)
            while not any(isinstance(one, SignatureNotification) for one in await socket.recv()):
                pass
        finally:
            with anyio.CancelScope(shield=True):
                await socket.close()
    except (OSError, SubscriptionError, WebSocketException, *_MALFORMED) as error:
        raise NoNotice(type(error).__name__) from None


class _Socket(SolanaWsClientProtocol):
    """solana's, which would panic at an error without data."""

    def _process_rpc_response(self, raw: str) -> Any:
        told = json.loads(raw)
        if any("error" in one for one in (told if isinstance(told, list) else [told])):
            raise ValueError("not subscribed")
        return super()._process_rpc_response(raw)
