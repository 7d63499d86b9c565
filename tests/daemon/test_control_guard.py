"""Who gets past the guard and who does not: each check blocking and passing, on real sockets."""

import logging
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import httpx
import pytest
from control_world import PLENTY, READ, TOKEN, FakeDesk, asked, caller, raw, served
from structlog.testing import capture_logs

from core.errors import ConfigError
from daemon.control import serving
from daemon.control.api import make_app
from daemon.control.auth import Role, Tokens
from daemon.control.guard import OPEN, READS, Limits
from daemon.control.rate import Buckets
from daemon.control.serving import serve

AUTH = f"Authorization: Bearer {TOKEN}"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served(FakeDesk()) as found:
        yield found


@pytest.mark.parametrize("path", OPEN)
def test_probes_are_open(port: int, path: str) -> None:
    assert asked(port, path) == 200


@pytest.mark.parametrize("path", READS)
def test_everything_else_needs_the_token(port: int, path: str) -> None:
    assert asked(port, path) == 401
    assert asked(port, path, AUTH) == 200
    assert asked(port, path, f"Authorization: Bearer {READ}") == 200


@pytest.mark.parametrize(
    "header",
    [
        "Authorization: Bearer wrong-token-wrong-token",
        f"Authorization: Basic {TOKEN}",
        f"Authorization: {TOKEN}",
        f"Authorization: Bearer  {TOKEN}",
        f"Authorization: Bearer {TOKEN}x",
        f"Authorization: Bearer {TOKEN[:-1]}",
        f"Authorization: Bearer {TOKEN.upper()}",
        "Authorization: Bearer",
        "Authorization:",
        f"X-Api-Key: {TOKEN}",
        f"Cookie: token={TOKEN}",
        f"{AUTH}\r\n{AUTH}",
        f"Authorization: Bearer wrong\r\n{AUTH}",
    ],
)
def test_what_is_not_the_token_is_refused(port: int, header: str) -> None:
    assert asked(port, "/status", header) == 401


def test_the_scheme_knows_no_case_but_a_query_is_no_header(port: int) -> None:
    assert asked(port, "/status", f"authorization: bearer {TOKEN}") == 200
    assert asked(port, f"/status?token={TOKEN}&access_token={TOKEN}") == 401


def test_a_read_token_looks_but_does_not_command() -> None:
    desk = FakeDesk()
    with served(desk) as port:
        with caller(port, READ) as reader:
            answer = reader.post("/command", json={"word": "halt"})
            assert answer.status_code == 403
        assert desk.heard == []
        with caller(port) as operator:
            assert operator.post("/command", json={"word": "halt"}).status_code == 200
    assert len(desk.heard) == 1


def test_without_tokens_only_the_probes_answer() -> None:
    app = make_app(FakeDesk(), None)
    with anyio.from_thread.start_blocking_portal() as portal:
        future, port = portal.start_task(serve, app, "127.0.0.1", 0)
        assert asked(port, "/health") == 200
        assert asked(port, "/status") == 401
        assert asked(port, "/status", "Authorization: Bearer ") == 401
        future.cancel()


@pytest.mark.parametrize(
    "target",
    [
        "/health/../status",
        "/health/..%2fstatus",
        "/health%2f..%2fstatus",
        "/%2e%2e/status",
        "//status",
        "/./status",
        "/%73tatus",
        "/status%00",
        "/status/",
        "/status;/health",
        "/STATUS",
        "/ready%20",
        "/%68ealth",
        "/health/",
        "/health%3f/status",
        "http://127.0.0.1/status",
        "http://127.0.0.1/health",
        "/../../etc/passwd",
        "\\status",
        "*",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/favicon.ico",
        "/",
    ],
)
def test_a_crooked_path_leads_nowhere(port: int, target: str) -> None:
    assert asked(port, target) in (400, 401)
    assert asked(port, target, AUTH) in (400, 404)


def test_other_methods_are_refused(port: int) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD"):
        assert asked(port, "/status", AUTH, method=method) == 405
    assert asked(port, "/command", AUTH, method="GET") == 405
    assert asked(port, "/health", method="POST") == 405


def test_a_method_in_disguise_is_not_believed(port: int) -> None:
    assert asked(port, "/command", AUTH, "X-HTTP-Method-Override: POST") == 405


