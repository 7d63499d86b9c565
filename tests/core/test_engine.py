"""The engine and the loop: wiring, failures of one clear line, outside venues."""

from collections.abc import AsyncIterator
from dataclasses import replace as changed
from typing import Any

import anyio
import numpy as np
import pytest
from worlds import MINUTE, SCRIPT, START, ScriptReason, bar_history, one_book, play, scripted, walk

from backtest.assemble import BookSetup, Setup, assemble
from backtest.replay import MemoryJournal, NoAdvisor, Tape, replay
from core.engine import Book, Engine
from core.errors import ConfigError, MissingInput, StrategyError, UnknownName
from core.events import make_events
from core.instrument import Instrument, binary
from core.loop import run as run_loop
from core.model import EVENT, Command, Kind, OrderStatus, Records, Result, joined
from core.strategy import Strategy
from markets.history import History, merge
from risk.limits import Limits, Sizing, SizingRule
from strategies.e3 import E3
from strategies.trend import TREND


def test_a_strategy_that_needs_what_the_data_lacks_is_refused_by_name() -> None:
    with pytest.raises(MissingInput, match=r"e3 needs .*bid_depth.*oracle.* data of X"):
        play(walk(10), one_book(E3))


def test_an_unknown_parameter_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'fast'"):
        play(walk(10), one_book(TREND, params={"fats": 10}))


def raising(f: Any, _position: Any, _p: Any) -> tuple[float, float, int]:
    return 1.0 / (f.close - f.close), 1.0, 0


def too_large(_f: Any, _position: Any, _p: Any) -> tuple[float, float, int]:
    return 1.5, 1.0, 0


def interrupted(_f: Any, _position: Any, _p: Any) -> tuple[float, float, int]:
    raise KeyboardInterrupt


def asking(decide: Any, compiled: bool) -> Strategy:
    return Strategy(
        name="asking",
        decide=decide,
        reasons=ScriptReason,
        features={"close": "close"},
        compiled=compiled,
    )


def test_a_strategy_that_raises_ends_the_run_and_says_where() -> None:
    with pytest.raises(StrategyError, match=r"asking on X at 2025-05-04T00:01.*ZeroDivisionError"):
        play(walk(10), one_book(asking(raising, compiled=False)))


@pytest.mark.parametrize("compiled", [True, False])
def test_a_target_beyond_one_ends_the_run(compiled: bool) -> None:
    with pytest.raises(StrategyError, match=r"target must lie in \[-1, 1\]"):
        play(walk(10), one_book(asking(too_large, compiled)))


def test_an_interrupt_inside_a_strategy_stays_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt):
        play(walk(10), one_book(asking(interrupted, compiled=False)))


def uncompilable(f: Any, _position: Any, _p: Any) -> tuple[float, float, int]:
    return float({"up": 1.0}.get("up" if f.close > 0 else "down", 0.0)), 1.0, len(f"{f.close}") * 0


def test_what_numba_refuses_runs_as_plain_python_and_says_so() -> None:
    run = play(walk(50), one_book(asking(uncompilable, compiled=True)))
    assert "asking" in run.plain
    assert len(run.of(Result.FILL)) == 1


def test_setups_that_make_no_sense_are_refused() -> None:
    book = BookSetup(book=Book(name="b", strategy=TREND, instrument="SOL"))
    with pytest.raises(ConfigError, match="nothing to run"):
        Setup(instruments=(Instrument(name="SOL"),), books=())
    with pytest.raises(UnknownName, match="did you mean 'SOLX'"):
        Setup(instruments=(Instrument(name="SOLX"),), books=(book,))
    with pytest.raises(ConfigError, match="instrument is named twice"):
        Setup(instruments=(Instrument(name="SOL"), Instrument(name="SOL")), books=(book,))
    with pytest.raises(ConfigError, match="book is named twice"):
        Setup(instruments=(Instrument(name="SOL"),), books=(book, book))


@pytest.mark.parametrize(
    "terms", [{"tick": 0.0}, {"leverage": 0.5}, {"fee_rate": -1.0}, {"participation": 0.0}]
)
def test_terms_of_an_instrument_are_checked(terms: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="instrument X"):
        Instrument(name="X", **terms)


def test_two_books_share_an_indicator_and_do_not_share_a_position() -> None:
    books = tuple(
        BookSetup(book=Book(name=name, strategy=TREND, instrument="X", params=params))
        for name, params in (("a", {}), ("b", {"slow": 100}))
    )
    setup = Setup(instruments=(Instrument(name="X"),), books=books)
    engine = assemble(setup, {"X": walk(10).fields})
    # the regime, and averages over 20, 50 and 100
    assert len(engine.arrays["nodes"]) == 4
    run = play(walk(3_000), setup)
    held = {
        book: run.of(Result.FILL)["quantity"][run.of(Result.FILL)["book"] == book]
        for book in (0, 1)
    }
    assert len(held[0]) > len(held[1]) > 0


