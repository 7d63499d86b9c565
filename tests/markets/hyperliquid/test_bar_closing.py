"""When a candle is final, told message by message."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import MINUTE, START

from markets.feeds.closing import BarCloser, Candle, ClosingRules
from markets.feeds.link import Trouble

RULES = ClosingRules(settle_ms=250, grace_ms=2_000, absent_ms=15_000)


def candle(minute: int, trades: int = 5, close: float = 10.0) -> Candle:
    return Candle(START + minute * MINUTE, 10.0, 12.0, 9.0, close, float(trades), trades)


def closer(**rules: int | bool) -> tuple[BarCloser, Counter[Trouble]]:
    counts: Counter[Trouble] = Counter()
    given_rules = ClosingRules(**{"settle_ms": 250, **rules}) if rules else RULES
    return BarCloser(MINUTE, START, given_rules, lambda trouble: counts.update([trouble])), counts


def offer(bars: BarCloser, *candles: Candle) -> None:
    for each in candles:
        bars.offer(each, 0, each.open_ms)


def test_a_later_candle_and_a_settled_close_end_the_one_before() -> None:
    bars, _ = closer()
    offer(bars, candle(0, 1), candle(0, 5))
    bars.tell(START + MINUTE + 10_000)
    assert bars.take(START + MINUTE) == []
    offer(bars, candle(1, 1))
    bars.tell(START + MINUTE + 249)
    assert bars.take(START + MINUTE) == []
    bars.tell(START + MINUTE + 250)
    assert bars.take(START + MINUTE - 1) == []
    assert bars.take(START + MINUTE) == [candle(0, 5)]
    assert bars.take(START + MINUTE) == []


def test_a_straggler_before_the_close_has_settled_still_counts() -> None:
    bars, counts = closer()
    offer(bars, candle(0, 4), candle(1, 1), candle(0, 5))
    bars.tell(START + MINUTE + 250)
    assert bars.take(START + MINUTE) == [candle(0, 5)]
    assert counts == {Trouble.OUT_OF_ORDER: 1}


def test_what_comes_after_the_close_is_counted_and_changes_nothing() -> None:
    bars, counts = closer()
    offer(bars, candle(0, 5), candle(1, 1))
    bars.tell(START + MINUTE + 250)
    offer(bars, candle(0, 4), candle(0, 5), candle(0, 6), candle(0, 5, close=11.0), candle(-9))
    assert counts == {Trouble.LATE: 2, Trouble.DUPLICATE: 1, Trouble.LATE_CORRECTION: 2}
    assert bars.take(START + MINUTE) == [candle(0, 5)]


def test_an_older_state_of_the_open_candle_is_left_out() -> None:
    bars, counts = closer()
    offer(bars, candle(0, 5), candle(0, 5), candle(0, 3), candle(1, 1))
    bars.tell(START + MINUTE + 250)
    assert bars.take(START + MINUTE) == [candle(0, 5)]
    assert counts == {Trouble.DUPLICATE: 1, Trouble.OUT_OF_ORDER: 1}


def test_a_candle_seen_before_a_break_is_not_trusted_after_it() -> None:
    bars, _ = closer()
    offer(bars, candle(0, 3))
    bars.forget()
    offer(bars, candle(1, 1))
    told_ms = START + MINUTE + 250
    bars.tell(told_ms)
    assert bars.take(START + MINUTE) == []
    assert bars.wants(told_ms, told_ms)
    bars.settle([candle(0, 5), candle(1, 1)], START + 2 * MINUTE, told_ms)
    assert bars.take(START + 9 * MINUTE) == [candle(0, 5)]


@pytest.mark.parametrize("told_ms", [0, START + MINUTE + 250])
def test_a_correction_after_a_break_does_not_pass_for_the_end_of_a_candle(told_ms: int) -> None:
    bars, counts = closer()
    if told_ms == 0:
        offer(bars, candle(2, 1))
    bars.offer(candle(0, 99, close=11.0), told_ms, START + 2 * MINUTE)
    bars.tell(START + 2 * MINUTE + 250)
    assert bars.open_ms == START
    assert counts == {Trouble.LATE: 1}


def test_the_venue_is_asked_only_after_the_grace() -> None:
    bars, _ = closer()
    offer(bars, candle(0))
    assert not bars.wants(START, START + MINUTE + 1_999)
    assert bars.wants(START, START + MINUTE + 2_000)


def test_an_answer_made_too_early_closes_nothing() -> None:
    bars, _ = closer()
    bars.settle([candle(0, 3)], START + 2 * MINUTE, START + MINUTE + 249)
    assert bars.open_ms == START
    bars.settle([candle(0, 5)], START + 2 * MINUTE, START + MINUTE + 250)
    assert bars.take(START + MINUTE) == [candle(0, 5)]


def test_a_candle_the_venue_does_not_know_is_waited_for_and_then_passed_over() -> None:
    bars, counts = closer()
    answer, until_ms = [candle(1)], START + 2 * MINUTE
    bars.settle(answer, until_ms, START + MINUTE + 14_999)
    assert bars.open_ms == START
    bars.settle(answer, until_ms, START + 2 * MINUTE + 250)
    assert bars.take(until_ms) == [candle(1)]
    assert counts == {Trouble.BAR_ABSENT: 1, Trouble.BACKFILLED: 1}


def test_an_answer_says_nothing_of_what_was_not_asked() -> None:
    bars, counts = closer()
    bars.settle([], START + 3 * MINUTE, START + 90 * MINUTE)
    assert bars.open_ms == START + 3 * MINUTE
    assert counts == {Trouble.BAR_ABSENT: 3}


@pytest.mark.parametrize(
    ("open_ms", "trouble"),
    [(START + 1, Trouble.MISALIGNED), (START + 5 * MINUTE, Trouble.FROM_THE_FUTURE)],
)
def test_an_impossible_open_is_refused(open_ms: int, trouble: Trouble) -> None:
    bars, counts = closer()
    bars.offer(candle(0)._replace(open_ms=open_ms), START, START)
    assert counts == {trouble: 1}
    assert not bars.wants(START + 9 * MINUTE, START)


def test_with_confirm_the_stream_alone_closes_nothing() -> None:
    bars, _ = closer(confirm=True)
    offer(bars, candle(0), candle(1, 1))
    told_ms = START + MINUTE + 250
    bars.tell(told_ms)
    assert bars.open_ms == START
    assert bars.wants(told_ms, told_ms)


def test_no_more_bars_pile_up_than_allowed() -> None:
    bars, _ = closer(bars_pending_max=2)
    for minute in range(9):
        offer(bars, candle(minute, 1))
        bars.tell(START + minute * MINUTE + 250)
    late_ms = START + 60 * MINUTE
    assert not bars.wants(late_ms, late_ms)
    assert bars.take(late_ms) == [candle(0, 1), candle(1, 1)]
    assert bars.wants(late_ms, late_ms)


@given(st.data())
def test_whatever_comes_each_final_candle_comes_once_and_in_order(data: st.DataObject) -> None:
    bars, _ = closer()
    taken: list[Candle] = []
    now_ms, told_ms = START, 0
    for _ in range(data.draw(st.integers(1, 60))):
        now_ms += data.draw(st.integers(0, MINUTE))
        under_way = (now_ms - START) // MINUTE
        match data.draw(st.sampled_from(["offer", "tell", "forget", "settle", "take"])):
            case "offer":
                minute = under_way - data.draw(st.integers(0, 3))
                bars.offer(candle(minute, data.draw(st.integers(1, 5))), told_ms, now_ms)
            case "tell":
                told_ms = now_ms
                bars.tell(told_ms)
            case "forget":
                bars.forget()
            case "settle":
                answer = [candle(minute) for minute in range(under_way + 1)]
                bars.settle(answer, START + (under_way + 1) * MINUTE, now_ms)
            case "take":
                taken += bars.take(now_ms)
    taken += bars.take(now_ms)
    opens = [bar.open_ms for bar in taken]
    # without a minute that never was, none is missing between the first and the last
    assert opens == [START + MINUTE * minute for minute in range(len(opens))]
    assert all(open_ms + MINUTE <= now_ms for open_ms in opens)
