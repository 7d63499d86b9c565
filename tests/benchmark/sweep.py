"""How fast a sweep is beside vectorbt: 1,000 pairs of averages over 100,000 bars, with costs.

    .venv/bin/python tests/benchmark/sweep.py

Both flip on the same averages of the same bars, decide at a close and trade at the next open, with
a fee of 5 bps and 2 bps of slippage; vectorbt takes its columns in chunks, as memory forces it to.
Everything is measured in this one run, round by round, and the best round counts on either side:
the machine is shared, so only ratios mean anything. Exit code 1 when a bar is not met.
"""

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from worlds import bar_history  # noqa: E402

from backtest.assemble import BookSetup, Setup  # noqa: E402
from backtest.replay import replay  # noqa: E402
from backtest.sweep.space import grid, parse_axis  # noqa: E402
from backtest.sweep.sweep import Subject, Sweep  # noqa: E402
from core.compiled import compiled  # noqa: E402
from core.engine import Book  # noqa: E402
from core.instrument import Instrument  # noqa: E402
from markets.history import History  # noqa: E402
from risk.limits import Limits, Sizing, SizingRule  # noqa: E402
from strategies.trend import TREND  # noqa: E402

BARS, ROUNDS = 100_000, 10
FEE, SLIPPAGE_BPS, NOTIONAL, EQUITY = 0.0005, 2.0, 1_000.0, 1e6
FAST, SLOW = "10:48:2", "60:256:4"
CHUNK, CHUNKS = 100, 2
THREADS = 2


def world(bars: int, seed: int = 0) -> History:
    """One-minute bars, a random walk that is seldom far from where it began."""
    rng = np.random.default_rng(seed)
    closes = 100.0 * np.exp(np.cumsum(rng.normal(size=bars) * 5e-4))
    opens = np.r_[100.0, closes[:-1]]
    return bar_history(opens, closes, volume=1e6)


def subject(history: History) -> Subject:
    """The trend strategy with fee, slippage, gate and default limits."""
    instrument = Instrument(
        name="X", lot=1e-4, tick=1e-4, fee_rate=FEE, half_spread_bps=0.0, slippage_bps=SLIPPAGE_BPS
    )
    book = Book(name="trend@X", strategy=TREND, instrument="X")
    entry = BookSetup(book=book, sizing=Sizing(rule=SizingRule.NOTIONAL, value=NOTIONAL))
    setup = Setup(instruments=(instrument,), books=(entry,), equity=EQUITY, limits=Limits())
    return Subject(setup=setup, books=frozenset([book.name]), histories={"X": history})


POINTS = grid([parse_axis(TREND, "fast", FAST), parse_axis(TREND, "slow", SLOW)])


def ours(history: History, threads: int, points: list[dict[str, float]]) -> float:
    """Seconds of the whole sweep: wiring, features, step, metrics, hashes."""
    sweep = Sweep(subject(history), threads=threads)
    started = time.perf_counter()
    rows = list(sweep.run(points))
    seconds = time.perf_counter() - started
    assert len(rows) == len(points)
    assert all(row.decisions_hash for row in rows)
    return seconds


@compiled
def by_hand(opens: Any, closes: Any, fast: Any, slow: Any, first: int, results: Any, c: int) -> int:
    """One pair written straight into a loop over ready averages: no gate, no records, no tiles."""
    cash, held, wanted, flips, peak, deepest = 0.0, 0.0, 0.0, 0, 0.0, 0.0
    for k in range(len(closes)):
        if wanted != held:
            change = wanted - held
            side = 1.0 if change > 0.0 else -1.0
            price = opens[k] * (1.0 + side * 2e-4)
            cash -= change * price + abs(change) * price * 5e-4
            held = wanted
            flips += 1
        if k >= first:
            side = 1.0 if fast[k] > slow[k] else -1.0
            if side * held <= 0.0:
                wanted = side * 1000.0 / closes[k]
        equity = cash + held * closes[k]
        peak = max(peak, equity)
        deepest = max(deepest, peak - equity)
    results[c, 0] = cash + held * closes[-1]
    results[c, 1] = deepest
    return flips


def hand_loop(history: History, pairs: list[tuple[int, int]]) -> float:
    """Seconds of ``by_hand`` over these pairs, their averages included, on one core."""
    bars = history.bars
    opens, closes = (np.ascontiguousarray(bars[name]) for name in ("open", "close"))
    results = np.zeros((len(pairs), 2))
    started = time.perf_counter()
    sums = np.r_[0.0, np.cumsum(closes)]
    windows = {n for pair in pairs for n in pair}
    means = {n: np.r_[np.full(n - 1, np.nan), (sums[n:] - sums[:-n]) / n] for n in windows}
    for c, (fast, slow) in enumerate(pairs):
        assert by_hand(opens, closes, means[fast], means[slow], slow, results, c) > 0
    return time.perf_counter() - started


def vectorbt_chunk(history: History, pairs: list[tuple[int, int]]) -> float:
    """Seconds of one chunk of columns: averages, signals, portfolio, return and drawdown."""
    import pandas as pd
    import vectorbt as vbt

    bars = history.bars
    index = pd.to_datetime(bars["ts_event"], unit="ms")
    close, opens = (pd.Series(bars[name], index=index) for name in ("close", "open"))
    started = time.perf_counter()
    fast, slow = (vbt.MA.run(close, [p[k] for p in pairs]).ma.to_numpy() for k in (0, 1))
    none = np.zeros((1, len(pairs)), bool)
    # decided at a close, done at the next open
    above, below = (np.vstack([none, side[:-1]]) for side in (fast > slow, fast < slow))
    folio = vbt.Portfolio.from_signals(
        close,
        entries=above,
        short_entries=below,
        price=opens,
        size=NOTIONAL,
        size_type="value",
        upon_opposite_entry="reverse",
        fees=FEE,
        slippage=SLIPPAGE_BPS / 1e4,
        init_cash=EQUITY,
        freq="1min",
    )
    folio.total_return()
    folio.max_drawdown()
    seconds = time.perf_counter() - started
    assert folio.orders.count().mean() > BARS / 500
    return seconds


