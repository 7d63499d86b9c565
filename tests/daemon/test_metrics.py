"""Metrics: they count what the run did, exist from the start, and promtool finds no fault."""

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from journal_world import histories
from observed_world import FEED, drive, new_engine, new_metrics, samples, total, watched
from worlds import START

from core.model import MICROS_PER_UNIT, Kind, Mode, Records, Result
from core.snapshot import put, take
from daemon.observe import lines as lines_module
from daemon.observe import meters
from daemon.observe import metrics as metrics_module
from daemon.observe.meters import INSTRUMENTS_LABELLED_MAX, OTHER, Stage, labels_of
from daemon.observe.metrics import CONTENT_TYPE
from markets.history import merge
from risk.gate import Rule


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the daemon's clock."""

    def set_ms(ms: int) -> None:
        for module in (metrics_module, lines_module):
            monkeypatch.setattr(module, "now_ms", lambda: ms)

    return set_ms


def outcomes(kind: Result) -> Records:
    run = watched()
    return run.outcomes[run.outcomes["kind"] == kind]


def test_events_and_bars_are_all_counted() -> None:
    run = watched()
    for kind, count in Counter(run.block["kind"].tolist()).items():
        name = Kind(kind).name.lower()
        assert total(run.metrics, "lockstep_events_total", kind=name) == count
    bars = run.block[run.block["kind"] == Kind.BAR]
    for i, name in enumerate(histories()):
        mine = bars[bars["instrument"] == i]
        assert total(run.metrics, "lockstep_bars_processed_total", instrument=name) == len(mine)
        last = total(run.metrics, "lockstep_last_bar_timestamp_seconds", instrument=name)
        assert last == mine["ts_known"][-1] / 1000
    assert total(run.metrics, "lockstep_bar_lag_seconds_count") == len(bars)


@pytest.mark.parametrize(
    ("name", "labels", "kind"),
    [
        ("lockstep_decisions_total", {}, Result.DECISION),
        ("lockstep_intents_total", {"verdict": "approved", "rule": "none"}, Result.APPROVED),
        ("lockstep_intents_total", {"verdict": "refused"}, Result.REFUSED),
        ("lockstep_orders_total", {"status": "approved"}, Result.APPROVED),
        ("lockstep_orders_total", {"status": "cancelled"}, Result.CANCELLED),
        ("lockstep_fills_total", {}, Result.FILL),
        ("lockstep_trades_total", {}, Result.TRADE),
        ("lockstep_gate_changes_total", {}, Result.MODE),
    ],
)
def test_each_kind_of_outcome_is_counted(name: str, labels: dict[str, str], kind: Result) -> None:
    count = len(outcomes(kind))
    assert total(watched().metrics, name, **labels) == count
    assert count or kind == Result.CANCELLED


def test_refusals_are_told_by_rule_and_by_no_other() -> None:
    by_rule = Counter(outcomes(Result.REFUSED)["rule"].tolist())
    for rule in Rule:
        told = total(watched().metrics, "lockstep_intents_total", rule=rule.name.lower())
        assert told == (by_rule[rule] if rule else len(outcomes(Result.APPROVED)))


def test_money_is_the_engines_own_to_the_micro() -> None:
    run = watched()
    account, positions = run.engine.arrays["account"][0], run.engine.arrays["positions"]

    def told(name: str, **labels: str) -> int:
        return round(total(run.metrics, name, **labels) * MICROS_PER_UNIT)

    assert told("lockstep_realised_pnl_quote") == account["realised_micros"]
    assert told("lockstep_unrealised_pnl_quote") == account["unrealised_micros"]
    assert told("lockstep_fees_quote_total") == account["fees_micros"]
    paid = told("lockstep_funding_quote_total", flow="paid")
    received = told("lockstep_funding_quote_total", flow="received")
    assert paid - received == account["funding_micros"]
    assert received > 0
    for book, position in zip(run.engine.books, positions, strict=True):
        assert told("lockstep_realised_pnl_quote", book=book.name) == position["realised_micros"]
    equity = metrics_module.engine_equity(account)
    assert told("lockstep_equity_quote") == equity == run.ticks[-1].track[-1]["equity_micros"]
    ratio = total(run.metrics, "lockstep_exposure_ratio")
    assert ratio == account["notional_micros"] / equity


def test_the_gate_shows_one_state_at_a_time() -> None:
    mode = Mode(watched().engine.arrays["account"][0]["mode"])
    for each in Mode:
        value = total(watched().metrics, "lockstep_gate_state", mode=each.name.lower())
        assert value == float(each == mode)


