"""Logs: a planted key is nowhere in them, whatever road it takes; a line a tick tells all of it."""

import base64
import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import anyio
import pytest
import structlog
from observed_world import watched
from worlds import START

from core.model import MICROS_PER_UNIT, Kind, Result
from daemon.observe.canonical import ROWS_MAX, Canonical
from daemon.observe.logs import begin_tick, configure, spoken
from daemon.observe.redaction import HIDDEN, Secrets, names_a_secret
from daemon.observe.stopwatch import Tick

KEY = 'pl4nted "kéy" \\/+= 7f3a'
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nBAQEFAASCBKcwggSjAgEAAo\n-----END KEY-----"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def configured() -> Iterator[Callable[..., io.StringIO]]:
    """Configures logging onto a stream of the test, and puts everything back after it."""
    root, hook = logging.getLogger(), sys.excepthook
    before = (root.handlers, root.level)

    def start(stream: io.StringIO | None = None, **more: Any) -> io.StringIO:
        stream = stream or io.StringIO()
        configure(Secrets([KEY, PEM]), stream=stream, clock=lambda: START + 7, **more)
        return stream

    yield start
    root.handlers, sys.excepthook = before[0], hook
    root.setLevel(before[1])
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def raise_with(text: str) -> None:
    raise ValueError(f"venue says: bad key {text}")


def log_exception() -> None:
    try:
        raise_with(KEY)
    except ValueError:
        structlog.get_logger("x").exception("refused")


def log_chained() -> None:
    try:
        try:
            raise_with(KEY)
        except ValueError as error:
            raise RuntimeError("sender") from error
    except RuntimeError:
        logging.getLogger("venue").exception("refused by %s", KEY)


class Client:
    def __repr__(self) -> str:
        return f"Client(key={KEY!r}, lines={PEM.splitlines()})"


ROADS: dict[str, Callable[[], None]] = {
    "event": lambda: structlog.get_logger().info(f"key {KEY}"),
    "field": lambda: structlog.get_logger().info("x", a=KEY),
    "positional": lambda: structlog.get_logger().info("x %s", KEY),
    "nested": lambda: structlog.get_logger().info("x", a={"b": [("c", {KEY: (KEY,)})]}),
    "bytes": lambda: structlog.get_logger().info("x", a=KEY.encode()),
    "object": lambda: structlog.get_logger().info("x", a=Client(), b=[Client()]),
    "multi-line": lambda: structlog.get_logger().info("x", a=PEM.replace("\n", "\n    ")),
    "url": lambda: structlog.get_logger().info("x", a=f"https://a/?k={quote(KEY, safe='')}"),
    "json in text": lambda: structlog.get_logger().info("x", a=json.dumps({"a": KEY})),
    "json in json": lambda: structlog.get_logger().info("x", a=json.dumps(json.dumps([KEY]))),
    "base64": lambda: structlog.get_logger().info("x", a=base64.b64encode(KEY.encode()).decode()),
    "bound": lambda: structlog.get_logger().bind(a=KEY).info("x"),
    "context": lambda: (
        structlog.contextvars.bind_contextvars(a=KEY),
        structlog.get_logger().info("x"),
    )[1],
    "exception": log_exception,
    "chained": log_chained,
    "library": lambda: logging.getLogger("lib").warning("GET %s", f"https://a/bot{KEY}/send"),
    "extra": lambda: logging.getLogger("lib").warning("x", extra={"a": {"b": KEY}}),
    "warning": lambda: warnings.warn(f"odd {KEY}", stacklevel=1),
    "crash": lambda: sys.excepthook(ValueError, ValueError(KEY), None),
    "deep": lambda: structlog.get_logger().info("x", a=deep(KEY, 40)),
}


