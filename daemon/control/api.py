"""The HTTP API: what an operator may look at, and one door for what he may order.

Answers hold what the desk says and nothing of what was asked, so no error can echo a secret. There
is no page that documents it: a daemon that trades shows strangers nothing.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

import structlog
from anyio import CapacityLimiter, current_time, fail_after
from anyio.to_thread import run_sync
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from core.errors import LockstepError, UnknownName
from core.model import Command
from daemon.control.auth import Tokens
from daemon.control.desk import Busy, Desk, Order
from daemon.control.guard import COMMAND, Guard, Limits
from daemon.control.text import is_plain, shown

WORDS = {
    "halt": Command.HALT,
    "flatten": Command.FLATTEN,
    "pause": Command.REDUCE_ONLY,
    "reduce_only": Command.REDUCE_ONLY,
    "resume": Command.RESUME,
    "close": Command.CLOSE,
}
REASONED = (Command.RESUME, Command.CLOSE, Command.FLATTEN)
STATUSES: dict[type[LockstepError], int] = {UnknownName: 404, Busy: 503}

log = structlog.get_logger("lockstep.control")


def _plain(text: str) -> str:
    if not is_plain(text):
        raise ValueError("must be one line without control characters")
    return text.strip()


Line: TypeAlias = Annotated[str, AfterValidator(_plain)]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=1_000)]


class Body(BaseModel):
    """An order as it is sent. What lets risk grow again, or trades at once, must say why; what
    stops the desk need not, for nothing may stand in the way of a halt."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    word: Literal["halt", "flatten", "pause", "reduce_only", "resume", "close"]
    book: Annotated[Line, Field(min_length=1, max_length=200)] | None = None
    reason: Annotated[Line, Field(max_length=500)] = ""
    by: Annotated[Line, Field(max_length=64)] = ""

    @model_validator(mode="after")
    def _whole(self) -> "Body":
        word = WORDS[self.word]
        if word in REASONED and not self.reason:
            raise ValueError(f"'{self.word}' needs a reason")
        if (word is Command.CLOSE) != (self.book is not None):
            raise ValueError("'close' needs a book, and nothing else takes one")
        return self

    def order(self, address: str) -> Order:
        """The order, and who gave it: a name is only a claim, the address is not."""
        who = f"{self.by or 'operator'} at {address}"
        return Order(word=WORDS[self.word], book=self.book, reason=self.reason, who=who)


def make_app(
    desk: Desk,
    tokens: Tokens | None,
    limits: Limits | None = None,
    *,
    clock: Callable[[], float] = current_time,
    tally: Callable[[int], None] = lambda _status: None,
) -> Guard:
    """The API over a desk, behind its guard. Without tokens only /health and /ready answer."""
    limits = limits or Limits()
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    _add_probes(app, desk)
    _add_reads(app, desk)
    _add_door(app, desk, limits)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    return Guard(app, tokens, limits, clock=clock, tally=tally)


def _add_probes(app: FastAPI, desk: Desk) -> None:
    @app.get("/health")
    async def health() -> Response:
        return _probe(desk.healthy())

    @app.get("/ready")
    async def ready() -> Response:
        return _probe(desk.ready())

    # one scrape at a time, and none of the threads that the journal needs
    scrapes = CapacityLimiter(1)

    @app.get("/metrics")
    async def metrics() -> Response:
        text = await run_sync(desk.metrics_text, limiter=scrapes)
        return Response(text, media_type=CONTENT_TYPE_LATEST)


def _add_reads(app: FastAPI, desk: Desk) -> None:
    @app.get("/status")
    async def status() -> Response:
        return JSONResponse(desk.status())

    @app.get("/positions")
    async def positions() -> Response:
        return JSONResponse(desk.positions())

    @app.get("/orders")
    async def orders() -> Response:
        return JSONResponse(desk.orders())

    @app.get("/decisions")
    async def decisions(limit: Limit = 100) -> Response:
        return JSONResponse(desk.decisions(limit))

    @app.get("/trades")
    async def trades(limit: Limit = 100) -> Response:
        return JSONResponse(desk.trades(limit))

    @app.get("/commands")
    async def commands(limit: Limit = 100) -> Response:
        return JSONResponse(desk.commands(limit))


def _add_door(app: FastAPI, desk: Desk, limits: Limits) -> None:
    @app.post(COMMAND)
    async def command(body: Body, request: Request) -> Response:
        order = body.order(request.client.host if request.client else "unknown")
        about = {"word": order.word.name.lower(), "book": order.book}
        line = log.bind(**about, reason=order.reason, who=order.who)
        line.info("command_asked")
        try:
            with fail_after(limits.command_seconds_max):
                seq = await desk.command(order)
        except TimeoutError:
            line.warning("command_unanswered")
            return _fault(504, "the loop did not answer in time; the order may still take effect")
        except LockstepError as error:
            line.warning("command_refused", why=shown(error))
            return _fault(STATUSES.get(type(error), 409), shown(error))
        line.info("command_in_effect", seq=seq)
        return JSONResponse({**about, "seq": seq})


def _probe(well: bool) -> Response:
    return JSONResponse({"ok": well}, status_code=200 if well else 503)


def _fault(status: int, why: str) -> Response:
    return JSONResponse({"detail": why}, status_code=status)


async def _on_invalid(_request: Request, error: Exception) -> Response:
    """The first fault, by its place and rule; the value that broke it is not repeated."""
    assert isinstance(error, RequestValidationError)
    fault: Any = error.errors()[0]
    place = ".".join(str(part) for part in fault["loc"][1:]) or "body"
    known = place in Body.model_fields or place in ("limit", "body")
    return _fault(422, f"{place if known else 'body'}: {shown(fault['msg'], 200)}")
