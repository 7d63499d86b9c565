"""``lockstep sweep``: one strategy under many parameters, each row equal to what replay gives."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.commands.journals import Url
from daemon.commands.options import Flags, Json, Shard, Timerange, taking

EPILOG = (
    "Example: lockstep sweep --strategy trend --data SOL.feather --set fast=5:50:5 "
    "--set slow=20:200:20\n\n"
    "Ranges: fast=5:50:5 (with a step), fast=5:50, fast=5,10,20. Without any, --sobol and "
    "--optuna search the ranges the strategy declares, but for what --set fixes.\n\n"
    "Every combination is a trial of the journal's ledger before it runs. Judge the best: "
    "lockstep sweep ... --returns r.npz && lockstep validate r.npz"
)


@taking(Flags)
def sweep(  # noqa: PLR0913, PLR0917 - one a flag
    flags: Flags,
    grid: Annotated[bool, typer.Option("--grid", help="Every combination of the ranges.")] = False,
    sobol: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="N combinations, evenly spread.")
    ] = None,
    optuna: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="N combinations that Optuna asks for.")
    ] = None,
    metric: Annotated[
        str, typer.Option(metavar="NAME", help="What rows are ranked by, and Optuna seeks.")
    ] = "sharpe",
    seed: Annotated[int, typer.Option(metavar="N", help="Of --sobol and --optuna.")] = 0,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="Rows to show.")] = 10,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Default: one a processor.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the rows an interrupted sweep has.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.parquet", help="Every row, with daily equity.")
    ] = None,
    returns: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="What 'lockstep validate' reads.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Heat maps, stability, overfitting.")
    ] = None,
    shards: Shard = False,
    journal: Url = None,
    timerange: Timerange = None,
    json: Json = False,
) -> None:
    """Search the parameters of a strategy over recorded data."""
    from daemon.commands.sweeping import Search, sweep_and_tell

    search = Search(
        grid=grid,
        sobol=sobol,
        optuna=optuna,
        metric=metric,
        seed=seed,
        top=top,
        threads=threads,
        resume=resume,
        out=out,
        returns=returns,
        report=report,
        journal=journal,
        shards=shards,
        json=json,
    )
    sweep_and_tell(flags.choices, timerange, search)
