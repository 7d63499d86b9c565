"""How fast the loop is beside its peers: one strategy, one year of minutes, one process.

    .venv/bin/python tests/benchmark/speed.py

Every engine flips on the same 20/50 averages of the same 525,600 bars, with a fee of 5 bps and
2 bps of slippage. Ratios are of medians within this run; seconds differ from machine to machine.
vectorbt is measured where it is installed (``pip install --no-deps -r requirements-bench.lock``).
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from worlds import bar_history  # noqa: E402

from backtest.assemble import BookSetup, Setup, assemble  # noqa: E402
from backtest.replay import replay  # noqa: E402
from core.compiled import compiled  # noqa: E402
from core.engine import Book  # noqa: E402
from core.instrument import Instrument  # noqa: E402
from core.strategy import Strategy  # noqa: E402
from markets.export import write  # noqa: E402
from markets.history import History  # noqa: E402
from risk.limits import Limits, Sizing, SizingRule  # noqa: E402
from strategies.trend import TREND  # noqa: E402

BARS = 525_600
ROUNDS = 5
FEE, SLIPPAGE_BPS = 0.0005, 2.0
NOTIONAL = 1_000.0
# the random walk pays 12 bps a flip; the account must outlive 12,000 of them
EQUITY = 1e6


def world(seed: int = 0) -> History:
    """A year of one-minute bars, a random walk."""
    rng = np.random.default_rng(seed)
    closes = 100.0 * np.exp(np.cumsum(rng.normal(size=BARS) * 5e-4))
    opens = np.r_[100.0, closes[:-1]]
    return bar_history(opens, closes, volume=1e6)


def setup(symbols: tuple[str, ...], strategies: tuple[Strategy, ...]) -> Setup:
    """Every strategy on every symbol, with fee, slippage, gate and default limits."""
    instruments = tuple(
        Instrument(
            name=symbol,
            lot=1e-4,
            tick=1e-4,
            fee_rate=FEE,
            half_spread_bps=0.0,
            slippage_bps=SLIPPAGE_BPS,
        )
        for symbol in symbols
    )
    sizing = Sizing(rule=SizingRule.NOTIONAL, value=NOTIONAL)
    books = tuple(
        BookSetup(
            book=Book(name=f"{strategy.name}@{symbol}", strategy=strategy, instrument=symbol),
            sizing=sizing,
        )
        for symbol in symbols
        for strategy in strategies
    )
    return Setup(instruments=instruments, books=books, equity=EQUITY, limits=Limits())


def median_of(work: Callable[[], float], rounds: int = ROUNDS) -> float:
    """Median of what ``work`` says it took, after one round to warm up."""
    work()
    return statistics.median(work() for _ in range(rounds))


def ours(history: History, strategies: tuple[Strategy, ...], symbols: tuple[str, ...]) -> float:
    """Seconds per event of the whole loop: features, strategy, gate, costs, outcomes kept."""
    plan = setup(symbols, strategies)
    run = replay(plan, dict.fromkeys(symbols, history))
    assert len(run.trades) > 10_000, run.refused
    return run.seconds / len(run.block)


def one_bar(history: History) -> float:
    """Seconds of step time for a block of one bar, as it is live."""
    engine = assemble(setup(("X",), (TREND,)), {"X": history.fields})
    events = history.events[:20_000]
    started = time.perf_counter()
    for k in range(len(events)):
        engine.advance(events[k : k + 1], 0)
    return (time.perf_counter() - started) / len(events)


@compiled
def by_hand(opens: Any, closes: Any, equity: Any) -> int:
    """The same strategy written straight into one loop, with neither gate nor records."""
    cash, held, flips, fast, slow = 0.0, 0.0, 0, 0.0, 0.0
    wanted = 0.0
    for k in range(len(closes)):
        if wanted != held:
            change = wanted - held
            side = 1.0 if change > 0.0 else -1.0
            price = opens[k] * (1.0 + side * 2e-4)
            cash -= change * price + abs(change) * price * 5e-4
            held = wanted
            flips += 1
        fast += closes[k]
        slow += closes[k]
        if k >= 20:
            fast -= closes[k - 20]
        if k >= 50:
            slow -= closes[k - 50]
        if k >= 49:
            side = 1.0 if fast / 20.0 > slow / 50.0 else -1.0
            if side * held <= 0.0:
                wanted = side * 1000.0 / closes[k]
        equity[k] = cash + held * closes[k]
    return flips


def hand_loop(history: History) -> float:
    """Seconds per bar of ``by_hand``."""
    bars = history.bars
    opens, closes = (np.ascontiguousarray(bars[name]) for name in ("open", "close"))
    equity = np.empty(len(bars))
    started = time.perf_counter()
    assert by_hand(opens, closes, equity) > 10_000
    return (time.perf_counter() - started) / len(bars)


def frame_of(history: History) -> Any:
    """The bars as backtesting.py and vectorbt want them."""
    import pandas as pd

    bars = history.bars
    columns = {name.capitalize(): bars[name] for name in ("open", "high", "low", "close", "volume")}
    return pd.DataFrame(columns, index=pd.to_datetime(bars["ts_event"], unit="ms"))


BACKTESTING = """
import warnings
warnings.simplefilter("ignore")
import pandas as pd
from backtesting import Backtest, Strategy
class Flip(Strategy):
    def init(self):
        mean = lambda values, n: pd.Series(values).rolling(n).mean()
        self.fast = self.I(mean, self.data.Close, 20)
        self.slow = self.I(mean, self.data.Close, 50)
    def next(self):
        size = max(1, int(1000 / self.data.Close[-1]))
        if self.fast[-1] > self.slow[-1]:
            if not self.position.is_long:
                self.position.close()
                self.buy(size=size)
        elif not self.position.is_short:
            self.position.close()
            self.sell(size=size)
