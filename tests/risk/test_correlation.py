"""Correlated exposure: the estimate against NumPy's, and the limit blocking and letting pass."""

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from folding import fold_on
from numpy.typing import NDArray
from worlds import FREE, MINUTE, NO_LIMITS, SCRIPT, START, bar_history, scripted, walk

from backtest.assemble import BookSetup, Setup, assemble
from backtest.replay import replay
from backtest.run import Run
from backtest.sweep.field import Field
from backtest.sweep.rows import hash_of
from core.correlation import pairs
from core.engine import Book, Engine
from core.errors import ConfigError
from core.instrument import Instrument
from core.model import OUTCOME, Records, Result, joined
from core.strategy import Strategy
from markets.history import History, crop, merge
from risk.limits import Limits, Sizing, SizingRule
from strategies.trend import TREND

BARS = 8
LIMITS = Limits(
    correlated_notional_max=1_500.0,
    correlation_bars=float(BARS),
    **{
        name: getattr(NO_LIMITS, name)
        for name in ("leverage_max", "daily_loss", "daily_loss_soft", "drawdown", "drawdown_soft")
    },
)
TEN = Sizing(rule=SizingRule.QUANTITY, value=10.0)


def books(
    names: str, limits: Limits = LIMITS, strategy: Strategy = SCRIPT, fast: float | None = None
) -> Setup:
    params = {} if fast is None else {"fast": fast, "slow": 12.0}
    return Setup(
        instruments=tuple(Instrument(name=name, **FREE) for name in names),
        books=tuple(
            BookSetup(
                book=Book(name=name, strategy=strategy, instrument=name, offset=9.0, params=params),
                sizing=TEN,
                limits=limits,
            )
            for name in names
        ),
        limits=NO_LIMITS,
    )


def beta_world(targets: dict[str, list[float]], betas: dict[str, float]) -> dict[str, History]:
    """Prices near 100 that follow one factor by these betas; beta zero goes its own way."""
    length = len(next(iter(targets.values())))
    rng = np.random.default_rng(5)
    factor = rng.normal(size=length) * 1e-3
    found = {}
    for name, beta in betas.items():
        own = rng.normal(size=length) * (1e-4 if beta else 1e-3)
        closes = 100.0 * np.exp(np.cumsum(beta * factor + own))
        found[name] = scripted(targets[name], np.r_[100.0, closes[:-1]].tolist(), closes.tolist())
    return found


WAIT = [0.0] * (2 * BARS)


def attempt(
    second: float, beta: float, *, limits: Limits = LIMITS, wait: list[float] = WAIT
) -> Run:
    """X buys ten; two bars later Y, which follows it by ``beta``, wants ``second`` times ten."""
    targets = {"X": [*wait, *[1.0] * 6], "Y": [*wait, 0.0, 0.0, *[second] * 4]}
    return replay(books("XY", limits), beta_world(targets, {"X": 1.0, "Y": beta}))


def entered(run: Run) -> list[int]:
    return run.of(Result.APPROVED)["book"].tolist()


@pytest.mark.parametrize(
    ("second", "beta", "passes"),
    [
        # the same way in what moves together adds, the other way hedges
        (1.0, 1.0, False),
        (-1.0, 1.0, True),
        # what moves against it: the other way round
        (1.0, -1.0, True),
        (-1.0, -1.0, False),
        # what goes its own way does not count
        (1.0, 0.0, True),
        (-1.0, 0.0, True),
    ],
)
def test_exposure_adds_up_over_what_moves_together(
    second: float, beta: float, passes: bool
) -> None:
    run = attempt(second, beta)
    assert entered(run) == ([0, 1] if passes else [0])
    assert run.refused == ({} if passes else {"correlated_exposure": 1})
    free = attempt(second, beta, limits=NO_LIMITS)
    assert entered(free) == [0, 1]


def test_a_larger_limit_lets_it_pass() -> None:
    wide = Limits(**{**vars_of(LIMITS), "correlated_notional_max": 2_100.0})
    assert entered(attempt(1.0, 1.0, limits=wide)) == [0, 1]
    strict = Limits(**{**vars_of(LIMITS), "correlation_above": 0.9999})
    assert entered(attempt(1.0, 1.0, limits=strict)) == [0, 1]


def vars_of(limits: Limits) -> dict[str, Any]:
    return {name: getattr(limits, name) for name in Limits.__dataclass_fields__}


@pytest.mark.parametrize("second", [1.0, -1.0])
def test_before_enough_is_known_whatever_is_held_adds(second: float) -> None:
    """Neither a hedge nor a stranger is known to be one."""
    run = attempt(second, 0.0, wait=[0.0] * (BARS - 5))
    assert run.refused == {"correlated_exposure": 1}
    # the bar that completes the estimate lets it in
    known = run.of(Result.APPROVED)["ts"][run.of(Result.APPROVED)["book"] == 1]
    assert known.tolist() == ([START + (BARS + 1) * MINUTE])


