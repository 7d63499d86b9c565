"""``lockstep walk-forward``: parameters chosen on the past, traded on what follows, one curve."""

from typing import Annotated

import typer

from daemon.commands.journals import Url
from daemon.commands.options import HoldOut, Purge, SearchFlags, taking

EPILOG = (
    "Example: lockstep walk-forward --strategy trend --data SOL.feather --train 60d --test 20d "
    "--set fast=5:50:5 --set slow=20:200:20 --report walk.html\n\n"
    "Ranges as for sweep. A window is replayed from where its training begins, so that features "
    "are warm, but trades only inside it; one bar before its end every book is closed. Every fit's "
    "combinations are trials of the ledger, and so is the walk: lockstep validate reads --returns."
)


@taking(SearchFlags)
def walk_forward(
    flags: SearchFlags,
    train: Annotated[str, typer.Option(metavar="60d", help="Length of what is fitted on.")] = "60d",
    test: Annotated[str, typer.Option(metavar="20d", help="Length of a window.")] = "20d",
    anchored: Annotated[
        bool, typer.Option("--anchored", help="Fit on everything since the beginning.")
    ] = False,
    purge: Purge = None,
    embargo: Annotated[
        str | None, typer.Option(metavar="1d", help="Left out before each window.")
    ] = None,
    hold_out: HoldOut = None,
    journal: Url = None,
) -> None:
    """Fit on the past, trade the next stretch, and again.

    The stretches make one curve out of sample.
    """
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
        metric=flags.metric,
        held_out=tuple(hold_out or ()),
    )
    search = Search(**flags.searched, journal=journal)
    wishes = Wishes(report=flags.report, returns=flags.returns, json=flags.json)
    walk_and_tell(flags.choices, flags.timerange, terms, search, wishes)
