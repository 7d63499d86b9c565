"""Logs: one line of JSON an event, or a line for a reader where a terminal is, and no secret in it.

Every logger ends here, also those of the libraries: a redaction that only our own calls pass would
let an HTTP client tell the token in its URL. Stamps come from the daemon's clock and stay in the
line: nothing that decides reads them.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from daemon.clock import now_ms
from daemon.observe.redaction import Secrets

QUIET = ("httpx", "httpcore", "sqlalchemy", "alembic", "websockets", "uvicorn.access")
"""Libraries that tell more than an operator wants to know; they may still warn."""

Clock = Callable[[], int]


class _Writer(logging.StreamHandler[TextIO]):
    """Writes a line and flushes it. What cannot be written is told without its content, which
    nobody has cleaned."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        error = sys.exc_info()[0]
        named = error.__name__ if error else "unknown"
        sys.stderr.write(f"lockstep: a log line of {record.name} could not be written: {named}\n")


def configure(
    secrets: Secrets,
    *,
    level: str = "INFO",
    stream: TextIO | None = None,
    pretty: bool | None = None,
    clock: Clock = now_ms,
) -> None:
    """Send every log line to ``stream`` (stdout), cleaned of ``secrets``.

    ``pretty`` follows the stream where it is not given: a terminal gets lines to read, anything
    else JSON. May be called again; the last call holds.
    """
    stream = sys.stdout if stream is None else stream
    shared, terminal = _shared(clock), stream.isatty()
    handler = _Writer(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=_ending(secrets, terminal if pretty is None else pretty, terminal),
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    sys.excepthook = _tell_crash
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _shared(clock: Clock) -> list[Processor]:
    """What every line passes first, whoever wrote it."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        _stamp(clock),
    ]


def _ending(secrets: Secrets, pretty: bool, colours: bool) -> Sequence[Processor]:
    """From an event to its line. An exception becomes text before it is cleaned, and the finished
    line is cleaned once more, for a renderer may spell out what no one looked into."""
    render: Any = structlog.processors.JSONRenderer(default=repr, ensure_ascii=False)
    if pretty:
        # plain: its own way to show an exception prints the values of all variables
        plain = structlog.dev.plain_traceback
        render = structlog.dev.ConsoleRenderer(
            pad_event_to=12, colors=colours, exception_formatter=plain
        )

    def clean(_logger: Any, _method: str, event: EventDict) -> EventDict:
        return {str(key): value for key, value in secrets.clean(event).items()}

    def line(logger: Any, method: str, event: EventDict) -> str:
        return secrets.hide(str(render(logger, method, event)))

    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        clean,
        line,
    ]


def _stamp(clock: Clock) -> Processor:
    def stamp(_logger: Any, _method: str, event: EventDict) -> EventDict:
        event["timestamp"] = spoken(clock())
        return event

    return stamp


def spoken(ms: int) -> str:
    """Unix milliseconds as ISO 8601 in UTC."""
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _tell_crash(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """What nobody caught is told as a line too: Python's own way to print it hides nothing."""
    if issubclass(kind, KeyboardInterrupt):
        return
    structlog.get_logger("lockstep").critical("crash", exc_info=(kind, error, trace))


def begin_tick(run_id: str, seq: int, ts_ms: int) -> None:
    """Give every line until the next tick its context. ``seq`` numbers the tick's first event in
    the journal; with the run it is the ``decision_id``, and leads from a line to its rows.

    To be called in the task that runs the loop: what a thread binds, the task does not see.
    """
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(
        run_id=run_id, decision_id=f"{run_id}:{seq}", event_ts=spoken(ts_ms)
    )
