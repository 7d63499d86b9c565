"""``lockstep stress``: a kept run in harder worlds, and what other luck would have made of it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.errors import ConfigError
from daemon.commands.journals import Url
from daemon.commands.options import Config, Json, Page, Profile, Rules, Runs, Seed, Shard

if TYPE_CHECKING:
    from backtest.stress import Luck, World
    from daemon.commands.stressing import Kept, Wished

EPILOG = (
    "Example: lockstep stress latest --report stress.html\n\n"
    "Worlds are real replays of the run's own events: costs times two and three, every bar one bar "
    "late, a tenth of the bars without fills, funding reversed. Luck draws the run's days again "
    "(stationary bootstrap), and its trades in other orders. A run of your own rules or plugins "
    "needs the flags or the profile that named them. With --shards, workers that find the same run "
    "do it, with the same result."
)
RUIN = "Drawn from the run's own days: a disaster it never met is in none of the paths."


def stress(  # noqa: PLR0913, PLR0917 - one a flag
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's id, the start of it, or 'latest'.")
    ] = "latest",
    paths: Annotated[int, typer.Option(metavar="N", min=100, help="Histories to draw.")] = 2_000,
    ruin_at: Annotated[
        float, typer.Option(metavar="SHARE", help="Ruin: the account falls to this share.")
    ] = 0.5,
    seed: Seed = 0,
    report: Page = None,
    shards: Shard = False,
    journal: Url = None,
    rules: Rules = None,
    profile: Profile = None,
    config: Config = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Replay a run in harder worlds, and draw its luck again."""
    from daemon.commands.choices import Choices
    from daemon.commands.stressing import Wished, open_kept
    from daemon.console import write_json

    if not 0 < ruin_at < 1:
        raise ConfigError(f"--ruin-at {ruin_at:g}: a share of the start between 0 and 1")
    choices = Choices(profile=profile, config=config, rules=rules or (), runs=runs)
    kept, wished = open_kept(choices, run), Wished(paths=paths, seed=seed, ruin_at=ruin_at)
    url = (journal or kept.journal) if shards else None
    worlds, luck = _stressed(kept, wished, url, quiet=json)
    told = _plain(kept, worlds, luck)
    if report is not None:
        from backtest.report.monte_carlo import write_stress

        told["report"] = str(write_stress(report, kept.run, worlds, luck))
    if json:
        write_json(told)
    else:
        _tell(told)


def _stressed(
    kept: "Kept", wished: "Wished", url: str | None, *, quiet: bool
) -> "tuple[dict[str, World], Luck]":
    """Done here, or by the workers of the journal at ``url``."""
    from daemon.commands.offering import board_at
    from daemon.commands.stressing import stress_here, stress_there
    from daemon.console import making

    with making(len(kept.worlds) * len(kept.run.block), quiet=quiet) as progress:
        if url is None:
            return stress_here(kept, wished, progress)
        with board_at(url) as board:
            return stress_there(kept, wished, board, progress)


def _plain(kept: "Kept", worlds: "dict[str, World]", luck: "Luck") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "run_id": kept.run.run_id,
        "decisions_hash": kept.run.decisions_hash,
        "worlds": {name: _figures(world) for name, world in worlds.items()},
        "days": len(luck.growth[0]) - 1,
        "block_days": luck.block,
        "luck": asdict(luck.outlook),
        "trade_order_drawdown": luck.order,
        "caveats": [RUIN],
    }


def _figures(world: "World") -> dict[str, Any]:
    return {
        "trades": world.trades,
        "return": world.gained,
        "sharpe": world.sharpe,
        "max_drawdown": world.max_drawdown,
        "halted": world.halted_ms is not None,
        "decisions_hash": world.decisions_hash,
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
