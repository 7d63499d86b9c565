"""The lines to the venues, read when Prometheus asks: a feed counts for itself and calls nobody."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daemon.clock import now_ms


class Line(Protocol):
    """What a feed tells of its connection, such as a ``markets.feeds.link.Link``; read in any
    thread.

    ``age_s``: since the last message with data. ``skew_ms``: how far our clock is ahead of the
    venue's. Both None before any message.
    """

    @property
    def connected(self) -> bool: ...
    @property
    def connections(self) -> int: ...
    @property
    def messages(self) -> int: ...
    @property
    def counts(self) -> Mapping[Any, int]: ...
    @property
    def age_s(self) -> float | None: ...
    @property
    def skew_ms(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class _Followed:
    line: Line | None
    troubles: tuple[str, ...]


class Lines(Collector):
    """Collects every line that is followed; a feed that starts anew is followed anew."""

    def __init__(self, feeds: Iterable[str]) -> None:
        self._feeds = {feed: _Followed(None, ()) for feed in feeds}

    def follow(self, feed: str, line: Line, troubles: Iterable[str] = ()) -> None:
        """Read ``line`` as that of ``feed``. ``troubles``: all the keys its ``counts`` can have."""
        assert feed in self._feeds, f"{feed} is not among the feeds named at the start"
        self._feeds[feed] = _Followed(line, tuple(troubles))

    def describe(self) -> Iterable[Metric]:
        """The families, without reading a line."""
        return _families()

    def collect(self) -> Iterator[Metric]:
        """What the lines say now."""
        up, opened, messages, troubles, heard, skew = families = _families()
        for feed, followed in self._feeds.items():
            line = followed.line
            up.add_metric([feed], float(line is not None and line.connected))
            opened.add_metric([feed], line.connections if line else 0)
            messages.add_metric([feed], line.messages if line else 0)
            age_s = line.age_s if line else None
            heard.add_metric([feed], 0.0 if age_s is None else now_ms() / 1000 - age_s)
            skew_ms = line.skew_ms if line else None
            skew.add_metric([feed], float("nan") if skew_ms is None else skew_ms / 1000)
            for trouble in followed.troubles:
                count = line.counts.get(trouble, 0) if line else 0
                troubles.add_metric([feed, str(trouble).replace(" ", "_")], count)
        yield from families


def _families() -> tuple[Any, ...]:
    feed = ["feed"]
    return (
        GaugeMetricFamily("lockstep_feed_connected", "1 while connected.", labels=feed),
        CounterMetricFamily("lockstep_feed_connections", "Connections made.", labels=feed),
        CounterMetricFamily("lockstep_feed_messages", "Messages with data.", labels=feed),
        CounterMetricFamily(
            "lockstep_feed_troubles",
            "What went wrong on the line or was refused of it.",
            labels=["feed", "reason"],
        ),
        GaugeMetricFamily(
            "lockstep_feed_last_data_timestamp_seconds",
            "When data last came in; 0 for never.",
            labels=feed,
        ),
        GaugeMetricFamily(
            "lockstep_clock_skew_seconds",
            "How far our clock is ahead of the venue's; NaN before any message.",
            labels=feed,
        ),
    )