def test_a_price_that_stands_still_is_not_known_to_be_a_hedge() -> None:
    targets = {"X": [*WAIT, *[1.0] * 4], "Y": [*WAIT, 0.0, 0.0, -1.0, -1.0]}
    world = beta_world(targets, {"X": 1.0, "Y": 1.0})
    flat = [100.0] * len(targets["Y"])
    world["Y"] = scripted(targets["Y"], flat, flat)
    assert replay(books("XY"), world).refused == {"correlated_exposure": 1}


def test_an_exit_passes_beyond_the_limit() -> None:
    """The price has carried the book past its limit: it may shrink, and what follows may not."""
    targets = {"X": [*WAIT, *[1.0] * 3, 0.5, 0.0, 0.0], "Y": [*WAIT, *[0.0] * 3, *[0.1] * 3]}
    world = beta_world(targets, {"X": 1.0, "Y": 1.0})
    jump = np.r_[np.zeros(len(WAIT) + 2), np.ones(4)]
    for name in "XY":
        closes = world[name].bars["close"] * (1.0 + jump)
        world[name] = scripted(targets[name], np.r_[100.0, closes[:-1]].tolist(), closes.tolist())
    run = replay(books("XY"), world)
    fills = run.of(Result.FILL)
    assert fills["quantity"][fills["book"] == 0].tolist() == [10.0, -5.0, -5.0]
    assert run.refused == {"correlated_exposure": 1}


def test_an_open_hedge_is_no_hedge_yet() -> None:
    """Two orders of one bar: the second must not lean on the first, which may never fill."""
    limits = Limits(**{**vars_of(LIMITS), "correlated_notional_max": 500.0})
    alone = {"X": [*WAIT, 1.0, 1.0], "Y": [*WAIT, 0.0, 0.0]}
    both = {"X": [*WAIT, 1.0, 1.0], "Y": [*WAIT, -1.0, -1.0]}
    for targets in (alone, both):
        run = replay(books("XY", limits), beta_world(targets, {"X": 1.0, "Y": 1.0}))
        assert run.of(Result.FILL)["book"].tolist() == []
        assert set(run.refused) == {"correlated_exposure"}


def pandas_like(closes: NDArray[np.float64], other: NDArray[np.float64], span: int) -> float:
    """EWMA correlation by weights, all at once: (1 - a)^k of the k-th last product."""
    x, y = np.diff(np.log(closes)), np.diff(np.log(other))
    weights = (1.0 - 2.0 / (span + 1.0)) ** np.arange(len(x))[::-1]
    sums = [(weights * a * b).sum() for a, b in ((x, y), (x, x), (y, y))]
    return float(sums[0] / np.sqrt(sums[1] * sums[2]))


def engine_after(world: dict[str, History], setup: Setup) -> Engine:
    engine = assemble(setup, {name: history.fields for name, history in world.items()})
    fold_on(engine, merge(list(world.values())))
    return engine