def test_every_series_exists_before_anything_happened() -> None:
    assert samples(new_metrics(new_engine())).keys() == samples(watched().metrics).keys()


def test_cuts_do_not_change_what_is_counted() -> None:
    engine, whole = new_engine(), watched()
    once = drive(engine, new_metrics(engine), whole.block, 10**6).metrics
    timed = ("_seconds_bucket", "_seconds_sum", "_seconds_count", "_timestamp_seconds")
    skipped = (*timed, "lockstep_ticks_total")
    steady = {
        key: value
        for key, value in samples(once).items()
        if key[0].startswith("lockstep_") and not key[0].endswith(skipped)
    }
    other = samples(whole.metrics)
    # NaN is not equal to itself, but its text is
    assert repr({key: other[key] for key in steady}) == repr(steady)


def test_after_a_recovery_gauges_go_on_and_counters_begin(at: Callable[[int], None]) -> None:
    """Half a run in one process, half in another that got the state: equal gauges at the end."""
    at(START)
    block = merge(list(histories().values()))
    half = len(block) // 2
    first = new_engine()
    drive(first, new_metrics(first), block[:half], 11)
    second = new_engine()
    metrics = new_metrics(second)
    put(second.arrays, take(first.arrays))
    metrics.resume(second)
    bars_at_start = total(metrics, "lockstep_bars_processed_total")
    drive(second, metrics, block[half:], 11)
    whole = watched().metrics
    assert bars_at_start == 0 < total(metrics, "lockstep_bars_processed_total")
    for name in ("equity_quote", "realised_pnl_quote", "unrealised_pnl_quote", "exposure_ratio"):
        told = round(total(metrics, f"lockstep_{name}"), 6)
        assert told == round(total(whole, f"lockstep_{name}"), 6)


def test_before_any_bar_the_last_one_is_the_start(at: Callable[[int], None]) -> None:
    at(START)
    metrics = new_metrics(new_engine())
    name = next(iter(histories()))
    last = total(metrics, "lockstep_last_bar_timestamp_seconds", instrument=name)
    assert last == START / 1000 == total(metrics, "lockstep_start_timestamp_seconds")
    assert total(metrics, "lockstep_bar_interval_seconds", instrument=name) == 60


def test_lag_counts_from_the_close_of_the_bar(at: Callable[[int], None]) -> None:
    engine, metrics = new_engine(), None
    block = watched().block
    bar = block[block["kind"] == Kind.BAR][:1].copy()
    close_ms = int(bar["ts_known"][0])
    # what comes late is stamped with the moment it became known; its close stays what it was
    bar["ts_known"] += 5_000
    at(close_ms + 5_500)
    metrics = new_metrics(engine)
    drive(engine, metrics, bar, 1)
    assert total(metrics, "lockstep_bar_lag_seconds_sum") == 5.5
    at_edge = samples(metrics)["lockstep_bar_lag_seconds_bucket", (("le", "5.0"),)]
    assert at_edge == 0
    assert samples(metrics)["lockstep_bar_lag_seconds_bucket", (("le", "10.0"),)] == 1


def test_links_are_followed_as_the_gate_sees_them() -> None:
    engine = new_engine()
    metrics = new_metrics(engine)
    names = list(histories())
    for up in (0.0, 1.0):
        link = watched().block[:1].copy()
        link["kind"], link["instrument"], link["up"] = Kind.LINK, 1, up
        drive(engine, metrics, link, 1)
        assert total(metrics, "lockstep_link_up", instrument=names[1]) == up
        assert total(metrics, "lockstep_link_up", instrument=names[0]) == 1


@dataclass
class FakeLine:
    connected: bool = True
    connections: int = 3
    messages: int = 40
    counts: dict[Any, int] = field(default_factory=lambda: {"not json": 2})
    age_s: float | None = None
    skew_ms: int | None = None


def test_a_feed_is_read_when_asked(at: Callable[[int], None]) -> None:
    at(START)
    metrics, line = new_metrics(new_engine()), FakeLine()
    assert total(metrics, "lockstep_feed_connected", feed=FEED) == 0
    metrics.follow(FEED, line, ("not json", "silent"))
    assert total(metrics, "lockstep_feed_last_data_timestamp_seconds", feed=FEED) == 0
    line.age_s, line.skew_ms = 2.5, -700
    assert total(metrics, "lockstep_feed_connected", feed=FEED) == 1
    assert total(metrics, "lockstep_feed_connections_total", feed=FEED) == 3
    assert total(metrics, "lockstep_feed_messages_total", feed=FEED) == 40
    assert total(metrics, "lockstep_feed_troubles_total", feed=FEED, reason="not_json") == 2
    assert total(metrics, "lockstep_feed_troubles_total", feed=FEED, reason="silent") == 0
    heard = total(metrics, "lockstep_feed_last_data_timestamp_seconds", feed=FEED)
    assert heard == START / 1000 - 2.5
    assert total(metrics, "lockstep_clock_skew_seconds", feed=FEED) == -0.7
    with pytest.raises(AssertionError, match="nobody"):
        metrics.follow("nobody", line)


