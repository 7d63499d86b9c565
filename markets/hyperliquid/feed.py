"""Hyperliquid's market, live: its stream folded into bars, quotes and funding."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from core.errors import ConfigError, DataError
from markets.feeds.following import Followed, Following, FollowSettings
from markets.feeds.link import Trouble
from markets.feeds.quotes import Book, Context
from markets.feeds.reading import Reading
from markets.feeds.stream import StreamSettings
from markets.hyperliquid.client import Info, InfoSettings
from markets.hyperliquid.parse import CandleUpdate, Message, Trade, read_message
from markets.intervals import format_interval

INTERVALS_MS = tuple(
    60_000 * minutes for minutes in (1, 3, 5, 15, 30, 60, 120, 240, 480, 720, 1440)
)
"""Candles the venue makes that begin at a multiple of their length."""

MAINNET_STREAM = "wss://api.hyperliquid.xyz/ws"

_PING = '{"method":"ping"}'
_CHANNELS = ("l2Book", "activeAssetCtx")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSettings(FollowSettings):
    """What to follow, and from where."""

    stream: StreamSettings = field(default_factory=lambda: StreamSettings(url=MAINNET_STREAM))
    info: InfoSettings = field(default_factory=InfoSettings)

    def __post_init__(self) -> None:
        # not super(): a dataclass with slots is another class than the one this is written in
        FollowSettings.__post_init__(self)
        if self.interval_ms not in INTERVALS_MS:
            known = ", ".join(map(format_interval, INTERVALS_MS))
            raise ConfigError(
                f"hyperliquid has no candles of {format_interval(self.interval_ms)}: it has {known}"
            )


class HyperliquidFeed(Following[Info, Message]):
    """A feed of several coins; an event's ``instrument`` is the coin's place in ``coins``."""

    _ping = _PING

    def __init__(
        self, settings: FeedSettings, now_ms: Callable[[], int], random: Callable[[], float]
    ) -> None:
        super().__init__(settings, now_ms, random)
        self.settings = settings
        self._interval = format_interval(settings.interval_ms)

    def _client(self) -> AbstractAsyncContextManager[Info]:
        return Info(self.settings.info, self.clock, self.link, self._random)

    async def _check(self, client: Info) -> None:
        listings = await client.listings()
        unknown = [
            coin for coin in self.settings.coins if coin not in listings or listings[coin].delisted
        ]
        if unknown:
            raise DataError(f"hyperliquid does not list {', '.join(unknown)}")

    def _greetings(self) -> Sequence[str]:
        coins = self.settings.coins
        return [
            *(_subscribe("candle", coin, interval=self._interval) for coin in coins),
            *(_subscribe(kind, coin) for coin in coins for kind in _CHANNELS),
        ]

    def _read(self, text: str | bytes) -> Reading[Message]:
        return read_message(text)

    def _fold(self, message: Message) -> Followed | None:
        if not isinstance(message, CandleUpdate | Book | Context | Trade):
            return None
        followed = self._followed.get(message.coin)
        if followed is None:
            self.link.count(Trouble.UNKNOWN_COIN)
            return None
        match message:
            case CandleUpdate():
                return followed if self._fold_candle(followed, message) else None
            case Context():
                followed.quotes.on_context(message, self.clock.now_ms())
            case Book():
                if not self._fold_time(followed, message.time_ms):
                    return None
                followed.quotes.on_book(message)
            case Trade():
                return followed if self._fold_time(followed, message.time_ms) else None
        return followed

    def _fold_candle(self, followed: Followed, update: CandleUpdate) -> bool:
        if update.interval != self._interval:
            self.link.count(Trouble.WRONG_INTERVAL)
            return False
        followed.bars.offer(update.candle, followed.told_ms, self.clock.now_ms())
        return True


def _subscribe(kind: str, coin: str, **more: str) -> str:
    subscription = {"type": kind, "coin": coin, **more}
    return json.dumps({"method": "subscribe", "subscription": subscription})
