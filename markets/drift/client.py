"""solana's client, held to what an answer is; imported when a node is first made.

Its own line takes any JSON for the answer to its question, and its parser panics (which no handler
of Exceptions stops) at an error without data, as nodes that lag or limit tell one. So an answer is
judged here before it is parsed.
"""

import json
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, TypeVar

import anyio
import httpx
from solana.rpc.async_api import AsyncClient
from solana.rpc.providers.async_base import AsyncBaseProvider
from solders.errors import SerdeJSONError
from solders.pubkey import Pubkey
from solders.rpc.config import RpcSignatureStatusConfig
from solders.rpc.requests import (
    Body,
    GetGenesisHash,
    GetRecentPrioritizationFees,
    GetSignatureStatuses,
)
from solders.rpc.responses import GetGenesisHashResp, GetRecentPrioritizationFeesResp, RPCResult
from solders.signature import Signature

from core.sending import Unreachable

T = TypeVar("T", bound=RPCResult)


class Refused(Unreachable):
    """A node's own error: no answer, but for what its ``data`` may tell of a transaction."""

    def __init__(self, told: str, data: Any) -> None:
        super().__init__(told)
        self.data = data


class Line(AsyncBaseProvider):
    """One address: whatever is no answer to the question, within ``timeout_s``, is Unreachable.

    ``expect`` is given the hash of the chain's first block before anything else is asked.
    """

    def __init__(
        self,
        session: httpx.AsyncClient,
        url: str,
        host: str,
        timeout_s: float,
        expect: Callable[[str], None],
    ) -> None:
        self._session, self._url, self._host = session, url, host
        self._timeout_s, self._expect = timeout_s, expect
        self._ids = count(1)
        self._known = False

    async def make_request(self, body: Body, parser: type[T]) -> T:
        """The answer in the form that is its question's."""
        await self._meet()
        return await self._parsed(body, parser)

    async def result(self, body: Body) -> Any:
        """The answer as the node has it, where the parser knows less than nodes may tell."""
        await self._meet()
        _, answer = await self._post(body)
        return answer["result"]

    async def close(self) -> None:
        """Close its connections."""
        await self._session.aclose()

    async def _meet(self) -> None:
        if not self._known:
            genesis = await self._parsed(GetGenesisHash(), GetGenesisHashResp)
            self._expect(str(genesis.value))
            self._known = True

    async def _parsed(self, body: Body, parser: type[T]) -> T:
        text, _ = await self._post(body)
        read: Any = parser
        try:
            answer: T = read.from_json(text)
        except SerdeJSONError as error:
            raise self._silent(body, f"not an answer: {error}") from None
        return answer

    async def _post(self, body: Body) -> tuple[str, dict[str, Any]]:
        """An answer with a result in it, as text and as JSON."""
        asked = json.loads(body.to_json()) | {"id": next(self._ids)}
        try:
            with anyio.fail_after(self._timeout_s):
                response = await self._session.post(self._url, json=asked)
            if response.status_code != httpx.codes.OK:
                raise self._silent(body, f"HTTP {response.status_code}")
            answer = response.json()
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            raise self._silent(body, type(error).__name__) from None
        if not isinstance(answer, dict) or answer.get("id") != asked["id"]:
            raise self._silent(body, "not an answer to this question")
        refusal = answer.get("error")
        if refusal is not None or "result" not in answer:
            told = refusal if isinstance(refusal, dict) else {}
            raise Refused(self._told(body, str(told.get("message"))), told.get("data"))
        return response.text, answer

    def _silent(self, body: Body, why: str) -> Unreachable:
        return Unreachable(self._told(body, why))

    def _told(self, body: Body, why: str) -> str:
        return f"{self._host}: {json.loads(body.to_json())['method']}: {why}"


class Client(AsyncClient):
    """solana's client on such a line, with two calls more."""

    def __init__(
        self, url: str, host: str, timeout_s: float, expect: Callable[[str], None]
    ) -> None:
        super().__init__(url, timeout=timeout_s)
        session = self._provider.session
        self._line = Line(session, url, host, timeout_s, expect)
        self._provider = self._line  # type: ignore[assignment]

    async def get_raw_status(self, signature: str) -> Any:
        """What the node knows of a signature, through all of its history, unparsed: an error that
        the chain has learnt since solders was released would make a landed transaction unreadable,
        and its order would never end."""
        config = RpcSignatureStatusConfig(search_transaction_history=True)
        body = GetSignatureStatuses([Signature.from_string(signature)], config)
        return await self._line.result(body)

    async def get_recent_fees(self, keys: Sequence[str]) -> list[int]:
        """What solana's client has no call for: the price paid of late beside accounts, a slot, in
        micro-lamports a compute unit."""
        body = GetRecentPrioritizationFees([Pubkey.from_string(key) for key in keys])
        told = await self._line.make_request(body, GetRecentPrioritizationFeesResp)
        return [one.prioritization_fee for one in told.value]
