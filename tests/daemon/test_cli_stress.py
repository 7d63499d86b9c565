"""``lockstep stress``: harder worlds of a kept run, its luck, and errors of one line."""

import json
from pathlib import Path

import pytest
from allocation_world import DATA, HOURLY, TREND, make_run
from cli_calls import desk, refuse, shop, succeed

from backtest.shards import Shard

__all__ = ["desk", "shop"]


def test_worlds_are_replays_and_luck_is_exact_by_seed(desk: Path) -> None:
    run = make_run(desk)
    told = succeed("stress", run[:6], "--json", "--paths", 300, "--report", "s.html").json
    worlds = told["worlds"]
    assert list(worlds) == ["as it was", "costs x2", "costs x3", "one bar late", "fills missed"]
    assert worlds["as it was"]["decisions_hash"] == told["decisions_hash"]
    returns = [worlds[name]["return"] for name in ("as it was", "costs x2", "costs x3")]
    assert returns == sorted(returns, reverse=True)
    double = ("instrument.fee_rate=0.001", "instrument.half_spread_bps=2")
    sets = [f"--set={text}" for text in (*double, "instrument.slippage_bps=4")]
    sets.append("--set=instrument.fee_rate_maker=0.0004")
    direct = succeed("replay", *TREND, *DATA, *HOURLY, *sets, "--json").json
    assert direct["decisions_hash"] == worlds["costs x2"]["decisions_hash"]
    again = succeed("stress", run, "--json", "--paths", 300).json
    assert {**again, "report": "s.html"} == told
    other = succeed("stress", run, "--json", "--paths", 300, "--seed", 1).json
    assert other["luck"] != told["luck"]
    low, middle, high = told["trade_order_drawdown"]
    assert 0 < low <= middle <= high < 1
    page = Path("s.html").read_text("utf-8")
    for name in ("worlds", "fan", "falls"):
        assert f'data-chart="{name}-chart"' in page


def test_a_table_fits_eighty_columns(desk: Path) -> None:
    make_run(desk)
    out = succeed("stress", "--paths", 200).out
    assert max(map(len, out.splitlines())) <= 80
    assert "with 95 % confidence below 1.50%" in out
    assert "standard error" in succeed("stress", "--paths", 200, "--ruin-at", 0.97).out


def test_what_cannot_be_stressed_is_one_line(desk: Path, shop: Path) -> None:
    assert "holds no run yet" in refuse(2, "stress")
    run = make_run(desk)
    assert "between 0 and 1" in refuse(2, "stress", "--ruin-at", 1.5)
    assert "unknown run" in refuse(2, "stress", "zzz")
    manifest = desk / "runs" / run / "manifest.json"
    kept = json.loads(manifest.read_text("utf-8"))
    kept["setup"]["books"][0]["params"]["fast"] = 13
    manifest.write_text(json.dumps(kept))
    assert "is not what this code makes of its events" in refuse(3, "stress", run)
    succeed("replay", "--strategy", "trend", "--data", shop / "SOL-PERP.feather", "--json")
    assert "luck is drawn from 10 days" in refuse(3, "stress")


def test_a_run_of_rules_needs_the_flags_that_named_them(desk: Path) -> None:
    make_run(desk)
    rules = ("--rules", "default")
    succeed("replay", *rules, *DATA, "--set", "limits.data_age_ms_max=0", "--json")
    assert "unknown strategy" in refuse(2, "stress")
    told = succeed("stress", *rules, "--json", "--paths", 100).json
    assert len(told["worlds"]) == 5


def test_a_worker_with_another_run_code_or_age_refuses(desk: Path) -> None:
    from daemon.commands.choices import Choices
    from daemon.commands.offering import Unfit, shard_of, typed
    from daemon.commands.stressing import open_kept, work
    from daemon.commands.worker import _result
    from daemon.journal import open_journal
    from daemon.journal.trials import trial_ledger

    kept = open_kept(Choices(), make_run(desk))
    told = {"choices": typed(Choices()), "run": kept.run.run_id, "key": kept.key, "seed": 0}

    def shard(kind: str = "world", **other: object) -> Shard:
        return shard_of("stress", 0, kind, {**told, "world": "as it was", **other})

    assert work(shard())["decisions_hash"] == kept.run.decisions_hash
    with pytest.raises(Unfit, match="other code, settings or data"):
        work(shard(key="of another"))
    with pytest.raises(Unfit, match="cannot read the run that is stressed: unknown run"):
        work(shard(run="of another"))
    database = open_journal("sqlite:///journal.sqlite")
    with pytest.raises(Unfit, match="knows no 'forecast'"):
        _result(shard("forecast"), trial_ledger(database), 1)
    database.dispose()


def test_every_chart_is_valid(desk: Path) -> None:
    from plotly.graph_objects import Figure

    from backtest.report.monte_carlo import drawdown_histogram, growth_lines
    from backtest.run import load
    from backtest.stress import drawn, lot_of, luck_of, world_of

    run = load(desk / "runs", make_run(desk))
    lot = lot_of(run)
    luck = luck_of(lot, [drawn(lot, seed=1, paths=range(200))], ruin_at=0.5)
    falls = drawdown_histogram(luck, 0.1)
    for trace in falls["data"]:
        assert sum(trace["y"]) == pytest.approx(1.0)
    for spec in (falls, growth_lines({"as it was": world_of(run)})):
        Figure(spec)
