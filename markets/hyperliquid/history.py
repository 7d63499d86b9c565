"""Recent history from the venue itself: what a replay needs where no file is at hand.

The venue keeps some five thousand candles of each length; older ones must come from files.
"""

import numpy as np

from core.errors import DataError
from markets.feeds.closing import Candle
from markets.feeds.funding import Settlement, known_from
from markets.history import History, Quality, assemble, make_bars, make_funding, utc
from markets.hyperliquid.client import Info


async def fetch_history(
    info: Info, coin: str, interval_ms: int, since_ms: int, until_ms: int
) -> History:
    """Bars that open at or after ``since_ms`` and close by ``until_ms``, and the funding between.

    The bar under way is left out. DataError when the venue has none.
    """
    candles = await _candles(info, coin, interval_ms, since_ms, until_ms)
    if not candles:
        raise DataError(f"no {coin} bar from {utc(since_ms)} to {utc(until_ms)} at hyperliquid")
    settled = await _settlements(info, coin, since_ms, until_ms)
    opens = np.array([candle.open_ms for candle in candles], np.int64)
    names = ("open", "high", "low", "close", "volume")
    prices = {name: [getattr(candle, name) for candle in candles] for name in names}
    stamps = known_from(np.array([row.time_ms for row in settled], np.int64))
    rates = np.array([row.rate for row in settled], float)
    parts = [make_funding(stamps, rates, 1.0, np.nan), make_bars(opens, interval_ms, **prices)]
    quality = Quality(rows_read=len(candles), rows_used=len(candles))
    return assemble(parts, interval_ms, quality.spanning(opens, interval_ms))


async def _candles(
    info: Info, coin: str, interval_ms: int, since_ms: int, until_ms: int
) -> list[Candle]:
    found: dict[int, Candle] = {}
    while since_ms + interval_ms <= until_ms:
        page = await info.candles(coin, interval_ms, since_ms, until_ms)
        ended_ms = min(until_ms, page.venue_ms)
        found |= {
            candle.open_ms: candle
            for candle in page.candles
            if candle.open_ms + interval_ms <= ended_ms
        }
        since_ms = page.until_ms
    return [found[open_ms] for open_ms in sorted(found)]


async def _settlements(info: Info, coin: str, since_ms: int, until_ms: int) -> list[Settlement]:
    found: dict[int, Settlement] = {}
    while since_ms < until_ms:
        page = await info.settlements(coin, since_ms, until_ms)
        found |= {row.time_ms: row for row in page.settlements}
        since_ms = page.until_ms
    return [found[time_ms] for time_ms in sorted(found)]
