"""``lockstep sweep``: one strategy under many parameters, each row equal to what replay gives."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.commands.options import (
    Config,
    Data,
    Instruments,
    Json,
    Profile,
    Resample,
    Rules,
    Runs,
    Sets,
    Strategies,
    Timerange,
)

EPILOG = (
    "Example: lockstep sweep --strategy trend --data SOL.feather --set fast=5:50:5 "
    "--set slow=20:200:20\n\n"
    "Ranges: fast=5:50:5 (with a step), fast=5:50, fast=5,10,20. Without any, --sobol and "
    "--optuna search the ranges the strategy declares, but for what --set fixes."
)


def sweep(  # noqa: PLR0913, PLR0917 - as many arguments as there are flags
    strategy: Strategies = None,
    data: Data = None,
    instrument: Instruments = None,
    rules: Rules = None,
    set_: Sets = None,
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
    timerange: Timerange = None,
    resample: Resample = None,
    profile: Profile = None,
    config: Config = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Search the parameters of a strategy over recorded data."""
    from daemon.commands.choices import Choices
    from daemon.commands.sweeping import Search, sweep_and_tell

    choices = Choices(
        profile=profile,
        config=config,
        strategies=strategy or (),
        rules=rules or (),
        data=data or (),
        instruments=instrument or (),
        resample=resample,
        runs=runs,
        sets=set_ or (),
    )
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
        json=json,
    )
    sweep_and_tell(choices, timerange, search)
