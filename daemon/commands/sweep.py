"""``lockstep sweep``: one strategy under many parameters, each row equal to what replay gives."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.commands.journals import Url
from daemon.commands.options import SearchFlags, taking

EPILOG = (
    "Example: lockstep sweep --strategy trend --data SOL.feather --set fast=5:50:5 "
    "--set slow=20:200:20\n\n"
    "Ranges: fast=5:50:5 (with a step), fast=5:50, fast=5,10,20. Without any, --sobol and "
    "--optuna search the ranges the strategy declares, but for what --set fixes.\n\n"
    "Every combination is a trial of the journal's ledger before it runs. Judge the best: "
    "lockstep sweep ... --returns r.npz && lockstep validate r.npz"
)


@taking(SearchFlags)
def sweep(
    flags: SearchFlags,
    optuna: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="N combinations that Optuna asks for.")
    ] = None,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="Rows to show.")] = 10,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the rows an interrupted sweep has.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.parquet", help="Every row, with daily equity.")
    ] = None,
    journal: Url = None,
) -> None:
    """Search the parameters of a strategy over recorded data."""
    from daemon.commands.sweeping import Search, sweep_and_tell

    search = Search(
        **flags.searched, optuna=optuna, top=top, resume=resume, out=out, journal=journal
    )
    sweep_and_tell(flags.choices, flags.timerange, search)
