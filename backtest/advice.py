"""From a question of the loop to a model's prompt, and from its reply to an event of the loop.

Live and in replay the same few lines say what a model is told and what its answer means, so a
recorded reply is found again, and weighs the same, in both.
"""

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from backtest.replay import Tape
from backtest.run import Run
from core.engine import Book, Engine
from core.errors import ConfigError
from core.events import make_event
from core.model import MARKET_FIELDS, Kind, Records, Verdict
from core.ports import Asked
from core.strategy import Source
from forecasting.advisor import Place
from forecasting.cassette import Cassette
from forecasting.prompting import Prompts
from forecasting.questions import Forecast, Opinion, Outcome, Question, Reply, Side
from forecasting.registry import Registry

CLOSES_TOLD = 48
WEEK_MS = 7 * 86_400_000
MASKED_WEEK_MS = 1_600 * WEEK_MS
PRICES = frozenset({"open", "high", "low", "close", "mark", "oracle", "bid", "ask"})

_VERDICTS: Mapping[Outcome, Verdict] = {
    Outcome.OK: Verdict.AGREED,
    Outcome.MALFORMED: Verdict.MALFORMED,
    Outcome.CUT: Verdict.MALFORMED,
    Outcome.DECLINED: Verdict.MALFORMED,
    Outcome.REFUSED_BUDGET: Verdict.OVER_BUDGET,
}
_SIDES: Mapping[Side, float] = {"long": 1.0, "short": -1.0, "flat": 0.0}

Bars = Callable[[int, int], Records]
"""The newest bars of an instrument, at most so many, the oldest first."""
Tell = Callable[[Book, Asked], Any]
"""What one placeholder of a prompt stands for."""


class Answerer(Protocol):
    """Who answers: an Advisor of ``forecasting``, or a Panel with an agent."""

    @property
    def prompts(self) -> Prompts: ...
    @property
    def registry(self) -> Registry: ...
    @property
    def cassette(self) -> Cassette: ...

    async def ask(self, question: Question, place: Place = ...) -> Reply: ...

    async def close(self) -> None: ...


class Open:
    """Tells a case as it is."""

    def name(self, instrument: str) -> str:
        """What an instrument is called."""
        return instrument

    def time(self, ts: int) -> int:
        """When something was, unix ms."""
        return ts

    def price(self, instrument: str, value: float) -> float:
        """A price of an instrument."""
        return value