def test_a_missing_value_in_the_data_is_no_decision() -> None:
    history = scripted([1, np.nan, 1], [100] * 3, [100] * 3)
    told = play(history, one_book(SCRIPT), tell_all=True).of(Result.DECISION)
    # a NaN in an update means that nothing was told: the last value still holds
    assert told["ts"].tolist() == [START + MINUTE * k for k in (1, 2, 3)]
    unknown = scripted([np.nan, np.nan, 1], [100] * 3, [100] * 3)
    told = play(unknown, one_book(SCRIPT), tell_all=True).of(Result.DECISION)
    assert told["ts"].tolist() == [START + MINUTE * 3]


class Exchange:
    """A venue and its feed: it fills what it is given when the next bar comes, half at a time."""

    def __init__(self, block: Records) -> None:
        self.block = block
        self.sent: list[Any] = []

    async def submit(self, approved: Any) -> None:
        self.sent.append(approved)

    async def recover(self, working: Records) -> None:
        assert not len(working)

    async def halt(self) -> None:
        raise AssertionError("nobody halted")

    async def __aiter__(self) -> AsyncIterator[Records]:
        for k in range(len(self.block)):
            for approved in self.sent:
                for final in (0.0, 1.0):
                    yield self.fill(self.block[k], approved, final)
            self.sent = []
            yield self.block[k : k + 1]

    def fill(self, event: Any, approved: Any, final: float) -> Records:
        made = np.zeros(1, EVENT)
        made["ts_known"], made["kind"] = event["ts_known"], Kind.FILL
        made["order"], made["fill_quantity"] = approved["id"], approved["quantity"] / 2
        made["fill_price"], made["fill_fee"], made["final"] = approved["reference"], 0.25, final
        return made


def outside(targets: list[float]) -> tuple[Any, MemoryJournal]:
    setup = one_book(SCRIPT, external=True)
    history = scripted(targets, [100.0] * len(targets), [100.0] * len(targets))
    engine = assemble(setup, {"X": history.fields})
    exchange, journal = Exchange(history.events), MemoryJournal()
    anyio.run(run_loop, engine, exchange, journal, exchange, NoAdvisor())
    return engine, journal


def test_an_outside_venue_is_given_orders_and_its_fills_come_back_as_events() -> None:
    engine, journal = outside([1, 1, 0, 0])
    rows = journal.outcomes
    fills = rows[rows["kind"] == Result.FILL]
    assert fills["quantity"].tolist() == [0.5, 0.5, -0.5, -0.5]
    account, position = engine.arrays["account"][0], engine.arrays["positions"][0]
    assert (position["quantity"], position["pending"], account["working"]) == (0.0, 0.0, 0)
    assert account["fees_micros"] == 1_000_000


