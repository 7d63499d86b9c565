"""Notifications: what is told, how it is kept from flooding, and what a bad channel cannot do."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest
from structlog.testing import capture_logs
from worlds import SCRIPT, one_book

from config.settings import Notify
from core.errors import ConfigError
from core.model import EVENT, OUTCOME, ExitReason, Kind, Mode, Records, Result
from daemon.alerts import Notice, Notifier, link, links_of, notices_of, open_notifier, started
from daemon.alerts import channels as channels_module
from daemon.alerts import notifier as notifier_module
from daemon.alerts.channels import Channel, Telegram, Webhook
from risk.gate import Rule

SECRET = "planted-secret-77f0"
TELEGRAM_TOKEN = f"123456:{SECRET}"
TOPICS = ("fill", "trade", "mode", "refusal", "link", "run")

Reply = tuple[int, dict[str, str], bytes]
OK: Reply = (200, {}, b'{"ok":true}')


@dataclass
class Stand:
    """A stand-in for whoever is notified: what it was sent, and what it answers, in turn."""

    replies: list[Reply | float] = field(default_factory=list)
    heard: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    port: int = 0

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def webhook(self) -> Webhook:
        return Webhook(f"{self.base}/hooks/{SECRET}")

    def telegram(self) -> Telegram:
        return Telegram(TELEGRAM_TOKEN, "-100", self.base)

    @property
    def texts(self) -> list[str]:
        return [body["text"] for _, body in self.heard]


@contextmanager
def standing(*replies: Reply | float) -> Iterator[Stand]:
    """A server on loopback; a number instead of a reply is silence for so many seconds."""
    stand = Stand([*replies])

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            stand.heard.append((self.path, json.loads(body)))
            reply = stand.replies.pop(0) if stand.replies else OK
            if isinstance(reply, float):
                time.sleep(reply)
                return
            status, headers, text = reply
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            """Nothing: the test listens."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    stand.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stand
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass
class Naps:
    """A sleep that takes no time, a clock that it moves, and how long each was to be."""

    now: float = 0.0
    taken: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)
        self.now += seconds
        await anyio.lowlevel.checkpoint()

    def clock(self) -> float:
        return self.now


def notice(text: str, topic: Any = "fill") -> Notice:
    return Notice(topic, text, 5)


def notifier_of(
    *found: Channel, naps: Naps | None = None, topics: Sequence[Any] = TOPICS, per_minute: float = 6
) -> tuple[Notifier, Naps]:
    naps = naps or Naps()
    more: dict[str, Any] = {"sleep": naps.sleep, "clock": naps.clock, "chance": Random(1)}
    return Notifier(found, topics, per_minute, **more), naps


def until(notifier: Notifier, done: Callable[[], bool], *first: Notice) -> None:
    """Tell the first notices, and let it run until done; fail when that takes too long."""

    async def life() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(notifier.run)
            notifier.tell(first)
            with anyio.fail_after(10):
                while not done():  # noqa: ASYNC110 - the other side is a thread
                    await anyio.sleep(0.005)
            group.cancel_scope.cancel()

    anyio.run(life)


def count(notifier: Notifier, name: str = "webhook") -> tuple[int, int, int, int]:
    tally = notifier.tallies[name]
    return tally.sent, tally.retried, tally.failed, tally.dropped


def test_a_webhook_gets_text_and_data() -> None:
    with standing() as stand:
        notifier, _ = notifier_of(stand.webhook())
        until(notifier, lambda: len(stand.heard) > 0, notice("bought"), notice("HALTED", "mode"))
    path, body = stand.heard[0]
    assert path == f"/hooks/{SECRET}"
    assert body == {
        "source": "lockstep",
        "text": "bought\nHALTED",
        "more": 0,
        "notices": [
            {"topic": "fill", "text": "bought", "ts": 5},
            {"topic": "mode", "text": "HALTED", "ts": 5},
        ],
    }


def test_telegram_gets_plain_text_for_its_chat() -> None:
    with standing() as stand:
        notifier, _ = notifier_of(stand.telegram())
        until(notifier, lambda: len(stand.heard) > 0, notice("<b>*bought*</b>"))
    path, body = stand.heard[0]
    assert path == f"/bot{TELEGRAM_TOKEN}/sendMessage"
    assert body["chat_id"] == "-100"
    assert body["text"] == "<b>*bought*</b>"
    assert "parse_mode" not in body


