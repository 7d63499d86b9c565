"""The gate: each check blocking and passing, evidence held against the ledger, and its error rate.

The last is what the rest is for: of searches through nothing but noise, how many does it promote?
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, create_engine
from worlds import START, one_book

from backtest.statistics import returns_of
from backtest.sweep.sweep import Subject, Sweep
from backtest.validation.ledger import Ending, Fate, Ledger, LedgerBroken, Trial
from backtest.validation.returns import (
    TrialReturns,
    read_returns,
    returns_hash,
    write_returns,
)
from backtest.validation.sharpe import dsr, expected_maximum, sample_of, sharpes
from backtest.validation.verdict import (
    YEAR,
    Evidence,
    Thresholds,
    Verdict,
    gather,
    judge,
    trial_variance,
)
from core.errors import DataError, UnknownName
from core.model import MICROS_PER_UNIT
from markets.history import History, Quality, assemble, make_bars
from risk.limits import Sizing, SizingRule
from strategies.trend import TREND

DAILY = 0.01
QUICK = Thresholds(blocks=10, draws=200, worlds=("costs x2",))
COST = 0.0001
"""What a doubled cost takes from every day here."""


def noise(seed: int, days: int, trials: int, *, shared: float = 0.0) -> Any:
    """Fat-tailed daily returns without an edge, ``shared`` of their variance in common."""
    rng = np.random.default_rng([2026, seed])
    common, own = rng.standard_t(5, (days, 1)), rng.standard_t(5, (days, trials))
    mixed = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
    return mixed / np.sqrt(5 / 3) * DAILY


def planted(seed: int, days: int, trials: int, sharpe: float) -> Any:
    """The same with an annual Sharpe ratio on the first trial."""
    returns = noise(seed, days, trials)
    returns[:, 0] += sharpe / YEAR * DAILY
    return returns


def shown(returns: Any, candidate: int | None = None, trials: int | None = None) -> Evidence:
    best = int(sharpes(returns).argmax()) if candidate is None else candidate
    return Evidence(
        returns=returns,
        candidate=best,
        trials=trials or returns.shape[1],
        stressed={"costs x2": returns[:, best] - COST},
    )


def figures(verdict: Verdict) -> dict[str, tuple[float | None, bool | None]]:
    return {check.name: (check.value, check.passed) for check in verdict.checks}


JUDGED = {
    "in the ledger",
    "deflated Sharpe",
    "days of track",
    "years of history",
    "overfitting (PBO)",
    "superiority (SPA)",
    "named by StepM",
    "costs x2",
}


def test_a_real_edge_passes_every_check() -> None:
    verdict = judge(shown(planted(1, 1460, 40, 4.0)), QUICK)
    assert {check.name for check in verdict.judged} == JUDGED
    assert [check.name for check in verdict.judged if not check.passed] == []
    assert verdict.passed
    assert verdict == judge(shown(planted(1, 1460, 40, 4.0)), QUICK)


def test_a_loser_fails_every_check() -> None:
    returns = noise(3, 730, 40)
    worst = int(sharpes(returns).argmin())
    losing = returns.copy()
    losing[:, worst] -= DAILY / 3
    evidence = replace(
        shown(losing, worst),
        stressed={"costs x2": losing[:, worst] - COST},
        uncounted="nobody wrote it down",
    )
    verdict = judge(evidence, replace(QUICK, pbo_max=0.0))
    assert {check.name for check in verdict.judged} == JUDGED
    assert [check.name for check in verdict.judged if check.passed] == []
    assert not verdict.passed


def test_the_number_of_trials_is_the_ledgers_and_not_the_columns() -> None:
    returns = planted(1, 1460, 40, 3.0)
    few, many = (judge(shown(returns, trials=n), QUICK) for n in (40, 100_000))
    assert figures(few)["deflated Sharpe"][1]
    assert not figures(many)["deflated Sharpe"][1]
    assert not figures(many)["years of history"][1]


def test_what_could_not_be_measured_fails() -> None:
    unstressed = replace(shown(planted(1, 1460, 40, 4.0)), stressed={})
    assert figures(judge(unstressed, QUICK))["costs x2"] == (None, False)
    flat = np.zeros((730, 4))
    for name in ("deflated Sharpe", "superiority (SPA)"):
        assert figures(judge(shown(flat, 0), QUICK))[name] == (None, False)
    short = planted(1, 19, 4, 4.0)
    assert figures(judge(shown(short, 0), QUICK))["overfitting (PBO)"] == (None, False)
    lost = planted(1, 1460, 1, 4.0)
    assert figures(judge(shown(lost, trials=2), QUICK))["overfitting (PBO)"] == (None, False)


def test_a_single_trial_was_not_chosen_so_it_is_not_asked_about_choice() -> None:
    verdict = judge(shown(planted(1, 1460, 1, 4.0)), QUICK)
    assert figures(verdict)["overfitting (PBO)"] == (None, None)
    assert verdict.passed


@pytest.mark.parametrize("days_won", [1, 2, 400])
def test_one_lucky_day_or_a_steady_drip_is_judged_and_not_believed(days_won: int) -> None:
    """Returns of two values have no variance at some Sharpe ratios: no figure may break there."""
    returns = noise(4, 730, 25)
    returns[:, 3] = 0.0
    returns[100 : 100 + days_won, 3] = 0.05
    verdict = judge(shown(returns, 3), QUICK)
    assert all(np.isfinite(value) for value, _ in figures(verdict).values() if value is not None)
    assert not verdict.passed or days_won == 400


def test_a_good_trial_that_is_not_the_one_named_fails() -> None:
    verdict = judge(shown(planted(1, 1460, 40, 4.0), candidate=7), QUICK)
    told = figures(verdict)
    assert told["superiority (SPA)"][1]
    assert told["named by StepM"] == (0.0, False)
    assert not verdict.passed


def test_a_harder_world_that_loses_fails() -> None:
    evidence = shown(planted(1, 1460, 40, 4.0))
    harder = {"late": evidence.returns[:, evidence.candidate] - DAILY}
    more = replace(evidence, stressed={**evidence.stressed, **harder})
    asked = replace(QUICK, worlds=("costs x2", "late"))
    assert [check.name for check in judge(more, asked).judged if not check.passed] == ["late"]
    assert judge(more, QUICK).passed, "a world that was not asked for is told only"


@pytest.mark.parametrize(("first", "discovered"), [(1, True), (100_000, False)])
def test_online_a_discovery_depends_on_its_turn(first: int, discovered: bool) -> None:
    """LORD++ spends less on every trial that finds nothing: late ones need more."""
    returns = planted(1, 1460, 40, 3.0)
    turns = tuple(range(first, first + 40))
    verdict = judge(replace(shown(returns, trials=100_039), turns=turns), QUICK)
    for name in ("LORD++", "LOND"):
        value, passed = figures(verdict)[f"online FDR, {name}"]
        assert value is not None
        assert (value <= 1, passed) == (discovered, None)


def test_what_a_sharpe_ratio_is_worth_where_few_have_skill() -> None:
    short, long = (judge(shown(planted(1, days, 5, 2.0)), QUICK) for days in (365, 3650))
    for name in ("planned FDR", "observed FDR"):
        before, after = figures(short)[name][0], figures(long)[name][0]
        assert before is not None
        assert after is not None
        assert after < before
    assert figures(long)["power"][0] == pytest.approx(0.94, abs=0.02)
    assert figures(long)["days of track 2012"][0] < 3650  # type: ignore[operator]


def test_trials_alike_are_told_by_rank_and_by_clusters_and_the_gate_counts_all() -> None:
    returns = np.concatenate([noise(s, 730, 10, shared=0.8) for s in range(3)], axis=1)
    verdict = judge(shown(returns), QUICK)
    told = figures(verdict)
    assert told["effective trials, by clusters"] == (3.0, None)
    rank, _ = told["effective trials, by rank"]
    assert rank is not None
    assert 3 < rank < 15
    same = judge(replace(shown(returns), trials=90), QUICK)
    assert figures(same)["effective trials, by clusters"] == (3.0, None)
    assert figures(same)["deflated Sharpe"] != told["deflated Sharpe"]
    apart = figures(judge(shown(noise(1, 730, 10)), QUICK))
    assert apart["effective trials, by clusters"] == (None, None)


# --- evidence against the ledger ---------------------------------------------------------


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    yield engine
    engine.dispose()


def searched(engine: Engine, returns: Any, *, crashed: int = 2) -> tuple[Ledger, TrialReturns]:
    """A search of these returns, as a sweep leaves it: some trials crashed."""
    ledger = Ledger(engine.begin)
    count = returns.shape[1]
    names = [f"s-{k}" for k in range(count + crashed)]
    ledger.begin([_trial(name) for name in names], now_ms=0, lease_ms=10)
    kept = returns.astype(np.float32)
    endings = [
        Ending(trial=name, fate=Fate.RESULT, returns_hash=returns_hash(column))
        for name, column in zip(names, kept.T, strict=False)
    ]
    ledger.end(endings, now_ms=5)
    ledger.sweep_up(now_ms=100)
    found = TrialReturns(
        study="s",
        trials=tuple(names[:count]),
        days=np.arange(20_000, 20_000 + len(returns)),
        returns=kept,
        head=ledger.head(),
    )
    return ledger, found


def _trial(name: str) -> Trial:
    return Trial(id=name, study="s", params_hash=name, strategy_hash="x", data_hash="d", code="c")


def without(found: TrialReturns, k: int) -> TrialReturns:
    return replace(
        found,
        trials=found.trials[:k] + found.trials[k + 1 :],
        returns=np.delete(found.returns, k, axis=1),
    )


def test_the_evidence_counts_crashed_trials_and_takes_the_best(
    engine: Engine, tmp_path: Path
) -> None:
    ledger, found = searched(engine, planted(1, 400, 6, 4.0), crashed=3)
    write_returns(tmp_path / "r.npz", found)
    evidence = gather(read_returns(tmp_path / "r.npz"), ledger)
    assert (evidence.trials, evidence.name, evidence.candidate) == (9, "s-0", 0)
    assert evidence.turns == (1, 2, 3, 4, 5, 6)
    named = gather(found, ledger, candidate="s-4")
    assert (named.name, named.candidate) == ("s-4", 4)
    with pytest.raises(UnknownName, match="did you mean 's-5'"):
        gather(found, ledger, candidate="s-55")


def test_a_dropped_an_altered_and_an_unknown_trial_are_refused(engine: Engine) -> None:
    ledger, found = searched(engine, noise(1, 100, 5))
    with pytest.raises(LedgerBroken, match="lack trial s-3"):
        gather(without(found, 3), ledger)
    touched = found.returns.copy()
    touched[50, 2] += 0.001
    with pytest.raises(LedgerBroken, match="returns of trial s-2 are not those it ended with"):
        gather(replace(found, returns=touched), ledger)
    more = replace(
        found,
        trials=(*found.trials, "s-6"),
        returns=np.column_stack([found.returns, found.returns[:, 0]]),
    )
    with pytest.raises(LedgerBroken, match="knows no result of trial s-6"):
        gather(more, ledger)


def test_half_a_ledger_is_refused(engine: Engine) -> None:
    ledger, found = searched(engine, noise(1, 100, 5))
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM trial_ledger WHERE seq % 2 = 0")
    with pytest.raises(LedgerBroken, match="row 2 is missing"):
        gather(found, ledger)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text"])
def test_a_file_that_is_no_returns_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.npz"
    with pytest.raises(DataError, match="no such file"):
        read_returns(path)
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a file of trial returns"):
        read_returns(path)


def test_returns_that_make_no_sense_are_refused(engine: Engine) -> None:
    _, found = searched(engine, noise(1, 20, 3))
    holed = found.returns.copy()
    holed[3, 1] = np.nan
    for broken, told in [
        ({"returns": found.returns[1:]}, "have shape"),
        ({"trials": ("a", "a", "b")}, "twice"),
        ({"days": found.days * 2}, "without a gap"),
        ({"returns": holed}, "trial s-1 has a return that is no number"),
    ]:
        with pytest.raises(DataError, match=told):
            replace(found, **broken)  # type: ignore[arg-type]


# --- the error rate of the whole gate ----------------------------------------------------

SEARCHES, TRIALS, DAYS = 200, 40, 730
HOUR, DRIFT = 3_600_000, 0.0008
ALLOWED = 0.05 + 2 * (0.05 * 0.95 / SEARCHES) ** 0.5


def promoted(worlds: Iterable[Any]) -> list[bool]:
    return [judge(shown(returns), QUICK).passed for returns in worlds]


def market(seed: int, drift: float = 0.0) -> History:
    """Two years of fat-tailed hours; the ``drift`` of an hour turns its sign every ten days or so,
    which is an edge for who follows it."""
    rng, count = np.random.default_rng([77, seed]), DAYS * 24
    side = np.cumprod(np.where(rng.random(count) < 1 / 240, -1.0, 1.0))
    moved = 0.005 * rng.standard_t(5, count) / np.sqrt(5 / 3) + drift * side
    closes = 100.0 * np.exp(np.cumsum(moved))
    opens = np.r_[100.0, closes[:-1]]
    times = START + HOUR * np.arange(count, dtype=np.int64)
    prices = {"open": opens, "high": np.maximum(opens, closes), "low": np.minimum(opens, closes)}
    bars = make_bars(times, HOUR, **prices, close=closes, volume=np.full(count, 1e9))
    return assemble([bars], HOUR, Quality(rows_read=count, rows_used=count).spanning(times, HOUR))


def swept(history: History) -> Any:
    """Daily returns of every row of a sweep, free of costs: they alone would sink what has no
    edge."""
    setup = one_book(TREND, sizing=Sizing(rule=SizingRule.EQUITY, value=0.5))
    subject = Subject(setup=setup, books=frozenset({"book"}), histories={"X": history})
    fasts, slows = (5, 10, 20, 30, 40), (50, 75, 100, 125, 150, 175, 200, 250)
    points = [{"fast": float(fast), "slow": float(slow)} for fast in fasts for slow in slows]
    rows = Sweep(subject, threads=1).run(points)
    return np.stack(
        [returns_of(row.daily_micros / MICROS_PER_UNIT, 10_000.0) for row in rows], axis=1
    )


@pytest.mark.slow
def test_no_edge_is_rarely_promoted_and_an_edge_often(capsys: pytest.CaptureFixture[str]) -> None:
    """200 seeded searches that have nothing to find: half are returns of noise, every other time
    alike, and half real sweeps over markets that are noise. Beside them, searches with an edge."""
    half = range(SEARCHES // 2)
    noisy = promoted(noise(seed, DAYS, TRIALS, shared=0.6 * (seed % 2)) for seed in half)
    idle = promoted(swept(market(seed)) for seed in half)
    found = promoted(planted(seed, DAYS, TRIALS, 3.0) for seed in range(30))
    traded = promoted(swept(market(seed, DRIFT)) for seed in range(15))
    with capsys.disabled():
        print(
            f"\n  {TRIALS} trials over {DAYS} days, promoted: {np.mean(noisy):.3f} of noise, "
            f"{np.mean(idle):.3f} of sweeps over noise (at most {ALLOWED:.3f}), "
            f"{np.mean(found):.2f} with a Sharpe of 3, {np.mean(traded):.2f} of sweeps over trends"
        )
    assert np.mean(noisy + idle) <= ALLOWED
    assert np.mean(found) >= 0.6
    assert np.mean(traded) >= 0.6


def test_luck_that_trials_share_is_not_taken_for_skill() -> None:
    """With only their own spread as variance, trials alike would pass far too often."""
    naive, ours = [], []
    for seed in range(200):
        returns = noise(seed, DAYS, TRIALS, shared=0.9)
        ratios = sharpes(returns)
        sample = sample_of(returns[:, int(ratios.argmax())])
        assert sample is not None
        naive.append(dsr(sample, TRIALS, float(ratios.var(ddof=1))) > 0.95)
        ours.append(dsr(sample, TRIALS, trial_variance(returns, sample)) > 0.95)
    assert np.mean(naive) > 0.15
    assert np.mean(ours) <= ALLOWED
    assert expected_maximum(TRIALS) > 2