def posted(port: int, body: bytes, *headers: str, auth: str = AUTH) -> bytes:
    lines = ["POST /command HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
    lines += ["Content-Type: application/json", auth, *headers]
    return raw(port, "\r\n".join([*lines, "", ""]).encode() + body)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_a_body_has_a_largest_size_told_or_untold() -> None:
    desk = FakeDesk()
    limits = Limits(per_minute=6_000, burst=100, body_bytes_max=200, body_seconds_max=1.0)
    halt = b'{"word": "halt"}'
    fits, large = halt.ljust(200), halt.ljust(201)
    with served(desk, limits) as port:
        assert status_of(posted(port, fits, "Content-Length: 200")) == 200
        assert status_of(posted(port, large, "Content-Length: 201")) == 413
        # it is refused by what it says, before any of it comes
        assert status_of(posted(port, b"", "Content-Length: 99999999999")) == 413
        chunked = "Transfer-Encoding: chunked"
        assert status_of(posted(port, b"c8\r\n" + fits + b"\r\n0\r\n\r\n", chunked)) == 200
        assert status_of(posted(port, b"c9\r\n" + large + b"\r\n0\r\n\r\n", chunked)) == 413
        # a stranger's is not read at all
        assert status_of(posted(port, large, "Content-Length: 201", auth="X: y")) == 401
    assert len(desk.heard) == 2


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    limits = Limits(body_seconds_max=0.3)
    with served(FakeDesk(), limits) as port:
        began = time.monotonic()
        answer = posted(port, b'{"word"', "Content-Length: 100")
        assert status_of(answer) == 408
        assert 0.2 < time.monotonic() - began < 3.0


def test_a_request_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "REQUEST_SECONDS_MAX", 0.4)
    with served(FakeDesk()) as port:
        assert raw(port, "GET /health HT", seconds=5.0) == b""
        # one who was answered and then dawdles is let go as well
        whole = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(whole.encode())
            said = b""
            while not said.endswith(b"}"):
                said += connection.recv(65_536)
            assert b"200" in said
            connection.sendall(b"GET /hea")
            assert connection.recv(65_536) == b""
        assert asked(port, "/health") == 200


def test_headers_have_a_largest_size(port: int) -> None:
    assert asked(port, "/health", f"X-Pad: {'x' * 16_384}") == 431
    assert asked(port, "/status", AUTH, f"X-Pad: {'x' * 16_384}") == 431
    assert asked(port, "/health", f"X-Pad: {'x' * 6_000}") == 200


def test_a_flood_is_slowed_and_holds_up_no_order() -> None:
    clock = [0.0]
    desk = FakeDesk()
    limits = Limits(per_minute=60, burst=3)
    with served(desk, limits, clock=lambda: clock[0]) as port:
        assert [asked(port, "/health") for _ in range(5)] == [200, 200, 200, 429, 429]
        assert [asked(port, "/status") for _ in range(2)] == [429, 429]
        # readers have a rate of their own, and orders too
        assert [asked(port, "/status", AUTH) for _ in range(4)] == [200, 200, 200, 429]
        with caller(port) as operator:
            codes = [operator.post("/command", json={"word": "halt"}) for _ in range(4)]
            assert [code.status_code for code in codes] == [200, 200, 200, 429]
            assert codes[-1].headers["retry-after"] == "1"
        clock[0] += 1.0
        assert [asked(port, "/health") for _ in range(2)] == [200, 429]
        assert [asked(port, "/status", AUTH) for _ in range(2)] == [200, 429]
    assert len(desk.heard) == 3


def test_buckets_fill_no_further_than_their_burst_and_forget_the_oldest() -> None:
    clock = [0.0]
    buckets = Buckets(60, 2, lambda: clock[0], callers_max=2)
    assert [buckets.wait("a") for _ in range(3)] == [0.0, 0.0, 1.0]
    clock[0] = 0.25
    assert buckets.wait("a") == 0.75
    clock[0] = 3_600.0
    assert [buckets.wait("a") for _ in range(3)] == [0.0, 0.0, 1.0]
    buckets.wait("b")
    buckets.wait("c")
    assert buckets.wait("a") == 0.0


def test_every_answer_is_hardened(port: int) -> None:
    with caller(port) as client:
        for answer in (client.get("/status"), client.get("/none"), client.post("/command")):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "server" not in answer.headers
    with caller(port, None) as stranger:
        answer = stranger.get("/status")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-frame-options"] == "DENY"