def deep(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = {"a": [value]}
    return value


def traces_of_the_key(text: str) -> list[str]:
    """Pieces of the planted secrets that any spelling of them would leave."""
    pieces = ["pl4nted", "7f3a", "MIIEvQIBADAN", "BAQEFAASC", base64.b64encode(b"pl4nte").decode()]
    return [piece for piece in pieces if piece in text]


@pytest.mark.parametrize("pretty", [False, True])
@pytest.mark.parametrize("road", ROADS)
@pytest.mark.filterwarnings("always:odd")
def test_a_planted_key_never_appears(
    configured: Callable[..., io.StringIO], road: str, pretty: bool
) -> None:
    stream = configured(pretty=pretty)
    ROADS[road]()
    assert HIDDEN in stream.getvalue()
    assert traces_of_the_key(stream.getvalue()) == []


def test_without_the_value_known_the_roads_do_show_it(
    configured: Callable[..., io.StringIO],
) -> None:
    """The proof that the test above can fail."""
    stream = io.StringIO()
    configured()
    configure(Secrets(), stream=stream)
    ROADS["event"]()
    ROADS["exception"]()
    assert traces_of_the_key(stream.getvalue()) == ["pl4nted", "7f3a"]


NAMING = "api_key apiKey API-KEY token bot_token access-token authorization password passwd"
NAMING += " passphrase secret client_secret private_key signing_key mnemonic cookie credentials"
PLAIN = "tokens token_id prompt_tokens key keys run_id seed order"


@pytest.mark.parametrize("key", NAMING.split())
def test_a_key_that_names_a_secret_hides_any_value(
    configured: Callable[..., io.StringIO], key: str
) -> None:
    stream = configured()
    nested = {"a": [{key: {"b": "unheard"}}]}
    structlog.get_logger().info("x", **{key: "unheard-of"}, nested=nested)
    assert "unheard" not in stream.getvalue()
    assert names_a_secret(key)


@pytest.mark.parametrize(
    "key", ["tokens", "token_id", "prompt_tokens", "key", "keys", "run_id", "seed", "order"]
)
def test_a_key_that_names_none_shows_its_value(key: str) -> None:
    assert Secrets().clean({key: "seen"}) == {key: "seen"}


def test_what_carries_a_secret_is_known_by_its_shape() -> None:
    hide = Secrets().hide
    assert hide("postgresql://me:pa55@db/x") == f"postgresql://me:{HIDDEN}@db/x"
    assert hide("Authorization: Bearer abc.def-123") == f"Authorization: Bearer {HIDDEN}"
    for plain in ("http://127.0.0.1:8420/metrics", "a basic idea", "12:30 me@home"):
        assert hide(plain) == plain


def test_secrets_may_be_added_later_and_empty_ones_hide_nothing() -> None:
    secrets = Secrets(["", "  "])
    assert secrets.clean({"a": ["b", 1, None, True, 1.5]}) == {"a": ["b", 1, None, True, 1.5]}
    secrets.add("918273645")
    assert secrets.clean([918273645, "x918273645", 1]) == [HIDDEN, f"x{HIDDEN}", 1]


def test_the_longer_secret_is_hidden_whole() -> None:
    assert Secrets(["abcdef", "abcdefghij"]).hide("abcdefghij abcdef") == f"{HIDDEN} {HIDDEN}"


def test_elsewhere_than_a_terminal_a_line_is_json(configured: Callable[..., io.StringIO]) -> None:
    stream = configured()
    structlog.get_logger("daemon").info("ready", orders=2)
    logging.getLogger("a.library").info("started %s", "now")
    assert lines(stream) == [
        {
            "event": "ready",
            "orders": 2,
            "logger": "daemon",
            "level": "info",
            "timestamp": "2025-05-04T00:00:00.007Z",
        },
        {
            "event": "started now",
            "logger": "a.library",
            "level": "info",
            "timestamp": "2025-05-04T00:00:00.007Z",
        },
    ]


def test_on_a_terminal_a_line_is_for_a_reader(configured: Callable[..., io.StringIO]) -> None:
    stream = configured(Terminal())
    structlog.get_logger().info("ready", orders=2)
    with pytest.raises(ValueError, match="Expecting value"):
        lines(stream)
    assert "ready" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()


def test_levels_hold_and_chatty_libraries_are_quiet(
    configured: Callable[..., io.StringIO],
) -> None:
    stream = configured(level="WARNING")
    structlog.get_logger().info("no")
    configured(stream)
    logging.getLogger("httpx").info("no")
    logging.getLogger("httpx").warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_a_line_that_cannot_be_written_is_told_without_its_content(
    configured: Callable[..., io.StringIO], capsys: pytest.CaptureFixture[str]
) -> None:
    stream = configured()
    stream.close()
    structlog.get_logger("daemon").info(KEY)
    told = capsys.readouterr().err
    assert told == "lockstep: a log line of daemon could not be written: ValueError\n"


def test_every_line_of_a_tick_has_its_context_and_the_next_tick_another(
    configured: Callable[..., io.StringIO],
) -> None:
    stream = configured()

    async def loop() -> None:
        for seq in (5, 6):
            begin_tick("abc", seq, START)
            structlog.contextvars.bind_contextvars(**({"left": "over"} if seq == 5 else {}))
            structlog.get_logger().info("tick")
            logging.getLogger("lib").warning("in it")

    anyio.run(loop)
    told = lines(stream)
    assert [line["decision_id"] for line in told] == ["abc:5", "abc:5", "abc:6", "abc:6"]
    assert {line["run_id"] for line in told} == {"abc"}
    assert {line["event_ts"] for line in told} == {spoken(START)}
    assert ["left" in line for line in told] == [True, True, False, False]


def test_a_tick_with_a_bar_or_an_outcome_has_a_line_and_no_other_has() -> None:
    run = watched()
    for tick, line in zip(run.ticks, run.lines, strict=True):
        says = bool(len(tick.outcomes)) or (tick.events["kind"] == Kind.BAR).any()
        assert (line is not None) == says
    quotes = run.ticks[0].events[run.ticks[0].events["kind"] == Kind.QUOTE][:1]
    assert len(quotes)
    quiet = Tick(quotes, run.outcomes[:0], run.ticks[0].track[:1], {})
    assert Canonical(run.engine).line(quiet) is None


def test_the_lines_together_tell_the_whole_run() -> None:
    run = watched()
    told = [line for line in run.lines if line]

    def kind(which: Result) -> int:
        return int((run.outcomes["kind"] == which).sum())

    assert max(len(tick.outcomes) for tick in run.ticks) <= ROWS_MAX
    for name, which in {
        "decisions": Result.DECISION,
        "approved": Result.APPROVED,
        "fills": Result.FILL,
        "trades": Result.TRADE,
        "mode": Result.MODE,
    }.items():
        assert sum(len(line.get(name, ())) for line in told) == kind(which) > 0
    assert sum(sum(line.get("refused", {}).values()) for line in told) == kind(Result.REFUSED)
    assert sum(line.get("bars", 0) for line in told) == (run.block["kind"] == Kind.BAR).sum()
    fees = sum(fill["fee"] for line in told for fill in line.get("fills", ()))
    assert round(fees * MICROS_PER_UNIT) == run.engine.arrays["account"][0]["fees_micros"]
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_a_line_names_books_reasons_and_stages() -> None:
    run = watched()
    line = next(line for line in run.lines if line and line.get("decisions"))
    decision = line["decisions"][0]
    assert decision["book"] in {book.name for book in run.engine.books}
    assert decision["reason"].replace(" ", "").isalpha()
    assert {"advance_ms", "journal_ms", "submit_ms", "equity", "exposure", "bar_ts"} <= set(line)
    assert "instrument" in line or "instruments" in line


def test_a_long_tick_tells_counts_and_its_first_rows() -> None:
    run = watched()
    tick = Tick(run.block, run.outcomes, run.ticks[-1].track, {})
    line = Canonical(run.engine).line(tick)
    assert line is not None
    assert len(line["decisions"]) == ROWS_MAX
    assert line["counts"]["decision"] == (run.outcomes["kind"] == Result.DECISION).sum()
    assert len(json.dumps(line)) < 20_000