class Masked(Open):
    """The control against a model's memory: no ticker, no date, no price level, the same shapes.

    Prices are parts of the first one told, times whole weeks away from what they were.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._levels: dict[str, float] = {}
        self._weeks_ms: int | None = None

    def name(self, instrument: str) -> str:
        """A number in the place of a ticker."""
        return self._names.setdefault(instrument, f"ASSET-{len(self._names) + 1}")

    def time(self, ts: int) -> int:
        """The same hour of the same weekday, of another year."""
        if self._weeks_ms is None:
            self._weeks_ms = ts // WEEK_MS * WEEK_MS - MASKED_WEEK_MS
        return ts - self._weeks_ms

    def price(self, instrument: str, value: float) -> float:
        """The price as a hundredfold part of the first."""
        return 100.0 * value / self._levels.setdefault(instrument, value)


class Desk:
    """Puts a book's case: what a prompt's placeholders stand for, read from the engine's state.

    Raises UnknownName for a model or prompt that nobody declared, ConfigError for a prompt that
    wants what no book knows.
    """

    def __init__(
        self,
        engine: Engine,
        bars: Bars,
        advisor: Answerer,
        view: Open,
    ) -> None:
        self._engine, self._bars, self._view = engine, bars, view
        self._places = {instrument.name: i for i, instrument in enumerate(engine.instruments)}
        self._tells: Mapping[str, Tell] = {
            "instrument": lambda book, _asked: view.name(book.instrument),
            "time": lambda _book, asked: view.time(asked.ts),
            "strategy": lambda book, _asked: book.strategy.name,
            "side": lambda _book, asked: _side(asked.target),
            "price": lambda book, asked: view.price(book.instrument, asked.price),
            "features": self._features,
            "market": self._market,
            "terms": self._terms,
            "history": self._closes,
            "news": lambda _book, _asked: (),
        }
        self._told: dict[str, dict[str, Tell]] = {}
        self._priced: dict[str, frozenset[str]] = {}
        for book in engine.books:
            if book.advice is not None:
                advisor.registry.model(book.advice.model)
                slots = self._placeholders(advisor.prompts, book.advice.prompt)
                self._told[book.name] = {name: self._tells[name] for name in slots}
                sources = book.strategy.features.items()
                self._priced[book.name] = frozenset(n for n, source in sources if is_price(source))

    def _placeholders(self, prompts: Prompts, wanted: str) -> list[str]:
        """What a prompt, in any version it may be asked in, wants to be told."""
        name, _, version = wanted.partition("/")
        versions = prompts.by_name.get(name, {})
        shown = (
            list(versions.values()) if versions and not version else [prompts.get(name, version)]
        )
        slots = shown[0].slots.keys()
        if any(one.slots.keys() != slots for one in shown):
            raise ConfigError(f"prompt {name}: its versions differ in their placeholders: name one")
        if strange := slots - self._tells.keys():
            known = ", ".join(self._tells)
            raise ConfigError(f"prompt {wanted}: no book knows {', '.join(strange)}, only {known}")
        return sorted(slots)

    def question(self, asked: Asked) -> Question:
        """The case behind a question, as the state stands right after its event."""
        book = self._engine.books[asked.book]
        advice = book.advice
        assert advice is not None, book.name
        return Question(
            id=f"{book.name}/{asked.number}",
            book=book.name,
            instrument=book.instrument,
            ts=asked.ts,
            side=_side(asked.target),
            model=advice.model,
            prompt=advice.prompt,
            agent=advice.agent,
            context={name: tell(book, asked) for name, tell in self._told[book.name].items()},
        )

    def opinion(self, asked: Asked, reply: Reply) -> Records:
        """The event of a reply: known when the answer came, of the question's instrument."""
        said = reply.answer
        side = certainty = share = chance = math.nan
        if isinstance(said, Opinion):
            side, certainty, share = _SIDES[said.side], said.confidence, 1.0
            if isinstance(said, Forecast):
                chance = said.probability
        return make_event(
            Kind.OPINION,
            self._places[reply.question.instrument],
            asked.ts + reply.latency_ms,
            asked.number,
            _VERDICTS.get(reply.outcome, Verdict.UNREACHABLE),
            side,
            certainty,
            share,
            chance,
        )

    def _features(self, book: Book, asked: Asked) -> dict[str, float]:
        priced, view = self._priced[book.name], self._view
        return {
            name: view.price(book.instrument, value) if name in priced else value
            for name, value in self._engine.shown(asked.book).items()
        }

    def _market(self, book: Book, _asked: Asked) -> dict[str, float]:
        at = int(self._engine.arrays["instruments"]["values_at"][self._places[book.instrument]])
        values = self._engine.arrays["values"][at : at + len(MARKET_FIELDS)].tolist()
        return {
            name: self._view.price(book.instrument, value) if name in PRICES else value
            for name, value in zip(MARKET_FIELDS, values, strict=True)
        }

    def _terms(self, book: Book, _asked: Asked) -> dict[str, Any]:
        terms = self._engine.instruments[self._places[book.instrument]]
        told = {"kind": terms.kind.name.lower(), "fee_rate": terms.fee_rate}
        return told | ({"expires": self._view.time(terms.expires_ts)} if terms.expires_ts else {})

    def _closes(self, book: Book, _asked: Asked) -> list[list[float]]:
        bars = self._bars(self._places[book.instrument], CLOSES_TOLD)
        return [
            [self._view.time(ts), self._view.price(book.instrument, close)]
            for ts, close in zip(bars["ts_known"].tolist(), bars["close"].tolist(), strict=True)
        ]


def is_price(source: Source) -> bool:
    """Whether what a strategy reads is at the level of its instrument's price."""
    if isinstance(source, str):
        return source in PRICES
    unit = source.feature.unit
    inner = source.source is not None and is_price(source.source)
    return unit == "price" or (unit == "of the source" and inner)


def _side(target: float) -> Side:
    return "long" if target > 0.0 else "short" if target < 0.0 else "flat"


class Advised:
    """Answers the questions of a replay from a cassette (or, where it records, from models).

    Give it to ``replay`` as its ``advisor``; ``replies`` are then all that were had, in order.
    ``masked`` hides ticker, dates and price level: what a model gains by memory, it loses there.
    """

    def __init__(self, advisor: Answerer, *, masked: bool = False) -> None:
        self._advisor = advisor
        self._view = Masked() if masked else Open()
        self.replies: list[Reply] = []

    def sealed(self, run: Run) -> Run:
        """The run, which also rests on the calls it used, and is clean only after the newest day
        any of its models may have read of."""
        models = {reply.model for reply in self.replies}
        clean = [self._advisor.registry.clean_from_ms(model) for model in sorted(models)]
        data = {**run.manifest.data, "cassette": self._advisor.cassette.seal()}
        return replace(
            run,
            manifest=replace(run.manifest, data=data),
            clean_from_ms=max(clean) if clean else None,
        )

    async def __aenter__(self) -> "Advised":
        # a cassette is a million objects that stay: let no collection look through them meanwhile
        gc.freeze()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        gc.unfreeze()
        await self._advisor.close()

    def __call__(self, engine: Engine, tape: Tape) -> "Advised":
        self._desk = Desk(engine, tape.bars, self._advisor, self._view)
        self._tape = tape
        return self

    async def ask(self, questions: Sequence[Asked]) -> None:
        """Have every answer at once; each comes on the tape when it would have been known."""
        for asked in questions:
            reply = await self._advisor.ask(self._desk.question(asked))
            self.replies.append(reply)
            self._tape.add(self._desk.opinion(asked, reply))
