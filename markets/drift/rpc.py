"""One Solana node, by solana's client: what it says in its own terms, or Unreachable in seconds.

Anything else (a proxy's page, half an answer, silence, a limit) says nothing about the chain, and
must not look as if it did. An address may hold the provider's key, so only its host is ever told.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio
from solana.rpc.commitment import Commitment, Confirmed, Finalized, Processed
from solana.rpc.types import TxOpts
from solders.pubkey import Pubkey
from solders.signature import Signature

from core.errors import DataError
from core.sending import Fill, Level, Look, Preflight, Seen, Tip, Unreachable
from markets.drift.client import Client, Refused
from markets.drift.layout import code_of
from markets.drift.notices import NoNotice, socket_of, wait_until_final
from markets.drift.program import Program
from markets.drift.units import BASE_PRECISION

TIMEOUT_S = 5.0
HISTORY_SLOTS_MIN = 216_000
"""A day: a node that keeps less of the past cannot tell unseen from forgotten."""

_DEFINITE = ("InstructionError", "AccountNotFound", "InsufficientFundsForFee")
"""Refusals of a transaction tried out that are about what it asks, or about money; the others are
about the node, or the moment."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account's bytes, and the program they belong to."""

    owner: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Blockhash:
    """What a transaction is made with; past ``last_valid_height`` it cannot land."""

    text: str
    last_valid_height: int


