"""``lockstep demo``: everything once, on data that are made up here, without a key or a network."""

from typing import Annotated

import typer

from daemon.commands.options import Json, Runs, Sets

EPILOG = "Example: lockstep demo --set trend.fast=30"


def demo(
    seed: Annotated[int, typer.Option(metavar="N", help="Another seed, another market.")] = 7,
    bars: Annotated[
        int, typer.Option(metavar="N", min=1_000, help="One-minute bars an instrument.")
    ] = 20_000,
    set_: Sets = None,
    runs: Runs = None,
    json: Json = False,
) -> None:
    """Run everything once on made-up markets; needs no data."""
    from backtest.report import sparkline
    from daemon.commands.choices import Choices, read_settings
    from daemon.commands.kept import keep
    from daemon.commands.reports import write_chart, write_html
    from daemon.commands.running import Wishes, run_plan
    from daemon.commands.setups import plan_run, runs_folder
    from daemon.commands.shelf import open_shelf
    from daemon.commands.summary import summarise, write_summary
    from daemon.console import write, write_json
    from markets.synthetic import sample

    resolved = read_settings(Choices(profile="demo", runs=runs, sets=set_ or ()))
    plan = plan_run(resolved, open_shelf(resolved), given=sample(seed=seed, bars=bars))
    run = run_plan(plan, Wishes(seed=seed, json=json))
    folder = keep(run, runs_folder(resolved))
    page = write_html(run, folder / "report.html")
    chart = write_chart(run, folder / "equity.png")
    result = {**summarise(run, folder), "report": str(page), "chart": str(chart)}
    if json:
        write_json(result)
        return
    write_summary(run, result)
    write()
    write(f"equity {sparkline(run)}")
    write(f"report {page}")
    write(f"chart  {chart}")
