"""The figures of a run, and what must be said beside them: a number without its caveats misleads.

A figure that cannot be computed is None, never zero and never the flattering end of its scale.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.breakdown import DAY_MS, Breakdown, Row, day_of, net_of, paid_micros
from backtest.run import Run
from core.model import MICROS_PER_UNIT, ExitReason, InstrumentKind, Kind, Mode, Records, Result
from markets.history import utc
from risk.gate import Rule
from strategies.regimes import Regime

DAYS_PER_YEAR = 365
"""These markets never close, so every calendar day counts."""

TRADES_MIN, DAYS_MIN = 30, 30
"""Below either, a result is an anecdote, and the caveats say so."""

EVENTS_BEFORE_BAR_MAX = 4096
"""Events of other kinds a run may begin with and still have its span begin at a bar's open."""

SINGLE_PATH = (
    "One path through one history, with the parameters as given: nothing here was tested out of "
    "sample."
)

Floats = NDArray[np.float64]


def summary(run: Run) -> dict[str, Any]:
    """All key figures as plain data, money in quote.

    ``profit_factor``, ``win_rate``, ``sharpe``, ``sortino``, ``calmar``, ``turnover`` and
    ``capacity`` are None where they are undefined. ``days_per_year`` is what annual figures are
    annualised by, ``turnover`` a multiple of equity a year, ``capacity`` in quote. ``gross_pnl``
    is net plus fees, spread, slippage and funding. ``max_drawdown``, ``exposure_time`` and the
    values of ``regimes`` are fractions.
    """
    parts, returns = Breakdown(run), daily_returns(run)
    total, (start_ms, end_ms) = parts.totals, span(run)
    return {
        "run_id": run.run_id,
        "bars": total.bars,
        "events": len(run.block),
        "seconds": run.seconds,
        "events_per_second": len(run.block) / run.seconds if run.seconds > 0 else None,
        "trades": total.trades,
        "wins": total.wins,
        "win_rate": total.win_rate,
        "profit_factor": total.profit_factor,
        **_money(total),
        "return": total.net_micros / parts.start_micros,
        "max_drawdown": max_drawdown(run),
        "sharpe": sharpe(returns),
        "sortino": sortino(returns),
        "calmar": calmar(run),
        "turnover": turnover(run),
        "capacity": capacity(run),
        "days_per_year": DAYS_PER_YEAR,
        "exposure_time": exposure_time(run),
        "time_span": {
            "start": utc(start_ms),
            "end": utc(end_ms),
            "days": (end_ms - start_ms) / DAY_MS,
        },
        "decisions_hash": run.decisions_hash,
        "refused": run.refused,
        "regimes": regime_shares(parts),
        "halted": halted_at(run) is not None,
        "caveats": _caveats(parts),
    }


def _money(total: Row) -> dict[str, float]:
    amounts = {
        "fees": total.fees_micros,
        "spread": total.spread_micros,
        "slippage": total.slippage_micros,
        "funding": total.funding_micros,
        "gross_pnl": total.gross_micros,
        "net_pnl": total.net_micros,
    }
    return {name: micros / MICROS_PER_UNIT for name, micros in amounts.items()}


def span(run: Run) -> tuple[int, int]:
    """From the open of the first bar (or an earlier event) to the last event, unix ms."""
    return span_of(run.block)


def span_of(block: Records) -> tuple[int, int]:
    """``span`` of the events alone."""
    known = block["ts_known"]
    if len(known) == 0:
        return 0, 0
    # the bars that open a run come close together: a look at its first events finds one
    first = np.flatnonzero(block["kind"][:EVENTS_BEFORE_BAR_MAX] == Kind.BAR)[:1]
    return int(min([known[0], *block["ts_event"][first]])), int(known[-1])


def daily_equity(run: Run) -> Floats:
    """Equity in quote at the end of every UTC day the run touches, days without events included.

    A bar that closes at midnight belongs to the day it ends.
    """
    equity: Floats = run.track["equity_micros"][day_ends(run.block)] / MICROS_PER_UNIT
    return equity