class Node:
    """An ``Endpoint`` of the order life, and the reading that the venue needs besides.

    ``user`` is whose fills are told. ``expect`` is given the hash of the chain's first block before
    anything this node says is believed, and raises if it is another's: a node of another chain
    would swear that nothing ever landed. ``history_slots``: how far back it must know signatures
    for its not knowing one to mean anything. ``socket`` is the address of its websocket, where it
    is not the one nodes have. Use it as an async context manager.
    """

    def __init__(
        self,
        url: str,
        program: Program,
        user: str,
        *,
        expect: Callable[[str], None] = lambda _genesis: None,
        timeout_s: float = TIMEOUT_S,
        history_slots: int = HISTORY_SLOTS_MIN,
        socket: str = "",
    ) -> None:
        self.host = urlsplit(url).netloc.rpartition("@")[2]
        self._program, self._user = program, user
        self._history_slots = history_slots
        self._timeout_s, self._socket = timeout_s, socket or socket_of(url)
        self._client = Client(url, self.host, timeout_s, expect)

    async def __aenter__(self) -> "Node":
        return self

    async def __aexit__(self, *_exc: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._client.close()

    # -- what the order life asks

    async def send(self, payload: bytes) -> None:
        """Pass a transaction on, tried out first; resending is ours, not the node's."""
        try:
            opts = TxOpts(preflight_commitment=Processed, max_retries=0)
            await self._client.send_raw_transaction(payload, opts)
        except Refused as refusal:
            error = refusal.data.get("err") if isinstance(refusal.data, dict) else None
            if error == "AlreadyProcessed":
                return
            name = next(iter(error), None) if isinstance(error, dict) else error
            if name in _DEFINITE:
                with self._terms("sendTransaction"):
                    raise Preflight(code_of(error)) from None
            raise

    async def finalized(self) -> Tip:
        """The newest finalized block."""
        told = (await self._client.get_epoch_info(Finalized)).value
        return Tip(told.block_height, told.absolute_slot)

    async def look(self, signature: str) -> Look:
        """Look for a signature in all the node has; Unreachable where its past is too short."""
        told = await self._client.get_raw_status(signature)
        with self._terms("getSignatureStatuses"):
            slot, status = int(told["context"]["slot"]), told["value"][0]
            if status is not None:
                error = status["err"]
                level = Level[status["confirmationStatus"].upper()]
                code = None if error is None else code_of(error)
                return Look(slot, Seen(level, int(status["slot"]), code))
        first = (await self._client.get_first_available_block()).value
        if first > max(slot - self._history_slots, 0):
            raise self._silent("getFirstAvailableBlock", f"it keeps only {slot - first} slots")
        return Look(slot)

    async def fills(self, signature: str) -> Sequence[Fill] | None:
        """The fills of a finalized transaction from its own events; None while it is not there.

        DataError when the node has cut the logs they stand in.
        """
        logs = await self.logs(signature)
        return None if logs is None else fills_of(self._program, self._user, logs)

    async def hint(self, signature: str) -> None:
        """Wait for the node's own word, over its websocket, that a transaction is finalized."""
        try:
            await wait_until_final(self._socket, signature, self._timeout_s)
        except NoNotice as why:
            raise self._silent("signatureSubscribe", str(why)) from None

    async def logs(self, signature: str) -> Sequence[str] | None:
        """What the programs of a finalized transaction logged."""
        name = Signature.from_string(signature)
        told = (await self._client.get_transaction(name, "base64", Finalized, 0)).value
        if told is None:
            return None
        meta = told.transaction.meta
        if meta is None or meta.log_messages is None:
            raise self._silent("getTransaction", "it keeps no logs")
        return meta.log_messages

    # -- what the venue reads

    async def accounts(
        self, keys: Sequence[str], commitment: str = "confirmed"
    ) -> tuple[int, list[Account | None]]:
        """Accounts as of one slot; None for one that does not exist. At most 100."""
        asked = [Pubkey.from_string(key) for key in keys]
        told = await self._client.get_multiple_accounts(asked, Commitment(commitment))
        if len(told.value) != len(keys):
            why = f"not an answer: {len(told.value)} accounts for {len(keys)} keys"
            raise self._silent("getMultipleAccounts", why)
        found = [None if one is None else Account(str(one.owner), one.data) for one in told.value]
        return told.context.slot, found

    async def blockhash(self) -> Blockhash:
        """The newest blockhash that is unlikely to be forked away."""
        told = (await self._client.get_latest_blockhash(Confirmed)).value
        return Blockhash(str(told.blockhash), told.last_valid_block_height)

    async def fees(self, keys: Sequence[str]) -> list[int]:
        """What was paid of late for a place in a block beside these accounts, in micro-lamports a
        compute unit, a slot."""
        return await self._client.get_recent_fees(keys)

    async def balance(self, key: str) -> int:
        """Lamports of an account."""
        return (await self._client.get_balance(Pubkey.from_string(key), Confirmed)).value

    async def slot(self, commitment: str = "processed") -> int:
        """The newest slot the node knows."""
        return (await self._client.get_slot(Commitment(commitment))).value

    async def time_ms(self, slot: int) -> int:
        """When a slot was made, as the chain has it."""
        told = (await self._client.get_block_time(slot)).value
        if told is None:
            raise self._silent("getBlockTime", f"it has no time of slot {slot}")
        return told * 1_000

    @contextmanager
    def _terms(self, method: str) -> Iterator[None]:
        """What does not have the form of an answer is none."""
        try:
            yield
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise self._silent(method, f"not an answer: {error}") from None

    def _silent(self, method: str, why: str) -> Unreachable:
        return Unreachable(f"{self.host}: {method}: {why}")


def fills_of(program: Program, user: str, logs: Sequence[str]) -> list[Fill]:
    """What a user was filled as taker, in the words of the program's own events."""
    return [
        _fill(event.data)
        for event in program.events(logs)
        if event.name == "OrderActionRecord"
        and str(event.data.action) == "OrderAction.Fill()"
        and str(event.data.taker) == user
    ]


def _fill(told: Any) -> Fill:
    base, quote = told.base_asset_amount_filled, told.quote_asset_amount_filled
    if base is None or quote is None or told.taker_fee is None:
        raise DataError("a fill without its amounts: the program's events are not of our IDL")
    sign = 1 if str(told.taker_order_direction) == "PositionDirection.Long()" else -1
    return Fill(sign * base / BASE_PRECISION, sign * quote, told.taker_fee)
