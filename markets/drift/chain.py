"""Drift as a chain of the order life: an approved order becomes one signed transaction.

It is read just before it is signed: what the user holds, what the market is, what its oracle says
and since when. What cannot land well is refused here, by the code the program would refuse it with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.sending import Order, Signed, Unreachable, Unsignable
from markets.drift.keys import Key
from markets.drift.layout import code
from markets.drift.makers import Makers
from markets.drift.market import Perp, oracle_fault, read_oracle, read_perp, read_rails
from markets.drift.program import PARTIAL, Ioc, Maker
from markets.drift.rpc import Node
from markets.drift.units import base_to_chain, price_from_chain, price_to_chain
from markets.drift.users import User, is_user, read_user
from markets.drift.views import Reader, Views, first_of, percentile

BYTES_MAX = 1_232
"""Of a transaction (Solana)."""
_NONCES = 50_000
_ATTEMPTS_MAX = 16
_SECOND_MS = 1_000
_QUOTE = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How orders are placed.

    ``collar``: how far from the oracle a price may lie, as a fraction. ``units``: compute an order
    may use. Their price, in micro-lamports each, is the ``fee_percentile`` of what others paid of
    late, within ``fee_min`` and ``fee_max``. ``only_if_filled``: what would meet nothing fails,
    instead of landing without a fill.
    """

    collar: float = 0.02
    units: int = 600_000
    fee_percentile: float = 0.75
    fee_min: int = 1_000
    fee_max: int = 200_000
    only_if_filled: bool = False