class Listener:
    """A venue that keeps what it hears, and fills nothing."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    async def submit(self, approved: Any) -> None:
        self.heard.append(int(approved["id"]))

    async def recover(self, working: Records) -> None:
        self.heard.append(working)

    async def halt(self) -> None:
        self.heard.append("halt")


def heard(targets: list[float], word: Command | None = None) -> tuple[Engine, list[Any]]:
    """What an outside venue hears while these targets are decided and an operator speaks last."""
    history = scripted(targets, [100.0] * len(targets), [100.0] * len(targets))
    said = np.zeros(int(word is not None), EVENT)
    said["ts_known"], said["kind"], said["command"] = 2**50, Kind.COMMAND, word or 0
    engine = assemble(one_book(SCRIPT, external=True), {"X": history.fields})
    listener, events = Listener(), joined([history.events, said], EVENT)
    anyio.run(
        run_loop,
        engine,
        Tape(events, range(1, len(events))),
        MemoryJournal(),
        listener,
        NoAdvisor(),
    )
    return engine, listener.heard


@pytest.mark.parametrize(
    ("filled", "code", "told"),
    [(0.0, 6003.0, 6003), (0.25, -1.0, -1), (0.0, np.nan, 0), (1.0, 0.0, None)],
)
def test_an_order_its_venue_ends_short_is_told_with_the_venues_code(
    filled: float, code: float, told: int | None
) -> None:
    engine, _ = heard([1])
    (order,) = engine.sent()
    end = np.zeros(1, EVENT)
    end["ts_known"], end["kind"], end["order"], end["final"] = 2**50, Kind.FILL, order["id"], 1.0
    end["fill_quantity"], end["fill_price"], end["code"] = filled, 100.0, code
    outcomes = engine.advance(end, 0).outcomes
    ends = outcomes[outcomes["kind"] == Result.CANCELLED]
    assert ends["reason"].tolist() == ([] if told is None else [told])
    assert ends["quantity"].sum() == 1.0 - filled
    account, position = engine.arrays["account"][0], engine.arrays["positions"][0]
    assert (position["quantity"], position["pending"], account["working"]) == (filled, 0.0, 0)
    assert not len(engine.sent())


def test_a_halt_alone_reaches_the_venue() -> None:
    for word in (None, Command.REDUCE_ONLY, Command.RESUME):
        assert heard([0, 1], word)[1] == [1]
    engine, told = heard([0, 1], Command.HALT)
    assert told == [1, "halt"]
    # what was sent is the venue's to end
    assert engine.sent()["id"].tolist() == [1]


def test_a_fill_of_an_order_never_sent_stops_the_run() -> None:
    setup = one_book(SCRIPT, external=True)
    history = scripted([0.0], [100.0], [100.0])
    engine = assemble(setup, {"X": history.fields})
    stray = make_events(Kind.FUNDING, [START], rate=[0.0])
    stray["kind"], stray["order"] = Kind.FILL, 7
    with pytest.raises(Exception, match="an order we never sent"):
        engine.advance(stray, 0)


def test_outcomes_that_do_not_fit_one_call_are_told_by_the_next() -> None:
    setup = one_book(changed(SCRIPT, name="script"))
    targets = [float(k % 2) for k in range(70_000)]
    flat = [100.0] * len(targets)
    run = play(scripted(targets, flat, flat), setup, cuts=(), tell_all=True)
    assert len(run.of(Result.DECISION)) == len(targets)
    assert len(run.outcomes) > 65_536


def ladder(count: int, bars: int) -> tuple[Setup, dict[str, History]]:
    """So many binaries of one event, one opening after the other, each with a book of its own."""
    world: dict[str, History] = {}
    for k in range(count):
        steps = np.random.default_rng(k).normal(size=bars) * 0.02
        closes = np.clip(0.5 + np.cumsum(steps), 0.05, 0.95).round(2)
        start = START + MINUTE * (k // 4)
        end = make_events(Kind.RESOLUTION, [start + MINUTE * (bars + 1)], value=[1.0])
        world[f"M{k}"] = bar_history(
            np.r_[0.5, closes[:-1]], closes, volume=300.0, start=start, extra=[end]
        )
    limits = Limits(gross_notional_max=1_000.0, orders_per_minute_max=0.0)
    sizing = Sizing(rule=SizingRule.NOTIONAL, value=40.0)
    books = tuple(
        BookSetup(
            book=Book(name=name, strategy=TREND, instrument=name, params={"fast": 2, "slow": 5}),
            sizing=sizing,
            limits=limits,
        )
        for name in world
    )
    return Setup(instruments=tuple(binary(name) for name in world), books=books), world


def test_what_is_passed_over_holds_nothing_and_awaits_nothing() -> None:
    setup, world = ladder(150, 20)
    engine = assemble(setup, {name: history.fields for name, history in world.items()})
    block = merge(list(world.values()))
    positions, orders, busy = (engine.arrays[name] for name in ("positions", "orders", "busy"))
    skipped, summed = 0, 0
    for k in range(len(block)):
        told = engine.advance(block[k : k + 1], 0).outcomes
        idle = np.repeat(busy == 0, 64)[: len(positions)]
        skipped += int(idle.sum())
        assert not positions["quantity"][idle].any()
        assert not positions["pending"][idle].any()
        used = np.flatnonzero(orders["status"] != OrderStatus.FREE)
        assert engine.arrays["account"][0]["orders_end"] == (used[-1] + 1 if len(used) else 0)
        assert engine.arrays["account"][0]["working"] == len(used)
        approved = told[-1:]["order"][told[-1:]["kind"] == Result.APPROVED]
        if (orders["reduce_only"][np.isin(orders["id"], approved)] == 0).any():
            # what the gate was shown is, to the bit, a sum over all books
            held = np.abs(positions["quantity"] + positions["pending"])
            prices = engine.arrays["instruments"]["price"][engine.arrays["books"]["instrument"]]
            assert engine.arrays["desk"][0]["gross_notional"] == np.cumsum(held * prices)[-1]
            summed += 1
    assert min(skipped, summed) > 100
    assert replay(setup, world).refused["gross_exposure"] > 0


def test_thousands_of_books_advance() -> None:
    setup, world = ladder(1_100, 8)
    run = replay(setup, world)
    assert len(run.track) == sum(len(history.events) for history in world.values())
    assert len(run.trades) > 1_000