def run(frame):
    return Backtest(frame, Flip, cash=1e6, commission=0.0005, spread=0.0002).run()
"""


def backtesting_py(frame: Any) -> float:
    """Seconds per bar of backtesting.py."""
    space: dict[str, Any] = {}
    exec(BACKTESTING, space)
    started = time.perf_counter()
    stats = space["run"](frame)
    seconds = time.perf_counter() - started
    assert stats["# Trades"] > 10_000
    return seconds / len(frame)


def vectorbt_orders(frame: Any) -> float:
    """Seconds per bar of vectorbt's ``from_orders``, its signals included."""
    import vectorbt as vbt

    close, opens = frame["Close"], frame["Open"]
    started = time.perf_counter()
    fast, slow = close.rolling(20).mean(), close.rolling(50).mean()
    side = np.where(fast > slow, 1.0, -1.0)
    side[:49] = 0.0
    target = pd_shift(side * NOTIONAL / close.to_numpy())
    size = np.where(np.diff(np.r_[0.0, np.sign(target)]) != 0, target, np.nan)
    folio = vbt.Portfolio.from_orders(
        opens,
        size=size,
        size_type="targetamount",
        fees=FEE,
        slippage=SLIPPAGE_BPS / 1e4,
        init_cash=EQUITY,
        freq="1min",
    )
    assert folio.orders.count() > 10_000
    folio.value()
    return (time.perf_counter() - started) / len(frame)


def pd_shift(values: Any) -> Any:
    """Decided at a close, done at the next open."""
    return np.r_[0.0, values[:-1]]


def whole_process(command: list[str]) -> tuple[float, int]:
    """Wall seconds of a process from its start to its end, and its peak memory in bytes."""
    started = time.perf_counter()
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT, env=env)
    _, status, usage = os.wait4(child.pid, 0)
    assert status == 0, command
    return time.perf_counter() - started, usage.ru_maxrss * 1024


