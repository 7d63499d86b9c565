"""Drift's program through driftpy: its addresses, its instructions, and what its events tell.

driftpy takes seconds to import and warns about what it imports itself, so it is imported when a
program is first made, never by a replay. Of it only the pure parts are used; its sender, its
feeds and its log parser (which knows one program id) have faults that cost money.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

from core.errors import DataError

DRIFT = "dRiftyHA39MWEi3m9aunc5MzRF1JYuBsbn6VPcn33UH"
"""The program of Drift v2, on mainnet and devnet alike."""

IOC = 1
"""The bit of an order's flags by which what does not fill at once is cancelled."""

PARTIAL = 1
"""The success condition under which a transaction fails unless something is filled."""
_AT_AUCTION_END = 100 << 8
_CUT = "Log truncated"
_ENDS = (["success"], ["failed:"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ioc:
    """An immediate-or-cancel order in the program's integers; ``max_ts`` is unix seconds."""

    market: int
    buying: bool
    base: int
    price: int
    reduce_only: bool
    max_ts: int
    success: int = 0


@dataclass(frozen=True, slots=True)
class Maker:
    """A user to trade against, and the statistics of its authority."""

    user: str
    stats: str


def load_driftpy() -> tuple[ModuleType, ModuleType, Any]:
    """driftpy's addresses, its types, and the coder of its IDL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import driftpy.addresses
        import driftpy.types
        from driftpy.accounts.oracle import DRIFT_CODER
    return driftpy.addresses, driftpy.types, DRIFT_CODER


class Program:
    """One deployment of Drift's program; every address is text, as nodes tell it."""

    def __init__(self, program_id: str = DRIFT) -> None:
        from solders.pubkey import Pubkey

        self.id = program_id
        self._key = Pubkey.from_string
        self._id = self._key(program_id)
        self._addresses, self._types, self._coder = load_driftpy()

    @cached_property
    def state(self) -> str:
        """The one account of settings."""
        return str(self._addresses.get_state_public_key(self._id))

    def user(self, authority: str, sub_account: int) -> str:
        """An authority's sub-account."""
        key = self._key(authority)
        return str(self._addresses.get_user_account_public_key(self._id, key, sub_account))

    def user_stats(self, authority: str) -> str:
        """What an authority paid and traded over all of its sub-accounts."""
        key = self._key(authority)
        return str(self._addresses.get_user_stats_account_public_key(self._id, key))

    def perp_market(self, index: int) -> str:
        """A perpetual market."""
        return str(self._addresses.get_perp_market_public_key(self._id, index))

    def spot_market(self, index: int) -> str:
        """A spot market; 0 is the quote token."""
        return str(self._addresses.get_spot_market_public_key(self._id, index))

    def place_and_take(self, order: Ioc, named: Sequence[Any], remaining: Sequence[Any]) -> Any:
        """The one instruction under which the program takes an IOC order: a Limit with the IOC bit.

        Built by hand because driftpy's own cannot pass a success condition. A bare condition would
        price the take at the start of its auction, so its second byte says: at the end.
        """
        success = _AT_AUCTION_END | order.success if order.success else None
        values = {"params": self._params(order), "success_condition": success}
        return self._instruction("place_and_take_perp_order", values, [*named, *remaining])

    def cancel_orders(self, named: Sequence[Any], remaining: Sequence[Any]) -> Any:
        """The instruction under which the program cancels every open order of a user."""
        values = dict.fromkeys(("market_type", "market_index", "direction"))
        return self._instruction("cancel_orders", values, [*named, *remaining])

    def _params(self, order: Ioc) -> Any:
        types = self._types
        side = types.PositionDirection
        return types.OrderParams(
            order_type=types.OrderType.Limit(),
            market_type=types.MarketType.Perp(),
            direction=side.Long() if order.buying else side.Short(),
            base_asset_amount=order.base,
            price=order.price,
            market_index=order.market,
            reduce_only=order.reduce_only,
            post_only=types.PostOnlyParams.NONE(),
            bit_flags=IOC,
            max_ts=order.max_ts,
        )

    def _instruction(self, name: str, values: Mapping[str, Any], metas: Sequence[Any]) -> Any:
        from solders.instruction import Instruction

        return Instruction(self._id, self._coder.instruction.encode(name, values), list(metas))

    def events(self, logs: Iterable[str]) -> list[Any]:
        """The events this program told in a transaction's logs, as anchorpy reads them.

        DataError when a node has cut the logs: what is missing could be a fill.
        """
        from base64 import b64decode

        found = []
        for text in _told_by(self.id, logs):
            event = self._coder.events.parse(b64decode(text))
            if event is not None:
                found.append(event)
        return found


def _told_by(program: str, logs: Iterable[str]) -> Iterator[str]:
    """What the program itself, not one that it called or that called it, wrote as data."""
    stack: list[str] = []
    for line in logs:
        words = line.split()
        if line.startswith(_CUT):
            raise DataError("a node cut the transaction's logs short: its fills cannot be told")
        if line.startswith("Program data: ") and stack and stack[-1] == program:
            yield words[2]
        elif len(words) > 2 and words[0] == "Program" and words[2] == "invoke":
            stack.append(words[1])
        elif stack and words[:2] == ["Program", stack[-1]] and words[2:3] in _ENDS:
            stack.pop()
