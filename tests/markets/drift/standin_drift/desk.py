"""Where a test arranges the chain and reads its books, in this process or from another over HTTP.

Every public method takes and gives plain JSON values, so ``POST /standin/<method>`` with the
keyword arguments as its body does the same as calling it.
"""

from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any

import httpx
from solders.keypair import Keypair

from standin_drift.ledger import Chain, Landed
from standin_drift.rpc import Node
from standin_drift.world import PRICE, set_fields

RICH = 10**6 * PRICE


class Desk:
    """``clock`` sets slots per second of real time, 0 for a chain that only ``tick`` moves."""

    def __init__(self, chain: Chain, nodes: list[Node]) -> None:
        self.chain, self.nodes = chain, nodes
        self.slots_per_s = 0.0

    # -- time

    def tick(self, slots: int = 1) -> int:
        return self.chain.tick(slots)

    def clock(self, slots_per_s: float | None = None, slot_ms: int | None = None) -> dict[str, Any]:
        if slots_per_s is not None:
            self.slots_per_s = slots_per_s
        if slot_ms is not None:
            self.chain.slot_ms = slot_ms
        now = {"slot": self.chain.slot, "time_ms": self.chain.time_ms}
        return now | {"slots_per_s": self.slots_per_s, "slot_ms": self.chain.slot_ms}

    def set_time(self, time_ms: int) -> int:
        """Let the chain's time leap forward; it never goes back."""
        self.chain.time_ms = max(self.chain.time_ms, time_ms)
        return self.chain.time_ms

    # -- the world

    def add_user(
        self,
        authority: str,
        collateral: int = 10_000 * PRICE,
        sub_account: int = 0,
        lamports: int = 10**9,
    ) -> dict[str, str]:
        """A funded user: the addresses of its User and UserStats."""
        user = self.chain.world.add_user(authority, collateral, sub_account)
        self.chain.fund(authority, lamports)
        self.chain.publish()
        return {"user": user.key, "stats": user.stats}

    def add_maker(self, name: str) -> dict[str, str]:
        """A rich user whose key follows from the name, to rest orders for."""
        seed = Keypair.from_seed(sha256(name.encode()).digest())
        return self.add_user(str(seed.pubkey()), RICH)

    def maker_key(self, name: str) -> str:
        """The User of a maker of this name."""
        seed = Keypair.from_seed(sha256(name.encode()).digest())
        return self.chain.world.user_key(str(seed.pubkey()), 0)

    def set_user(self, user: str, **values: Any) -> None:
        with self.chain.world.edit() as draft:
            set_fields(draft.user(user), values)
        self.chain.publish()

    def set_book(
        self,
        user: str,
        market: int = 0,
        bids: list[tuple[int, int]] | None = None,
        asks: list[tuple[int, int]] | None = None,
    ) -> None:
        """The resting orders of a maker in a market: (price in 1e6, base in 1e9) each."""
        self.chain.world.set_book(user, market, bids or [], asks or [], self.chain.slot)
        self.chain.publish()

    def set_oracle(self, market: int, **values: Any) -> None:
        """Fields of an Oracle; a price without averages takes them along."""
        if "price" in values:
            price = values["price"]
            values = {"twap": price, "twap5": price, "conf": price // 10_000} | values
        set_fields(self.chain.world.oracles[self.chain.world.perps[market].feed], values)
        self.chain.publish()

    def set_market(self, market: int, **values: Any) -> None:
        with self.chain.world.edit() as draft:
            set_fields(draft.perp(market), values)
        self.chain.publish()

    def set_state(self, **values: Any) -> None:
        state = replace(self.chain.world.state)
        set_fields(state, values)
        self.chain.world.state = state
        self.chain.publish()

    def settle_hour(self, market: int, rate: int, at_s: int | None = None) -> None:
        """An hour's funding in 1e9 quote per base; longs pay if positive, when next touched. It is
        stamped with the chain's time unless another is given."""
        with self.chain.world.edit() as draft:
            perp = draft.perp(market)
            perp.funding_rate = rate
            perp.funding_long += rate
            perp.funding_short += rate
            perp.funding_s = self.chain.now_s if at_s is None else at_s
        self.chain.publish()

    def fund(self, wallet: str, lamports: int) -> None:
        self.chain.fund(wallet, lamports)
        self.chain.publish()

    def fork(self, slots: int) -> int:
        """The last so many blocks never were; the number of transactions that vanished."""
        before = len(self.chain.vanished)
        self.chain.fork(self.chain.slot - slots + 1)
        return len(self.chain.vanished) - before

    # -- faults and books

    def faults(self, node: int = 0, **values: Any) -> dict[str, Any]:
        """Set some knobs of a node; all of them, and how often each has struck."""
        self.nodes[node].turn(values)
        return self.nodes[node].faults.as_dict() | {"struck": self.nodes[node].strike.struck}

    def books(self, since: int = 0) -> dict[str, Any]:
        """What truly happened from a slot on: every arrival, and what landed, vanished, expired."""
        chain = self.chain
        return {
            "slot": chain.slot,
            "landed": {name: entry(one) for name, one in chain.landed.items() if one.slot >= since},
            "vanished": {one.signature: entry(one) for one in chain.vanished},
            "expired": list(chain.expired),
            "pending": list(chain.pending),
            "sent": [
                {"signature": one.signature, "slot": one.slot, "answer": one.answer}
                for one in chain.sent
                if one.slot >= since
            ],
        }

    def user(self, user: str) -> dict[str, Any]:
        """A User as the program holds it, and what its authority paid."""
        held = self.chain.world.users[user]
        return asdict(held) | {"fees": asdict(self.chain.world.stats[held.stats])}


def entry(landed: Landed) -> dict[str, Any]:
    """One line of the books; ``fills`` are the OrderActionRecords of action Fill."""
    return {
        "slot": landed.slot,
        "err": landed.err,
        "code": landed.outcome.code,
        "fee": landed.outcome.fee,
        "orders": landed.outcome.orders,
        "fills": [
            values
            for name, values in landed.outcome.events
            if name == "OrderActionRecord" and values["action"] == "Fill"
        ],
        "funding": [v for name, v in landed.outcome.events if name == "FundingPaymentRecord"],
    }


class RemoteDesk:
    """The same methods on a stand-in in another process: ``RemoteDesk(url).books()``."""

    def __init__(self, url: str) -> None:
        self.url, self.http = url, httpx.Client(timeout=30, trust_env=False)

    def __getattr__(self, method: str) -> Any:
        def call(*args: Any, **values: Any) -> Any:
            body = {"args": args, "values": values}
            answer = self.http.post(f"{self.url}/standin/{method}", json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        return call

    def close(self) -> None:
        self.http.close()
