"""Where the money came from: one list of round trips, grouped in every way a report asks for.

All tables fold the same integers, so each sums to the totals to the micro; the totals themselves
are read from the outcomes and the equity track, on another road, and tests let the two meet.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.run import Run
from core.model import MICROS_PER_UNIT, ExitReason, Kind, Records, Result
from strategies.regimes import Regime

DAY_MS = 86_400_000
STILL_OPEN = -1
"""Exit code of a round trip that the end of the data left open."""

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

ROUND_TRIP = np.dtype(
    [(name, "i8") for name in ("book", "regime", "exit", "opened_ts", "closed_ts")]
    + [(name, "i8") for name in ("decision", "decision_exit", "bars_held")]
    + [(name, "f8") for name in ("quantity", "entry", "price")]
    + [(f"{name}_micros", "i8") for name in ("realised", "unrealised", "fees", "funding")]
    + [(f"{name}_micros", "i8") for name in ("spread", "slippage", "turnover")]
)
"""A position from flat to flat, or to the end of the data. ``quantity`` is its largest (of an open
one: what is left), ``decision`` and ``decision_exit`` lead to the signals of its first and last
fill. An open one has ``closed_ts`` 0 and the last mark as its ``price``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of a table, all money in micros. ``bars`` is 0 where bars make no sense.

    ``spread`` and ``slippage`` are already inside the fill prices, hence inside ``realised``;
    ``funding`` is positive when paid. By day, ``unrealised`` is its change over the day.
    """

    name: str
    bars: int = 0
    trades: int = 0
    wins: int = 0
    won_micros: int = 0
    lost_micros: int = 0
    realised_micros: int = 0
    unrealised_micros: int = 0
    fees_micros: int = 0
    funding_micros: int = 0
    spread_micros: int = 0
    slippage_micros: int = 0
    turnover_micros: int = 0

    @property
    def net_micros(self) -> int:
        """What equity gained."""
        gained = self.realised_micros + self.unrealised_micros
        return gained - self.fees_micros - self.funding_micros

    @property
    def costs_micros(self) -> int:
        """Fees, spread, slippage and funding together."""
        crossing = self.spread_micros + self.slippage_micros
        return self.fees_micros + self.funding_micros + crossing

    @property
    def gross_micros(self) -> int:
        """What it would have gained without any cost."""
        return self.net_micros + self.costs_micros

    @property
    def win_rate(self) -> float | None:
        """Share of trades that earned something after fees and funding; None without trades."""
        return self.wins / self.trades if self.trades else None

    @property
    def profit_factor(self) -> float | None:
        """Won over lost; None when nothing was lost, for no number is honest then."""
        return self.won_micros / self.lost_micros if self.lost_micros else None


SUMMED = tuple(term.name for term in fields(Row) if term.name != "name")
_OF_TRIPS = tuple(name for name in SUMMED if name in (ROUND_TRIP.names or ()))


def joined(name: str, rows: Iterable[Row]) -> Row:
    """The sum of rows."""
    kept = list(rows)
    return Row(name=name, **{term: sum(getattr(row, term) for row in kept) for term in SUMMED})


@dataclass(frozen=True, slots=True)
class Cost:
    """One kind of cost: micros paid, and basis points of all that was traded (None if nothing)."""

    name: str
    paid_micros: int
    turnover_bps: float | None


def paid_micros(fills: Records) -> Ints:
    """What each fill paid, rounded as the ledger rounds it."""
    return np.floor(fills["quantity"] * fills["price"] * MICROS_PER_UNIT + 0.5).astype(np.int64)


def _by_book(outcomes: Records) -> Records:
    book = outcomes["book"]
    if (book[1:] >= book[:-1]).all():
        return outcomes
    return outcomes[np.argsort(book, kind="stable")]


def _added(values: Any, keys: Ints, count: int) -> Ints:
    """Integers added up by key; bincount would add floats."""
    sums = np.zeros(count, np.int64)
    np.add.at(sums, keys, values)
    return sums


def net_of(trips: Records) -> Ints:
    """What each round trip earned, in micros."""
    gained = trips["realised_micros"] + trips["unrealised_micros"]
    net: Ints = gained - trips["fees_micros"] - trips["funding_micros"]
    return net


def _rows(names: Sequence[str], sums: Mapping[str, Ints]) -> list[Row]:
    """One row a name from columns of sums."""
    return [
        Row(name=name, **{term: int(values[k]) for term, values in sums.items()})
        for k, name in enumerate(names)
    ]


def _grouped(trips: Records, keys: Ints, names: Sequence[str], bars: Any = None) -> list[Row]:
    """One row a name of the round trips; ``keys`` are places in ``names``."""
    net, closed = net_of(trips), trips["closed_ts"] > 0
    columns = {
        "trades": closed,
        "wins": closed & (net > 0),
        "won_micros": np.where(closed, net, 0).clip(min=0),
        "lost_micros": -np.where(closed, net, 0).clip(max=0),
        **{name: trips[name] for name in _OF_TRIPS},
    }
    sums = {name: _added(values, keys, len(names)) for name, values in columns.items()}
    sums["bars"] = np.zeros(len(names), np.int64) if bars is None else bars
    return _rows(names, sums)


def day_of(ts: Any) -> Any:
    """Number of the UTC day that a moment ends in: midnight belongs to the day it closes."""
    return (ts - 1) // DAY_MS


@dataclass(frozen=True, eq=False)
class Breakdown:
    """Every table of one run, each computed once and when asked for."""

    run: Run

    @cached_property
    def is_bar(self) -> Flags:
        """Which events are bars, shape (events,)."""
        flags: Flags = self.run.block["kind"] == Kind.BAR
        return flags

    @cached_property
    def fills(self) -> Records:
        """FILL outcomes by book, then in time."""
        return _by_book(self.run.of(Result.FILL))

    @cached_property
    def funding(self) -> Records:
        """FUNDING outcomes in time."""
        return self.run.of(Result.FUNDING)

    @cached_property
    def start_micros(self) -> int:
        """Equity before the first event."""
        return round(self.run.equity_start * MICROS_PER_UNIT)

    @cached_property
    def bars_by_instrument(self) -> Ints:
        """How many bars each instrument had."""
        places = self.run.block["instrument"][self.is_bar]
        return np.bincount(places, minlength=len(self.run.instruments)).astype(np.int64)

    @cached_property
    def bars_by_regime(self) -> Ints:
        """How many bars were spent in each regime, by its code."""
        codes = self.run.track["regime"][self.is_bar]
        return np.bincount(codes, minlength=len(Regime)).astype(np.int64)

    @cached_property
    def _instrument_of_book(self) -> Ints:
        names = self.run.instruments
        return np.array([names.index(book.instrument) for book in self.run.books], np.int64)

    @cached_property
    def trips(self) -> Records:
        """Every position from flat to flat, and those still open: ROUND_TRIP by book, in time."""
        fills = self.fills
        if len(fills) == 0:
            return np.zeros(0, ROUND_TRIP)
        ends = fills["position"] == 0.0
        ends[:-1] |= fills["book"][1:] != fills["book"][:-1]
        ends[-1] = True
        last = np.flatnonzero(ends)
        first = np.append(0, last[:-1] + 1)
        trips = np.zeros(len(last), ROUND_TRIP)
        trips["book"], trips["regime"] = fills["book"][first], fills["regime"][first]
        trips["opened_ts"] = fills["ts"][first]
        trips["decision"] = fills["decision"][first]
        trips["decision_exit"] = fills["decision"][last]
        paid = paid_micros(fills)
        for name, source in (
            ("realised_micros", fills["amount_micros"]),
            ("fees_micros", fills["fee_micros"]),
            ("spread_micros", fills["spread_micros"]),
            ("slippage_micros", fills["slippage_micros"]),
            ("turnover_micros", np.abs(paid)),
        ):
            trips[name] = np.add.reduceat(source, first)
        closed = fills["position"][last] == 0.0
        self._end_closed(trips, closed)
        cost = np.add.reduceat(paid, first) + trips["realised_micros"]
        for k in np.flatnonzero(~closed).tolist():
            self._value_open(trips, k, fills[last[k]], int(cost[k]))
        return trips

    def _end_closed(self, trips: Records, closed: Flags) -> None:
        """Take over what the TRADE outcomes say; funding is what they lack of their fills."""
        trades = _by_book(self.run.trades)
        assert len(trades) == closed.sum(), "a TRADE for every position that came back to flat"
        before_funding = trips["realised_micros"][closed] - trips["fees_micros"][closed]
        trips["funding_micros"][closed] = before_funding - trades["amount_micros"]
        for name, source in (
            ("exit", "exit"),
            ("closed_ts", "ts"),
            ("bars_held", "target"),
            ("quantity", "quantity"),
            ("entry", "entry"),
            ("price", "price"),
        ):
            trips[name][closed] = trades[source]

    def _value_open(self, trips: Records, k: int, fill: Any, cost_micros: int) -> None:
        """Mark an open position where the ledger did last: at a bar's close, or a later fill."""
        trip, b = trips[k], int(fill["book"])
        at = self._last_bar(int(self._instrument_of_book[b]))
        price = float(fill["price"] if at + 1 < fill["seq"] else self.run.block["close"][at])
        quantity = float(fill["position"])
        value = math.floor(quantity * price * MICROS_PER_UNIT + 0.5)
        paid = int(self.funding["amount_micros"][self.funding["book"] == b].sum())
        earlier = (trips["book"] == b) & (trips["closed_ts"] > 0)
        trip["exit"] = STILL_OPEN
        trip["quantity"], trip["price"] = quantity, price
        trip["entry"] = cost_micros / MICROS_PER_UNIT / quantity
        trip["unrealised_micros"] = value - cost_micros
        trip["funding_micros"] = paid - trips["funding_micros"][earlier].sum()

    def _last_bar(self, instrument: int) -> int:
        """Place in the block of an instrument's last bar, -1 for none. Most stand near the end."""
        block, length, reach = self.run.block, len(self.run.block), 1024
        while True:
            start = max(length - reach, 0)
            mine = self.is_bar[start:] & (block["instrument"][start:] == instrument)
            if mine.any():
                return start + int(np.flatnonzero(mine)[-1])
            if start == 0:
                return -1
            reach *= 8

    @cached_property
    def totals(self) -> Row:
        """The whole run as one row, from outcomes and equity, not from round trips."""
        fills, earned = self.fills, self.run.trades["amount_micros"]
        equity = self.run.track["equity_micros"]
        net = int(equity[-1]) - self.start_micros if len(equity) else 0
        realised, fees = int(fills["amount_micros"].sum()), int(fills["fee_micros"].sum())
        funding = int(self.funding["amount_micros"].sum())
        return Row(
            name="total",
            bars=int(self.is_bar.sum()),
            trades=len(earned),
            wins=int((earned > 0).sum()),
            won_micros=int(earned.clip(min=0).sum()),
            lost_micros=-int(earned.clip(max=0).sum()),
            realised_micros=realised,
            unrealised_micros=net - realised + fees + funding,
            fees_micros=fees,
            funding_micros=funding,
            spread_micros=int(fills["spread_micros"].sum()),
            slippage_micros=int(fills["slippage_micros"].sum()),
            turnover_micros=int(np.abs(paid_micros(fills)).sum()),
        )

    @cached_property
    def by_book(self) -> list[Row]:
        """One row a book; its bars are those of its instrument."""
        names = [book.name for book in self.run.books]
        bars = self.bars_by_instrument[self._instrument_of_book]
        return _grouped(self.trips, self.trips["book"], names, bars)

    @cached_property
    def by_instrument(self) -> list[Row]:
        """One row an instrument, traded or not."""
        keys = self._instrument_of_book[self.trips["book"]]
        return _grouped(self.trips, keys, self.run.instruments, self.bars_by_instrument)

    @cached_property
    def by_strategy(self) -> list[Row]:
        """One row a strategy; a bar counts once for every book it was shown to."""
        told = [book.strategy for book in self.run.books]
        names = list(dict.fromkeys(told))
        places = np.array([names.index(name) for name in told], np.int64)
        bars = _added(self.bars_by_instrument[self._instrument_of_book], places, len(names))
        return _grouped(self.trips, places[self.trips["book"]], names, bars)

    @cached_property
    def by_regime(self) -> list[Row]:
        """One row a regime: the bars spent in it, and the round trips entered in it."""
        names = [regime.name.lower() for regime in Regime]
        rows = _grouped(self.trips, self.trips["regime"], names, self.bars_by_regime)
        return [row for row in rows if row.bars or row.turnover_micros]

    @cached_property
    def by_exit(self) -> list[Row]:
        """One row an exit reason that occurred; the last may be what is still open."""
        names = [*(reason.name.lower() for reason in ExitReason), "still_open"]
        exits = self.trips["exit"]
        keys = np.where(exits == STILL_OPEN, len(ExitReason), exits)
        return [row for row in _grouped(self.trips, keys, names) if row.turnover_micros]

    @cached_property
    def by_day(self) -> list[Row]:
        """One row a UTC day with events: trades by their exit, money by when it moved."""
        known = self.run.block["ts_known"]
        if len(known) == 0:
            return []
        day = day_of(known)
        ends = np.flatnonzero(np.append(day[1:] != day[:-1], True))
        days = day[ends]
        sums = self._moved(days)
        net = np.diff(self.run.track["equity_micros"][ends], prepend=self.start_micros)
        paid = sums["fees_micros"] + sums["funding_micros"]
        sums["unrealised_micros"] = net - sums["realised_micros"] + paid
        bars = np.append(0, np.cumsum(self.is_bar)[ends])
        sums["bars"] = np.diff(bars)
        return _rows(np.datetime_as_string(days.astype("datetime64[D]")).tolist(), sums)

    def _moved(self, days: Ints) -> dict[str, Ints]:
        """What fills, funding and finished trades moved on each of these days."""
        fills, trades = self.fills, self.run.trades
        earned = trades["amount_micros"]

        def daily(of: Records, values: Any) -> Ints:
            return _added(values, np.searchsorted(days, day_of(of["ts"])), len(days))

        return {
            "trades": daily(trades, 1),
            "wins": daily(trades, earned > 0),
            "won_micros": daily(trades, earned.clip(min=0)),
            "lost_micros": daily(trades, -earned.clip(max=0)),
            "realised_micros": daily(fills, fills["amount_micros"]),
            "fees_micros": daily(fills, fills["fee_micros"]),
            "spread_micros": daily(fills, fills["spread_micros"]),
            "slippage_micros": daily(fills, fills["slippage_micros"]),
            "turnover_micros": daily(fills, np.abs(paid_micros(fills))),
            "funding_micros": daily(self.funding, self.funding["amount_micros"]),
        }

    @cached_property
    def by_month(self) -> list[Row]:
        """One row a UTC month with events."""
        months: dict[str, list[Row]] = {}
        for row in self.by_day:
            months.setdefault(row.name[:7], []).append(row)
        return [joined(name, rows) for name, rows in months.items()]

    @cached_property
    def costs(self) -> list[Cost]:
        """Fees, spread, slippage and funding; they sum to gross less net."""
        traded = self.totals.turnover_micros

        def cost(name: str) -> Cost:
            paid = getattr(self.totals, f"{name}_micros")
            return Cost(name, paid, paid / traded * 1e4 if traded else None)

        return [cost(name) for name in ("fees", "spread", "slippage", "funding")]
