"""Orders as a client would send them, encoded by anchorpy from driftpy's IDL and signed by solders.

driftpy is imported inside functions: it takes seconds and warns about what it imports itself.
"""

from collections.abc import Sequence
from typing import Any

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from standin_drift import Chain

SOL = 10**9


def params(**changes: Any) -> Any:
    """OrderParams of an IOC limit that buys one SOL at up to 151."""
    from driftpy.types import MarketType, OrderParams, OrderType, PositionDirection, PostOnlyParams

    known = {
        "order_type": OrderType.Limit(),
        "market_type": MarketType.Perp(),
        "direction": PositionDirection.Long(),
        "user_order_id": 0,
        "base_asset_amount": SOL,
        "price": 151_000_000,
        "market_index": 0,
        "reduce_only": False,
        "post_only": PostOnlyParams.NONE(),
        "bit_flags": 1,
    }
    return OrderParams(**(known | changes))


def sells(**changes: Any) -> Any:
    from driftpy.types import PositionDirection

    return params(direction=PositionDirection.Short(), **{"price": 149_000_000, **changes})


class Trader:
    """A key with a funded user on a chain; ``take`` and the like give signed transactions."""

    def __init__(self, chain: Chain, desk: Any, key: Keypair, **user: Any) -> None:
        self.chain, self.key = chain, key
        names = desk.add_user(str(key.pubkey()), **user)
        self.user, self.stats = names["user"], names["stats"]

    def metas(
        self, markets: Sequence[int], makers: Sequence[dict[str, str]], writable: bool
    ) -> list[AccountMeta]:
        world = self.chain.world
        plain = [world.oracle_key(world.perps[at].feed) for at in markets] + [world.spot_key(0)]
        out = [meta(key) for key in plain]
        out += [meta(world.perp_key(at), writable=writable) for at in markets]
        for maker in makers:
            out += [meta(maker["user"], writable=True), meta(maker["stats"], writable=True)]
        return out

    def named(self, *, stats: bool = False) -> list[AccountMeta]:
        keys = [meta(self.chain.world.state_key), meta(self.user, writable=True)]
        keys += [meta(self.stats, writable=True)] if stats else []
        return [*keys, AccountMeta(self.key.pubkey(), is_signer=True, is_writable=False)]

    def instruction(self, name: str, values: dict[str, Any], metas: list[AccountMeta]) -> Any:
        from driftpy.accounts.oracle import DRIFT_CODER

        data = DRIFT_CODER.instruction.encode(name, values)
        return Instruction(Pubkey.from_string(self.chain.world.program), data, metas)

    def take(
        self,
        order: Any,
        makers: Sequence[dict[str, str]] = (),
        condition: int | None = None,
        markets: Sequence[int] = (),
        **signing: Any,
    ) -> VersionedTransaction:
        return self.signed(self.take_instruction(order, makers, condition, markets), **signing)

    def take_instruction(
        self,
        order: Any,
        makers: Sequence[dict[str, str]] = (),
        condition: int | None = None,
        markets: Sequence[int] = (),
    ) -> Instruction:
        """``markets`` are those the user stands in besides the order's own."""
        metas = self.named(stats=True)
        metas += self.metas([order.market_index, *markets], makers, writable=True)
        values = {"params": order, "success_condition": condition}
        return self.instruction("place_and_take_perp_order", values, metas)

    def place(self, order: Any, **signing: Any) -> VersionedTransaction:
        metas = self.named() + self.metas([order.market_index], (), writable=False)
        return self.signed(
            self.instruction("place_perp_order", {"params": order}, metas), **signing
        )

    def settle_pnl(self, market: int = 0, **signing: Any) -> VersionedTransaction:
        metas = [*self.named(), meta(self.chain.world.at("spot_market_vault", bytes(2)))]
        metas += self.metas([market], (), writable=True)
        instruction = self.instruction("settle_pnl", {"market_index": market}, metas)
        return self.signed(instruction, **signing)

    def cancel_all(self) -> VersionedTransaction:
        values = dict.fromkeys(("market_type", "market_index", "direction"))
        metas = self.named() + self.metas([0], (), writable=False)
        return self.signed(self.instruction("cancel_orders", values, metas))

    def signed(
        self,
        *instructions: Instruction,
        units: int = 400_000,
        price: int = 0,
        tables: Sequence[AddressLookupTableAccount] = (),
        blockhash: str | None = None,
    ) -> VersionedTransaction:
        known = blockhash or self.chain.blockhash(self.chain.slot - 1)
        budget = [set_compute_unit_limit(units), set_compute_unit_price(price)]
        message = MessageV0.try_compile(
            self.key.pubkey(), [*budget, *instructions], tables, Hash.from_string(known)
        )
        return VersionedTransaction(message, [self.key])


def meta(key: str, *, writable: bool = False) -> AccountMeta:
    return AccountMeta(Pubkey.from_string(key), is_signer=False, is_writable=writable)