class DriftChain:
    """A ``core.sending.Chain``: one key, one sub-account, and the nodes.

    ``markets`` is the market of each of our instruments, by its place among them. The key is the
    sub-account's authority or its delegate.
    """

    def __init__(
        self,
        reader: Reader,
        key: Key,
        authority: str,
        sub_account: int,
        markets: Mapping[int, int],
        makers: Makers,
        terms: Terms,
        tables: Sequence[Any] = (),
    ) -> None:
        self._reader, self._key, self._makers, self._terms = reader, key, makers, terms
        self._markets, self._tables = markets, tables
        self.user = reader.program.user(authority, sub_account)
        self._stats = reader.program.user_stats(authority)

    @property
    def endpoints(self) -> Sequence[Node]:
        return self._reader.nodes

    async def sign(self, order: Order, number: int) -> Signed:
        """Make the transaction of an order's attempt, unlike any other."""
        reader, program = self._reader, self._reader.program
        index = self._markets[order.instrument]
        await reader.markets([index], [_QUOTE])
        known = reader.perps[index]
        against = await self._against(known.name, order)
        market_key = program.perp_market(index)
        keys = [self.user, program.state, market_key, known.oracle, *against]
        views = await reader.views(keys)
        market = reader.perps[index] = read_perp(views.data(market_key))
        if market.oracle != known.oracle:
            raise Unreachable(f"market {index} has another oracle since: it is read anew")
        ioc = self._ioc(order, market, views)
        us = read_user(views.data(self.user))
        others = {key: read_user(views.data(key)) for key in against if self._is_user(views, key)}
        await reader.markets(*_stands_in([us, *others.values()]))
        blockhash = await reader.blockhash()
        price = await self._unit_price(market_key)
        nonce = (order.id * _ATTEMPTS_MAX + number % _ATTEMPTS_MAX) % _NONCES
        budget = _budget(self._terms.units + nonce, price)
        transaction = self._fitting(ioc, us, others, blockhash.text, budget)
        signature = str(transaction.signatures[0])
        return Signed(signature, bytes(transaction), blockhash.last_valid_height)

    async def sign_cancel(self) -> Signed:
        """Make the transaction that cancels every open order of the user. Raises Unreachable, or
        Unsignable where too many markets are involved for one."""
        reader = self._reader
        views = await reader.views([self.user])
        us = read_user(views.data(self.user))
        perps, spots = _stands_in([us])
        await reader.markets(perps, [_QUOTE, *spots])
        blockhash = await reader.blockhash()
        budget = _budget(self._terms.units, await self._unit_price(self.user))
        cancel = reader.program.cancel_orders(self._named(), self._remaining((), [us], ()))
        transaction = self._signed([*budget, cancel], blockhash.text)
        if len(bytes(transaction)) > BYTES_MAX:
            raise Unsignable(code("SanitizeFailure"))
        signature = str(transaction.signatures[0])
        return Signed(signature, bytes(transaction), blockhash.last_valid_height)

    async def _against(self, market: str, order: Order) -> Sequence[str]:
        """Makers to name. An exit does without where nobody can tell them: the AMM may take it."""
        try:
            users = await self._makers.rest_against(market, buying=order.quantity > 0)
        except Unreachable:
            if not order.reduce_only:
                raise
            return ()
        return [user for user in dict.fromkeys(users) if user != self.user]

    def _is_user(self, views: Views, key: str) -> bool:
        found = views.accounts.get(key)
        return found is not None and found.owner == self._reader.program.id and is_user(found.data)

    def _ioc(self, order: Order, market: Perp, views: Views) -> Ioc:
        """The order in the program's integers. Unsignable where the program would not have it."""
        oracle = read_oracle(market.source, views.data(market.oracle))
        rails = read_rails(views.data(self._reader.program.state))
        fault = oracle_fault(oracle, market, rails, max(views.slot, self._reader.newest.slot))
        if fault is not None and not order.shrinks:
            raise Unsignable(code(fault))
        base = base_to_chain(abs(order.quantity), market.step)
        if base < market.step:
            raise Unsignable(code("OrderAmountTooSmall"))
        if base < market.size_min and not order.shrinks:
            raise Unsignable(code("InvalidOrderMinOrderSize"))
        buying = order.quantity > 0
        limit = order.limit
        if fault is None:
            # what is wrong with an oracle must not keep us from getting out
            collar = self._terms.collar if buying else -self._terms.collar
            edge = price_from_chain(oracle.price) * (1 + collar)
            limit = min(limit, edge) if buying else max(limit, edge)
        price = price_to_chain(limit, market.tick, buying=buying)
        if price <= 0:
            raise Unsignable(code("InvalidOrderLimitPrice"))
        return Ioc(
            market=market.index,
            buying=buying,
            base=base,
            price=price,
            reduce_only=order.shrinks,
            max_ts=order.expires_ms // _SECOND_MS,
            success=PARTIAL if self._terms.only_if_filled else 0,
        )

    async def _unit_price(self, account: str) -> int:
        """What a place in a block beside others who write to an account costs."""
        terms = self._terms
        paid = await first_of(self._reader.nodes, lambda node: node.fees([account]))
        return min(max(percentile(paid, terms.fee_percentile), terms.fee_min), terms.fee_max)

    def _fitting(
        self, ioc: Ioc, us: User, others: Mapping[str, User], blockhash: str, budget: Sequence[Any]
    ) -> Any:
        """The signed transaction, with as many of the makers as fit into one, best first."""
        program, names = self._reader.program, list(others)
        while True:
            makers = [self._reader.maker(name, others[name]) for name in names]
            users = [us, *(others[name] for name in names)]
            remaining = self._remaining([ioc.market], users, makers)
            named = self._named(_meta(self._stats, writable=True))
            order = program.place_and_take(ioc, named, remaining)
            transaction = self._signed([*budget, order], blockhash)
            if len(bytes(transaction)) <= BYTES_MAX:
                return transaction
            if not names:
                raise Unsignable(code("SanitizeFailure"))
            names.pop()

    def _signed(self, instructions: Sequence[Any], blockhash: str) -> Any:
        from solders.hash import Hash
        from solders.message import MessageV0
        from solders.pubkey import Pubkey

        payer = Pubkey.from_string(self._key.address)
        made = Hash.from_string(blockhash)
        return self._key.sign(
            MessageV0.try_compile(payer, list(instructions), list(self._tables), made)
        )

    def _named(self, *more: Any) -> list[Any]:
        state, user = _meta(self._reader.program.state), _meta(self.user, writable=True)
        return [state, user, *more, _meta(self._key.address, signer=True)]

    def _remaining(
        self, traded: Sequence[int], users: Sequence[User], makers: Sequence[Maker]
    ) -> list[Any]:
        """Oracles, spot markets and perpetuals of all that anybody involved stands in, in the order
        the program reads them; then the makers."""
        reader, program = self._reader, self._reader.program
        perps, spots = _stands_in(users)
        indices = sorted({*traded, *perps})
        quote = sorted({_QUOTE, *spots})
        oracles = [reader.perps[i].oracle for i in indices]
        oracles += [reader.spots[i].oracle for i in quote if reader.spots[i].oracle != _NOBODY]
        metas = [_meta(key) for key in dict.fromkeys(oracles)]
        metas += [_meta(program.spot_market(i)) for i in quote]
        metas += [_meta(program.perp_market(i), writable=i in traded) for i in indices]
        for maker in makers:
            metas += [_meta(maker.user, writable=True), _meta(maker.stats, writable=True)]
        return metas


_NOBODY = "1" * 32


def _stands_in(users: Sequence[User]) -> tuple[list[int], list[int]]:
    """The perpetual and the spot markets that users stand in."""
    perps = {position.market for user in users for position in user.positions}
    spots = {market for user in users for market, _ in user.spots}
    return sorted(perps), sorted(spots)


def _meta(key: str, *, writable: bool = False, signer: bool = False) -> Any:
    from solders.instruction import AccountMeta
    from solders.pubkey import Pubkey

    return AccountMeta(Pubkey.from_string(key), is_signer=signer, is_writable=writable)


def _budget(units: int, price: int) -> list[Any]:
    from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price

    return [set_compute_unit_limit(units), set_compute_unit_price(price)]
