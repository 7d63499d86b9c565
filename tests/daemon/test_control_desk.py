"""A live run under control: the API shows what the engine holds, and an order is an event."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from worlds import MINUTE, SCRIPT, START, one_book, scripted

from config.settings import Settings
from core.errors import UnknownName
from core.model import Command, ExitReason, Kind, Mode, Records, Result
from daemon.control.commands import WAITING_MAX, Commands
from daemon.control.desk import Busy, Order
from daemon.control.engine_desk import EngineDesk
from daemon.control.serving import open_api
from daemon.journal import Said, open_journal, read_commands, read_events, sqlite_url
from daemon.live.service import Service, open_service, paper_row, run_service
from daemon.observe.stopwatch import Tick
from risk.limits import Limits, Sizing, SizingRule

TARGETS = [0.0, 1.0, 1.0, 0.0, 0.0, -1.0, -1.0]
PRICES = [100.0, 100.0, 102.0, 104.0, 104.0, 104.0, 103.0]
SETUP = one_book(
    SCRIPT,
    limits=Limits(),
    sizing=Sizing(rule=SizingRule.QUANTITY, value=10.0),
    book={"offset": 9.0},
    leverage=2.0,
)
HALT, RESUME = Order(word=Command.HALT), Order(word=Command.RESUME, reason="r")
DATABASES: list[Any] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while DATABASES:
        DATABASES.pop().dispose()


class Desk:
    """A service wired as the run loop wires it, with a feed that plays and then stays silent."""

    def __init__(self, path: Path) -> None:
        database = open_journal(sqlite_url(path))
        DATABASES.append(database)
        carried = {"X": frozenset({"open", "high", "low", "close", "volume", "open_interest"})}
        row = paper_row("paper", SETUP, started_ms=0)
        self.service: Service = open_service(SETUP, carried, database, row, lambda: START)
        books = [book.name for book in self.service.engine.books]
        journal = self.service.journal
        self.commands = Commands(books, self.service.command, lambda: journal.seq)
        self.desk = EngineDesk(
            self.service.engine,
            command=self.commands.ask,
            commands=lambda: journal.commands,
            ready=lambda: not self.service.stopping,
            healthy=lambda: True,
            metrics_text=lambda: b"",
            about=lambda: {"run": "paper"},
        )
        self.played = anyio.Event()

    def _ended(self, tick: Tick) -> None:
        self.desk.observe(tick.events, tick.outcomes, tick.track)
        self.commands.observe(tick.events, tick.outcomes, tick.track)
        if self.service.journal.seq == 2 * len(TARGETS):
            self.played.set()

    async def __aiter__(self) -> AsyncIterator[Records]:
        events = scripted(TARGETS, PRICES, PRICES).events
        for block in np.split(events, np.flatnonzero(np.diff(events["ts_known"])) + 1):
            yield block
        await anyio.sleep_forever()

    async def run(self, act: Callable[["Desk"], Awaitable[None]]) -> None:
        async with anyio.create_task_group() as group:

            async def acting() -> None:
                await self.played.wait()
                try:
                    await act(self)
                finally:
                    self.commands.close()
                    self.service.stop()

            group.start_soon(acting)
            await run_service(self.service, self, ended=self._ended)


def live(path: Path, act: Callable[[Desk], Awaitable[None]]) -> Desk:
    async def life() -> Desk:
        desk = Desk(path)
        await desk.run(act)
        return desk

    return anyio.run(life)


def test_what_is_shown_is_what_the_engine_holds(tmp_path: Path) -> None:
    async def look(world: Desk) -> None:
        before = {name: array.tobytes() for name, array in world.service.engine.arrays.items()}
        status = world.desk.status()
        account = world.service.engine.arrays["account"][0]
        assert (status["run"], status["mode"], status["mode_rule"]) == ("paper", "active", "none")
        assert status["seq"] == world.service.journal.seq == len(TARGETS) * 2
        # ten bought at 102 and sold at 104, then ten sold at 103
        assert status["equity"] == 10_020.0
        assert status["drawdown"] == pytest.approx(1 - 10_020 / 10_040, abs=0.01)
        assert status["ts"] == int(account["now"])
        [instrument] = status["instruments"]
        assert instrument["instrument"] == "X"
        assert instrument["price"] == 103.0
        assert instrument["linked"] is True
        assert instrument["bar_ts"] == START + len(TARGETS) * MINUTE
        [position] = world.desk.positions()
        assert (position["quantity"], position["entry"]) == (-10.0, 103.0)
        assert (position["book"], position["target"], position["trades"]) == ("book", -1.0, 1)
        assert position["notional"] == 1_030.0
        [trade] = world.desk.trades(5)
        assert (trade["quantity"], trade["net"], trade["exit"]) == (10.0, 20.0, "signal")
        told = world.desk.decisions(100)
        assert [row["kind"] for row in told].count("approved") == 3
        decided = [row["target"] for row in told if row["kind"] == "decision"]
        assert decided == [-1.0, 0.0, 1.0]
        assert told[0]["reason"] is None or told[0]["reason"] == "scripted"
        assert [row["seq"] for row in told] == sorted((r["seq"] for r in told), reverse=True)
        assert len(world.desk.decisions(2)) == 2
        assert world.desk.orders() == []
        after = {name: array.tobytes() for name, array in world.service.engine.arrays.items()}
        assert after == before

    live(tmp_path / "j.sqlite", look)


def test_an_order_is_an_event_and_its_number_is_the_answer(tmp_path: Path) -> None:
    answers: list[int] = []

    async def order(world: Desk) -> None:
        close = Order(word=Command.CLOSE, book="book", reason="r", who="ann")
        for word in (HALT, RESUME, close):
            answers.append(await world.desk.command(word))  # noqa: PERF401
        status = world.desk.status()
        assert status["mode"] == "active"
        # what is to close the book works until the next bar fills it
        [working] = world.desk.orders()
        assert (working["side"], working["quantity"], working["exit"]) == ("buy", 10.0, "command")
        assert working["reduce_only"] is True
        with pytest.raises(UnknownName, match="unknown book 'boko': did you mean 'book'"):
            await world.desk.command(Order(word=Command.CLOSE, book="boko", reason="r"))

    world = live(tmp_path / "j.sqlite", order)
    events = read_events(world.service.journal.engine, "paper")
    at = np.flatnonzero(events["kind"] == Kind.COMMAND) + 1
    assert at.tolist() == answers
    assert [Command(int(word)) for word in events[at - 1]["command"]] == [
        Command.HALT,
        Command.RESUME,
        Command.CLOSE,
    ]
    told = read_commands(world.service.journal.engine, "paper", 10)
    assert [row.seq for row in told] == answers
    assert [row.word for row in told] == ["halt", "resume", "close"]
    assert [row.book for row in told] == [None, None, 0]
    assert [(row.who, row.reason) for row in told] == [("", ""), ("", "r"), ("ann", "r")]
    assert told == list(world.service.journal.commands)


def test_a_trade_that_was_ordered_tells_by_whom_and_why_after_a_restart_too(tmp_path: Path) -> None:
    async def close(world: Desk) -> None:
        await world.desk.command(Order(word=Command.CLOSE, book="book", reason="r", who="ann"))
        late = scripted([*TARGETS, -1.0], [*PRICES, 103.0], [*PRICES, 103.0]).events[-2:]
        await world.service.inbox.put(late)
        while len(world.desk.trades(5)) < 2:  # noqa: ASYNC110 - the loop tells nobody
            await anyio.sleep(0.01)
        ordered, own = world.desk.trades(5)
        assert (ordered["exit"], own["exit"], own["command"]) == ("command", "signal", None)
        assert ordered["command"] == world.desk.commands(1)[0]
        assert (ordered["command"]["who"], ordered["command"]["reason"]) == ("ann", "r")

    live(tmp_path / "j.sqlite", close)
    again = Desk(tmp_path / "j.sqlite")
    again.service.stop()
    told = again.desk.status()["last_command"]
    assert (told["word"], told["book"], told["who"], told["reason"]) == (
        "close",
        "book",
        "ann",
        "r",
    )


def test_a_flatten_is_journaled_and_its_trades_name_it(tmp_path: Path) -> None:
    async def flatten(world: Desk) -> None:
        order = Order(word=Command.FLATTEN, reason="venue may close", who="ann")
        seq = await world.desk.command(order)
        assert world.desk.status()["mode"] == "halted"
        [working] = world.desk.orders()
        assert (working["side"], working["quantity"], working["exit"]) == ("buy", 10.0, "halt")
        account = world.service.engine.arrays["account"][0]
        assert (account["mode"], account["flatten"]) == (Mode.HALTED, 1)
        late = scripted([*TARGETS, -1.0], [*PRICES, 103.0], [*PRICES, 103.0]).events[-2:]
        await world.service.inbox.put(late)
        while len(world.desk.trades(5)) < 2:  # noqa: ASYNC110 - the loop tells nobody
            await anyio.sleep(0.01)
        trade = world.desk.trades(1)[0]
        assert (trade["exit"], trade["command"]) == ("halt", world.desk.commands(1)[0])
        assert (trade["command"]["word"], trade["command"]["seq"]) == ("flatten", seq)
        # once it is lifted, a halt that closes books again is nobody's word but the drawdown's
        lifted = await world.desk.command(RESUME)
        later = {"exit": ExitReason.HALT, "book": 0, "seq": lifted + 1}
        assert world.desk._closing(later) is None

    world = live(tmp_path / "j.sqlite", flatten)
    told = read_commands(world.service.journal.engine, "paper", 10)[0]
    assert (told.word, told.book, told.who, told.reason) == (
        "flatten",
        None,
        "ann",
        "venue may close",
    )
    # a restart folds the journal to the same state
    again = Desk(tmp_path / "j.sqlite")
    again.service.stop()
    account = again.service.engine.arrays["account"][0]
    assert (account["mode"], account["flatten"]) == (Mode.ACTIVE, 0)
    assert again.service.engine.arrays["positions"][0]["quantity"] == 0.0


def test_orders_given_at_once_each_get_their_own_number(tmp_path: Path) -> None:
    answers: dict[str, list[int]] = {"halt": [], "resume": []}

    async def order(world: Desk) -> None:
        async def say(name: str, word: Order) -> None:
            answers[name].append(await world.desk.command(word))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(say, "halt", HALT)
                group.start_soon(say, "resume", RESUME)

    world = live(tmp_path / "j.sqlite", order)
    events = read_events(world.service.journal.engine, "paper")
    for name, word in (("halt", Command.HALT), ("resume", Command.RESUME)):
        mine = (events["kind"] == Kind.COMMAND) & (events["command"] == word)
        assert sorted(answers[name]) == (np.flatnonzero(mine) + 1).tolist()


def test_a_halt_by_http_is_in_the_journal_before_it_is_answered(tmp_path: Path) -> None:
    environ = {"LOCKSTEP__API__TOKEN": "0123456789abcdef0123"}
    settings = Settings.laid([{"api": {"port": 0, "token": environ["LOCKSTEP__API__TOKEN"]}}])

    async def knock(world: Desk) -> None:
        async with anyio.create_task_group() as group:
            port = await group.start(open_api(world.desk, settings, environ).run)
            headers = {"Authorization": f"Bearer {environ['LOCKSTEP__API__TOKEN']}"}
            base = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False) as http:
                answer = await http.post("/command", json={"word": "halt", "reason": "odd"})
                seq = answer.json()["seq"]
                database = world.service.journal.engine
                kept = await anyio.to_thread.run_sync(read_events, database, "paper")
                [told] = await anyio.to_thread.run_sync(read_commands, database, "paper", 10)
                assert (told.seq, told.reason) == (seq, "odd")
                assert told.who.endswith(" at 127.0.0.1")
                assert kept[seq - 1]["kind"] == Kind.COMMAND
                status = (await http.get("/status")).json()
                assert status["mode"] == "halted"
                assert status["last_command"] == {**asdict(told), "book": None}
                assert (await http.get("/commands")).json() == [status["last_command"]]
                for path in ("/positions", "/orders", "/decisions", "/trades"):
                    assert (await http.get(path)).status_code == 200
                missing = {"word": "close", "book": "nobody's", "reason": "r"}
                assert (await http.post("/command", json=missing)).status_code == 404
            group.cancel_scope.cancel()

    world = live(tmp_path / "j.sqlite", knock)
    assert world.service.engine.arrays["account"]["mode"][0] == Mode.HALTED


def test_an_order_while_we_stop_is_turned_away_and_waits_for_nothing() -> None:
    async def never(_word: Command, _place: int, _said: Said) -> None:
        """An inbox whose loop has ended."""

    async def life() -> None:
        commands = Commands(["book"], never, lambda: 0)
        refused: list[str] = []

        async def ask() -> None:
            try:
                await commands.ask(HALT)
            except Busy as busy:
                refused.append(str(busy))

        async with anyio.create_task_group() as group:
            for _ in range(WAITING_MAX + 1):
                group.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert refused == [f"{WAITING_MAX} orders wait for the loop already"]
            # what is in the inbox already may still take effect, and is waited for
            commands.drain()
            await anyio.wait_all_tasks_blocked()
            assert len(refused) == 1
            await ask()
            assert refused[1:] == ["the daemon is shutting down"]
            commands.close()
        await ask()
        assert refused[1:] == ["the daemon is shutting down"] * (WAITING_MAX + 2)

    anyio.run(life)


def test_a_caller_who_gave_up_leaves_no_place_taken() -> None:
    async def stuck(_word: Command, _place: int, _said: Said) -> None:
        await anyio.sleep_forever()

    async def life() -> None:
        commands = Commands(["book"], stuck, lambda: 0)
        for _ in range(WAITING_MAX * 2):
            with anyio.move_on_after(0.001):
                await commands.ask(HALT)

    anyio.run(life)


def test_only_so_many_outcomes_are_kept(tmp_path: Path) -> None:
    async def look(world: Desk) -> None:
        few = EngineDesk(
            world.service.engine,
            command=world.commands.ask,
            commands=tuple,
            ready=bool,
            healthy=bool,
            metrics_text=bytes,
            kept=3,
        )
        outcomes = world.service.engine.arrays["outcomes"][:5].copy()
        outcomes["kind"], outcomes["book"] = Result.DECISION, 0
        outcomes["seq"] = np.arange(5)
        few.observe(outcomes, outcomes, outcomes)
        outcomes["seq"] = 99
        assert [row["seq"] for row in few.decisions(10)] == [4, 3, 2]

    live(tmp_path / "j.sqlite", look)
