"""What the order life needs of a chain and of a store, and the records they exchange: here, for the
life and the markets whose chains it drives do not know each other.

Heights count blocks, and a transaction's life is told in them; slots count time, and a node's view
is dated in them. Times are unix ms, UTC.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Protocol

from core.errors import LockstepError


class Ending(IntEnum):
    """Why an order ended with something left, where it was not the venue's own code (those are
    positive). NONE: it met nothing to trade with."""

    NONE = 0
    EXPIRED = -1
    HALTED = -2
    CROSSING = -3


class Unreachable(LockstepError):
    """An endpoint did not answer, or not in its own terms: nothing is known, least of all that
    what was sent did not arrive."""


class Refusal(LockstepError):
    """A refusal by the venue's positive ``code``."""

    def __init__(self, code: int) -> None:
        super().__init__(f"refused with the venue's code {code}")
        self.code = code


class Unsignable(Refusal):
    """No transaction can be made of an order: its size rounds to nothing, say."""


class Preflight(Refusal):
    """An endpoint tried a transaction out and would not pass it on; another may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An approved order. ``quantity`` is signed; past ``expires_ms`` it may neither be signed nor
    sent, and the chain should refuse it too.

    ``reduce_only``: it shrinks its book. ``netted``: it does so, but what the venue holds, net of
    all books, it turns or grows, so that the venue would clamp a reduce-only order.
    """

    id: int
    book: int
    instrument: int
    quantity: float
    limit: float
    reduce_only: bool
    born_ms: int
    expires_ms: int
    netted: bool = False

    @property
    def shrinks(self) -> bool:
        """Whether what the venue holds can only become smaller by it."""
        return self.reduce_only and not self.netted


@dataclass(frozen=True, slots=True)
class Signed:
    """A transaction, ready to send; past ``last_valid_height`` the chain takes it no more."""

    signature: str
    payload: bytes
    last_valid_height: int


class State(StrEnum):
    """What is known of an attempt. SIGNED: nothing; it may land, or have landed."""

    SIGNED = "signed"
    LANDED = "landed"
    FAILED = "failed"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One signed transaction of an order, and what became of it.

    ``code``: the venue's, of a FAILED one or of the last preflight of an EXPIRED one. ``slot`` is
    where it landed. ``paid_micros`` is signed like ``quantity``: a sale is paid a negative sum.
    """

    order_id: int
    number: int
    signed: Signed
    signed_ms: int
    state: State = State.SIGNED
    code: int = 0
    slot: int = 0
    quantity: float = 0.0
    paid_micros: int = 0
    fee_micros: int = 0
    settled_ms: int = 0


class Level(IntEnum):
    """How sure a node is of what it saw; only FINALIZED cannot be taken back by a fork."""

    PROCESSED = 1
    CONFIRMED = 2
    FINALIZED = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """A transaction on chain at ``slot``; ``error`` is the code it failed with, None if it did
    not."""

    level: Level
    slot: int
    error: int | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """A node's answer to a look for a signature, with the slot of the view it answered from."""

    slot: int
    seen: Seen | None = None


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest finalized block a node knows."""

    height: int
    slot: int


@dataclass(frozen=True, slots=True)
class Fill:
    """One fill of a transaction's own event record: signed units, quote paid (negative for a
    sale), and fee."""

    quantity: float
    paid_micros: int
    fee_micros: int


class Endpoint(Protocol):
    """One way to the chain. Every method raises Unreachable, within seconds, for whatever is no
    answer; there may be several nodes behind it, each with its own view."""

    async def send(self, payload: bytes) -> None:
        """Pass a transaction on. Preflight only for a code of the venue's program: a blockhash not
        yet known is Unreachable, and a transaction already processed is no error."""

    async def finalized(self) -> Tip:
        """The newest finalized block."""

    async def look(self, signature: str) -> Look:
        """Look for a signature, through all of history: a node that keeps none, or none that
        reaches back to the signing, is Unreachable and must not say unseen."""

    async def fills(self, signature: str) -> Sequence[Fill] | None:
        """The fills of a finalized transaction; None while the node does not have it."""

    async def hint(self, signature: str) -> None:
        """Wait until the endpoint says a transaction is final, however long that is. It may be
        wrong, late, or never say; Unreachable where it cannot be heard."""


class Chain(Protocol):
    """A venue's chain: who signs for it, and the ways to it."""

    @property
    def endpoints(self) -> Sequence[Endpoint]: ...

    async def sign(self, order: Order, number: int) -> Signed:
        """Make the transaction of an order's attempt ``number``, unlike any made before (two equal
        ones would have one signature, and be one trade). Raises Unreachable or Unsignable."""


class Attempts(Protocol):
    """Keeps attempts. When a write returns it is durable."""

    async def write_signed(self, attempt: Attempt) -> None:
        """Add an attempt, SIGNED; a signature that is known already is refused."""

    async def write_verdict(self, attempt: Attempt) -> None:
        """Settle an attempt, once."""

    async def load(self, order_ids: Sequence[int]) -> Mapping[int, Attempt]:
        """The newest attempt of each of these orders that has one, and of every unsettled one."""
