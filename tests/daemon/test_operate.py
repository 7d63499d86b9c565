"""The verbs over a running daemon: on real sockets, with what a person sees when it says no."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from cli_calls import call, desk, refuse, succeed
from control_world import BOOKS, PLENTY, READ, TOKEN, FakeDesk, served
from structlog.testing import capture_logs

from core.errors import ConfigError
from core.model import Command
from daemon.commands.operate import _address
from daemon.control.client import Client
from daemon.control.desk import Busy
from daemon.control.guard import Limits

__all__ = ["desk"]

pytestmark = pytest.mark.usefixtures("desk")
HOSTILE = "\x1b]0;owned\x07\nline\u202e"


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    """The daemon's log is not the command's output, though one process holds both here."""
    with capture_logs():
        yield


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[FakeDesk, int]]:
    fake = FakeDesk()
    with served(fake) as port:
        yield fake, port


@pytest.fixture
def fake(world: tuple[FakeDesk, int]) -> FakeDesk:
    world[0].heard.clear()
    return world[0]


@pytest.fixture
def at(world: tuple[FakeDesk, int], desk: Path) -> list[str]:
    return flags(world[1], desk)


def flags(port: int, folder: Path, token: str = TOKEN) -> list[str]:
    file = folder / "token"
    file.unlink(missing_ok=True)
    file.touch(0o600)
    file.write_text(token)
    return ["--url", f"http://127.0.0.1:{port}", "--token-file", str(file)]


@contextmanager
def answering(text: bytes) -> Iterator[int]:
    """A server on loopback that answers every connection with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(text)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        thread.join(5)


def test_status_is_told_and_fits(at: list[str], fake: FakeDesk) -> None:
    answer = succeed("status", *at)
    assert "10,123.45" in answer.out
    assert "05-04 00:00:00" in answer.out
    assert succeed("status", *at, "--json").json == fake.status()
    assert f"close {BOOKS[0]} by ann at 127.0.0.1: delisted" in " ".join(answer.out.split())
    for words in (["status"], ["positions", "--all"], ["trades"], ["commands"]):
        assert max(len(line) for line in succeed(*words, *at).out.splitlines()) <= 80


def test_positions_leave_flat_books_out_until_asked(at: list[str], fake: FakeDesk) -> None:
    assert BOOKS[1] not in succeed("positions", *at).out
    assert BOOKS[0] in succeed("positions", *at).out
    assert BOOKS[1] in succeed("positions", "--all", *at).out
    assert succeed("positions", *at, "--json").json == fake.positions()


def test_trades_are_listed(at: list[str], fake: FakeDesk) -> None:
    assert "2.75" in succeed("trades", *at).out
    assert succeed("trades", "--limit", 1, *at, "--json").json == fake.trades(1)
    assert "--limit" in refuse(2, "trades", "--limit", 0, *at)


def test_who_gave_a_command_and_why_is_told(at: list[str], fake: FakeDesk) -> None:
    told = " ".join(succeed("commands", *at).out.split())
    for word in ("close", "ann at 127.0.0.1", "delisted tomorrow", "05-04 00:00:00"):
        assert word in told
    assert succeed("commands", *at, "--json").json == fake.commands(20)
    ordered = {**fake.trades(1)[0], "exit": "command", "command": fake.commands(1)[0]}
    with patch.object(fake, "trades", lambda _limit: [ordered]):
        assert "delisted" in succeed("trades", *at).out
    quiet = patch.object(fake, "commands", lambda _limit: [])
    with quiet, patch.object(fake, "status", lambda: {"mode": "active", "last_command": None}):
        assert "no command yet" in succeed("commands", *at).out
        assert "last command" in succeed("status", *at).out


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["halt"], Command.HALT),
        (["halt", "--reason", "why not"], Command.HALT),
        (["halt", "--flatten", "--reason", "why not"], Command.FLATTEN),
        (["reduce-only", "--reason", "why not"], Command.REDUCE_ONLY),
        (["pause"], Command.REDUCE_ONLY),
        (["resume", "--reason", "why not"], Command.RESUME),
        (["close", BOOKS[0], "--reason", "why not"], Command.CLOSE),
    ],
)
def test_a_verb_orders(at: list[str], fake: FakeDesk, words: list[str], word: Command) -> None:
    told = succeed(*words, *at).out
    assert "journaled as event 41" in told
    assert told.startswith(word.name.lower().replace("_", " "))
    assert succeed(*words, *at, "--json").json["seq"] == 42
    order = fake.heard[0]
    assert order.word is word
    assert order.reason == ("why not" if "--reason" in words else "")
    assert order.who.endswith(" at 127.0.0.1")


def test_what_needs_a_reason_is_not_ordered_without(at: list[str], fake: FakeDesk) -> None:
    assert "--reason" in refuse(2, "resume", *at)
    assert "--reason" in refuse(2, "close", BOOKS[0], *at)
    assert "--reason" in refuse(2, "halt", "--flatten", *at)
    assert "needs a reason" in refuse(1, "halt", "--flatten", "--reason", " ", *at)
    assert "needs a reason" in refuse(1, "resume", "--reason", " ", *at)
    assert "did you mean" in refuse(1, "close", "trend@SOL", "--reason", "x", *at)
    assert "control characters" in refuse(1, "halt", "--reason", HOSTILE, *at)
    assert fake.heard == []