def test_only_topics_that_are_wanted_are_told() -> None:
    with standing() as stand:
        notifier, _ = notifier_of(stand.webhook(), topics=("mode",))
        until(notifier, lambda: count(notifier)[0] > 0, notice("x"), notice("HALTED", "mode"))
    assert stand.texts == ["HALTED"]


def test_many_notices_go_out_as_one_with_the_urgent_kept() -> None:
    many = [notice(f"fill {k}") for k in range(21)]
    many.insert(15, notice("HALTED", "mode"))
    with standing() as stand:
        notifier, _ = notifier_of(stand.webhook())
        until(notifier, lambda: len(stand.heard) > 0, *many)
    lines = stand.texts[0].splitlines()
    assert lines == [*(f"fill {k}" for k in range(9)), "HALTED", "and 12 more"]
    assert stand.heard[0][1]["more"] == 12
    assert count(notifier) == (1, 0, 0, 0)


def test_messages_go_no_faster_than_the_rate() -> None:
    with standing() as stand:
        notifier, naps = notifier_of(stand.webhook(), per_minute=6)

        async def life() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(notifier.run)
                for k in range(6):
                    notifier.tell([notice(str(k))])
                    with anyio.fail_after(5):
                        while len(stand.heard) <= k:  # noqa: ASYNC110 - a thread hears
                            await anyio.sleep(0.005)
                group.cancel_scope.cancel()

        anyio.run(life)
    # three at once, then one in ten seconds
    assert naps.taken == [10.0, 10.0, 10.0]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_further_and_further_apart(status: int) -> None:
    with standing((status, {}, b""), (status, {}, b"oh"), (status, {}, b"[]")) as stand:
        notifier, naps = notifier_of(stand.webhook())
        until(notifier, lambda: count(notifier)[0] == 1, notice("x"))
    assert stand.texts == ["x"] * 4
    assert count(notifier) == (1, 3, 0, 0)
    for nap, least in zip(naps.taken, (0.5, 1.0, 2.0), strict=True):
        assert least <= nap <= 2 * least


@pytest.mark.parametrize("status", [400, 401, 403, 404, 301, 302, 304])
def test_what_will_not_pass_is_let_go_at_once(status: int) -> None:
    headers = {"location": "http://127.0.0.1:1/"}
    with standing((status, headers, b"")) as stand, capture_logs() as logs:
        notifier, naps = notifier_of(stand.webhook())
        until(notifier, lambda: count(notifier)[2] == 1, notice("x"))
    assert len(stand.heard) == 1
    assert naps.taken == []
    assert [line["why"] for line in logs] == [f"HTTP {status}"]


def test_the_other_side_may_ask_for_patience_but_not_forever() -> None:
    body = b'{"ok":false,"parameters":{"retry_after":17}}'
    replies: list[Reply] = [
        (429, {"retry-after": "7"}, b""),
        (429, {}, body),
        (429, {"retry-after": "99999"}, b""),
        (429, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, b"[" * 5_000),
        (429, {}, b'{"parameters":{"retry_after":"soon"}}'),
    ]
    with standing(*replies) as stand:
        notifier, naps = notifier_of(stand.telegram())
        until(notifier, lambda: count(notifier, "telegram")[0] == 1, notice("x"))
    assert naps.taken[:3] == [7.0, 17.0, 300.0]
    assert all(nap <= 32.0 for nap in naps.taken[3:])


def test_a_channel_that_stays_down_is_given_up_and_the_next_message_says_so() -> None:
    down = [(500, {}, b"")] * notifier_module.ATTEMPTS
    with standing(*down) as stand, capture_logs() as logs:
        notifier, _ = notifier_of(stand.webhook())
        until(notifier, lambda: count(notifier)[2] == 1, notice("a"), notice("b"))
        until(notifier, lambda: count(notifier)[0] == 1, notice("c"))
    assert stand.texts[-1] == "c\nand 2 more"
    assert count(notifier) == (1, notifier_module.ATTEMPTS - 1, 1, 0)
    assert [line["event"] for line in logs] == ["notification_failed"]


def test_silence_is_a_timeout_and_nobody_there_is_an_error_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channels_module, "ATTEMPT_SECONDS_MAX", 0.2)
    with standing(0.5) as stand:
        notifier, _ = notifier_of(stand.webhook())
        until(notifier, lambda: count(notifier)[0] == 1, notice("x"))
        assert count(notifier) == (1, 1, 0, 0)
        gone = Webhook(stand.base)
    with capture_logs() as logs:
        notifier, _ = notifier_of(gone)
        until(notifier, lambda: count(notifier)[2] == 1, notice("x"))
    assert logs[0]["why"] == "ConnectError"


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    with standing((200, {}, b"x" * 5_000_000)) as stand:
        notifier, _ = notifier_of(stand.webhook())
        until(notifier, lambda: count(notifier)[0] == 1, notice("x"))


