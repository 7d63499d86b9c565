"""A small world to ask in: a registry of both stand-ins, sums in memory, and a question."""

import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import standin_ollama
import standin_openai
from standin_http import StandinHttp
from standin_openai import StandinOpenAI

from forecasting.advisor import Advisor, Arms
from forecasting.budget import Budget, Exhausted, Limits, Spending
from forecasting.caller import Caller
from forecasting.cassette import Cassette
from forecasting.clients import open_clients
from forecasting.prompting import Prompts
from forecasting.questions import Question, Text
from forecasting.registry import Registry

START = 1_746_316_800_000
PROMPTS = Prompts()
RICH = Limits(run_micros=10**12, day_micros=10**12)
PRICE = {"input_usd_per_million": "0.40", "output_usd_per_million": "1.60"}


class Sums:
    """Spending that lasts as long as this object, as the journal's lasts beyond a process."""

    def __init__(self) -> None:
        self.rows: list[tuple[tuple[str, ...], int]] = []

    def spent_of(self, scope: str) -> int:
        return sum(micros for scopes, micros in self.rows if scope in scopes)

    async def hold(self, limits: Mapping[str, int], micros: int) -> int:
        for scope, limit in limits.items():
            if self.spent_of(scope) + micros > limit:
                raise Exhausted(scope, micros, limit, self.spent_of(scope))
        self.rows.append((tuple(limits), micros))
        return len(self.rows) - 1

    async def settle(self, hold: int, micros: int) -> None:
        self.rows[hold] = (self.rows[hold][0], micros)

    @property
    def spent_micros(self) -> int:
        return sum(micros for _, micros in self.rows)


def registry_of(ollama: str = "http://none", openai: str = "http://none", **more: Any) -> Registry:
    """Models ``local`` and ``paid`` of services at these addresses; ``more`` is of both."""
    fast = {"concurrency_max": 64, "requests_per_minute": 600_000, "wait_first_s": 0.01}
    patience = {"timeout_s": more.pop("timeout_s", 10.0)}
    patience |= {"output_tokens_max": more.pop("output_tokens_max", 800)}
    price = {"price": more.pop("price", PRICE)}
    return Registry.parse(
        {
            "services": {
                "ollama": {"protocol": "ollama", "url": ollama, "paid": False} | fast | more,
                "openai": {"protocol": "openai", "url": f"{openai}/v1", "credential": "key"}
                | fast
                | more,
            },
            "models": {
                "local": {
                    "service": "ollama",
                    "id": standin_ollama.MODEL,
                    "cutoff": "2023-12-31",
                    "parameters": {"temperature": 0.0, "seed": 7, "num_ctx": 8192},
                }
                | patience,
                "paid": {"service": "openai", "id": standin_openai.MODEL} | price | patience,
            },
        }
    )


def question(
    number: int = 0, *, model: str = "local", news: str = "Rain.", **more: Any
) -> Question:
    """The gate's question about the same trade; each number is another minute."""
    ts = START + 60_000 * number
    context = {
        "instrument": "SOL-PERP",
        "time": ts,
        "strategy": "e3",
        "side": "long",
        "features": {"close": 151.25 + number, "volume_z": 2.5, "premium": float("nan")},
        "news": [Text("news-1", news)],
    }
    values = {"prompt": "ai_gate", "context": context} | more
    return Question(
        id=f"e3-{number}",
        book="e3",
        instrument="SOL-PERP",
        ts=ts,
        side="long",
        model=model,
        **values,
    )


@asynccontextmanager
async def advised(
    folder: Path,
    standin: StandinHttp,
    *,
    limits: Limits = RICH,
    sums: Spending | None = None,
    url: str = "",
    prompts: Prompts = PROMPTS,
    arms: Arms | None = None,
    **more: Any,
) -> AsyncIterator[Advisor]:
    """An advisor that asks this stand-in, or nobody at ``url``, and records into the folder."""
    async with standin.open():
        registry = registry_of(url or standin.url, url or standin.url, **more)
        model = "paid" if isinstance(standin, StandinOpenAI) else "local"
        # a client loads the certificates of the world, and only one is asked
        registry = registry.model_copy(update={"models": {model: registry.models[model]}})
        budget = Budget(limits, sums or Sums(), "test", lambda: START)
        clients = open_clients(registry, {"key": standin_openai.KEY})
        async with Caller(registry, clients, budget) as caller:
            yield Advisor(
                prompts=prompts,
                registry=registry,
                cassette=Cassette(folder),
                caller=caller,
                arms=arms,
            )


def replaying(folder: Path) -> Advisor:
    """An advisor without a caller."""
    return Advisor(prompts=PROMPTS, registry=registry_of(), cassette=Cassette(folder))


@contextmanager
def served(standin: StandinHttp) -> Iterator[StandinHttp]:
    """The stand-in on a loop of its own, for a replay brings its own."""
    ready, done = threading.Event(), threading.Event()

    async def serve() -> None:
        async with standin.open():
            ready.set()
            await anyio.to_thread.run_sync(done.wait)

    thread = threading.Thread(target=anyio.run, args=(serve,))
    thread.start()
    ready.wait(10)
    try:
        yield standin
    finally:
        done.set()
        thread.join(10)


def agreeing(body: dict[str, Any]) -> str:
    """It likes longs only."""
    side = "long" if "wants to be: long" in body["messages"][-1]["content"] else "flat"
    return f'{{"side":"{side}","confidence":0.8,"rationale":"so","evidence":[]}}'
