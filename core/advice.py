"""Questions and opinions: an advisor may veto or shrink what a strategy wants, never enlarge it.

A question is an outcome, its answer a later event, so nothing is awaited between an event and a
decision, and a slow answer is late in replay too. Exits never wait for one. What was agreed stands
as long as the strategy keeps to the side it was agreed for; what was refused is not asked again
until the strategy changes its mind.
"""

import math
from typing import Any

from core.compiled import compiled, floats
from core.model import OPINION, PROBABILITY, Result, Verdict
from core.outcomes import emit
from core.state import account_of, book_of, instrument_of, market_of, position_of


@compiled
def _ask(state: Any, b: int, target: float, confidence: float) -> int:
    """Put a question about book ``b``; answers its number."""
    account = account_of(state)
    account.questions += 1
    row = emit(state, Result.QUESTION, b)
    row.order = account.questions
    row.target = target
    row.confidence = confidence
    row.price = instrument_of(state, book_of(state, b).instrument).price
    return int(account.questions)


@compiled
def _judge(state: Any, b: int, question: int, verdict: int, side: float, certainty: float) -> None:
    """Record what became of a question."""
    row = emit(state, Result.OPINION, b)
    row.order = question
    row.rule = verdict
    row.target = side
    row.confidence = certainty


@compiled
def consents(state: Any, b: int, target: float, confidence: float) -> bool:
    """Whether book ``b`` may grow towards a target; where nobody has been asked yet, ask.

    Of what is out of sight nobody is asked: the gate refuses it anyway.
    """
    book, position = book_of(state, b), position_of(state, b)
    if not book.consent or target * position.agreed > 0.0:
        return True
    if not instrument_of(state, book.instrument).linked:
        return True
    if position.asked == 0:
        position.asked = _ask(state, b, target, confidence)
        position.asked_target = target
        position.asked_confidence = confidence
        position.asked_ts = account_of(state).now
    return False


@compiled
def _decline(state: Any, b: int, verdict: int, side: float, certainty: float) -> None:
    """No trade for this signal: the book waits until its strategy changes its mind."""
    position = position_of(state, b)
    question = position.asked
    position.asked = 0
    position.spent = position.asked_target
    _judge(state, b, question, verdict, side, certainty)


@compiled
def attend(state: Any, b: int, target: float) -> None:
    """Let lapse what was asked or agreed for a signal that is gone or too old; ask on schedule."""
    book, position, now = book_of(state, b), position_of(state, b), account_of(state).now
    old = now - position.asked_ts > book.answer_ms_max
    idle = position.quantity == 0.0 and position.working == 0
    if target * position.agreed <= 0.0 or (old and idle):
        position.agreed = 0.0
    if position.asked != 0:
        if target * position.asked_target <= 0.0:
            question = position.asked
            position.asked = 0
            _judge(state, b, question, Verdict.WITHDRAWN, 0.0, 0.0)
        elif old:
            _decline(state, b, Verdict.LATE, 0.0, 0.0)


@compiled
def consult(state: Any, b: int) -> None:
    """Ask what the schedule of book ``b`` wants asked of an instrument in sight; a question that
    was not answered in time leaves no opinion."""
    book, position, now = book_of(state, b), position_of(state, b), account_of(state).now
    if position.consulted != 0 and now - position.consulted_ts > book.answer_ms_max:
        _hear(state, b, Verdict.LATE, 0.0, 0.0, math.nan)
    due = position.consulted_ts == 0 or now - position.consulted_ts >= book.consult_ms
    if due and instrument_of(state, book.instrument).linked:
        position.consulted = _ask(state, b, position.target, 0.0)
        position.consulted_ts = now


@compiled
def _hear(state: Any, b: int, verdict: int, side: float, certainty: float, chance: float) -> None:
    """Lay the answer to a scheduled question before the strategies of the instrument."""
    position, instrument = position_of(state, b), instrument_of(state, book_of(state, b).instrument)
    question = position.consulted
    position.consulted = 0
    market = floats(market_of(state, instrument))
    market[OPINION] = side * certainty
    market[PROBABILITY] = chance
    _judge(state, b, question, verdict, side, certainty)


@compiled
def _verdict(book: Any, asked_ts: int, event: Any) -> int:
    """What an answer amounts to before its side is looked at."""
    if event.ts_known - asked_ts > book.answer_ms_max:
        return Verdict.LATE
    given = int(event.verdict)
    if given != Verdict.AGREED:
        return given
    sane = abs(event.side) <= 1.0 and 0.0 <= event.certainty <= 1.0 and 0.0 <= event.share <= 1.0
    return Verdict.AGREED if sane else Verdict.MALFORMED


@compiled
def _weigh(state: Any, b: int, event: Any) -> bool:
    """Judge the answer to a signal of book ``b``; True when it agrees."""
    book, position = book_of(state, b), position_of(state, b)
    verdict = _verdict(book, position.asked_ts, event)
    if verdict == Verdict.AGREED:
        if event.side * position.asked_target <= 0.0 or event.share == 0.0:
            verdict = Verdict.DISAGREED
        elif event.certainty < book.confidence_min:
            verdict = Verdict.UNSURE
    if verdict != Verdict.AGREED:
        _decline(state, b, verdict, event.side, event.certainty)
        return False
    question = position.asked
    position.asked = 0
    position.agreed = math.copysign(event.share, position.asked_target)
    _judge(state, b, question, verdict, event.side, event.certainty)
    return True


@compiled
def weigh_opinion(state: Any, event: Any) -> int:
    """Take in an answer; the book that may now pursue its target, or -1.

    An answer to a question that has lapsed changes nothing.
    """
    instrument, question = instrument_of(state, event.instrument), int(event.question)
    for b in range(instrument.books_at, instrument.books_end):
        position = position_of(state, b)
        if position.consulted == question:
            verdict = _verdict(book_of(state, b), position.consulted_ts, event)
            if verdict == Verdict.AGREED:
                _hear(state, b, Verdict.HEARD, event.side, event.certainty, event.chance)
            else:
                _hear(state, b, verdict, 0.0, 0.0, math.nan)
        elif position.asked == question and _weigh(state, b, event):
            return b
    return -1
