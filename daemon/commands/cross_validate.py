"""``lockstep cross-validate``: many paths through one history, each out of sample throughout."""

from typing import Annotated

import typer

from daemon.commands.journals import Url
from daemon.commands.options import HoldOut, Purge, SearchFlags, taking

EPILOG = (
    "Example: lockstep cross-validate --strategy trend --data SOL.feather --groups 6 "
    "--test-groups 2 --purge 1d --embargo 1d --set fast=5:50:5 --set slow=20:200:20 "
    "--report cross.html\n\n"
    "Ranges as for sweep. Every choice of test groups is traded with what is best over all other "
    "groups, by the daily returns of their pieces together; a group is warmed over the one before "
    "it, and starts and ends flat. 6 groups, 2 tested: 15 splits, 5 paths. Every fit's "
    "combinations are trials of the ledger, and so is the whole: --returns holds an account "
    "divided equally over the paths, for lockstep validate."
)


@taking(SearchFlags)
def cross_validate(
    flags: SearchFlags,
    groups: Annotated[int, typer.Option(metavar="N", min=2, help="Parts of history.")] = 6,
    test_groups: Annotated[
        int, typer.Option("--test-groups", metavar="K", min=1, help="Tested at a time.")
    ] = 2,
    purge: Purge = None,
    embargo: Annotated[
        str | None, typer.Option(metavar="1d", help="Left out after each test group.")
    ] = None,
    hold_out: HoldOut = None,
    journal: Url = None,
) -> None:
    """Fit on some parts of history, trade the others.

    Every choice of parts, stitched into many paths.
    """
    from backtest.cross_validation import Terms
    from daemon.commands.cross_validating import cross_validate_and_tell
    from daemon.commands.sweeping import Search
    from daemon.commands.walking import Wishes
    from markets.intervals import parse_interval

    terms = Terms(
        groups=groups,
        tests=test_groups,
        purge_ms=parse_interval(purge) if purge else 0,
        embargo_ms=parse_interval(embargo) if embargo else 0,
        metric=flags.metric,
        held_out=tuple(hold_out or ()),
    )
    search = Search(**flags.searched, journal=journal)
    wishes = Wishes(report=flags.report, returns=flags.returns, json=flags.json)
    cross_validate_and_tell(flags.choices, flags.timerange, terms, search, wishes)