def test_a_daemon_that_is_not_there_is_told_with_what_to_do(desk: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        line = refuse(1, "status", *flags(taken.getsockname()[1], desk))
    assert "no daemon answers at http://127.0.0.1:" in line
    assert "--url" in line


def test_a_wrong_or_lesser_token_is_told_as_such(world: tuple[FakeDesk, int], desk: Path) -> None:
    wrong = flags(world[1], desk, "some-other-token-0000")
    line = refuse(2, "status", *wrong)
    assert "does not know this token" in line
    assert "some-other-token-0000" not in line
    assert "may look, but not command" in refuse(2, "halt", *flags(world[1], desk, READ))
    assert succeed("status", *flags(world[1], desk, READ))


def test_too_many_requests_are_told_with_how_long_to_wait(desk: Path) -> None:
    with served(FakeDesk(), Limits(per_minute=1, burst=1)) as port:
        succeed("status", *flags(port, desk))
        assert "too many requests: try again in" in refuse(1, "status", *flags(port, desk))


def test_a_daemon_that_refuses_is_told_in_its_words(desk: Path) -> None:
    fake = FakeDesk(fails=lambda: Busy("the daemon is shutting down"))
    with served(fake, PLENTY) as port:
        assert "the daemon is shutting down" in refuse(1, "halt", *flags(port, desk))
    with served(FakeDesk(seconds=9), Limits(command_seconds_max=0.1)) as port:
        assert "may still take effect" in refuse(1, "halt", *flags(port, desk))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", "no Lockstep daemon"),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 2\r\n\r\n[]", "it answered 500"),
        (b"HTTP/1.1 302 Go\r\nlocation: http://evil/\r\ncontent-length: 0\r\n\r\n", "answered 302"),
        (b"SSH-2.0-OpenSSH\r\n", "RemoteProtocolError"),
        (b"", "RemoteProtocolError"),
        (b"HTTP/1.1 429 Slow\r\nretry-after: \x1b[2J\r\ncontent-length: 0\r\n\r\n", "try again"),
    ],
)
def test_whatever_else_answers_is_one_line(desk: Path, text: bytes, told: str) -> None:
    with answering(text) as port:
        line = refuse(1, "status", *flags(port, desk))
    assert told in line
    assert "\x1b" not in line


def test_what_a_daemon_answers_cannot_take_over_the_terminal(desk: Path) -> None:
    body = json.dumps([{"book": HOSTILE, "quantity": 1.0, HOSTILE: 1}]).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    for more in ([], ["--json"]):
        with answering(head + body) as port:
            out = succeed("positions", *flags(port, desk), *more).out
        assert "\x1b" not in out
        assert "\u202e" not in out
    detail = json.dumps({"detail": HOSTILE}).encode()
    head = f"HTTP/1.1 409 No\r\ncontent-length: {len(detail)}\r\n\r\n".encode()
    with answering(head + detail) as port:
        assert "\x1b" not in refuse(1, "halt", *flags(port, desk))


def test_the_token_is_found_where_the_daemon_left_it(
    world: tuple[FakeDesk, int], desk: Path
) -> None:
    url = ["--url", f"http://127.0.0.1:{world[1]}"]
    assert "runs/control.token is not there" in refuse(2, "status", *url)
    succeed("status", *url, LOCKSTEP__API__TOKEN=TOKEN)
    (desk / "runs").mkdir()
    path = desk / "runs" / "control.token"
    path.write_text(TOKEN)
    path.chmod(0o644)
    assert "chmod 600" in refuse(2, "status", *url)
    path.chmod(0o600)
    succeed("status", *url)
    succeed("status", LOCKSTEP__API__PORT=str(world[1]))
    (desk / "p.toml").write_text(f"[api]\nport = {world[1]}\n")
    succeed("status", "--config", "p.toml")


def test_the_token_is_not_sent_where_it_should_not_go(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("ftp://x", "127.0.0.1:8321", "http://", "https://u:p@host", ""):
        with pytest.raises(ConfigError, match="--url"):
            Client(url, TOKEN)
    assert Client("http://192.0.2.1:1", TOKEN).in_the_clear
    assert not Client("https://192.0.2.1:1", TOKEN).in_the_clear
    assert not Client("http://127.0.0.1:1", TOKEN).in_the_clear
    assert not Client("http://[::1]:1", TOKEN).in_the_clear
    # a proxy of the environment is not asked
    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy}")
        with answering(b'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"own":1}') as port:
            assert succeed("status", *flags(port, desk), "--json").json == {"own": 1}
        with socket.create_connection(("127.0.0.1", proxy)) as last:
            last.sendall(b"x")


def test_the_address_of_a_daemon_is_one_that_can_be_asked() -> None:
    assert _address("127.0.0.1", 1) == "http://127.0.0.1:1"
    assert _address("0.0.0.0", 1) == "http://127.0.0.1:1"
    assert _address("::", 1) == "http://[::1]:1"


def test_every_verb_has_help_with_an_example() -> None:
    for verb in (
        "status",
        "positions",
        "trades",
        "commands",
        "halt",
        "reduce-only",
        "resume",
        "close",
        "tail",
    ):
        answer = call(verb, "--help")
        assert answer.code == 0
        assert "Example: " in answer.out


def test_no_verb_shows_the_token(at: list[str]) -> None:
    told: list[Any] = [call(verb, *at, "--debug") for verb in ("status", "positions", "trades")]
    told.append(call("close", "nobody", "--reason", "x", *at, "--debug"))
    for answer in told:
        assert TOKEN not in answer.out + answer.err