def test_metrics_are_open_to_this_machine_only_when_told() -> None:
    with served(FakeDesk(), Limits(metrics_open=True)) as port:
        assert asked(port, "/metrics") == 200
        assert asked(port, "/status") == 401
        assert asked(port, "/metrics", "X-Forwarded-For: 10.0.0.1") == 401
        assert asked(port, "/metrics", "Forwarded: for=10.0.0.1") == 401
        elsewhere = "GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        assert b" 401 " in raw(port, elsewhere)
        for host in ("localhost", f"localhost:{port}", "[::1]", "[::1]:9", f"127.0.0.1:{port}"):
            text = f"GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            assert b" 200 " in raw(port, text), host


def test_tokens_are_long_enough_differ_and_do_not_show() -> None:
    tokens = Tokens(TOKEN, READ)
    for told in (repr(tokens), str(tokens), repr(vars(tokens))):
        assert TOKEN not in told
        assert READ not in told
    assert tokens.role([f"Bearer {READ}".encode()]) is Role.READER
    assert Tokens(TOKEN).role([b"Bearer "]) is Role.STRANGER
    with pytest.raises(ConfigError, match="at least 16"):
        Tokens("short")
    with pytest.raises(ConfigError, match="must differ"):
        Tokens(TOKEN, TOKEN)


def test_no_address_but_loopback_is_opened_without_a_token() -> None:
    async def open_on(host: str, tokens: Tokens | None) -> int:
        async with anyio.create_task_group() as group:
            app = make_app(FakeDesk(), tokens)
            found: int = await group.start(partial(serve, app, host, 0))
            group.cancel_scope.cancel()
        return found

    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", ""):
        with pytest.raises(BaseExceptionGroup) as caught:
            anyio.run(open_on, host, None)
        assert caught.group_contains(ConfigError, match="only with a token")
    assert anyio.run(open_on, "0.0.0.0", Tokens(TOKEN)) > 0
    assert anyio.run(open_on, "127.0.0.1", None) > 0
    assert anyio.run(open_on, "::1", None) > 0


def test_a_port_that_is_taken_is_one_error(port: int) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
        anyio.run(serve, make_app(FakeDesk(), None), "127.0.0.1", port)


def test_serving_leaves_signals_alone_and_ends_when_cancelled() -> None:
    async def life() -> float:
        before = [signal.getsignal(sig) for sig in (signal.SIGINT, signal.SIGTERM)]
        async with anyio.create_task_group() as group:
            port = await group.start(serve, make_app(FakeDesk(), Tokens(TOKEN)), "127.0.0.1", 0)
            async with httpx.AsyncClient(trust_env=False) as client:
                url = f"http://127.0.0.1:{port}"
                assert (await client.get(f"{url}/health")).status_code == 200
                assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
                # a connection that is kept alive does not hold it up
                began = time.monotonic()
                group.cancel_scope.cancel()
        took = time.monotonic() - began
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))
        return took

    assert anyio.run(life) < 3.0


def test_no_token_is_told_in_answers_or_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    desk = FakeDesk(fails=lambda: ValueError("broken"))
    answers: list[Any] = []
    # the double of a programmer's error in a desk: the traceback is logged, the caller sees none
    with capture_logs() as logs, served(desk, PLENTY) as port:
        for target in ("/status", "/none", f"/status?x={TOKEN}", f"/{TOKEN}", "/decisions?limit=x"):
            for header in (AUTH, f"Authorization: Basic {TOKEN}", f"X-Token: {TOKEN}"):
                lines = [f"GET {target} HTTP/1.1", "Host: x", "Connection: close", header]
                answers.append(raw(port, "\r\n".join([*lines, "", ""])))
        bodies = (b'{"word": "halt"}', f'{{"{TOKEN}": "{TOKEN}"}}'.encode(), TOKEN.encode())
        answers += [posted(port, body, f"Content-Length: {len(body)}") for body in bodies]
        answers.append(raw(port, f"{TOKEN} {TOKEN}\r\n\r\n"))
    told = b"".join(answers).decode("latin-1") + caplog.text + str(logs)
    assert "Internal Server Error" in told
    assert "broken" not in b"".join(answers).decode("latin-1")
    assert TOKEN not in told


def test_what_was_turned_away_is_counted() -> None:
    counts: list[int] = []
    with served(FakeDesk(), tally=counts.append) as port:
        asked(port, "/status")
        asked(port, "/none", AUTH)
        asked(port, "/status", AUTH)
    assert counts == [401, 404]