def best_of(rounds: int, **works: Callable[[], float]) -> dict[str, float]:
    """The best of several rounds of each, taken in turn so that all share the machine's moods."""
    found = {name: [work()] for name, work in works.items()}  # the first warms up
    for _ in range(rounds):
        for name, work in works.items():
            found[name].append(work())
    return {name: min(seconds[1:]) for name, seconds in found.items()}


def peak_bytes() -> float:
    """Peak memory of a process that does nothing but the sweep."""
    code = (
        "import sweep; sweep.ours(sweep.world(sweep.BARS), 2, sweep.POINTS);"
        # not getrusage, whose peak a child inherits from whoever forked it
        "print(*[x.split()[1] for x in open('/proc/self/status') if x.startswith('VmHWM')])"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), str(ROOT), str(ROOT / "tests")])
    env = dict(os.environ, PYTHONPATH=paths)
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    return 1024.0 * float(done.stdout)


def measure() -> dict[str, float]:
    """Every figure: nanoseconds per bar and combination unless its name says otherwise."""
    history = world(BARS)
    pairs = [(int(p["fast"]), int(p["slow"])) for p in POINTS]
    some, chunk = POINTS[::5], pairs[:: len(pairs) // CHUNK]
    works: dict[str, Callable[[], float]] = {
        "sweep": lambda: ours(history, THREADS, POINTS),
        "sweep_one_thread": lambda: ours(history, 1, POINTS),
        "by_hand": lambda: hand_loop(history, pairs[::5]),
    }
    counts = {"sweep": len(POINTS), "sweep_one_thread": len(POINTS), "by_hand": len(pairs[::5])}
    try:
        import vectorbt  # noqa: F401
    except ImportError:
        print("vectorbt is not installed: its rows are left out", file=sys.stderr)
    else:
        works["vectorbt"] = lambda: vectorbt_chunk(history, chunk)
        counts["vectorbt"] = CHUNK
    seconds = best_of(ROUNDS, **works)
    figures = {name: 1e9 * s / BARS / counts[name] for name, s in seconds.items()}
    for bars in (10_000, 1_000_000):
        long = world(bars)
        took = best_of(2, run=lambda data=long: ours(data, THREADS, some))["run"]
        figures[f"sweep_{bars}_bars"] = 1e9 * took / bars / len(some)
    row = next(iter(Sweep(subject(history), threads=1).run(POINTS[:1])))
    runs = [replay(subject(history).at(row.params), {"X": history}) for _ in range(3)]
    assert {run.decisions_hash for run in runs} == {row.decisions_hash}
    figures["replay"] = 1e9 * min(run.seconds for run in runs) / BARS
    figures["peak_bytes"] = peak_bytes()
    return figures


def table(figures: dict[str, float]) -> list[tuple[str, str, str, bool]]:
    """What, measured, the bar it has to meet, and whether it does."""
    mine = figures["sweep"]

    def rate(name: str) -> str:
        return f"{1e9 / figures[name] / BARS:,.0f}/s"

    rows = [
        (f"combinations, {THREADS} threads", rate("sweep"), "", True),
        ("  per bar and combination", f"{mine:.1f} ns", "", True),
        ("combinations, one thread", rate("sweep_one_thread"), "", True),
    ]
    if "vectorbt" in figures:
        ratio = figures["vectorbt"] / mine
        one = figures["vectorbt"] / figures["sweep_one_thread"]
        rows += [
            ("vectorbt from_signals", rate("vectorbt"), "", True),
            ("  against vectorbt", f"{ratio:.1f}x", ">= 30x", ratio >= 30.0),
            ("  against vectorbt, one thread", f"{one:.1f}x", "", True),
        ]
    scaling = figures["sweep_one_thread"] / mine
    flat = figures["sweep_1000000_bars"] / figures["sweep_10000_bars"]
    peak = figures["peak_bytes"] / 1e6
    by_hand = figures["sweep_one_thread"] / figures["by_hand"]
    return [
        *rows,
        ("scaling from one core to two", f"{scaling:.2f}x", ">= 1.7x", scaling >= 1.7),
        ("a lean loop by hand, one core", f"{by_hand:.1f}x its time", "", True),
        ("replay, per bar", f"{figures['replay']:.0f} ns", "", True),
        ("cost of a bar, 1M bars over 10k", f"{flat:.2f}", "<= 1.25", flat <= 1.25),
        ("peak memory of the process", f"{peak:.0f} MB", "< 500 MB", peak < 500.0),
    ]


def main() -> int:
    """Print the table, or with ``--json`` the figures; 1 when a bar is not met."""
    warnings.simplefilter("ignore")
    figures = measure()
    rows = table(figures)
    if "--json" in sys.argv:
        print(json.dumps(figures, indent=1))
    else:
        for what, measured, bar, _ in rows:
            print(f"{what:<42}{measured:>20}  {bar}")
    return 0 if all(met for *_, met in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
