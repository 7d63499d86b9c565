"""The one door into the live loop: whatever happens outside becomes an event of one ordered stream.

Feeds, operators and clocks put blocks in; the loop takes them out one after the other, a command
ahead of all market data that waits, for a halt must not queue behind a flood. What comes late is
stamped with the moment it became known here, never earlier than what went before: the journal is
then in the order the loop saw, and a replay of it sees the same.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
import numpy as np

from core.model import EVENT, Kind, Records, joined

BLOCKS_MAX = 1_024
_NOTHING = np.zeros(0, EVENT)


class Inbox:
    """A bounded queue of event blocks, as a feed of the loop. A full one makes its feeders wait,
    but never an operator: his commands have a lane of their own, in the order they were given."""

    def __init__(self, *, last_ms: int = 0) -> None:
        self._send, self._receive = anyio.create_memory_object_stream[Records](BLOCKS_MAX)
        self._commands: deque[Records] = deque()
        self.last_ms = last_ms
        """Stamp of the newest event the loop was given."""
        self._answered = False
        self._read = False
        self._newest = np.zeros(0, EVENT)
        self._rewound = 0
        self.closed = False

    async def put(self, events: Records) -> None:
        """Hand over events in the order they became known; a closed inbox takes none, for what
        comes while we stop is fetched again by the next start."""
        if len(events):
            with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
                await self._send.send(events)

    def command(self, event: Records) -> None:
        """Hand over a command, which overtakes every block that waits. The inbox must be open."""
        self._commands.append(event)
        # an empty block wakes a loop that waits for one; where there is no room, it does not wait
        with suppress(anyio.WouldBlock, anyio.BrokenResourceError):
            self._send.send_nowait(_NOTHING)

    def close(self) -> None:
        """Take no more; the loop, if it has begun, ends when it has seen what is already in."""
        self.closed = True
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
            async for block in self._receive:
                events = block
                while len(events) or self._commands:
                    if self._commands:
                        events = self._overtaken(events)
                        self._newest = self._in_order(_ahead(self._commands.popleft(), events))
                    else:
                        self._newest, events = self._in_order(events), events[:0]
                    yield self._newest
                    if self._rewound:
                        events, self._rewound = self._newest[-self._rewound :], 0

    def rewind(self, events: int) -> None:
        """Hand over the last events of the newest block again; commands may come before them."""
        self._rewound = events

    def _overtaken(self, events: Records) -> Records:
        """The first block that waits, nothing where none does."""
        while not len(events) and self.waiting:
            events = self._receive.receive_nowait()
        return events

    def _in_order(self, events: Records) -> Records:
        """The same, no event stamped before the one ahead of it, and none at the same time as an
        answer ahead of it: a replay has what was known by then first, and answers after it."""
        block = joined([events], EVENT)
        answers = block["kind"] == Kind.OPINION
        earliest_ms = self.last_ms + (self._answered and not answers[0])
        stamps = np.maximum.accumulate(np.maximum(block["ts_known"], earliest_ms))
        block["ts_known"] = stamps
        self.last_ms, self._answered = int(stamps[-1]), bool(answers[-1])
        return block


def _ahead(command: Records, events: Records) -> Records:
    """A command stamped no later than the block it overtakes: it must not move the time of market
    data. When it was given stays in its ``ts_event``."""
    if len(events):
        command["ts_known"] = np.minimum(command["ts_known"], events["ts_known"][0])
    return command