def day_ends(block: Records) -> NDArray[np.int64]:
    """Place of the last event known by the end of every UTC day the events touch, shape (days,)."""
    known = block["ts_known"]
    if len(known) == 0:
        return np.zeros(0, np.int64)
    days = np.arange(day_of(int(known[0])), day_of(int(known[-1])) + 1)
    return np.searchsorted(known, (days + 1) * DAY_MS, side="right") - 1


def daily_returns(run: Run) -> Floats:
    """Return of every UTC day, the first one on the starting equity; partial days count whole."""
    return returns_of(daily_equity(run), run.equity_start)


def returns_of(equity: Floats, start: float) -> Floats:
    """Returns from one day's equity to the next, the first on ``start``; NaN once it is gone."""
    before = np.concatenate(([start], equity[:-1]))[: len(equity)]
    with np.errstate(divide="ignore", invalid="ignore"):
        returns: Floats = np.where(before > 0, equity / before - 1, np.nan)
    return returns


def sharpe(returns: Floats) -> float | None:
    """Mean over standard deviation (ddof 1) of daily returns, times sqrt(365), no risk-free rate.

    None with fewer than two days, without variance, or once equity is gone.
    """
    mean = _mean(returns)
    if mean is None:
        return None
    off = returns - mean
    spread = math.sqrt(off.dot(off) / (len(returns) - 1))
    if spread <= 1e-12 * max(returns.max(), -returns.min()):
        return None
    return mean / spread * math.sqrt(DAYS_PER_YEAR)


def sortino(returns: Floats) -> float | None:
    """As ``sharpe``, over the root mean square of the negative returns; None when none is."""
    mean = _mean(returns)
    if mean is None:
        return None
    negative = np.minimum(returns, 0.0)
    downside = math.sqrt(negative.dot(negative) / len(returns))
    return mean / downside * math.sqrt(DAYS_PER_YEAR) if downside > 0 else None


def _mean(returns: Floats) -> float | None:
    """None with fewer than two days, or once equity is gone: one NaN makes the sum one."""
    total = float(returns.sum()) if len(returns) > 1 else math.nan
    return total / len(returns) if math.isfinite(total) else None


def calmar(run: Run) -> float | None:
    """Compound growth a year (365 days) over the deepest drawdown.

    None below ``DAYS_MIN`` days, which no power may stretch to a year, without a drawdown, or once
    equity is gone.
    """
    equity, fallen = daily_equity(run), max_drawdown(run)
    if len(equity) < DAYS_MIN or fallen == 0.0 or equity[-1] <= 0:
        return None
    years = len(equity) / DAYS_PER_YEAR
    return (float(equity[-1] / run.equity_start) ** (1 / years) - 1) / fallen


def turnover(run: Run) -> float | None:
    """``turnover_of`` a run."""
    return turnover_of(int(np.abs(paid_micros(run.of(Result.FILL))).sum()), daily_equity(run))


def turnover_of(traded_micros: int, equity: Floats) -> float | None:
    """Notional traded a year (365 days) as a multiple of the mean equity of its days; None without
    days, or when that mean is not above zero."""
    if len(equity) == 0 or equity.mean() <= 0:
        return None
    traded = traded_micros / MICROS_PER_UNIT
    return traded / float(equity.mean()) / (len(equity) / DAYS_PER_YEAR)


def capacity(run: Run) -> float | None:
    """Equity in quote at which the square-root impact of its own orders halves the mean return.

    A fill of Q on a day that trades V at a daily volatility of s costs ``s sqrt(Q / V)`` of its
    notional (Donier and Bonart 2015), beyond what the replay charged; times k in size, that is
    times ``sqrt(k)`` of the return. None when it earns nothing, never trades, or the data have no
    volume or no movement.
    """
    returns, fills = daily_returns(run), run.of(Result.FILL)
    if len(returns) < 2 or len(fills) == 0 or not np.isfinite(returns).all():
        return None
    cost = _impact(run, fills)
    mean = float(returns.mean())
    if mean <= 0 or cost is None or cost <= 0:
        return None
    equity = float(daily_equity(run).mean())
    return equity * (mean / 2 * len(returns) * equity / cost) ** 2


