"""Questions and opinions: what an answer may do, when it counts, and that no cut changes it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from worlds import MINUTE, NO_LIMITS, SCRIPT, START, one_book, play, scripted

from backtest.replay import Source, Tape, replay_block
from backtest.run import Run
from core.engine import Advice, Engine
from core.errors import ConfigError
from core.events import make_events
from core.model import Kind, Records, Result, Verdict
from core.ports import Asked
from core.strategy import Strategy
from risk.limits import Limits

SECOND = 1_000


def answer(question: Asked, after_ms: int = 3 * SECOND, **said: float) -> Records:
    """An opinion on a question: by default it agrees, surely and wholly."""
    side = math.copysign(1.0, question.target)
    fields = {"verdict": 0.0, "side": side, "certainty": 0.9, "share": 1.0, "chance": math.nan}
    return make_events(
        Kind.OPINION,
        [question.ts + after_ms],
        question=[float(question.number)],
        **{name: [value] for name, value in {**fields, **said}.items()},
    )


class Oracle:
    """An advisor that answers what a function says."""

    def __init__(self, engine: Engine, tape: Tape, says: Callable[[Asked], Records | None]) -> None:
        self.tape, self.says = tape, says

    async def ask(self, questions: Sequence[Asked]) -> None:
        for question in questions:
            told = self.says(question)
            if told is not None:
                self.tape.add(told)


def ask(
    targets: Sequence[float],
    says: Callable[[Asked], Records | None] = answer,
    *,
    advice: Advice | None = None,
    limits: Limits = NO_LIMITS,
    strategy: Strategy = SCRIPT,
    prices: Sequence[float] | None = None,
    **more: Any,
) -> Run:
    """Replay a script whose entries need consent."""
    flat = list(prices or [100.0] * len(targets))
    given = advice or Advice(model="test", answer_ms_max=30 * SECOND)
    setup = one_book(strategy, book={"advice": given}, limits=limits)
    return play(
        scripted(targets, flat, flat),
        setup,
        advisor=lambda engine, tape: Oracle(engine, tape, says),
        **more,
    )


def verdicts(run: Run) -> list[Verdict]:
    return [Verdict(int(row["rule"])) for row in run.of(Result.OPINION)]


def fills(run: Run) -> list[tuple[int, float]]:
    """Bar at whose end each fill was known, and its quantity."""
    rows = run.of(Result.FILL)
    return [((int(row["ts"]) - START) // MINUTE, float(row["quantity"])) for row in rows]


def test_an_entry_waits_for_its_answer_and_fills_in_the_first_bar_that_begins_after_it() -> None:
    run = ask([0, 1, 1, 1, 0, 0])
    # decided at the close of bar 2, answered 3 s into bar 3, so the open of bar 4 is the first
    assert fills(run) == [(4, 1.0), (6, -1.0)]
    assert verdicts(run) == [Verdict.AGREED]
    assert run.of(Result.QUESTION)["target"].tolist() == [1.0]


def test_without_an_answer_nothing_is_traded_and_the_question_ends_as_late() -> None:
    run = ask([1, 1, 1, 1], lambda _question: None)
    assert fills(run) == []
    assert verdicts(run) == [Verdict.LATE]


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ({"side": -1.0}, Verdict.DISAGREED),
        ({"side": 0.0}, Verdict.DISAGREED),
        ({"share": 0.0}, Verdict.DISAGREED),
        ({"certainty": 0.59}, Verdict.UNSURE),
        ({"certainty": 1.2}, Verdict.MALFORMED),
        ({"side": math.nan}, Verdict.MALFORMED),
        ({"verdict": float(Verdict.MALFORMED)}, Verdict.MALFORMED),
        ({"verdict": float(Verdict.UNREACHABLE)}, Verdict.UNREACHABLE),
        ({"verdict": float(Verdict.OVER_BUDGET)}, Verdict.OVER_BUDGET),
        ({"after_ms": 31 * SECOND}, Verdict.LATE),
    ],
)
def test_what_does_not_agree_in_time_is_no_trade_for_its_own_reason(
    said: dict[str, float], verdict: Verdict
) -> None:
    run = ask([1, 1, 1, 1, 1], lambda question: answer(question, **said))  # type: ignore[arg-type]
    assert fills(run) == []
    assert verdicts(run) == [verdict]


@pytest.mark.parametrize("said", [{"certainty": 0.6}, {"after_ms": 30 * SECOND}])
def test_an_answer_exactly_at_its_limit_counts(said: dict[str, float]) -> None:
    run = ask([1, 1, 1, 1], lambda question: answer(question, **said))  # type: ignore[arg-type]
    assert verdicts(run) == [Verdict.AGREED]
    assert fills(run) == [(3, 1.0)]


def test_a_signal_refused_is_not_asked_about_again_until_the_strategy_changes_its_mind() -> None:
    run = ask([1, 1, 1, 0, 1, 1], lambda question: answer(question, side=-1.0))
    assert verdicts(run) == [Verdict.DISAGREED, Verdict.DISAGREED]


def test_an_exit_never_waits() -> None:
    run = ask([1, 1, 1, 0, 0], lambda q: answer(q) if q.number == 1 else None)
    assert fills(run) == [(3, 1.0), (5, -1.0)]
    assert len(run.of(Result.QUESTION)) == 1


def test_a_flip_closes_at_once_and_opens_only_when_agreed() -> None:
    run = ask([1, 1, -1, -1, -1, -1])
    assert fills(run) == [(3, 1.0), (4, -1.0), (5, -1.0)]
    assert verdicts(run) == [Verdict.AGREED, Verdict.AGREED]


def test_a_signal_that_is_gone_withdraws_its_question_and_the_answer_changes_nothing() -> None:
    run = ask([1, 0, 0, 0], lambda q: answer(q, 61 * SECOND), advice=slow())
    assert verdicts(run) == [Verdict.WITHDRAWN]
    assert fills(run) == []


def slow() -> Advice:
    return Advice(model="test", answer_ms_max=600 * SECOND)


def test_an_advisor_may_shrink_a_size_and_never_enlarge_it() -> None:
    assert fills(ask([1, 1, 1, 1], lambda q: answer(q, share=0.25))) == [(3, 0.25)]
    run = ask([1, 1, 1, 1], lambda q: answer(q, share=4.0))
    assert (fills(run), verdicts(run)) == ([], [Verdict.MALFORMED])


def test_what_was_agreed_covers_growth_on_the_same_side() -> None:
    run = ask([0.25, 0.25, 0.25, 0.75, 0.75])
    assert [quantity for _, quantity in fills(run)] == [0.25, 0.5]
    assert len(run.of(Result.QUESTION)) == 1


def test_the_gate_still_reviews_what_an_advisor_agreed_to() -> None:
    run = ask([1, 1, 1, 1], limits=Limits(order_notional_max=50.0, data_age_ms_max=0.0))
    assert fills(run) == []
    assert set(run.refused) == {"order_notional"}


def test_what_was_agreed_but_not_used_in_time_is_asked_again() -> None:
    limits = Limits(order_notional_max=50.0, data_age_ms_max=0.0)
    run = ask([1] * 6, limits=limits)
    assert len(run.of(Result.QUESTION)) > 1


def cuts_agree(**more: Any) -> None:
    whole, cut = ask(SCRIPTED, **more), ask(SCRIPTED, cuts=range(1, 40), **more)
    assert whole.decisions_hash == cut.decisions_hash
    assert whole.outcomes.tobytes() == cut.outcomes.tobytes()


SCRIPTED = [0, 1, 1, 1, -1, -1, -1, 0, 1, 0, 1, 1, 1, 1, -1, -1, 0, 0, 1, 1]


@pytest.mark.parametrize("after_ms", [0, 3 * SECOND, 60 * SECOND, 150 * SECOND])
def test_no_cut_into_blocks_changes_a_run_with_answers(after_ms: int) -> None:
    cuts_agree(says=lambda question: answer(question, after_ms), advice=slow())


@pytest.mark.parametrize("advice", [None, {"consent": False, "consult_ms": 3 * MINUTE}])
def test_bars_that_move_nothing_are_folded_fast_to_the_same_end(advice: dict[str, Any]) -> None:
    """A strategy that is not compiled has every bar folded by the step itself."""
    given = Advice(model="test", answer_ms_max=90 * SECOND, **(advice or {}))
    fast, slow = (
        ask(SCRIPTED * 3, lambda q: answer(q) if q.number % 3 else None, strategy=one, advice=given)
        for one in (SCRIPT, replace(SCRIPT, compiled=False))
    )
    assert len(fast.of(Result.QUESTION)) > 5
    assert fast.outcomes.tobytes() == slow.outcomes.tobytes()
    assert fast.track.tobytes() == slow.track.tobytes()


def test_a_run_folds_again_from_its_own_events_without_anybody_to_ask() -> None:
    run = ask(SCRIPTED, lambda question: answer(question, 61 * SECOND), advice=slow())
    setup = one_book(SCRIPT, book={"advice": slow()}, limits=NO_LIMITS)
    again = replay_block(setup, run.block, {"X": frozenset({"open_interest"})}, Source())
    assert again.decisions_hash == run.decisions_hash
    assert len(run.block) == len(run.track) > len(SCRIPTED)


def test_answers_do_not_change_the_past() -> None:
    early = ask(SCRIPTED[:10]).outcomes
    full = ask(SCRIPTED).outcomes
    assert full[: len(early)].tobytes() == early.tobytes()


def _follow_opinion(f: Any, _position: Any, _p: Any) -> tuple[float, float, int]:
    return (1.0 if f.opinion > 0.5 else -1.0 if f.opinion < -0.5 else 0.0), 1.0, 0


FOLLOW = Strategy(
    name="follow",
    decide=_follow_opinion,
    reasons=SCRIPT.reasons,
    features={"opinion": "opinion"},
)


def test_a_schedule_asks_and_the_answer_becomes_a_field_strategies_read() -> None:
    run = ask(
        [0] * 8,
        lambda q: answer(q, side=1.0 if q.number == 1 else -1.0, certainty=0.8, chance=0.3),
        strategy=FOLLOW,
        advice=Advice(model="test", consent=False, consult_ms=4 * MINUTE),
    )
    asked = run.of(Result.QUESTION)["ts"]
    assert ((asked - START) // MINUTE).tolist() == [1, 5]
    assert verdicts(run) == [Verdict.HEARD, Verdict.HEARD]
    assert fills(run) == [(3, 1.0), (7, -1.0), (7, -1.0)]


def test_a_scheduled_question_without_an_answer_leaves_no_opinion() -> None:
    run = ask(
        [0] * 10,
        lambda q: answer(q, side=1.0) if q.number == 1 else None,
        strategy=FOLLOW,
        advice=Advice(
            model="test", consent=False, consult_ms=3 * MINUTE, answer_ms_max=30 * SECOND
        ),
    )
    assert verdicts(run)[:2] == [Verdict.HEARD, Verdict.LATE]
    assert [quantity for _, quantity in fills(run)] == [1.0, -1.0]


def test_a_replay_without_the_advisor_a_book_asks_is_refused() -> None:
    setup = one_book(SCRIPT, book={"advice": Advice(model="test")})
    with pytest.raises(ConfigError, match="book asks an advisor"):
        play(scripted([1.0], [100.0], [100.0]), setup)


def test_advice_that_makes_no_sense_is_refused() -> None:
    for wrong in ({"confidence_min": 1.1}, {"answer_ms_max": 0}, {"consent": False}):
        with pytest.raises(ConfigError, match="advice"):
            Advice(model="a", **wrong)  # type: ignore[arg-type]
    assert Advice(model="a", confidence_min=1.0).consent
