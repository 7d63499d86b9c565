"""The daemon trades on Drift over real sockets: its journal and the venue's own books are one."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drift_child import LOTS, RUN, SLOTS_PER_S
from journal_world import rows
from solders.keypair import Keypair
from standin_drift import Process, spawn

from core.model import Result
from daemon.journal import open_journal, read_outcomes, sqlite_url

CHILD = Path(__file__).with_name("drift_child.py")
COLLATERAL = 10_000 * 10**6


class Scene:
    """A stand-in in a process of its own, and daemons that come and go."""

    def __init__(self, folder: Path, process: Process) -> None:
        self.folder, self.process, self.desk = folder, process, process.desk
        pair = Keypair()
        key = folder / "key.json"
        key.touch(0o600)
        key.write_text(json.dumps(list(bytes(pair))).replace(" ", ""))
        self.desk.set_market(1, step=10**5, min_order_size=10**5)
        self.log = ""
        self.user = self.desk.add_user(str(pair.pubkey()), 10 * COLLATERAL)["user"]
        self.desk.add_maker("maker")

    def child(self, name: str, bars: int, *words: object) -> int:
        urls = ",".join(self.process.urls)
        done = subprocess.run(
            [sys.executable, str(CHILD), str(self.folder), urls, name, str(bars), *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        self.log = done.stdout
        assert done.returncode in (0, -9), done.stdout[-3_000:] + done.stderr[-3_000:]
        return done.returncode

    @property
    def journal(self) -> Any:
        return open_journal(sqlite_url(self.folder / "journal.sqlite"))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with spawn("--slots-per-s", str(SLOTS_PER_S), "--slot-ms", "400", "--nodes", "2") as process:
        yield Scene(tmp_path, process)


def agree(scene: Scene) -> Counter[str]:
    """Order by order, the journal is what the chain has; answers how the orders ended."""
    engine, books = scene.journal, scene.desk.books()
    outcomes = read_outcomes(engine, RUN)
    approved = set(outcomes["order"][outcomes["kind"] == Result.APPROVED].tolist())
    tries = rows(engine, "SELECT order_id, signature, state, code FROM attempts")
    ends = dict(rows(engine, "SELECT order_id, reason FROM order_ends"))
    fills = rows(
        engine, "SELECT order_id, quantity, price, fee_micros FROM fills ORDER BY order_id"
    )
    filled = {order: (quantity, price, fee) for order, quantity, price, fee in fills}
    assert len(filled) == len(fills), "an order was told two fills"
    signatures = {signature: order for order, signature, _, _ in tries}
    assert books["landed"].keys() <= signatures.keys(), "landed, but not on record"
    landed: Counter[int] = Counter()
    for signature, entry in books["landed"].items():
        order = signatures[signature]
        landed[order] += 1
        base = (
            sum(one["filled"] * one["side"] for one in entry["orders"]) if not entry["err"] else 0
        )
        quote = sum(one["quoteAssetAmountFilled"] for one in entry["fills"])
        fee = sum(one["takerFee"] for one in entry["fills"])
        quantity, price, paid = filled.get(order, (0.0, 0.0, 0))
        assert round(quantity * 1e9) == base
        assert round(abs(quantity) * price * 1e6) == quote
        assert paid == fee
    assert max(landed.values()) == 1, "an order landed twice"
    assert set(filled) <= set(landed), "filled, but never landed"
    assert {state for _, _, state, _ in tries} <= {"landed", "failed", "expired"}
    told = set(ends) | {order for order in filled if order not in ends}
    assert told == approved, "an order without an end"
    engine.dispose()
    return Counter(ends.get(order, "filled") for order in approved)


HELD = (
    "SELECT coalesce(sum(f.quantity), 0) FROM fills f JOIN books b USING (run_id, book) "
    "WHERE b.instrument = '{}'"
)


HELD_EACH = "SELECT sum(quantity) FROM fills GROUP BY book"
EXITS = "SELECT order_id FROM risk_checks WHERE order_id IS NOT NULL AND target = 0"
PAID_EACH_HOUR = (
    "SELECT sum(f.paid_micros) FROM funding f JOIN events e USING (run_id, seq) "
    "GROUP BY e.ts_event ORDER BY e.ts_event"
)


def same_money(scene: Scene) -> None:
    """Positions, fees and profit in the journal and at the venue, to the unit."""
    engine, user = scene.journal, scene.desk.user(scene.user)
    total = 0
    for index, (name, _) in enumerate(LOTS.items()):
        ((held,),) = rows(engine, HELD.format(name))
        position = user["positions"].get(str(index), {"base": 0, "quote": 0})
        assert round(held * 1e9) == position["base"], name
        total += position["quote"]
    query = "SELECT quantity, price, fee_micros FROM fills"
    paid = [(round(q * p * 1e6), fee) for q, p, fee in rows(engine, query)]
    assert -sum(quote + fee for quote, fee in paid) == total
    outcomes = read_outcomes(engine, RUN)
    made = outcomes[outcomes["kind"] == Result.FILL]["amount_micros"]
    cost = sum(one["entry"] for one in user["positions"].values())
    # the program rounds what a partial close releases downwards, and we to the nearest
    assert abs(int(made.sum()) - (total + user["fees"]["fees_paid"] - cost)) <= len(made)
    assert sum(fee for _, fee in paid) == user["fees"]["fees_paid"]
    engine.dispose()


@pytest.mark.slow
def test_signals_orders_fills_and_money_agree_with_the_venues_books(scene: Scene) -> None:
    assert scene.child("e3", 900) == 0
    ended = agree(scene)
    same_money(scene)
    assert ended["filled"] > 5


@pytest.mark.slow
def test_books_of_opposite_sides_exit_whole_and_their_funding_is_the_accounts(scene: Scene) -> None:
    assert scene.child("pair", 90) == 0
    ended, engine, user = agree(scene), scene.journal, scene.desk.user(scene.user)
    assert ended["filled"] > 20
    assert {one["base"] for one in user["positions"].values()} == {0}
    assert all(abs(held) < 1e-9 for (held,) in rows(engine, HELD_EACH))
    # some exits had to go without the venue's own reduce-only flag, and some kept it
    exits = {order for (order,) in rows(engine, EXITS)}
    signed = dict(rows(engine, "SELECT signature, order_id FROM attempts"))
    flags = Counter(
        order["reduce_only"]
        for signature, entry in scene.desk.books()["landed"].items()
        for order in entry["orders"]
        if signed[signature] in exits
    )
    assert min(flags[True], flags[False]) > 2, flags
    (first, second) = (paid for (paid,) in rows(engine, PAID_EACH_HOUR))
    engine.dispose()
    # the chain paid the first hour as it was told, and the second twice
    assert user["cumulative_funding"] == -(first + 2 * second)
    told = [micros(line) for line in re.findall(r"funding reconciled +(.*)", scene.log)]
    assert {"books": -first, "venue": -first} in told
    warned = [micros(line) for line in re.findall(r"books and venue differs +(.*)", scene.log)]
    both = {"books": -first - second, "venue": user["cumulative_funding"]}
    assert warned == [both | {"apart": second}]


def micros(line: str) -> dict[str, int]:
    """The amounts of a log line."""
    return {name: round(float(said) * 1e6) for name, said in re.findall(r"(\w+)=(\S+)", line)}
