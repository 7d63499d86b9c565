"""``lockstep portfolio``: how much of the account each book of a run should use, from its past."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import UnknownName
from daemon.commands.options import Json, Runs, taking

if TYPE_CHECKING:
    from backtest.portfolio.books import Books
    from backtest.portfolio.walk import Walk
    from backtest.portfolio.weights import Terms

EPILOG = (
    "Example: lockstep portfolio latest --method hrp --write weights.toml\n\n"
    "Then: lockstep replay --config weights.toml --data SOL-PERP=FILE ...\n\n"
    "Weights are shares of the account; what is not given to a book stays cash. Each is computed "
    "from the daily returns before it. Several runs: their books, over the days they share.\n\n"
    "A weight is no limit. The gate's strategy_notional_max, instrument_notional_max, "
    "cluster_risk_max, gross_notional_max and leverage_max hold at every order whatever the "
    "weights; --correlation-max only makes smaller what is asked of it, and as seldom as the "
    "weights change."
)
METHODS = ("equal", "inverse-volatility", "volatility-target", "kelly", "hrp")
_FIGURES = (
    ("return", "return", "+.2%"),
    ("volatility a year", "volatility", ".2%"),
    ("Sharpe", "sharpe", ".2f"),
    ("max drawdown", "max_drawdown", ".2%"),
    ("weight moved a year", "turnover", ".2f"),
    ("costs of moving it", "costs", ".3%"),
    ("mean sum of weights", "gross", ".3f"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """The flags that say how weights come about."""

    method: Annotated[
        str, typer.Option(metavar="NAME", help=f"How weights come about: {', '.join(METHODS)}.")
    ] = "hrp"
    lookback: Annotated[int, typer.Option(metavar="DAYS", help="Days that are read.")] = 60
    every: Annotated[int, typer.Option(metavar="DAYS", help="Days between looks.")] = 7
    buffer: Annotated[
        float, typer.Option(metavar="W", help="Change of a weight worth moving for.")
    ] = 0.02
    cost_bps: Annotated[
        float, typer.Option(metavar="BPS", help="Cost of each unit of weight moved.")
    ] = 10.0
    gross_max: Annotated[
        float, typer.Option(metavar="SUM", help="Most that all weights may add up to.")
    ] = 1.0
    volatility: Annotated[
        float, typer.Option(metavar="V", help="Annual target of volatility-target.")
    ] = 0.2
    kelly_share: Annotated[float, typer.Option(metavar="SHARE", help="Share of the Kelly bet.")] = (
        0.25
    )
    correlation_max: Annotated[
        float, typer.Option(metavar="R", help="Books beyond it are scaled down together; 1: off.")
    ] = 1.0

    @property
    def terms(self) -> "Terms":
        """The same as the allocation takes them."""
        from backtest.portfolio.weights import Method, Terms

        if self.method not in METHODS:
            raise UnknownName("method", self.method, METHODS)
        return Terms(
            method=Method(self.method),
            lookback_days=self.lookback,
            every_days=self.every,
            buffer=self.buffer,
            cost_bps=self.cost_bps,
            gross_max=self.gross_max,
            volatility=self.volatility,
            kelly_share=self.kelly_share,
            correlation_max=self.correlation_max,
        )


@taking(Allocation)
def portfolio(
    allocation: Allocation,
    run: Annotated[
        list[str] | None, typer.Argument(metavar="RUN...", help="Runs, by id or 'latest'.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="A profile with sizes by weight.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Weights and equity as a page.")
    ] = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Allocate over the books of runs, against equal weights."""
    from backtest.portfolio.books import books_of
    from backtest.portfolio.walk import equal_walk, walk
    from daemon.commands.choices import Choices, read_settings
    from daemon.commands.kept import open_run
    from daemon.commands.setups import runs_folder
    from daemon.console import write_json

    terms = allocation.terms
    folder = runs_folder(read_settings(Choices(runs=runs)))
    opened = [open_run(folder, name) for name in run or ["latest"]]
    books = books_of(opened)
    found, even = walk(books.returns, terms), equal_walk(books.returns, terms)
    told = _plain(books, terms, found, even)
    if write is not None:
        from daemon.commands.weighted import write_profile

        told["profile"] = str(write_profile(write, opened, books, found))
    if report is not None:
        from backtest.report.portfolio import write_portfolio

        told["report"] = str(write_portfolio(report, books, terms, found, even))
    if json:
        write_json(told)
    else:
        _tell(told)


def _plain(books: "Books", terms: "Terms", found: "Walk", even: "Walk") -> dict[str, Any]:
    from dataclasses import asdict

    from backtest.breakdown import DAY_MS
    from backtest.portfolio.walk import CAVEATS, figures
    from backtest.portfolio.weights import correlation
    from markets.history import utc

    last = books.returns[-terms.lookback_days :]
    nearest = correlation(last)
    for place in range(len(nearest)):
        nearest[place, place] = -1.0
    deviation = last.std(axis=0, ddof=1)
    known_ms = (books.first_day + int(found.known_days[-1])) * DAY_MS
    return {
        "terms": asdict(terms),
        "books": [
            {
                "name": name,
                "weight": float(found.weights[-1, b]),
                "factor": float(found.weights[-1, b] * books.sharing[b]),
                "volatility": float(deviation[b]) * 365**0.5,
                "correlation_most": float(nearest[b].max()) if len(nearest) > 1 else None,
            }
            for b, name in enumerate(books.names)
        ],
        "cash": 1.0 - float(found.weights[-1].sum()),
        "known": utc(known_ms),
        "allocated": figures(found),
        "equal": figures(even),
        "caveats": list(CAVEATS),
    }


def _tell(told: dict[str, Any]) -> None:
    from daemon.console import write, write_note, write_table

    terms, allocated, even = told["terms"], told["allocated"], told["equal"]
    write(f"{terms['method']} over {len(told['books'])} books, known {told['known'][:16]} UTC")
    write()
    columns = ("book", "weight", "size x", "volatility", "nearest")
    write_table(columns, [_row(book) for book in told["books"]], wraps=["book"])
    write(f"cash: {told['cash']:.3f} of the account")
    write()
    rows = [(name, _told(allocated[k], f), _told(even[k], f)) for name, k, f in _FIGURES]
    write_table((f"{allocated['days']:,} days", terms["method"], "equal weight"), rows)
    write()
    for caveat in told["caveats"]:
        write_note(caveat)
    for name in ("profile", "report"):
        if name in told:
            write(f"{name}: {told[name]}")


def _row(book: dict[str, Any]) -> tuple[str, ...]:
    return (
        book["name"],
        f"{book['weight']:.3f}",
        f"{book['factor']:.3f}",
        f"{book['volatility']:.1%}",
        _told(book["correlation_most"], ".2f"),
    )


def _told(value: float | None, form: str) -> str:
    return "none" if value is None else format(value, form)
