"""The one door for orders: what it takes, what it turns away, and what it passes on unharmed."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from control_world import BOOKS, TOKEN, FakeDesk, caller, served
from structlog.testing import capture_logs

from core.errors import LockstepError
from core.model import Command
from daemon.control.desk import Busy, Order
from daemon.control.guard import Limits

CLOSE = {"word": "close", "book": BOOKS[0], "reason": "because"}
RESUME = {"word": "resume", "reason": "because"}


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[FakeDesk, httpx.Client]]:
    desk = FakeDesk()
    with served(desk) as port, caller(port) as client:
        yield desk, client


@pytest.fixture
def desk(world: tuple[FakeDesk, httpx.Client]) -> FakeDesk:
    world[0].heard.clear()
    return world[0]


@pytest.fixture
def client(world: tuple[FakeDesk, httpx.Client]) -> httpx.Client:
    return world[1]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"word": "halt"}, Command.HALT),
        ({"word": "halt", "reason": "odd prices"}, Command.HALT),
        ({"word": "reduce_only"}, Command.REDUCE_ONLY),
        ({"word": "pause"}, Command.REDUCE_ONLY),
        (RESUME, Command.RESUME),
        (CLOSE, Command.CLOSE),
        ({"word": "flatten", "reason": "because"}, Command.FLATTEN),
    ],
)
def test_an_order_reaches_the_desk(
    desk: FakeDesk, client: httpx.Client, body: dict[str, str], word: Command
) -> None:
    answer = client.post("/command", json={**body, "by": "ann"})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"word": word.name.lower(), "book": body.get("book"), "seq": 41}
    expected = Order(
        word=word,
        book=body.get("book"),
        reason=body.get("reason", ""),
        who="ann at 127.0.0.1",
    )
    assert desk.heard == [expected]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"word": "explode"},
        {"word": "HALT"},
        {"word": 1},
        {"word": ["halt"]},
        {"word": None},
        {"word": "resume"},
        {"word": "resume", "reason": ""},
        {"word": "flatten"},
        {"word": "flatten", "reason": "because", "book": BOOKS[0]},
        {"word": "resume", "reason": "   "},
        {"word": "close", "book": BOOKS[0]},
        {"word": "close", "reason": "because"},
        {"word": "close", "book": "", "reason": "because"},
        {"word": "halt", "book": BOOKS[0]},
        {"word": "halt", "force": True},
        {"word": "halt", "who": "root"},
        {"word": "halt", "reason": 5},
        {"word": "halt", "reason": {"$ne": ""}},
        {"word": "close", "book": 0, "reason": "because"},
        [],
        "halt",
        None,
        {"word": "halt", "by": ["ann"]},
    ],
)
def test_an_order_that_is_not_one_is_refused(
    desk: FakeDesk, client: httpx.Client, body: Any
) -> None:
    answer = client.post("/command", json=body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"detail"}
    assert desk.heard == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 16_000,
        b'{"word": "halt"' + b" " * 100,
        b'{"word": "halt"}{"word": "resume"}',
        b'{"word": NaN}',
    ],
)
def test_a_body_that_is_no_json_is_refused(
    desk: FakeDesk, client: httpx.Client, content: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    assert client.post("/command", content=content, headers=headers).status_code in (400, 422)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert client.post("/command", content=b"word=halt", headers=form).status_code == 422
    plain = {"Content-Type": "text/plain"}
    halt = b'{"word": "halt"}'
    assert client.post("/command", content=halt, headers=plain).status_code == 422
    assert desk.heard == []


HOSTILE = [
    "two\nlines",
    "carriage\rreturn",
    "a\x00b",
    "\x1b[31mred\x1b[0m",
    "\x9b31m",
    "bell\x07",
    "turned\u202eround",
    "zero\u200bwidth",
    "line\u2028break",
    "\ud800",
    "x" * 10_000,
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ["reason", "book", "by", "word"])
def test_hostile_text_is_refused_in_every_field(
    desk: FakeDesk, client: httpx.Client, field: str, text: str
) -> None:
    content = json.dumps({**CLOSE, field: text}).encode()
    headers = {"Content-Type": "application/json"}
    with capture_logs() as logs:
        answer = client.post("/command", content=content, headers=headers)
    assert answer.status_code == 422
    assert text not in answer.text
    assert len(answer.text) < 400
    assert desk.heard == []
    assert logs == []


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE events; --",
        '"quoted" \\ back',
        "$(reboot) `id` ; rm -rf / | cat",
        "{{7*7}} ${jndi:ldap://x} %s %n {0.__class__}",
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "größer als 5 € 漢字",
    ],
)
def test_text_that_only_means_something_elsewhere_is_kept_as_it_is(
    desk: FakeDesk, client: httpx.Client, text: str
) -> None:
    with capture_logs() as logs:
        answer = client.post("/command", json={**CLOSE, "reason": text, "by": "ann"})
    assert answer.status_code == 200
    assert desk.heard[0].reason == text
    assert {line["reason"] for line in logs} == {text}
    unknown = client.post("/command", json={**CLOSE, "book": text})
    assert unknown.status_code == 404
    assert "unknown book" in unknown.json()["detail"]


def test_the_record_says_who_why_and_where_in_the_journal(
    desk: FakeDesk, client: httpx.Client
) -> None:
    with capture_logs() as logs:
        client.post("/command", json={"word": "halt", "reason": "odd prices"})
    assert desk.heard[0].who == "operator at 127.0.0.1"
    about = {"log_level": "info", "word": "halt", "book": None, "reason": "odd prices"}
    about["who"] = "operator at 127.0.0.1"
    # the first stands before the order can take effect, so that no reason is ever lost
    assert logs == [
        {"event": "command_asked", **about},
        {"event": "command_in_effect", "seq": 41, **about},
    ]


@pytest.mark.parametrize(
    ("error", "status"),
    [(Busy("the daemon is shutting down"), 503), (LockstepError("no\x1b[2J\nway"), 409)],
)
def test_an_order_the_desk_refuses_is_told_as_such(error: LockstepError, status: int) -> None:
    def fails() -> LockstepError:
        return error

    with served(FakeDesk(fails=fails)) as port, caller(port) as client:
        answer = client.post("/command", json={"word": "halt"})
    assert answer.status_code == status
    assert "\x1b" not in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


def test_an_order_the_loop_does_not_take_is_not_waited_for_forever() -> None:
    desk = FakeDesk(seconds=30.0)
    limits = Limits(command_seconds_max=0.2)
    with served(desk, limits) as port, caller(port) as client:
        answer = client.post("/command", json={"word": "halt"})
        assert answer.status_code == 504
        assert "may still take effect" in answer.json()["detail"]
        assert client.get("/status").status_code == 200


def test_reads_answer_what_the_desk_says(client: httpx.Client) -> None:
    fake = FakeDesk()
    assert client.get("/status").json() == fake.status()
    assert client.get("/positions").json() == fake.positions()
    assert client.get("/orders").json() == []
    assert len(client.get("/decisions").json()) == 100
    assert len(client.get("/decisions", params={"limit": 3}).json()) == 3
    assert client.get("/trades").json() == fake.trades(1)
    metrics = client.get("/metrics")
    assert metrics.text == "lockstep_up 1\n"
    assert metrics.headers["content-type"].startswith("text/plain; version=")
    for limit in ("0", "1001", "x", "-1", "1e9", "\x1b[2J"):
        assert client.get("/decisions", params={"limit": limit}).status_code == 422


def test_probes_tell_a_daemon_that_is_not_well() -> None:
    with served(FakeDesk(well=False)) as port, caller(port, None) as stranger:
        for path in ("/health", "/ready"):
            answer = stranger.get(path)
            assert (answer.status_code, answer.json()) == (503, {"ok": False})


def test_a_planted_token_in_a_text_field_stays_out_of_errors(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for body in ({"word": TOKEN}, {TOKEN: "halt"}, {"word": "halt", "reason": f"{TOKEN}\n"}):
        answer = client.post("/command", json=body)
        assert answer.status_code == 422
        assert TOKEN not in answer.text
    assert TOKEN not in caplog.text
