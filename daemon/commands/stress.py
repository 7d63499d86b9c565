"""``lockstep stress``: a kept run in harder worlds, and what other luck would have made of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import ConfigError, DataError
from daemon.commands.options import Config, Json, Profile, Rules, Runs

if TYPE_CHECKING:
    from backtest.run import Run
    from backtest.stress import Luck

EPILOG = (
    "Example: lockstep stress latest --report stress.html\n\n"
    "Worlds are real replays of the run's own events: costs times two and three, every bar one bar "
    "late, a tenth of the bars without fills, funding reversed. Luck draws the run's days again "
    "(stationary bootstrap), and its trades in other orders. A run of your own rules or plugins "
    "needs the flags or the profile that named them."
)
RUIN = "Drawn from the run's own days: a disaster it never met is in none of the paths."


def stress(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's id, the start of it, or 'latest'.")
    ] = "latest",
    paths: Annotated[int, typer.Option(metavar="N", min=100, help="Histories to draw.")] = 2_000,
    ruin_at: Annotated[
        float, typer.Option(metavar="SHARE", help="Ruin: the account falls to this share.")
    ] = 0.5,
    seed: Annotated[int, typer.Option(metavar="N", help="Of all that is drawn.")] = 0,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="The same as a page with charts.")
    ] = None,
    rules: Rules = None,
    profile: Profile = None,
    config: Config = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Replay a run in harder worlds, and draw its luck again."""
    from backtest.stress import luck_of
    from daemon.commands.choices import Choices, read_settings
    from daemon.commands.kept import open_run
    from daemon.commands.setups import runs_folder
    from daemon.console import write_json

    if not 0 < ruin_at < 1:
        raise ConfigError(f"--ruin-at {ruin_at:g}: a share of the start between 0 and 1")
    choices = Choices(profile=profile, config=config, rules=rules or (), runs=runs)
    resolved = read_settings(choices)
    kept = open_run(runs_folder(resolved), run)
    luck = luck_of(kept, paths=paths, ruin_at=ruin_at, seed=seed)
    worlds = _worlds(kept, resolved, seed, quiet=json)
    told = _plain(kept, worlds, luck)
    if report is not None:
        from backtest.report.monte_carlo import write_stress

        told["report"] = str(write_stress(report, kept, worlds, luck))
    if json:
        write_json(told)
    else:
        _tell(told)


def _worlds(kept: "Run", resolved: Any, seed: int, *, quiet: bool) -> "dict[str, Run]":
    """The run as it was, proven to be so, and in each harder world."""
    from backtest.recorded import replay_recorded
    from backtest.stress import stressed_runs
    from daemon.commands.audit import finder
    from daemon.console import making

    find = finder(resolved)
    with making(6 * len(kept.block), quiet=quiet) as progress:
        again = replay_recorded(kept.setup, kept.block, find)
        if again.decisions_hash != kept.decisions_hash:
            raise DataError(
                f"run {kept.run_id} is not what this code makes of its events: replay it again"
            )
        found = {"as it was": kept}
        for name, other in stressed_runs(kept.setup, kept.block, find, seed=seed):
            progress(len(kept.block))
            found[name] = other
    return found


def _plain(kept: "Run", worlds: "dict[str, Run]", luck: "Luck") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "run_id": kept.run_id,
        "decisions_hash": kept.decisions_hash,
        "worlds": {name: _figures(run) for name, run in worlds.items()},
        "days": len(luck.growth[0]) - 1,
        "block_days": luck.block,
        "luck": asdict(luck.outlook),
        "trade_order_drawdown": luck.order,
        "caveats": [RUIN],
    }


def _figures(run: "Run") -> dict[str, Any]:
    from backtest.statistics import daily_returns, halted_at, max_drawdown, sharpe

    return {
        "trades": len(run.trades),
        "return": float(run.equity[-1]) / run.equity_start - 1.0,
        "sharpe": sharpe(daily_returns(run)),
        "max_drawdown": max_drawdown(run),
        "halted": halted_at(run) is not None,
        "decisions_hash": run.decisions_hash,
    }


def _tell(told: dict[str, Any]) -> None:
    from daemon.console import write, write_note, write_table

    write(f"run {told['run_id']}: {told['days']:,} days, {len(told['worlds']) - 1} harder worlds")
    write()
    rows = [(name, *_shown(each)) for name, each in told["worlds"].items()]
    write_table(("world", "trades", "return", "Sharpe", "drawdown", "halted"), rows)
    write()
    luck, order = told["luck"], told["trade_order_drawdown"]
    write(f"{luck['paths']:,} histories drawn again, blocks of {told['block_days']:.1f} days")
    quantiles = [
        ("return", [value - 1.0 for value in luck["growth"]]),
        ("drawdown", luck["drawdown"]),
        *([("drawdown, trades in another order", order)] if order else []),
    ]
    told_rows = [(name, *(f"{value:.2%}" for value in each)) for name, each in quantiles]
    write_table(("", "5 %", "median", "95 %"), told_rows)
    write()
    write(f"ends below its start: {luck['loss']:.1%} of the histories")
    write(f"falls to {luck['ruin_at']:.0%} of its start: {_ruin(luck)}")
    write()
    for caveat in told["caveats"]:
        write_note(caveat)
    if "report" in told:
        write(f"report: {told['report']}")


def _ruin(luck: dict[str, Any]) -> str:
    """The share with its error; of none, what it may still be."""
    if luck["ruin"] > 0:
        return f"{luck['ruin']:.2%} of them (standard error {luck['ruin_error']:.2%})"
    return f"none of them (with 95 % confidence below {3 / luck['paths']:.2%})"


def _shown(each: dict[str, Any]) -> tuple[str, ...]:
    ratio = "none" if each["sharpe"] is None else f"{each['sharpe']:.2f}"
    drawdown = f"{each['max_drawdown']:.2%}"
    halted = "yes" if each["halted"] else "no"
    return f"{each['trades']:,}", f"{each['return']:+.2%}", ratio, drawdown, halted