def test_what_is_no_outcome_is_told_by_hand(at: Callable[[int], None]) -> None:
    metrics = new_metrics(new_engine())
    at(START)
    metrics.tick({Stage.ADVANCE: 0.001, Stage.JOURNAL: 0.2, Stage.SUBMIT: 0.0})
    metrics.loop_lag(0.02)
    metrics.snapshot_kept()
    metrics.audited(0)
    metrics.audited(3)
    metrics.reconciled(2)
    now_s = START / 1000
    for name, value in {
        "ticks_total": 1,
        "last_tick_timestamp_seconds": now_s,
        "tick_duration_seconds_count": 3,
        "journal_fsync_seconds_sum": 0.2,
        "event_loop_lag_seconds_count": 1,
        "snapshot_timestamp_seconds": now_s,
        "parity_checks_total": 2,
        "parity_mismatches_total": 3,
        "last_parity_check_timestamp_seconds": now_s,
        "reconcile_mismatches": 2,
    }.items():
        assert total(metrics, f"lockstep_{name}") == value
    assert samples(metrics)["lockstep_event_loop_lag_seconds_bucket", (("le", "0.02"),)] == 1


def test_stages_are_the_whole_of_a_tick() -> None:
    run = watched()
    assert run.begun == len(run.ticks) == total(run.metrics, "lockstep_ticks_total")
    assert all(set(tick.seconds) == set(Stage) for tick in run.ticks)
    assert all(taken >= 0 for tick in run.ticks for taken in tick.seconds.values())
    assert sum(len(tick.events) for tick in run.ticks) == len(run.block)
    assert sum(len(tick.outcomes) for tick in run.ticks) == len(run.outcomes)


def test_instruments_beyond_the_cap_share_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"K{n}" for n in range(INSTRUMENTS_LABELLED_MAX + 2)]
    assert labels_of(names)[-3:] == [names[-3], OTHER, OTHER]
    monkeypatch.setattr(meters, "INSTRUMENTS_LABELLED_MAX", 1)
    engine = new_engine()
    run = drive(engine, new_metrics(engine), watched().block, 10**6)
    first, second = histories()
    assert total(run.metrics, "lockstep_instruments_unlabelled") == 1
    for name in ("lockstep_bars_processed_total", "lockstep_fills_total"):
        assert total(run.metrics, name, instrument=OTHER) == total(
            watched().metrics, name, instrument=second
        )
        assert total(run.metrics, name, instrument=first)
    assert second.encode() not in run.metrics.exposition()


def test_no_label_carries_an_id_or_a_text() -> None:
    known = {"kind", "instrument", "book", "strategy", "direction", "verdict", "rule", "status"}
    known |= {"exit", "flow", "mode", "stage", "le", "feed", "reason", "outcome"}
    found = {
        name
        for (metric, labels), _ in samples(watched().metrics).items()
        for name, _ in labels
        if metric != "lockstep_build_info"
    }
    assert found <= known


def test_the_exposition_lints_clean() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH (Debian: apt-get install prometheus)")
    assert CONTENT_TYPE.startswith("text/plain")
    engine = new_engine()
    metrics = drive(engine, new_metrics(engine), watched().block, 10**6).metrics
    metrics.follow(FEED, FakeLine(age_s=1.0, skew_ms=3), ("not json",))
    told = subprocess.run(
        [promtool, "check", "metrics"],
        input=metrics.exposition(),
        capture_output=True,
        check=False,
    )
    assert (told.returncode, told.stdout, told.stderr) == (0, b"", b"")


def test_a_step_of_no_events_changes_nothing() -> None:
    metrics, tick = new_metrics(new_engine()), watched().ticks[0]
    before = repr({key: value for key, value in samples(metrics).items() if "lockstep" in key[0]})
    anyio.run(metrics.append, tick.events[:0], tick.outcomes[:0], tick.track[:0])
    after = repr({key: value for key, value in samples(metrics).items() if "lockstep" in key[0]})
    assert after == before
