"""What models did and cost, as a scrape shows it; a budget that is exhausted among it."""

import pytest
from advised import question
from observed_world import new_engine, new_metrics, total

from forecasting.questions import Outcome, Reply


def reply(outcome: Outcome, cost_micros: int, latency_ms: int = 0) -> Reply:
    return Reply(
        question=question(),
        outcome=outcome,
        reason="",
        answer=None,
        model="local",
        prompt="ai_gate/v1",
        prompt_hash="",
        arms={},
        key="",
        messages=(),
        raw="",
        latency_ms=latency_ms,
        tokens_in=0,
        tokens_out=0,
        cost_micros=cost_micros,
        attempts=1,
        contaminated=False,
        replayed=False,
    )


def test_calls_are_counted_by_their_end_with_their_time_and_money() -> None:
    metrics = new_metrics(new_engine())
    for outcome in Outcome:
        assert total(metrics, "lockstep_model_calls_total", outcome=outcome.value) == 0
    metrics.answered(reply(Outcome.OK, 1_500, latency_ms=2_000))
    metrics.answered(reply(Outcome.CUT, 500, latency_ms=4_000))
    metrics.answered(reply(Outcome.REFUSED_BUDGET, 0))
    metrics.answered(reply(Outcome.REFUSED_BUDGET, 0))
    assert total(metrics, "lockstep_model_calls_total", outcome="refused_budget") == 2
    assert total(metrics, "lockstep_model_calls_total", outcome="cut") == 1
    assert total(metrics, "lockstep_model_calls_total") == 4
    assert total(metrics, "lockstep_model_cost_usd_total") == pytest.approx(0.002)
    assert total(metrics, "lockstep_model_call_duration_seconds_sum") == pytest.approx(6.0)
