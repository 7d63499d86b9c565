"""Opening the advisor that a run's settings describe: models, prompts, cassette and money."""

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine as Database

from backtest.advice import Advised, Answerer
from config.settings import Models, Settings
from core.errors import ConfigError
from core.model import MICROS_PER_UNIT
from daemon.control.credentials import read_secret
from forecasting.advisor import Advisor
from forecasting.budget import Budget, Limits
from forecasting.caller import Caller
from forecasting.cassette import Cassette
from forecasting.clients import open_clients
from forecasting.prompting import Prompts
from forecasting.registry import Registry

if TYPE_CHECKING:
    from forecasting.sandbox import Sandbox

SHIPPED = Path(__file__).resolve().parents[2] / "forecasting" / "models.toml"


def read_registry(models: Models) -> Registry:
    """The models that are declared; ConfigError names the file and the key."""
    file = models.file or SHIPPED
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{file}: is no TOML: {error}") from error
    return Registry.parse(tables, str(file))


def replaying_advisor(models: Models) -> Advisor:
    """An advisor that has its cassette and nobody to call."""
    return Advisor(
        prompts=Prompts(),
        registry=read_registry(models),
        cassette=Cassette(models.cassette.expanduser()),
        arms=models.arms,
    )


def open_budget(
    models: Models, database: Database, run_id: str, now_ms: Callable[[], int]
) -> Budget:
    """The money that the settings allow a run, counted in the journal."""
    from daemon.journal.calls import SqlSpending

    return Budget(limits_of(models), SqlSpending(database), run_id, now_ms)


def calling_advisor(
    models: Models, budget: Budget, environ: Mapping[str, str] = os.environ
) -> Advisor:
    """An advisor that calls where its cassette is silent, within the budget."""
    registry = read_registry(models)
    clients = open_clients(registry, _keys(registry, models, environ))
    return Advisor(
        prompts=Prompts(),
        registry=registry,
        cassette=Cassette(models.cassette.expanduser()),
        caller=Caller(registry, clients, budget),
        arms=models.arms,
    )


@contextmanager
def open_advised(
    settings: Settings, *, calls: bool, agents: bool = False, masked: bool = False
) -> Iterator[Advised]:
    """Who answers a replay while this is entered: the cassette, and with ``calls`` models for what
    it lacks. ``agents``: programs may have to be run."""
    if not calls:
        yield Advised(with_agent(replaying_advisor(settings.models), None), masked=masked)
        return
    with calling_budget(settings, "replay") as budget:
        sandbox = choose_sandbox(settings.models, "replay", budget) if agents else None
        advisor = calling_advisor(settings.models, budget)
        yield Advised(with_agent(advisor, sandbox), masked=masked)


@contextmanager
def calling_budget(settings: Settings, purpose: str) -> Iterator[Budget]:
    """The money of one call of a command, counted in the journal of the settings."""
    from daemon.clock import now_ms
    from daemon.journal import open_journal
    from markets.history import utc

    database = open_journal(settings.paths.journal)
    try:
        yield open_budget(settings.models, database, f"{purpose} at {utc(now_ms())}", now_ms)
    finally:
        database.dispose()


def with_agent(advisor: Advisor, sandbox: "Sandbox | None") -> Answerer:
    """The advisor, and an agent beside it for the books that want one."""
    from forecasting.agents import Agent, Panel

    return Panel(Agent(advisor, sandbox))


def choose_sandbox(
    models: Models, owner: str, budget: Budget, environ: Mapping[str, str] = os.environ
) -> "Sandbox":
    """The first sandbox of the settings that proves itself; SandboxUnavailable when none does. One
    that is paid for is so from the budget, its proof as well."""
    import anyio

    from forecasting.sandbox import choose
    from forecasting.sandbox.local import Local

    sandboxes: dict[str, Sandbox] = {}
    for name in models.sandboxes:
        if name == "daytona":
            sandboxes[name] = _daytona(models, owner, budget, environ)
        else:
            sandboxes[name] = Local(name)
    return anyio.run(choose, sandboxes)


def _daytona(models: Models, owner: str, budget: Budget, environ: Mapping[str, str]) -> "Sandbox":
    from forecasting.sandbox.daytona import API_URL, Account, Daytona

    rent = read_registry(models).sandboxes.get("daytona")
    if rent is None:
        raise ConfigError(
            f"models.sandboxes names daytona, and {models.file or SHIPPED} declares no price for "
            "it: add [sandboxes.daytona]"
        )
    key = _key("daytona_key", models, environ)
    if key is None:
        raise ConfigError("models.sandboxes names daytona, and its daytona_key is nowhere")
    url = models.daytona_url or API_URL
    return Daytona(Account(api_key=key, owner=owner, api_url=url), rent, budget)


def limits_of(models: Models) -> Limits:
    """The most to spend, in micros."""
    return Limits(
        run_micros=_micros(models.run_usd),
        day_micros=_micros(models.day_usd),
        model_day_micros={name: _micros(usd) for name, usd in models.model_day_usd.items()},
    )


def _micros(usd: float) -> int:
    return round(usd * MICROS_PER_UNIT)


def _keys(registry: Registry, models: Models, environ: Mapping[str, str]) -> dict[str, str]:
    """The key of every service some model uses, by the name the registry gives it."""
    used = {model.service for model in registry.models.values()}
    names = {registry.services[name].credential for name in used} - {""}
    found = {name: _key(name, models, environ) for name in sorted(names)}
    return {name: key for name, key in found.items() if key is not None}


def _key(name: str, models: Models, environ: Mapping[str, str]) -> str | None:
    return read_secret(
        "models",
        f"keys__{name}",
        given=models.keys.get(name),
        file=models.key_files.get(name),
        environ=environ,
    )