def told(engine: Engine, i: int, j: int) -> float:
    pair = engine.arrays["pairs"][j * (j + 1) // 2 + i]
    return float(pair["covariance"] / np.sqrt(pair["variance_first"] * pair["variance_second"]))


def test_the_estimate_is_numpys() -> None:
    rng = np.random.default_rng(3)
    moves = rng.normal(size=(700, 4)) @ rng.normal(size=(4, 4)) * 1e-3
    closes = 100.0 * np.exp(np.cumsum(moves, axis=0))
    world = {
        name: scripted([0.0] * 700, [100.0] * 700, closes[:, k].tolist())
        for k, name in enumerate("ABCD")
    }
    engine = engine_after(world, books("ABCD", Limits(**{**vars_of(LIMITS), "collar": 0.0})))
    assert len(engine.arrays["pairs"]) == pairs(4) == 10
    for j in range(4):
        for i in range(j):
            expected = pandas_like(closes[:, i], closes[:, j], BARS)
            assert told(engine, i, j) == pytest.approx(expected, rel=0, abs=1e-12)


def test_returns_run_between_bars_that_both_have() -> None:
    rng = np.random.default_rng(4)
    closes = 100.0 * np.exp(np.cumsum(rng.normal(size=(300, 2)) * 1e-3, axis=0))
    world = {
        name: scripted([0.0] * 300, [100.0] * 300, closes[:, k].tolist())
        for k, name in enumerate("AB")
    }
    gaps = rng.random((300, 2)) < 0.2
    for k, name in enumerate("AB"):
        events = world[name].events
        missing = START + MINUTE * (1 + np.flatnonzero(gaps[:, k]))
        world[name] = History(
            events=events[~np.isin(events["ts_known"], missing)],
            **{
                f: getattr(world[name], f)
                for f in world[name].__dataclass_fields__
                if f != "events"
            },
        )
    common = closes[~gaps.any(axis=1)]
    engine = engine_after(world, books("AB"))
    assert engine.arrays["pairs"][1]["seen"] == len(common)
    expected = pandas_like(common[:, 0], common[:, 1], BARS)
    assert told(engine, 0, 1) == pytest.approx(expected, rel=0, abs=1e-12)


def trends(fast: float = 3.0, **limits: Any) -> Setup:
    bounds = Limits(**{**vars_of(LIMITS), "orders_per_minute_max": 0.0, **limits})
    return books("XYZ", bounds, TREND, fast)


def trend_world(bars: int = 500) -> dict[str, History]:
    rng = np.random.default_rng(9)
    factor = rng.normal(size=bars) * 1e-3
    found = {}
    for name in "XYZ":
        closes = 100.0 * np.exp(np.cumsum(factor + rng.normal(size=bars) * 1e-3))
        found[name] = bar_history(np.r_[100.0, closes[:-1]], closes)
    return found


def test_truncating_the_future_changes_no_past_decision() -> None:
    world = trend_world()
    whole = replay(trends(), world)
    assert whole.refused["correlated_exposure"] > 10
    for minutes in (100, 333, 499):
        cut = START + minutes * MINUTE
        past = replay(trends(), {name: crop(history, None, cut) for name, history in world.items()})
        assert past.outcomes.tobytes() == whole.outcomes[whole.outcomes["ts"] <= cut].tobytes()


def test_cuts_into_blocks_change_nothing() -> None:
    whole = replay(trends(), trend_world(), cuts=())
    single = replay(trends(), trend_world(), cuts=range(1, len(whole.block)))
    assert whole.outcomes.tobytes() == single.outcomes.tobytes()
    assert whole.track.tobytes() == single.track.tobytes()


def test_a_limit_that_never_binds_changes_nothing() -> None:
    far = replay(trends(correlated_notional_max=1e9), trend_world())
    off = replay(trends(correlated_notional_max=0.0), trend_world())
    assert far.decisions_hash == off.decisions_hash
    engine = assemble(trends(correlated_notional_max=0.0), {n: walk(9).fields for n in "XYZ"})
    assert len(engine.arrays["pairs"]) == 1, "no memory while it is off"


def fold(block: Records, snapshot: bytes | None = None) -> tuple[bytes, Records]:
    engine = assemble(trends(), {name: history.fields for name, history in trend_world().items()})
    return fold_on(engine, block, snapshot)


@pytest.mark.parametrize("cut", [7, 400, 1_001])
def test_a_restored_run_goes_on_to_the_same_end(cut: int) -> None:
    block = merge(list(trend_world().values()))
    end, outcomes = fold(block)
    middle, first = fold(block[:cut])
    again, rest = fold(block[cut:], middle)
    assert again == end
    assert joined([first, rest], OUTCOME).tobytes() == outcomes.tobytes()


def test_a_sweep_is_limited_as_a_replay_is() -> None:
    setups = [trends(float(fast)) for fast in (2, 3, 5, 8)]
    histories = trend_world()
    field = Field(setups, {n: history.fields for n, history in histories.items()}, threads=2)
    field.run(merge(list(histories.values())))
    for c, setup in enumerate(setups):
        done = replay(setup, histories)
        assert done.refused["correlated_exposure"] > 0
        assert hash_of(field.accounts.of("positions")[c], field.tallies[c]) == done.decisions_hash


def test_the_interpreter_gives_the_same_hashes_as_the_compiler() -> None:
    code = (
        "import sys, json; sys.path[:0] = ['tests/risk']; from backtest.replay import replay;"
        "import test_correlation as c, test_flatten as f;"
        "print(json.dumps([replay(c.trends(), c.trend_world(80)).decisions_hash,"
        "replay(f.falling(), f.world(120)).decisions_hash]))"
    )
    path = os.pathsep.join(["tests", "."])
    hashes = []
    for interpreted in ("0", "1"):
        env = dict(os.environ, PYTHONPATH=path, NUMBA_DISABLE_JIT=interpreted)
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        hashes.append(json.loads(done.stdout.splitlines()[-1]))
    assert hashes[0] == hashes[1]


def test_one_span_for_all_books() -> None:
    setup = books("XY")
    other = Limits(**{**vars_of(LIMITS), "correlation_bars": 60.0})
    mixed = (setup.books[0], BookSetup(book=setup.books[1].book, limits=other))
    with pytest.raises(ConfigError, match="correlation_bars differs"):
        Setup(instruments=setup.instruments, books=mixed)
    # a book that is not limited by it has no say
    off = Limits(**{**vars_of(other), "correlated_notional_max": 0.0})
    kept = (setup.books[0], BookSetup(book=setup.books[1].book, limits=off))
    assert Setup(instruments=setup.instruments, books=kept).correlation_bars == BARS


@pytest.mark.parametrize(
    "terms", [{"correlation_above": 1.0}, {"correlation_bars": 1.0}, {"correlation_bars": 2.5}]
)
def test_terms_that_make_no_sense_are_refused(terms: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(terms))):
        Limits(**terms)
