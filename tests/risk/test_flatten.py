"""Flatten on halt: what closes, through partial fills, refusals and restarts, and what does not."""

import math
from typing import Any

import numpy as np
import pytest
from folding import fold_on
from worlds import (
    FREE,
    MINUTE,
    NO_LIMITS,
    SCRIPT,
    START,
    ScriptReason,
    one_book,
    play,
    scripted,
    walk,
)

from backtest.assemble import BookSetup, Setup, assemble
from backtest.recorded import changed as what_if
from backtest.recorded import setup_of
from backtest.replay import replay
from backtest.run import Run, config_hash
from backtest.sweep.field import Field
from backtest.sweep.rows import hash_of
from core.engine import Book
from core.events import make_events
from core.instrument import Instrument
from core.model import (
    EVENT,
    OUTCOME,
    Command,
    ExitReason,
    InstrumentKind,
    Kind,
    Mode,
    Records,
    Result,
    joined,
)
from core.strategy import Feature, Strategy
from markets.history import merge
from risk.gate import Rule
from risk.limits import Limits, Sizing, SizingRule
from strategies.trend import TREND

TEN = Sizing(rule=SizingRule.QUANTITY, value=10.0)
FLATTENING = Limits(flatten_on_halt=True, leverage_max=0.0, daily_loss=0.0, daily_loss_soft=0.0)


def said(word: Command, minute: float, book: int = 0) -> Any:
    event = make_events(Kind.FUNDING, [START + round(minute * MINUTE)], rate=[0.0])
    event["kind"], event["command"], event["book"] = Kind.COMMAND, word, book
    return event


def run(
    targets: list[float],
    *commands: Any,
    limits: Limits = NO_LIMITS,
    prices: list[float] | None = None,
    volume: float = 1e9,
    strategy: Strategy = SCRIPT,
    cuts: Any = None,
    **terms: Any,
) -> Run:
    closes = prices or [100.0] * len(targets)
    history = scripted(targets, closes, closes, extra=commands, volume=volume)
    book = {"offset": 9.0}
    setup = one_book(strategy, limits=limits, sizing=TEN, book=book, **terms)
    return play(history, setup, cuts=cuts)


def fills(done: Run) -> list[tuple[int, int, str]]:
    """Minute, quantity, and why, of every fill."""
    rows = done.of(Result.FILL)
    minutes = (rows["ts"] - START) // MINUTE
    names = [ExitReason(code).name.lower() for code in rows["exit"]]
    return list(zip(minutes.tolist(), rows["quantity"].round().astype(int), names, strict=True))


OPEN = (2, 10, "signal")


@pytest.mark.parametrize(
    ("word", "limits", "closed"),
    [
        (Command.HALT, NO_LIMITS, False),
        (Command.REDUCE_ONLY, FLATTENING, False),
        (Command.HALT, FLATTENING, True),
        (Command.FLATTEN, NO_LIMITS, True),
    ],
)
def test_a_halt_closes_books_only_where_it_is_to(
    word: Command, limits: Limits, closed: bool
) -> None:
    done = run([1.0] * 6, said(word, 3), limits=limits)
    assert fills(done) == ([OPEN, (4, -10, "halt")] if closed else [OPEN])
    latch, approved = done.of(Result.MODE), done.of(Result.APPROVED)
    if closed:
        assert latch["seq"][0] == approved["seq"][-1], "in the same event"
        assert approved["quantity"][-1] == -10.0


@pytest.mark.parametrize("flatten", [True, False])
def test_a_drawdown_closes_books_only_where_it_is_to(flatten: bool) -> None:
    limits = Limits(
        drawdown=0.05,
        drawdown_soft=0.0,
        daily_loss=0.0,
        daily_loss_soft=0.0,
        flatten_on_halt=flatten,
    )
    done = run([1.0] * 6, limits=limits, prices=[100.0, 100.0, 40.0, 40.0, 40.0, 40.0])
    assert done.of(Result.MODE)["rule"].tolist() == [Rule.DRAWDOWN]
    assert fills(done) == ([OPEN, (4, -10, "halt")] if flatten else [OPEN])