def _impact(run: Run, fills: Records) -> float | None:
    """What the square-root law would charge for these fills at their size, in quote."""
    places = np.array([run.instruments.index(book.instrument) for book in run.books])
    traded_in = places[fills["book"]]
    block, is_bar = run.block, run.block["kind"] == Kind.BAR
    total = 0.0
    for place in np.unique(traded_in).tolist():
        mine = fills[traded_in == place]
        # whole records of a year of minutes would take a tenth of a gigabyte
        own = is_bar & (block["instrument"] == place)
        days, at = np.unique(day_of(block["ts_known"][own]), return_inverse=True)
        volume = np.bincount(at, np.nan_to_num(block["volume"][own]))
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = np.nan_to_num(np.diff(np.log(block["close"][own])), posinf=0.0, neginf=0.0)
        daily = math.sqrt(float((moved**2).sum()) / len(days))
        day = np.searchsorted(days, day_of(mine["ts"])).clip(max=len(days) - 1)
        if (volume[day] <= 0).any():
            return None
        size = np.abs(mine["quantity"])
        total += float((size * mine["price"] * daily * np.sqrt(size / volume[day])).sum())
    return total


def drawdowns(run: Run) -> Floats:
    """Fall from the highest equity so far, the start included, as a fraction, shape (events,)."""
    equity = run.track["equity_micros"]
    peak = np.maximum(np.maximum.accumulate(equity), round(run.equity_start * MICROS_PER_UNIT))
    fallen: Floats = (peak - equity) / peak
    return fallen


def max_drawdown(run: Run) -> float:
    """The deepest drawdown after any event, as a fraction."""
    return float(drawdowns(run).max(initial=0.0))


def exposure_time(run: Run) -> float:
    """Share of the time span with a position open in any book."""
    known = run.block["ts_known"]
    start_ms, end_ms = span(run)
    if end_ms <= start_ms:
        return 0.0
    held = run.track["notional_micros"][:-1] > 0
    return float(np.diff(known)[held].sum() / (end_ms - start_ms))


def regime_shares(parts: Breakdown) -> dict[str, float]:
    """Share of bars by regime, those that occurred."""
    counts = parts.bars_by_regime
    return {r.name.lower(): float(counts[r] / counts.sum()) for r in Regime if counts[r]}


def halted_at(run: Run) -> int | None:
    """When the halt latch first fired, unix ms; None if it never did."""
    modes = run.of(Result.MODE)
    fired = modes["ts"][modes["reason"] == Mode.HALTED]
    return int(fired[0]) if len(fired) else None


def caveats(run: Run) -> list[str]:
    """What an honest reader must know before the figures, the gravest first."""
    return _caveats(Breakdown(run))


def _caveats(parts: Breakdown) -> list[str]:
    run = parts.run
    found = (
        *_about_costs(run),
        *_about_generated_data(run),
        *_about_halts(parts),
        *_about_size(run),
        *_about_open_positions(parts),
        *_about_liquidations(parts),
        *_about_funding(parts),
        *_about_data(run),
        *_about_refusals(run),
        *_about_plain(run),
    )
    return [*found, SINGLE_PATH]


def _about_costs(run: Run) -> Iterator[str]:
    free = ", ".join(
        terms["name"]
        for terms in run.setup["instruments"]
        if terms["fee_rate"] <= 0 or terms["half_spread_bps"] + terms["half_spread"] <= 0
    )
    if not run.costs_on:
        yield f"COSTS WERE OFF (no fee or no spread on {free}): no venue gives these results."


def _about_generated_data(run: Run) -> Iterator[str]:
    notes = [note for quality in run.quality.values() for note in quality.notes]
    if run.manifest.seed is not None or any(note.startswith("synthetic") for note in notes):
        yield "The data are synthetic: they exercise the code and are no evidence about profit."


def _about_halts(parts: Breakdown) -> Iterator[str]:
    run, modes = parts.run, parts.run.of(Result.MODE)
    halts, reducing = (modes[modes["reason"] == mode] for mode in (Mode.HALTED, Mode.REDUCING))
    if len(halts):
        ts = int(halts["ts"][0])
        missed = int((parts.is_bar & (run.block["ts_known"] > ts)).sum())
        yield (
            f"The halt latch fired at {utc(ts)} ({_cause(halts)}), {missed:,} bars before the end: "
            "from then on positions could only shrink until an operator resumed."
        )
    if len(reducing):
        times = "once" if len(reducing) == 1 else f"{len(reducing)} times"
        first = utc(int(reducing["ts"][0]))
        yield f"New risk was barred {times} ({_cause(reducing)}), first at {first}."


