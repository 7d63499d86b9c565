"""Quotes kept for the close, and funding on the hour, fold by fold."""

import math
from collections import Counter

from worlds import MINUTE, START

from markets.feeds.funding import HOUR_MS, FundingCalendar, Settlement
from markets.feeds.link import Trouble
from markets.feeds.quotes import Book, Context, Quotes


def paid(hour: int, late_ms: int = 76) -> Settlement:
    return Settlement("BTC", START + hour * HOUR_MS + late_ms, hour * 1e-5)


def calendar(start_ms: int = START) -> tuple[FundingCalendar, Counter[Trouble]]:
    counts: Counter[Trouble] = Counter()
    return FundingCalendar(start_ms, lambda trouble: counts.update([trouble])), counts


def test_each_settlement_comes_once_with_its_own_stamp() -> None:
    funding, _ = calendar()
    assert not funding.wants(START + 4_999)
    assert funding.wants(START + 5_000)
    funding.settle([paid(0), paid(1)], START + 2 * HOUR_MS, START + HOUR_MS + 9_000)
    funding.settle([paid(0), paid(1)], START + 2 * HOUR_MS, START + HOUR_MS + 9_000)
    assert funding.take(START + 75) == []
    assert funding.take(START + 76) == [(START + 76, paid(0))]
    assert funding.take(START + 9 * HOUR_MS) == [(START + HOUR_MS + 76, paid(1))]
    assert funding.hour_ms == START + 2 * HOUR_MS


def test_a_settlement_the_venue_does_not_know_is_waited_for_and_then_passed_over() -> None:
    funding, counts = calendar()
    funding.settle([], START + HOUR_MS, START + 119_999)
    assert funding.known_ms(START + 119_999) == START
    funding.settle([], START + HOUR_MS, START + 120_000)
    assert funding.hour_ms == START + HOUR_MS
    assert counts == {Trouble.SETTLEMENT_ABSENT: 1}


def test_one_stamped_on_the_hour_follows_the_bar_that_did_not_wait() -> None:
    funding, _ = calendar(START - 5)
    assert funding.known_ms(START) == START
    assert funding.take(START) == []
    funding.settle([paid(0, 0)], START + HOUR_MS, START + 9_000)
    assert funding.take(START + MINUTE) == [(START + 1, paid(0, 0))]


def test_a_venue_that_cannot_be_asked_holds_bars_up_for_a_while_only() -> None:
    funding, _ = calendar()
    funding.fail(START + 6_000)
    funding.fail(START + 60_000)
    assert funding.known_ms(START + 125_999) == START
    assert funding.known_ms(START + 126_000) == START + 126_000
    funding.take(START + 126_000)
    funding.settle([paid(0)], START + HOUR_MS, START + 180_000)
    assert funding.known_ms(START + 180_000) == START + HOUR_MS
    assert funding.take(START + 180_000) == [(START + 126_001, paid(0))]


def test_a_quote_belongs_to_the_close_at_or_after_it() -> None:
    counts: Counter[Trouble] = Counter()
    quotes = Quotes(MINUTE, lambda trouble: counts.update([trouble]))
    book = Book("BTC", START + 1, 99.0, 101.0, 5.0, 6.0)
    quotes.on_book(book)
    quotes.on_context(Context("BTC", 100.0, 100.1, 7.0, 1e-5), START + MINUTE)
    quotes.on_book(book._replace(time_ms=START + MINUTE + 1, bid=98.0))
    ((close_ms, quote),) = quotes.take(START + MINUTE)
    assert close_ms == START + MINUTE
    assert (quote.bid, quote.mark, quote.told_ms) == (99.0, 100.0, START + MINUTE)
    quotes.on_context(Context("BTC", 1.0, 1.0, 1.0, 0.0), START + MINUTE)
    quotes.on_book(book)
    assert counts == {Trouble.LATE: 1, Trouble.OUT_OF_ORDER: 1}
    ((close_ms, quote),) = quotes.take(START + 2 * MINUTE)
    assert (close_ms, quote.bid) == (START + 2 * MINUTE, 98.0)


def test_what_was_never_told_is_unknown() -> None:
    quotes = Quotes(MINUTE, lambda _: None)
    quotes.on_book(Book("BTC", START + 1, math.nan, 101.0, math.nan, 6.0))
    ((_, quote),) = quotes.take(START + MINUTE)
    assert math.isnan(quote.mark)
    assert math.isnan(quote.bid)
    assert quote.ask == 101.0