def test_a_full_queue_drops_the_least_urgent_counts_and_never_waits() -> None:
    with standing() as stand:
        notifier, _ = notifier_of(stand.webhook())
        notifier.tell([notice("HALTED", "mode")])
        began = time.perf_counter()
        notifier.tell([notice(str(k)) for k in range(10_000)])
        assert time.perf_counter() - began < 2.0
        dropped = 10_001 - notifier_module.QUEUE_MAX
        assert count(notifier)[3] == dropped
        until(notifier, lambda: len(stand.heard) > 0)
    lines = stand.texts[0].splitlines()
    assert lines[0] == "HALTED"
    assert lines[-1] == "and 9,991 more"


def test_a_slow_channel_holds_up_no_other() -> None:
    with standing(1.0) as slow, standing() as quick:
        notifier, _ = notifier_of(slow.telegram(), quick.webhook())
        until(notifier, lambda: len(quick.heard) == 1, notice("x"))
        assert count(notifier, "webhook")[0] == 1


def test_after_a_reload_other_channels_are_told_and_nothing_is_lost() -> None:
    with standing() as old, standing() as new:
        notifier, naps = notifier_of(old.webhook())
        nobody, _ = notifier_of()
        other, _ = notifier_of(new.telegram(), naps=naps, topics=("mode",))

        async def heard(stand: Stand, messages: int) -> None:
            while len(stand.heard) < messages:  # noqa: ASYNC110 - the stand is another thread
                await anyio.sleep(0.01)

        async def life() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(notifier.run)
                notifier.tell([notice("one")])
                await heard(old, 1)
                notifier.tell([notice("two")])
                notifier.become(other)
                notifier.tell([notice("unwanted"), notice("three", "mode")])
                await heard(new, 1)
                await heard(old, 2)
                notifier.become(nobody)
                notifier.tell([notice("four", "mode")])
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()

        anyio.run(life)
        # what was under way at the change may be told twice, but not never
        assert any("two" in text for text in old.texts)
        assert set(new.texts) == {"three"}


def test_the_last_words_are_sent_when_we_stop() -> None:
    with standing() as stand:
        notifier, _ = notifier_of(stand.webhook())

        async def life() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(notifier.run)
                await anyio.wait_all_tasks_blocked()
                notifier.tell([notice("stopped", "run")])
                group.cancel_scope.cancel()

        anyio.run(life)
    assert stand.texts == ["stopped"]


def test_last_words_to_a_channel_that_is_silent_do_not_hold_us_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notifier_module, "GRACE_SECONDS", 0.2)
    with standing(1.0, 1.0) as stand:
        notifier, _ = notifier_of(stand.webhook())
        began = time.perf_counter()
        until(notifier, lambda: len(stand.heard) == 1, notice("x"))
        assert time.perf_counter() - began < 1.0
        # what was under way is not known to have arrived: it is sent again
        assert stand.texts == ["x", "x"]


def test_no_secret_is_ever_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger=name)
    replies: list[Reply] = [(500, {}, b""), OK, (403, {}, SECRET.encode())]
    with capture_logs() as logs, standing(*replies) as stand:
        notifier, _ = notifier_of(stand.telegram())
        until(notifier, lambda: count(notifier, "telegram")[0] == 1, notice("x"))
        until(notifier, lambda: count(notifier, "telegram")[2] == 1, notice("y"))
        gone, _ = notifier_of(Webhook(f"http://127.0.0.1:1/{SECRET}"))
        until(gone, lambda: count(gone)[2] == 1, notice("z"))
    assert len(logs) == 2
    assert "connect_tcp" in caplog.text
    assert SECRET not in caplog.text + str(logs)


SETUP = one_book(SCRIPT)
BOOKS = [entry.book for entry in SETUP.books]


def outcome(kind: Result, **fields: Any) -> Records:
    rows = np.zeros(1, OUTCOME)
    rows["kind"], rows["ts"] = kind, 7
    for name, value in fields.items():
        rows[name] = value
    return rows


