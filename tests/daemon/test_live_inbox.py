"""The inbox: commands overtake market data that waits, and time never runs backwards."""

import anyio
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from worlds import scripted

from core.events import command_event
from core.model import Command, Kind, Records
from daemon.live.inbox import BLOCKS_MAX, Inbox


def bar(ts: int, number: int = 0) -> Records:
    event = scripted([1.0], [1.0], [1.0]).events[:1].copy()
    event["kind"], event["ts_known"], event["ts_event"], event["close"] = Kind.BAR, ts, ts, number
    return event


def test_a_halt_overtakes_a_full_inbox_whose_feeders_wait() -> None:
    async def scene() -> None:
        inbox = Inbox()
        blocks = aiter(inbox)
        async with anyio.create_task_group() as group:
            for number in range(BLOCKS_MAX + 5):
                group.start_soon(inbox.put, bar(1_000 + number, number))
            await anyio.wait_all_tasks_blocked()
            assert inbox.waiting == BLOCKS_MAX
            inbox.command(command_event(Command.HALT, 9_000))
            inbox.command(command_event(Command.RESUME, 9_001))
            first, second, third = [await anext(blocks) for _ in range(3)]
            assert [block["kind"][0] for block in (first, second)] == [Kind.COMMAND, Kind.COMMAND]
            assert [block["command"][0] for block in (first, second)] == [
                Command.HALT,
                Command.RESUME,
            ]
            # when it took effect, and when it was given
            assert (first["ts_known"][0], first["ts_event"][0]) == (1_000, 9_000)
            assert (third["kind"][0], third["ts_known"][0]) == (Kind.BAR, 1_000)
            rest = [await anext(blocks) for _ in range(BLOCKS_MAX + 4)]
            assert [int(block["close"][0]) for block in rest] == [*range(1, BLOCKS_MAX + 5)]
        await blocks.aclose()  # type: ignore[attr-defined]
        inbox.close()

    anyio.run(scene)


def test_market_data_alone_keep_their_order_and_a_quiet_inbox_wakes_for_a_command() -> None:
    async def scene() -> None:
        inbox = Inbox(last_ms=50)
        blocks = aiter(inbox)
        await inbox.put(bar(60, 1))
        await inbox.put(bar(70, 2))
        assert [int((await anext(blocks))["close"][0]) for _ in range(2)] == [1, 2]
        async with anyio.create_task_group() as group:

            async def order() -> None:
                await anyio.wait_all_tasks_blocked()
                inbox.command(command_event(Command.HALT, 5))

            group.start_soon(order)
            with anyio.fail_after(10):
                event = await anext(blocks)
        # a clock that went back does not take time with it
        assert (event["kind"][0], event["ts_known"][0]) == (Kind.COMMAND, 70)
        await blocks.aclose()  # type: ignore[attr-defined]
        inbox.close()

    anyio.run(scene)


MOVES = st.lists(st.tuples(st.sampled_from(["put", "say", "take"]), st.integers(0, 50)))


@given(MOVES)
def test_whatever_comes_when_nothing_is_lost_and_time_goes_on(moves: list[tuple[str, int]]) -> None:
    async def scene() -> tuple[list[Records], int, int, list[int]]:
        inbox, puts, says, clock, stamps = Inbox(), 0, 0, 0, []
        blocks, taken = aiter(inbox), []
        # one block before all else, for an inbox that nobody reads is closed whole
        await inbox.put(bar(0))
        assert (await anext(blocks))["ts_known"][0] == 0
        for move, step in moves:
            clock += step
            if move == "put":
                puts += 1
                stamps.append(clock)
                await inbox.put(bar(clock, puts))
            elif move == "say":
                says += 1
                inbox.command(command_event(Command.CLOSE, clock, says))
            elif len(taken) < puts + says:
                taken.append(await anext(blocks))
        inbox.close()
        return taken + [block async for block in blocks], puts, says, stamps

    found, puts, says, stamps = anyio.run(scene)
    events = np.concatenate(found) if found else np.zeros(0, bar(0).dtype)
    bars, orders = (events[events["kind"] == kind] for kind in (Kind.BAR, Kind.COMMAND))
    assert bars["close"].tolist() == [*range(1, puts + 1)]
    assert orders["book"].tolist() == [*range(1, says + 1)]
    assert (np.diff(events["ts_known"]) >= 0).all()
    # no command moved the time of market data
    assert bars["ts_known"].tolist() == stamps


def test_what_follows_an_answer_is_stamped_after_it_and_another_answer_is_not() -> None:
    def answer(ts: int) -> Records:
        event = bar(ts)
        event["kind"] = Kind.OPINION
        return event

    async def scene() -> list[int]:
        inbox, events = Inbox(), (bar(10), answer(12), answer(12), bar(11), answer(5), bar(20))
        for event in events:
            await inbox.put(event)
        blocks = aiter(inbox)
        stamps = [int((await anext(blocks))["ts_known"][0]) for _ in events]
        inbox.close()
        await blocks.aclose()  # type: ignore[attr-defined]
        return stamps

    assert anyio.run(scene) == [10, 12, 12, 13, 13, 20]