def test_the_setting_of_a_book_closes_that_book_alone() -> None:
    quiet, loud = (
        BookSetup(
            book=Book(name=name, strategy=SCRIPT, instrument="X", offset=9.0),
            sizing=TEN,
            limits=limits,
        )
        for name, limits in (("quiet", NO_LIMITS), ("loud", FLATTENING))
    )
    history = scripted([1.0] * 5, [100.0] * 5, [100.0] * 5, extra=[said(Command.HALT, 3)])
    x = (Instrument(name="X", **FREE),)
    done = play(history, Setup(instruments=x, books=(quiet, loud), limits=NO_LIMITS))
    exits = done.of(Result.FILL)[done.of(Result.FILL)["exit"] == ExitReason.HALT]
    assert exits["book"].tolist() == [1]
    whole = play(history, Setup(instruments=x, books=(quiet, loud), limits=FLATTENING))
    assert sorted(whole.trades["book"].tolist()) == [0, 1]


def test_what_a_partial_fill_leaves_is_closed_by_the_next_bars() -> None:
    halt = said(Command.FLATTEN, 5)
    done = run([1.0] * 9, halt, volume=4.0)
    entries = [(2, 4, "signal"), (3, 4, "signal"), (4, 2, "signal")]
    assert fills(done) == [*entries, (6, -4, "halt"), (7, -4, "halt"), (8, -2, "halt")]
    assert done.trades["exit"].tolist() == [ExitReason.HALT]
    # a strategy that wants in again meanwhile, or the other way, changes nothing of it
    for restless in ([1, 1, 1, 1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, -1, -1, 0.5, 0]):
        assert fills(run([float(x) for x in restless], halt, volume=4.0)) == fills(done)


def _loud_at_most_150(_market: Any, x: float, _m: Any, _p: Any) -> float:
    return math.nan if x > 150.0 else x


def _long(_f: Any, _position: Any, _p: Any) -> tuple[float, float, int]:
    return 1.0, 1.0, 0


MUTE = Strategy(
    name="mute",
    decide=_long,
    reasons=ScriptReason,
    features={"signal": Feature("at_most_150", _loud_at_most_150, unit="price")()},
)


def test_a_book_whose_strategy_is_mute_is_closed_all_the_same() -> None:
    prices = [100.0] * 5 + [200.0] * 5
    done = run([1.0] * 10, said(Command.FLATTEN, 6.5), volume=4.0, strategy=MUTE, prices=prices)
    assert [q for _, q, _ in fills(done)] == [4, 4, 2, -4, -4, -2]
    assert {why for _, q, why in fills(done) if q < 0} == {"halt"}


def test_an_exit_that_is_refused_is_proposed_again_until_the_price_is_known() -> None:
    prices = [0.5, 0.5, 0.5, 1.5, 1.5, 0.5, 0.5]
    binary = {"kind": InstrumentKind.BINARY, "tick": 0.01}
    done = run([1.0] * 7, said(Command.FLATTEN, 4.5), prices=prices, **binary)
    refused = done.of(Result.REFUSED)
    # once, for as long as the same intent meets the same rule
    assert refused["rule"].tolist() == [Rule.PRICE_UNKNOWN]
    assert fills(done) == [OPEN, (7, -10, "halt")]


def test_entries_are_refused_from_the_halt_to_the_resume() -> None:
    targets = [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0]
    done = run(targets, said(Command.FLATTEN, 3), said(Command.RESUME, 7.5))
    assert done.refused == {"halted": 1}
    assert fills(done) == [OPEN, (4, -10, "halt"), (9, -10, "signal")]


