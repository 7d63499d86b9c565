"""From a question of the loop to a model's prompt, and from its reply to an event of the loop.

Live and in replay the same few lines say what a model is told and what its answer means, so a
recorded reply is found again, and weighs the same, in both.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from backtest.replay import Tape
from backtest.run import Run
from core.engine import Book, Engine
from core.errors import ConfigError
from core.model import MARKET_FIELDS, Kind, Records, Verdict
from core.strategy import Source
from forecasting.advisor import Place
from forecasting.cassette import Cassette
from forecasting.prompting import Prompts
from forecasting.questions import Forecast, Opinion, Outcome, Question, Reply, Side
from forecasting.registry import Registry
from markets.history import make_events

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
        self._tells: Mapping[str, Callable[[Book, Any], Any]] = {
            "instrument": lambda book, _row: view.name(book.instrument),
            "time": lambda _book, row: view.time(int(row["ts"])),
            "strategy": lambda book, _row: book.strategy.name,
            "side": lambda _book, row: _side(float(row["target"])),
            "price": lambda book, row: view.price(book.instrument, float(row["price"])),
            "features": self._features,
            "market": self._market,
            "terms": self._terms,
            "history": self._closes,
            "news": lambda _book, _row: (),
        }
        self._unsaid = make_events(Kind.OPINION, [0])
        self._slots: dict[str, list[str]] = {}
        for book in engine.books:
            if book.advice is not None:
                advisor.registry.model(book.advice.model)
                self._slots[book.name] = self._placeholders(advisor.prompts, book.advice.prompt)

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

    def question(self, row: Any) -> Question:
        """The case behind one QUESTION outcome, as the state stands right after its event."""
        book = self._engine.books[int(row["book"])]
        advice = book.advice
        assert advice is not None, book.name
        return Question(
            id=f"{book.name}/{int(row['order'])}",
            book=book.name,
            instrument=book.instrument,
            ts=int(row["ts"]),
            side=_side(float(row["target"])),
            model=advice.model,
            prompt=advice.prompt,
            agent=advice.agent,
            context={name: self._tells[name](book, row) for name in self._slots[book.name]},
        )

    def opinion(self, row: Any, reply: Reply) -> Records:
        """The event of a reply: known when the answer came, of the question's instrument."""
        book = self._engine.books[int(row["book"])]
        event = self._unsaid.copy()
        told = event[0]
        told["ts_known"] = told["ts_event"] = int(row["ts"]) + reply.latency_ms
        told["instrument"] = self._places[book.instrument]
        told["question"] = row["order"]
        told["verdict"] = _VERDICTS.get(reply.outcome, Verdict.UNREACHABLE)
        said = reply.answer
        if isinstance(said, Opinion):
            told["side"], told["certainty"], told["share"] = _SIDES[said.side], said.confidence, 1.0
            if isinstance(said, Forecast):
                told["chance"] = said.probability
        return event

    def _features(self, book: Book, row: Any) -> dict[str, float]:
        sources = book.strategy.features
        return {
            name: self._view.price(book.instrument, value) if is_price(sources[name]) else value
            for name, value in self._engine.shown(int(row["book"])).items()
        }

    def _market(self, book: Book, _row: Any) -> dict[str, float]:
        at = int(self._engine.arrays["instruments"]["values_at"][self._places[book.instrument]])
        values = self._engine.arrays["values"][at : at + len(MARKET_FIELDS)].tolist()
        return {
            name: self._view.price(book.instrument, value) if name in PRICES else value
            for name, value in zip(MARKET_FIELDS, values, strict=True)
        }

    def _terms(self, book: Book, _row: Any) -> dict[str, Any]:
        terms = self._engine.instruments[self._places[book.instrument]]
        told = {"kind": terms.kind.name.lower(), "fee_rate": terms.fee_rate}
        return told | ({"expires": self._view.time(terms.expires_ts)} if terms.expires_ts else {})

    def _closes(self, book: Book, _row: Any) -> list[list[float]]:
        bars = self._bars(self._places[book.instrument], CLOSES_TOLD)
        return [
            [self._view.time(ts), self._view.price(book.instrument, close)]
            for ts, close in bars[["ts_known", "close"]].tolist()
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
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._advisor.close()

    def __call__(self, engine: Engine, tape: Tape) -> "Advised":
        self._desk = Desk(engine, tape.bars, self._advisor, self._view)
        self._tape = tape
        return self

    async def ask(self, questions: Records) -> None:
        """Have every answer at once; each comes on the tape when it would have been known."""
        for row in questions:
            reply = await self._advisor.ask(self._desk.question(row))
            self.replies.append(reply)
            self._tape.add(self._desk.opinion(row, reply))
