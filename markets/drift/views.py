"""What the venue reads before it signs: accounts of one slot, from the node that is furthest.

A node that stands still or lags answers as readily as any other. So an answer counts only if it is
about as new as the newest ever heard of, and none does when no node has moved on for a while.
"""

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import anyio

from core.errors import ConfigError, LockstepError
from core.sending import Unreachable
from markets.drift.market import Perp, Spot, read_perp, read_spot
from markets.drift.program import Maker, Program
from markets.drift.rpc import Account, Blockhash, Node
from markets.drift.users import User, read_user

T = TypeVar("T")

LAG_SLOTS_MAX = 25
"""Ten seconds."""
STILL_MS_MAX = 10_000
ACCOUNTS_MAX = 100
_TABLE_HEADER, _KEY = 56, 32
_TABLE_OWNER = "AddressLookupTab1e1111111111111111111111111"


@dataclass(frozen=True, slots=True)
class Views:
    """Accounts of one slot by their address; one that does not exist is not among them."""

    slot: int
    accounts: dict[str, Account]

    def there(self, key: str) -> Account:
        """An account that must exist; Unreachable where it does not, for another node has it."""
        if key not in self.accounts:
            raise Unreachable(f"account {key} is not there as of slot {self.slot}")
        return self.accounts[key]

    def data(self, key: str) -> bytes:
        """The bytes of an account that must exist."""
        return self.there(key).data


class Newest:
    """The newest slot heard of, and when; it judges whether an answer is of today."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.slot, self.since_ms = 0, 0

    def check(self, slot: int, who: str) -> None:
        """Unreachable for an answer from a slot long gone, or when no slot comes any more."""
        now = self._clock()
        if slot > self.slot:
            self.slot, self.since_ms = slot, now
        if slot < self.slot - LAG_SLOTS_MAX:
            raise Unreachable(f"{who}: it lags {self.slot - slot} slots behind")
        if now - self.since_ms > STILL_MS_MAX:
            raise Unreachable(f"{who}: no new slot for {(now - self.since_ms) / 1000:.0f} s")


async def first_of(nodes: Sequence[Node], ask: Callable[[Node], Awaitable[T]]) -> T:
    """The first answer of nodes asked side by side; Unreachable, as the last of them was, if none
    has one. Any other error of a node is raised at once."""
    answers: list[T] = []
    failures: list[Unreachable] = []
    wrong: list[LockstepError] = []

    async with anyio.create_task_group() as group:

        async def one(node: Node) -> None:
            try:
                answers.append(await ask(node))
            except Unreachable as failure:
                failures.append(failure)
                return
            except LockstepError as error:
                wrong.append(error)
            group.cancel_scope.cancel()

        for node in nodes:
            group.start_soon(one, node)
    if wrong:
        raise wrong[0]
    if answers:
        return answers[0]
    raise failures[-1]


@dataclass
class Reader:
    """Reads accounts through several nodes, and keeps what does not change."""

    program: Program
    nodes: Sequence[Node]
    clock: Callable[[], int]
    perps: dict[int, Perp] = field(default_factory=dict)
    spots: dict[int, Spot] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.newest = Newest(self.clock)

    async def views(self, keys: Sequence[str], commitment: str = "confirmed") -> Views:
        """Accounts as of one slot that is of today."""
        assert len(keys) <= ACCOUNTS_MAX, len(keys)

        async def ask(node: Node) -> Views:
            slot, found = await node.accounts(keys, commitment)
            if commitment != "finalized":
                self.newest.check(slot, node.host)
            there = {key: one for key, one in zip(keys, found, strict=True) if one is not None}
            return Views(slot, there)

        return await first_of(self.nodes, ask)

    async def balance(self, key: str) -> int:
        """Lamports of an account."""
        return await first_of(self.nodes, lambda node: node.balance(key))

    async def blockhash(self) -> Blockhash:
        """A blockhash; from a node that lags it only lives shorter."""
        return await first_of(self.nodes, lambda node: node.blockhash())

    async def markets(self, perps: Iterable[int], spots: Iterable[int]) -> None:
        """Read markets that are not known yet."""
        new_perps = {i: self.program.perp_market(i) for i in perps if i not in self.perps}
        new_spots = {i: self.program.spot_market(i) for i in spots if i not in self.spots}
        keys = [*new_perps.values(), *new_spots.values()]
        found: dict[str, Account] = {}
        for start in range(0, len(keys), ACCOUNTS_MAX):
            views = await self.views(keys[start : start + ACCOUNTS_MAX])
            found |= {key: views.there(key) for key in keys[start : start + ACCOUNTS_MAX]}
        self.perps |= {index: read_perp(found[key].data) for index, key in new_perps.items()}
        self.spots |= {index: read_spot(found[key].data) for index, key in new_spots.items()}

    async def user(self, key: str, commitment: str = "confirmed") -> tuple[int, User | None]:
        """A user as of a slot; None where there is none."""
        views = await self.views([key], commitment)
        found = views.accounts.get(key)
        return views.slot, None if found is None else read_user(found.data)

    def maker(self, key: str, user: User) -> Maker:
        """A user as one to trade against."""
        return Maker(key, self.program.user_stats(user.authority))

    async def tables(self, keys: Sequence[str]) -> list[object]:
        """Address lookup tables. ConfigError where a key is of none."""
        from solders.address_lookup_table_account import AddressLookupTableAccount
        from solders.pubkey import Pubkey

        views = await self.views(keys) if keys else Views(0, {})
        tables: list[object] = []
        for key in keys:
            found = views.accounts.get(key)
            if found is None or found.owner != _TABLE_OWNER:
                raise ConfigError(f"{key} is no address lookup table")
            starts = range(_TABLE_HEADER, len(found.data), _KEY)
            inside = [Pubkey.from_bytes(found.data[at : at + _KEY]) for at in starts]
            tables.append(AddressLookupTableAccount(Pubkey.from_string(key), inside))
        return tables


def percentile(values: Sequence[int], share: float) -> int:
    """The least of the values that at least this share of them does not exceed; 0 of none."""
    ranked = sorted(values)
    return ranked[max(math.ceil(share * len(ranked)) - 1, 0)] if ranked else 0