@pytest.mark.parametrize(
    ("row", "topic", "text"),
    [
        (
            outcome(Result.FILL, quantity=1.5, price=142.25, position=1.5, fee_micros=110_000),
            "fill",
            "book: bought 1.5 X at 142.25 (fee 0.11), now 1.5",
        ),
        (
            outcome(Result.FILL, quantity=-1e-3, price=104_000.5, exit=ExitReason.STOP_LOSS),
            "fill",
            "book: sold 0.001 X at 104,000.5 (fee 0.00, stop loss), now 0",
        ),
        (
            outcome(
                Result.TRADE, amount_micros=-12_345_678, target=12, exit=ExitReason.LIQUIDATION
            ),
            "trade",
            "book: closed with -12.35 after costs (liquidation, 12 bars)",
        ),
        (
            outcome(
                Result.MODE,
                book=-1,
                reason=Mode.HALTED,
                rule=Rule.DRAWDOWN,
                equity_micros=9 * 10**9,
            ),
            "mode",
            "HALTED by drawdown: no new risk until an operator resumes; equity 9,000.00",
        ),
        (
            outcome(Result.MODE, book=-1, reason=Mode.ACTIVE),
            "mode",
            "ACTIVE: trading; equity 0.00",
        ),
        (
            outcome(Result.REFUSED, rule=Rule.DAILY_LOSS),
            "refusal",
            "book: order refused by daily loss",
        ),
    ],
)
def test_outcomes_worth_telling_are_told(row: Records, topic: str, text: str) -> None:
    assert notices_of(row, BOOKS) == [Notice(topic, text, 7)]


def test_all_else_is_not_told() -> None:
    for kind in (Result.DECISION, Result.APPROVED, Result.FUNDING, Result.CANCELLED):
        assert notices_of(outcome(kind), BOOKS) == []
    for rule in set(Rule) - {Rule.DAILY_LOSS, Rule.DRAWDOWN}:
        assert notices_of(outcome(Result.REFUSED, rule=rule), BOOKS) == []
    assert notices_of(outcome(Result.FILL)[:0], BOOKS) == []


def test_links_and_the_run_are_told() -> None:
    events = np.zeros(3, EVENT)
    events["kind"], events["ts_known"] = [Kind.LINK, Kind.BAR, Kind.LINK], [1, 2, 3]
    events["up"] = [0.0, 1.0, 1.0]
    assert links_of(events, ["X"]) == [
        Notice("link", "X is down: no new risk while blind", 1),
        Notice("link", "X is up again", 3),
    ]
    assert started("paper\n\x1b[2J", ts=1).text == "run paper \N{REPLACEMENT CHARACTER}[2J started"
    assert len(link("x" * 1_000, up=True, ts=1).text) <= 300


def test_channels_are_those_that_are_set_up(tmp_path: Any) -> None:
    hidden: list[str] = []
    assert open_notifier(Notify(), {}).tallies == {}
    open_notifier(Notify(), {}).tell([notice("x")])
    environ = {
        "LOCKSTEP__NOTIFY__WEBHOOK": f"https://hooks.example/{SECRET}",
        "LOCKSTEP__NOTIFY__TELEGRAM_TOKEN": TELEGRAM_TOKEN,
    }
    settings = Notify(telegram_chat=-100)
    both = open_notifier(settings, environ, hidden.append)
    assert set(both.tallies) == {"webhook", "telegram"}
    assert hidden == list(environ.values())
    file = tmp_path / "hook"
    file.touch(0o600)
    file.write_text("http://10.0.0.1:8080/hook")
    assert set(open_notifier(Notify(webhook_file=file), {}).tallies) == {"webhook"}


@pytest.mark.parametrize(
    ("settings", "environ"),
    [
        (Notify(telegram_chat=5), {}),
        (Notify(), {"TELEGRAM_TOKEN": TELEGRAM_TOKEN}),
        (Notify(telegram_chat=5), {"TELEGRAM_TOKEN": SECRET}),
        (Notify(telegram_chat=5), {"TELEGRAM_TOKEN": f"1:{SECRET}/../x?y"}),
        (Notify(), {"WEBHOOK": SECRET}),
        (Notify(), {"WEBHOOK": f"file:///{SECRET}"}),
        (Notify(), {"WEBHOOK": f"https:///{SECRET}"}),
        (Notify(), {"WEBHOOK": f"https://[{SECRET}"}),
        (Notify(), {"WEBHOOK": f"https://h:99999/{SECRET}"}),
        (Notify(webhook=SECRET), {}),
    ],
)
def test_a_channel_set_up_wrong_is_refused_unseen(
    settings: Notify, environ: dict[str, str]
) -> None:
    named = {f"LOCKSTEP__NOTIFY__{name}": value for name, value in environ.items()}
    with pytest.raises(ConfigError) as caught:
        open_notifier(settings, named)
    assert SECRET not in str(caught.value)
