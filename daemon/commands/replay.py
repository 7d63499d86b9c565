"""``lockstep replay``: the loop over recorded events, at full speed."""

from typing import Annotated

import typer

from daemon.commands.options import Flags, Json, Record, Timerange, taking

EPILOG = (
    "Example: lockstep replay --strategy trend --data SOL-PERP.feather --set fast=10\n\n"
    "--set keys: fast=10 (parameter), trend.fast=10, trend.limits.cooldown_ms=60000, "
    "account.equity=5000, sizing.value=0.2, limits.leverage_max=2, instrument.fee_rate=0.001, "
    "SOL-PERP.tick=0.01. Show all of them: lockstep show-config"
)


@taking(Flags)
def replay(  # noqa: PLR0913, PLR0917 - one a flag
    flags: Flags,
    timerange: Timerange = None,
    report: Annotated[
        str | None, typer.Option(metavar="FILE", help="HTML report; 'auto' puts it with the run.")
    ] = None,
    to_journal: Annotated[
        bool, typer.Option("--to-journal", help="Also write everything to the journal.")
    ] = False,
    journal: Annotated[
        str | None, typer.Option(metavar="URL", help="To this journal (default: paths.journal).")
    ] = None,
    block: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Events a block; any N gives the same run."),
    ] = None,
    every_decision: Annotated[
        bool, typer.Option("--every-decision", help="Keep a row for each, not for each change.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Seed of the data, if generated.")
    ] = None,
    record: Record = False,
    masked: Annotated[
        bool,
        typer.Option("--masked", help="Also with ticker, dates, price hidden from models."),
    ] = False,
    json: Json = False,
) -> None:
    """Replay strategies over recorded data (alias: backtest)."""
    from daemon.commands.choices import read_settings
    from daemon.commands.names import parse_timerange
    from daemon.commands.running import Wishes, run_and_tell
    from daemon.commands.setups import plan_run
    from daemon.commands.shelf import open_shelf

    resolved = read_settings(flags.choices)
    span = parse_timerange(timerange) if timerange else (None, None)
    plan = plan_run(resolved, open_shelf(resolved), span)
    url = (journal or resolved.settings.paths.journal) if to_journal or journal else None
    wishes = Wishes(
        report=report,
        journal=url,
        block=block,
        every_decision=every_decision,
        seed=seed,
        json=json,
        calls=record,
        masked=masked,
    )
    run_and_tell(plan, wishes)
