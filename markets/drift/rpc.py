"""One Solana node over JSON-RPC: what it says in its own terms, or Unreachable within seconds.

Anything else (a proxy's page, half an answer, silence, a limit) says nothing about the chain, and
must not look as if it did. An address may hold the provider's key, so only its host is ever told.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx

from core.errors import DataError
from core.sending import Fill, Level, Look, Preflight, Seen, Tip, Unreachable
from markets.drift.layout import code_of
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


class _Refused(Exception):
    """A JSON-RPC error of a node."""

    def __init__(self, error: Any) -> None:
        super().__init__(str(error.get("message")))
        self.data = error.get("data")


class Node:
    """An ``Endpoint`` of the order life, and the reading that the venue needs besides.

    ``user`` is whose fills are told. ``expect`` is given the hash of the chain's first block before
    anything this node says is believed, and raises if it is another's: a node of another chain
    would swear that nothing ever landed. ``history_slots``: how far back it must know signatures
    for its not knowing one to mean anything. Use it as an async context manager.
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
    ) -> None:
        self.host = urlsplit(url).netloc.rpartition("@")[2]
        self._url, self._program, self._user = url, program, user
        self._timeout_s, self._history_slots = timeout_s, history_slots
        self._http = httpx.AsyncClient(timeout=timeout_s)
        self._ids = count(1)
        self._expect = expect
        self._known = False

    async def __aenter__(self) -> "Node":
        return self

    async def __aexit__(self, *_exc: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._http.aclose()

    # -- what the order life asks

    async def send(self, payload: bytes) -> None:
        """Pass a transaction on, tried out first; resending is ours, not the node's."""
        config = {"encoding": "base64", "preflightCommitment": "processed", "maxRetries": 0}
        try:
            await self._call("sendTransaction", b64encode(payload).decode(), config)
        except _Refused as refusal:
            error = refusal.data.get("err") if isinstance(refusal.data, dict) else None
            if error == "AlreadyProcessed":
                return
            name = next(iter(error), None) if isinstance(error, dict) else error
            if name in _DEFINITE:
                raise Preflight(code_of(error)) from None
            raise self._silent("sendTransaction", str(refusal)) from None

    async def finalized(self) -> Tip:
        """The newest finalized block."""
        told = await self._ask("getEpochInfo", {"commitment": "finalized"})
        with self._terms("getEpochInfo"):
            return Tip(int(told["blockHeight"]), int(told["absoluteSlot"]))

    async def look(self, signature: str) -> Look:
        """Look for a signature in all the node has; Unreachable where its past is too short."""
        config = {"searchTransactionHistory": True}
        told = await self._ask("getSignatureStatuses", [signature], config)
        with self._terms("getSignatureStatuses"):
            slot, status = int(told["context"]["slot"]), told["value"][0]
            if status is not None:
                error = status["err"]
                level = Level[status["confirmationStatus"].upper()]
                code = None if error is None else code_of(error)
                return Look(slot, Seen(level, int(status["slot"]), code))
        first = int(await self._ask("getFirstAvailableBlock"))
        if first > max(slot - self._history_slots, 0):
            raise self._silent("getFirstAvailableBlock", f"it keeps only {slot - first} slots")
        return Look(slot)

    async def fills(self, signature: str) -> Sequence[Fill] | None:
        """The fills of a finalized transaction from its own events; None while it is not there.

        DataError when the node has cut the logs they stand in.
        """
        logs = await self.logs(signature)
        return None if logs is None else fills_of(self._program, self._user, logs)

    async def logs(self, signature: str) -> Sequence[str] | None:
        """What the programs of a finalized transaction logged."""
        config = {
            "commitment": "finalized",
            "encoding": "base64",
            "maxSupportedTransactionVersion": 0,
        }
        told = await self._ask("getTransaction", signature, config)
        with self._terms("getTransaction"):
            return None if told is None else list(told["meta"]["logMessages"])

    # -- what the venue reads

    async def accounts(
        self, keys: Sequence[str], commitment: str = "confirmed"
    ) -> tuple[int, list[Account | None]]:
        """Accounts as of one slot; None for one that does not exist. At most 100."""
        config = {"encoding": "base64", "commitment": commitment}
        told = await self._ask("getMultipleAccounts", list(keys), config)
        with self._terms("getMultipleAccounts"):
            found = [_account(one) for one in told["value"]]
            if len(found) != len(keys):
                raise ValueError(f"{len(found)} accounts for {len(keys)} keys")
            return int(told["context"]["slot"]), found

    async def blockhash(self) -> Blockhash:
        """The newest blockhash that is unlikely to be forked away."""
        told = await self._ask("getLatestBlockhash", {"commitment": "confirmed"})
        with self._terms("getLatestBlockhash"):
            value = told["value"]
            return Blockhash(str(value["blockhash"]), int(value["lastValidBlockHeight"]))

    async def fees(self, keys: Sequence[str]) -> list[int]:
        """What was paid of late for a place in a block beside these accounts, in micro-lamports a
        compute unit, a slot."""
        told = await self._ask("getRecentPrioritizationFees", list(keys))
        with self._terms("getRecentPrioritizationFees"):
            return [int(one["prioritizationFee"]) for one in told]

    async def balance(self, key: str) -> int:
        """Lamports of an account."""
        told = await self._ask("getBalance", key, {"commitment": "confirmed"})
        with self._terms("getBalance"):
            return int(told["value"])

    async def slot(self, commitment: str = "processed") -> int:
        """The newest slot the node knows."""
        return int(await self._ask("getSlot", {"commitment": commitment}))

    async def time_ms(self, slot: int) -> int:
        """When a slot was made, as the chain has it."""
        return int(await self._ask("getBlockTime", slot)) * 1_000

    # -- the wire

    async def _ask(self, method: str, *params: Any) -> Any:
        """An answer; an error of the node's is none."""
        try:
            return await self._call(method, *params)
        except _Refused as refusal:
            raise self._silent(method, str(refusal)) from None

    async def _call(self, method: str, *params: Any) -> Any:
        if not self._known:
            self._expect(str(await self._post("getGenesisHash")))
            self._known = True
        return await self._post(method, *params)

    async def _post(self, method: str, *params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        try:
            with anyio.fail_after(self._timeout_s):
                response = await self._http.post(self._url, json=body)
            if response.status_code != httpx.codes.OK:
                raise self._silent(method, f"HTTP {response.status_code}")
            answer = response.json()
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
            raise self._silent(method, type(error).__name__) from None
        with self._terms(method):
            if answer["id"] != body["id"]:
                raise ValueError("it answers another question")
            if answer.get("error") is not None:
                raise _Refused(answer["error"])
            return answer["result"]

    @contextmanager
    def _terms(self, method: str) -> Iterator[None]:
        """What does not have the form of an answer is none."""
        try:
            yield
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise self._silent(method, f"not an answer: {error}") from None

    def _silent(self, method: str, why: str) -> Unreachable:
        return Unreachable(f"{self.host}: {method}: {why}")


def _account(told: Any) -> Account | None:
    if told is None:
        return None
    text, encoding = told["data"]
    if encoding != "base64":
        raise ValueError(f"an account in {encoding}")
    return Account(str(told["owner"]), b64decode(text, validate=True))


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
