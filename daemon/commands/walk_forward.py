"""``lockstep walk-forward``: parameters chosen on the past, traded on what follows, one curve."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.commands.journals import Url
from daemon.commands.options import Flags, Json, Shard, Timerange, taking

EPILOG = (
    "Example: lockstep walk-forward --strategy trend --data SOL.feather --train 60d --test 20d "
    "--set fast=5:50:5 --set slow=20:200:20 --report walk.html\n\n"
    "Ranges as for sweep. A window is replayed from where its training begins, so that features "
    "are warm, but trades only inside it; one bar before its end every book is closed. Every fit's "
    "combinations are trials of the ledger, and so is the walk: lockstep validate reads --returns."
)


@taking(Flags)
def walk_forward(  # noqa: PLR0913, PLR0917 - one a flag
    flags: Flags,
    train: Annotated[str, typer.Option(metavar="60d", help="Length of what is fitted on.")] = "60d",
    test: Annotated[str, typer.Option(metavar="20d", help="Length of a window.")] = "20d",
    anchored: Annotated[
        bool, typer.Option("--anchored", help="Fit on everything since the beginning.")
    ] = False,
    purge: Annotated[
        str | None, typer.Option(metavar="1d", help="How long an observation bears on the future.")
    ] = None,
    embargo: Annotated[
        str | None, typer.Option(metavar="1d", help="Left out before each window.")
    ] = None,
    hold_out: Annotated[
        list[str] | None,
        typer.Option("--hold-out", metavar="NAME", help="Trade this, fit on others. Repeatable."),
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Every combination of the ranges.")] = False,
    sobol: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="N combinations, evenly spread.")
    ] = None,
    metric: Annotated[
        str, typer.Option(metavar="NAME", help="What the best of a fit is best in.")
    ] = "sharpe",
    seed: Annotated[int, typer.Option(metavar="N", help="Of --sobol.")] = 0,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Default: one a processor.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The walk as an HTML page.")
    ] = None,
    returns: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="What 'lockstep validate' reads.")
    ] = None,
    shards: Shard = False,
    journal: Url = None,
    timerange: Timerange = None,
    json: Json = False,
) -> None:
    """Fit on the past, trade the next stretch, and again: one curve out of sample."""
    from backtest.walk_forward import Terms
    from daemon.commands.sweeping import Search
    from daemon.commands.walking import Wishes, walk_and_tell
    from markets.intervals import parse_interval

    terms = Terms(
        train_ms=parse_interval(train),
        test_ms=parse_interval(test),
        anchored=anchored,
        purge_ms=parse_interval(purge) if purge else 0,
        embargo_ms=parse_interval(embargo) if embargo else 0,
        metric=metric,
        held_out=tuple(hold_out or ()),
    )
    search = Search(
        grid=grid,
        sobol=sobol,
        metric=metric,
        seed=seed,
        threads=threads,
        journal=journal,
        shards=shards,
    )
    wishes = Wishes(report=report, returns=returns, json=json)
    walk_and_tell(flags.choices, timerange, terms, search, wishes)
