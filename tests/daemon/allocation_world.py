"""Four months of hourly bars of two instruments on disk, and a run of two strategies over them."""

from pathlib import Path

import numpy as np
from cli_calls import succeed

from markets.export import write
from markets.history import History, Quality, assemble, make_bars

HOUR, START, DAYS = 3_600_000, 1_735_689_600_000, 120
DATA = ("--data", "SOL-PERP.feather", "--data", "BTC-PERP.feather")
TREND = ("--strategy", "trend", "--set", "fast=12", "--set", "slow=48")
HOURLY = ("--set", "limits.data_age_ms_max=0", "--set", "sizing.value=0.3")


def hourly(seed: int, price: float, scale: float) -> History:
    """A random walk of hourly bars, each opening where the last one closed."""
    rng, length = np.random.default_rng(seed), 24 * DAYS
    closes = price * np.exp(np.cumsum(rng.normal(size=length) * scale))
    opens = np.r_[price, closes[:-1]]
    wiggle = np.abs(rng.normal(size=length)) * scale * closes / 2
    times = START + HOUR * np.arange(length, dtype=np.int64)
    bars = make_bars(
        times,
        HOUR,
        open=opens,
        high=np.maximum(opens, closes) + wiggle,
        low=np.minimum(opens, closes) - wiggle,
        close=closes,
        volume=np.full(length, 1e7),
    )
    quality = Quality(rows_read=length, rows_used=length).spanning(times, HOUR)
    return assemble([bars], HOUR, quality)


def make_run(folder: Path, *more: str) -> str:
    """Write the data into a folder that is the working one, replay, and answer the run's id."""
    for name, price, scale, seed in (("SOL-PERP", 150.0, 8e-3, 1), ("BTC-PERP", 9e4, 3e-3, 2)):
        if not (folder / f"{name}.feather").exists():
            write(hourly(seed, price, scale), folder / f"{name}.feather")
    told = succeed("replay", *TREND, *DATA, *HOURLY, *more, "--json").json
    run_id: str = told["run_id"]
    return run_id