def _cause(modes: Records) -> str:
    rule = Rule(int(modes["rule"][0]))
    return rule.name.lower().replace("_", " ") if rule else "by command"


def _about_size(run: Run) -> Iterator[str]:
    trades, (start_ms, end_ms) = len(run.trades), span(run)
    if trades == 0:
        yield "No trade was finished: win rate and profit factor do not exist."
    elif trades < TRADES_MIN:
        noun = "trade" if trades == 1 else "trades"
        yield f"Only {trades} finished {noun}: fewer than {TRADES_MIN} are an anecdote."
    if end_ms - start_ms < DAYS_MIN * DAY_MS:
        told = _lasted((end_ms - start_ms) / DAY_MS)
        yield f"Only {told} of data: fewer than {DAYS_MIN} days show one kind of market."


def _about_open_positions(parts: Breakdown) -> Iterator[str]:
    trips, run = parts.trips, parts.run
    left = trips[trips["closed_ts"] == 0]
    if len(left) == 0:
        return
    books = [run.books[b] for b in left["book"][:3]]
    held = [
        f"{book.name} {quantity:+.6g} {book.instrument}"
        for book, quantity in zip(books, left["quantity"], strict=False)
    ]
    more = f" and {len(left) - 3} more" if len(left) > 3 else ""
    unrealised = int(left["unrealised_micros"].sum()) / MICROS_PER_UNIT
    yield (
        f"{_counted(len(left), 'position')} still open at the end ({', '.join(held)}{more}): "
        f"{unrealised:+,.2f} unrealised is in the equity, not in the trades."
    )


def _lasted(days: float) -> str:
    """Rounded down, so that 29.99 days are not thirty."""
    for unit, length in (("days", 1.0), ("hours", 1 / 24)):
        if days >= length:
            return f"{math.floor(days / length * 10) / 10:g} {unit}"
    return f"{days * 1440:g} minutes"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _about_liquidations(parts: Breakdown) -> Iterator[str]:
    trips = parts.trips
    liquidated = trips[trips["exit"] == ExitReason.LIQUIDATION]
    if len(liquidated):
        lost = net_of(liquidated).sum() / MICROS_PER_UNIT
        yield f"{_counted(len(liquidated), 'trade')} ended in liquidation, earning {lost:+,.2f}."


def _about_funding(parts: Breakdown) -> Iterator[str]:
    run = parts.run
    others = np.flatnonzero(~parts.is_bar)
    funding = others[run.block["kind"][others] == Kind.FUNDING]
    settled = set(run.block["instrument"][funding].tolist())
    free = [
        terms["name"]
        for place, terms in enumerate(run.setup["instruments"])
        if terms["kind"] == InstrumentKind.PERP and place not in settled
    ]
    if free:
        yield f"The data of {', '.join(free)} carry no funding: holding cost nothing there."


def _about_data(run: Run) -> Iterator[str]:
    for name, quality in run.quality.items():
        faults = [f"{count:,} rows skipped ({why})" for why, count in quality.skipped.items()]
        if quality.duplicates:
            faults.append(_counted(quality.duplicates, "duplicate"))
        if quality.gaps:
            gaps = _counted(quality.gaps, "gap")
            faults.append(f"{_counted(quality.bars_missing, 'bar')} missing in {gaps}")
        if faults:
            yield f"The data of {name} are not whole: {', '.join(faults)}."


def _about_refusals(run: Run) -> Iterator[str]:
    refused = run.refused
    if refused:
        worst = sorted(refused.items(), key=lambda item: -item[1])
        named = ", ".join(f"{rule.replace('_', ' ')} {count:,}" for rule, count in worst)
        yield f"The gate refused {_counted(sum(refused.values()), 'intent')}: {named}."


def _about_plain(run: Run) -> Iterator[str]:
    for strategy, reason in run.plain.items():
        yield f"Strategy {strategy} ran as plain Python ({reason}): slower, with the same results."
