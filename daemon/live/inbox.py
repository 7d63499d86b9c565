"""The one door into the live loop: whatever happens outside becomes an event of one ordered stream.

Feeds, operators and clocks put blocks in; the loop takes them out one after the other. What comes
late is stamped with the moment it became known here, never earlier than what went before: the
journal is then in the order the loop saw, and a replay of it sees the same.
"""

import math
from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
import numpy as np

from core.model import EVENT, Command, Kind, Records, joined

BLOCKS_MAX = 1_024


class Inbox:
    """A bounded queue of event blocks, as a feed of the loop. A full one makes its feeders wait."""

    def __init__(self, *, last_ms: int = 0) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[Records](BLOCKS_MAX)
        self._last_ms = last_ms
        self._read = False
        self._block = self._ahead = np.zeros(0, EVENT)

    async def put(self, events: Records) -> None:
        """Hand over events in the order they became known; a closed inbox takes none, for what
        comes while we stop is fetched again by the next start."""
        if len(events):
            with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
                await self._send.send(events)

    def close(self) -> None:
        """Take no more; the loop, if it has begun, ends when it has seen what is already in."""
        self._send.close()
        if not self._read:
            self._receive.close()

    @property
    def waiting(self) -> int:
        """Blocks the loop has not taken yet."""
        return self._receive.statistics().current_buffer_used

    async def __aiter__(self) -> AsyncIterator[Records]:
        self._read = True
        async with self._receive:
            async for events in self._receive:
                self._ahead = self._in_order(events)
                while len(self._ahead):
                    block, self._ahead = self._ahead, self._ahead[:0]
                    self._block = block
                    yield block

    def rewind(self, events: int) -> None:
        """Hand over the last events of the newest block again."""
        self._ahead = self._block[len(self._block) - events :]

    def _in_order(self, events: Records) -> Records:
        """The same, no event stamped before the one ahead of it."""
        block = joined([events], EVENT)
        stamps = np.maximum.accumulate(np.maximum(block["ts_known"], self._last_ms))
        block["ts_known"] = stamps
        self._last_ms = int(stamps[-1])
        return block


def link_event(instrument: int, up: bool, now_ms: int) -> Records:
    """The feed of an instrument went up or down."""
    event = _event(Kind.LINK, instrument, now_ms)
    event["up"] = float(up)
    return event


def command_event(word: Command, now_ms: int, book: int = 0) -> Records:
    """An operator's word; ``book`` is that of CLOSE."""
    event = _event(Kind.COMMAND, 0, now_ms)
    event["command"], event["book"] = float(word), float(book)
    return event


def _event(kind: Kind, instrument: int, now_ms: int) -> Records:
    event = np.full(1, math.nan, "f8").repeat(EVENT.itemsize // 8).view(EVENT)
    event["ts_known"] = event["ts_event"] = now_ms
    event["kind"], event["instrument"] = kind, instrument
    return event