def test_a_resume_gives_the_book_back_to_its_strategy() -> None:
    halt, resume = said(Command.FLATTEN, 5), said(Command.RESUME, 6.5)
    held = fills(run([1.0] * 10, halt, resume, volume=4.0))
    # the rest follows the book's own target, as after a close, until the strategy turns
    assert [why for _, q, why in held if q < 0] == ["halt", "halt", "signal"]
    turned = fills(run([1.0] * 5 + [0.0, 1.0, 1.0, 1.0, 1.0], halt, resume, volume=4.0))
    assert [(q, why) for _, q, why in turned[3:5]] == [(-4, "halt"), (-4, "halt")]
    assert turned[5][1:] == (4, "signal")
    # and a later halt that is not to flatten does not remember
    late = said(Command.HALT, 7.5)
    again = fills(run([1.0] * 5 + [0.0] + [1.0] * 4, halt, resume, late, volume=4.0))
    assert "halt" not in [why for minute, _, why in again if minute > 8]


def test_a_book_that_is_flat_already_is_left_alone() -> None:
    done = run([0.0] * 5, said(Command.FLATTEN, 3))
    assert done.outcomes["kind"].tolist() == [Result.MODE]


def test_an_entry_under_way_is_cancelled_and_does_not_come_back_with_the_resume() -> None:
    halt, resume = said(Command.FLATTEN, 1), said(Command.RESUME, 3)
    halt["ts_known"] += 1
    done = run([1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0], halt, resume)
    assert len(done.of(Result.CANCELLED)) == 1
    assert fills(done) == [(7, 10, "signal")]


def world(bars: int = 400) -> dict[str, Any]:
    return {"X": walk(bars, seed=1, scale=4e-3), "Y": walk(bars, seed=2, scale=4e-3)}


def falling(fast: float = 3.0, names: tuple[str, ...] = ("X", "Y")) -> Setup:
    """Trends that lose a twentieth, in markets too thin to leave at once."""
    limits = Limits(
        drawdown=0.05,
        drawdown_soft=0.0,
        daily_loss=0.0,
        daily_loss_soft=0.0,
        flatten_on_halt=True,
    )
    terms = {**FREE, "fee_rate": 0.005, "participation": 1.2e-8, "lot": 0.01}
    return Setup(
        instruments=tuple(Instrument(name=name, **terms) for name in names),
        books=tuple(
            BookSetup(
                book=Book(
                    name=f"trend@{name}",
                    strategy=TREND,
                    instrument=name,
                    params={"fast": fast, "slow": 12.0},
                    offset=0.5,
                ),
                sizing=Sizing(value=0.4),
                limits=limits,
            )
            for name in names
        ),
        limits=limits,
    )


def test_a_fall_closes_the_books_of_all_instruments_at_once() -> None:
    done = replay(falling(), world())
    (latch,) = done.of(Result.MODE)
    assert (latch["reason"], latch["rule"]) == (Mode.HALTED, Rule.DRAWDOWN)
    orders = done.of(Result.APPROVED)
    first = orders[(orders["exit"] == ExitReason.HALT) & (orders["seq"] == latch["seq"])]
    assert sorted(first["book"].tolist()) == [0, 1]
    exits = done.of(Result.FILL)
    exits = exits[exits["exit"] == ExitReason.HALT]
    assert len(exits) > 2, "the markets are thin"
    last = [exits["position"][exits["book"] == b][-1] for b in (0, 1)]
    assert last == [0.0, 0.0]


@pytest.mark.parametrize("names", [("X",), ("X", "Y")])
def test_cuts_into_blocks_change_nothing(names: tuple[str, ...]) -> None:
    histories = {name: world()[name] for name in names}
    whole = replay(falling(names=names), histories, cuts=())
    single = replay(falling(names=names), histories, cuts=range(1, len(whole.block)))
    assert whole.outcomes.tobytes() == single.outcomes.tobytes()
    assert whole.track.tobytes() == single.track.tobytes()
    assert ExitReason.HALT in whole.trades["exit"]


def fold(block: Records, snapshot: bytes | None = None) -> tuple[bytes, Records]:
    engine = assemble(falling(), {name: history.fields for name, history in world().items()})
    return fold_on(engine, block, snapshot)