def processes(history: History) -> tuple[float, float, int]:
    """Wall seconds of ``lockstep replay`` and of backtesting.py, and our peak memory in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "X.feather"
        write(history, path)
        mine = [
            str(Path(sys.executable).with_name("lockstep")),
            *("replay", "--strategy", "trend", "--data", str(path), "--json"),
            *("--runs", folder),
            *("--set", f"account.equity={EQUITY}", "--set", f"sizing.value={NOTIONAL}"),
            *("--set", "sizing.rule=notional"),
        ]
        theirs = [
            sys.executable,
            "-c",
            BACKTESTING
            + f"frame = pd.read_feather({str(path)!r})\n"
            + "frame.index = pd.to_datetime(frame.pop('ts'), unit='ms')\n"
            + "run(frame.rename(columns=str.capitalize))",
        ]
        whole_process(mine)  # a cold cache compiles, which is another figure
        ours_seconds = median_of(lambda: whole_process(mine)[0], 3)
        _, peak = whole_process(mine)
        return ours_seconds, median_of(lambda: whole_process(theirs)[0], 3), peak


def measure() -> dict[str, float]:
    """Every figure; seconds per event unless its name says otherwise."""
    history = world()
    frame = frame_of(history)
    plain = changed(TREND, compiled=False)
    twin = changed(TREND, name="twin")
    ours_process, theirs_process, peak = processes(history)
    figures = {
        "loop": median_of(lambda: ours(history, (TREND,), ("X",))),
        "loop_two_by_two": median_of(lambda: ours(history, (TREND, twin), ("X", "Y"))),
        "loop_plain": median_of(lambda: ours(history, (plain,), ("X",)), 3),
        "one_bar": median_of(lambda: one_bar(history), 3),
        "by_hand": median_of(lambda: hand_loop(history)),
        "backtesting_py": median_of(lambda: backtesting_py(frame), 3),
        "process_seconds": ours_process,
        "process_backtesting_py_seconds": theirs_process,
        "process_peak_bytes": float(peak),
    }
    try:
        figures["vectorbt"] = median_of(lambda: vectorbt_orders(frame), 3)
    except ImportError:
        print("vectorbt is not installed: its row is left out", file=sys.stderr)
    return figures


def table(figures: dict[str, float]) -> list[tuple[str, str, str]]:
    """What, measured, and the bar it has to meet."""
    loop = figures["loop"]
    rows = [
        ("full path, 1 strategy x 1 instrument", f"{loop * 1e9:.0f} ns/event", ""),
        ("  against backtesting.py", f"{figures['backtesting_py'] / loop:.0f}x", ">= 100x"),
    ]
    if "vectorbt" in figures:
        rows.append(
            ("  against vectorbt from_orders", f"{figures['vectorbt'] / loop:.1f}x", ">= 3x")
        )
    share = loop / figures["loop_two_by_two"]
    plain = figures["backtesting_py"] / figures["loop_plain"]
    rows += [
        ("  against a loop written by hand", f"{loop / figures['by_hand']:.1f}x its time", ""),
        ("2 strategies x 2 instruments, per event", f"{share:.2f} of its speed", ">= 0.50"),
        ("plain Python against backtesting.py", f"{plain:.1f}x", ">= 4x"),
        ("one bar through the live path", f"{figures['one_bar'] * 1e6:.1f} us", "< 10 us"),
        ("lockstep replay, whole process", f"{figures['process_seconds']:.2f} s", ""),
        (
            "  backtesting.py, whole process",
            f"{figures['process_backtesting_py_seconds']:.2f} s",
            "more than ours",
        ),
        ("  peak memory", f"{figures['process_peak_bytes'] / 1e6:.0f} MB", "< 400 MB"),
    ]
    return rows


def main() -> None:
    """Print the table, or with ``--json`` the figures."""
    warnings.simplefilter("ignore")
    figures = measure()
    if "--json" in sys.argv:
        print(json.dumps(figures, indent=1))
        return
    for what, measured, bar in table(figures):
        print(f"{what:<42}{measured:>20}  {bar}")


if __name__ == "__main__":
    main()
