"""Funding of the books against the account's: which hours count, what is rounding, what is late."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from drift_child import setup_of, world
from sqlalchemy import insert

from core.model import EVENT, Kind
from daemon.journal import SqlJournal, open_journal, sqlite_url
from daemon.journal.database import transaction
from daemon.journal.schema import events, funding, signals
from daemon.live.service import Service, open_service, paper_row
from daemon.venues.drift_funding import HOUR_MS, LATE_MS, FundingWatch, tolerance_micros
from markets.drift.account import Holdings
from markets.drift.users import Margin

pytestmark = pytest.mark.anyio

MARKETS = {0: "SOL-PERP", 1: "BTC-PERP"}
BASE = 485_000
"""The hour that the chain had settled when the run was started."""


@dataclass
class Bench:
    """A watch on a journal; ``now_ms`` is its clock."""

    journal: SqlJournal
    now_ms: int = (BASE + 1) * HOUR_MS
    rows: int = field(default=0)

    def __post_init__(self) -> None:
        self.watch = FundingWatch(self.journal, MARKETS, lambda: self.now_ms)
        self.watch.begin(held(1_000, BASE))

    def pay(self, micros: int, hour: int, instrument: int = 0) -> None:
        """A book paid, by an event of that hour."""
        self.rows += 1
        place = {"run_id": self.journal.run_id, "seq": self.rows}
        now = hour * HOUR_MS + 7_000
        header = {"ts_known": now, "ts_event": now, "kind": Kind.FUNDING, "instrument": instrument}
        told = {"id": self.rows, "ts": now, "book": 0, "decision": self.rows}
        payload = np.zeros(1, EVENT).tobytes()
        why = {"reason_code": 0, "reason": "", "regime": ""}
        numbers = {"target": 1.0, "confidence": 1.0, "price": 1.0}
        paid = {"quantity": 1.0, "price": 1.0, "paid_micros": micros}
        with transaction(self.journal.engine, writes=True) as connection:
            connection.execute(insert(events), place | header | {"payload": payload})
            connection.execute(insert(signals), place | told | why | numbers)
            connection.execute(insert(funding), place | told | paid)


def held(received: int, sol: int, btc: int = BASE) -> Holdings:
    """An account that received so much, its markets settled to these hours."""
    return Holdings(
        slot=1,
        read_ms=0,
        positions={"SOL-PERP": Decimal(1)},
        deposit=0,
        margin=Margin(0, 0, 0),
        open_orders=0,
        funding_settled=received - 7,
        funding_owed=7,
        funding_ms={"SOL-PERP": sol * HOUR_MS + 9_000, "BTC-PERP": btc * HOUR_MS},
    )


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    setup = setup_of("script")
    carried = {name: history.fields for name, history in world("script", 10).items()}
    database = open_journal(sqlite_url(tmp_path / "journal.sqlite"))
    row = paper_row("drift", setup, started_ms=0)
    service: Service = open_service(setup, carried, database, row, lambda: 0)
    yield Bench(service.journal)
    service.stop()
    database.dispose()


async def test_each_side_is_counted_over_the_same_hours(bench: Bench) -> None:
    bench.pay(900, BASE)  # before this start
    bench.pay(500, BASE + 1)
    bench.pay(-80, BASE + 1, instrument=1)  # the chain has not settled it there
    bench.pay(77, BASE + 2)  # nor this one
    received = await bench.watch.look(held(500, BASE + 1))
    assert received is not None
    assert (received.venue_micros, received.books_micros) == (-500, -500)
    received = await bench.watch.look(held(1_000 - 500 + 80 - 77, BASE + 2, BASE + 1))
    assert received is not None
    assert received.books_micros == received.venue_micros == -497


async def test_a_book_that_has_not_heard_yet_is_waited_for_but_not_for_ever(bench: Bench) -> None:
    bench.now_ms = (BASE + 1) * HOUR_MS + 9_000 + LATE_MS - 1
    assert await bench.watch.look(held(500, BASE + 1)) is None
    bench.now_ms += 1
    received = await bench.watch.look(held(500, BASE + 1))
    assert received is not None
    assert not received.agree
    assert received.apart_micros == 500
    bench.pay(500, BASE + 1)
    received = await bench.watch.look(held(500, BASE + 1))
    assert received is not None
    assert received.agree


@pytest.mark.parametrize("sign", [1, -1])
async def test_rounding_is_no_difference_and_a_micro_more_is_one(bench: Bench, sign: int) -> None:
    for _ in range(4):
        bench.pay(100, BASE + 1)
    bench.now_ms += LATE_MS + 10_000
    room = int(tolerance_micros(4, len(MARKETS)))
    assert room == 10
    for apart, agrees in ((room, True), (room + 1, False)):
        received = await bench.watch.look(held(1_000 - 400 + sign * apart, BASE + 1))
        assert received is not None
        assert received.agree is agrees