def test_a_restart_in_the_middle_goes_on_closing() -> None:
    block = merge(list(world().values()))
    end, outcomes = fold(block)
    exits = outcomes[(outcomes["kind"] == Result.FILL) & (outcomes["exit"] == ExitReason.HALT)]
    assert exits["seq"][0] < exits["seq"][-1] - 2
    for cut in range(int(exits["seq"][0]) - 2, int(exits["seq"][-1])):
        middle, first = fold(block[:cut])
        again, rest = fold(block[cut:], middle)
        assert again == end
        assert joined([first, rest], OUTCOME).tobytes() == outcomes.tobytes()


def test_a_sweep_flattens_as_a_replay_does() -> None:
    setups = [falling(float(fast)) for fast in (2, 3, 5, 8)]
    histories = world()
    carried = {name: history.fields for name, history in histories.items()}
    field = Field(setups, carried, threads=2)
    field.run(merge(list(histories.values())))
    for c, setup in enumerate(setups):
        done = replay(setup, histories)
        assert hash_of(field.accounts.of("positions")[c], field.tallies[c]) == done.decisions_hash
    assert (field.tallies["halted_ts"] > 0).any()


class Outside:
    """An engine whose orders go to a venue that answers when the test says so."""

    def __init__(self) -> None:
        history = scripted([1.0] * 8, [100.0] * 8, [100.0] * 8)
        self.engine = assemble(one_book(SCRIPT, sizing=TEN, external=True), {"X": history.fields})
        stamps = history.events["ts_known"]
        self.bars = iter(np.split(history.events, np.flatnonzero(np.diff(stamps)) + 1))

    def step(self, events: Records) -> list[float]:
        """The quantities approved at these events."""
        told = self.engine.advance(events, 0).outcomes
        return [float(q) for q in told["quantity"][told["kind"] == Result.APPROVED]]

    def bar(self) -> list[float]:
        return self.step(next(self.bars))

    def fill(self, quantity: float) -> list[float]:
        """The one order under way ends with so much filled."""
        (order,) = self.engine.sent()
        end = np.zeros(1, EVENT)
        end["ts_known"] = self.engine.arrays["account"]["now"]
        end["kind"], end["order"], end["final"] = Kind.FILL, order["id"], 1.0
        end["fill_quantity"], end["fill_price"] = quantity, 100.0
        return self.step(end)


def test_an_outside_venue_is_asked_again_at_a_bar_and_not_before() -> None:
    world, halt = Outside(), said(Command.FLATTEN, 2)
    assert (world.bar(), world.fill(10.0)) == ([10.0], [])
    assert world.step(halt) == [-10.0]
    # while the venue has not answered nothing is doubled, and when it refused, a bar has to come
    assert (world.bar(), world.step(halt), world.fill(0.0)) == ([], [], [])
    assert (world.bar(), world.fill(-4.0)) == ([-10.0], [])
    assert (world.bar(), world.fill(-6.0)) == ([-6.0], [])
    assert world.bar() == []
    assert world.engine.arrays["positions"][0]["quantity"] == 0.0


def test_an_entry_that_lands_after_the_halt_is_closed_by_the_next_bar() -> None:
    world = Outside()
    assert world.bar() == [10.0]
    assert (world.step(said(Command.FLATTEN, 2)), world.fill(10.0)) == ([], [])
    assert (world.bar(), world.fill(-10.0)) == ([-10.0], [])
    assert (world.bar(), world.step(said(Command.RESUME, 5)), world.bar()) == ([], [], [])


def test_a_what_if_asks_what_flattening_would_have_done() -> None:
    limits = Limits(drawdown=0.05, drawdown_soft=0.0, daily_loss=0.0, daily_loss_soft=0.0)
    setup = one_book(SCRIPT, limits=limits, sizing=TEN, book={"offset": 9.0})
    prices = [100.0, 100.0, 40.0, 40.0, 40.0]
    history = scripted([1.0] * 5, prices, prices)
    digest, config = config_hash(setup, tell_all=False)
    other = setup_of(what_if(config, "limits.flatten_on_halt", 1.0), lambda _name: SCRIPT)
    assert config_hash(other, tell_all=False)[0] != digest
    assert fills(play(history, setup)) == [OPEN]
    assert fills(play(history, other)) == [OPEN, (4, -10, "halt")]
