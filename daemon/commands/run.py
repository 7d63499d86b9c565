"""``lockstep run``: the loop as a service against a live market, on paper or at a venue."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.commands.journals import Url, journal_url
from daemon.commands.options import Config, Profile, Rules, Sets, Strategies

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from backtest.assemble import Setup
    from config.settings import Line, Settings
    from daemon.journal import RunRow
    from daemon.live.advising import LiveAdvisor
    from daemon.live.service import Service
    from daemon.observe.redaction import Secrets
    from daemon.venues.drift import DriftVenue
    from markets.drift.feed import DriftFeed
    from markets.hyperliquid.feed import HyperliquidFeed

    Read = Callable[[], Settings]

EPILOG = (
    "Example: lockstep run --config paper.toml\n\n"
    "On paper orders fill in the simulated venue, with every cost; live.venue sends them out. "
    "SIGTERM drains and ends it; started again, it goes on where its journal stands."
)
CARRIED = frozenset(
    {
        *("open", "high", "low", "close", "volume", "mark", "oracle", "bid", "ask"),
        *("bid_depth", "ask_depth", "open_interest", "funding_rate"),
    }
)
"""What a live feed carries."""
UNTOLD = {"drift": frozenset({"open_interest"})}
"""What the feed of a venue does not."""

RealMoney = Annotated[
    bool, typer.Option("--real-money", help="With live.real_money: orders may go to a mainnet.")
]

Name = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="The run in the journal (live.run).")
]


def run(
    strategy: Strategies = None,
    rules: Rules = None,
    set_: Sets = None,
    profile: Profile = None,
    config: Config = None,
    run_: Name = None,
    journal: Url = None,
    real_money: RealMoney = False,
) -> None:
    """Trade against a live market until stopped.

    On paper, unless live.venue says otherwise.
    """
    import anyio

    from daemon.clock import now_ms
    from daemon.commands.choices import Choices, flags_of, read_settings
    from daemon.commands.setups import live_setup
    from daemon.commands.shelf import open_shelf
    from daemon.journal import open_journal
    from daemon.live.service import open_service
    from daemon.observe.logs import configure
    from daemon.observe.redaction import SECRETS

    configure(SECRETS)
    choices = Choices(
        profile=profile,
        config=config,
        strategies=strategy or (),
        rules=rules or (),
        sets=set_ or (),
    )
    resolved = read_settings(choices)
    configure(SECRETS, level=resolved.settings.log.level.upper())
    setup = live_setup(resolved, open_shelf(resolved))
    name = run_ or resolved.settings.live.run
    database = open_journal(journal or journal_url(resolved.settings.paths.journal))
    try:
        told = CARRIED - UNTOLD.get(resolved.settings.live.feed.venue, frozenset())
        carried = {instrument.name: told for instrument in setup.instruments}
        row, codes = _row(resolved.settings, name, setup)
        service = open_service(setup, carried, database, row, now_ms, codes)

        def read() -> "Settings":
            return read_settings(choices).settings

        asked = live_advisor(service, resolved.settings)
        rest = (SECRETS, read, flags_of(choices), asked, real_money)
        anyio.run(_serve, service, resolved.settings, *rest)
    finally:
        database.dispose()


def _row(
    settings: "Settings", name: str, setup: "Setup"
) -> "tuple[RunRow, Mapping[int, str] | None]":
    """The run's row in the journal, and the names of its venue's codes."""
    from dataclasses import replace

    from daemon.clock import now_ms
    from daemon.journal import RunMode
    from daemon.live.service import paper_row

    row = paper_row(name, setup, started_ms=now_ms())
    if settings.live.venue == "paper":
        return row, None
    from markets.drift.layout import codes

    return replace(row, mode=RunMode.LIVE), codes()


async def _serve(
    service: "Service",
    settings: "Settings",
    secrets: "Secrets",
    read: "Read",
    flags: list[str],
    advisor: "LiveAdvisor | None",
    real_money: bool,
) -> None:
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:
        if advisor is not None:
            stack.push_async_callback(advisor.close)
        feed, venue = live_feed(service, settings), None
        if settings.live.venue == "drift":
            import os

            from daemon.venues.drift import open_drift, read_key

            # an address may hold the provider's key
            secrets.add(*settings.drift.endpoints)
            key = read_key(settings.drift, os.environ, secrets.add)
            opened = open_drift(settings.drift, settings.live, service, key, flag=real_money)
            venue = await stack.enter_async_context(opened)
        await serve(service, feed, settings, secrets, read, flags, advisor, venue)


def live_advisor(service: "Service", settings: "Settings") -> "LiveAdvisor | None":
    """Who answers the books that ask; None where none does."""
    advice = [book.advice for book in service.engine.books if book.advice is not None]
    if not advice:
        return None
    from daemon.clock import now_ms
    from daemon.commands.advisors import calling_advisor, choose_sandbox, open_budget, with_agent
    from daemon.live.advising import LiveAdvisor

    journal, models = service.journal, settings.models
    agents = any(each.agent for each in advice)
    budget = open_budget(models, journal.engine, journal.run_id, now_ms)
    sandbox = choose_sandbox(models, journal.run_id, budget) if agents else None
    advisor = calling_advisor(models, budget)
    return LiveAdvisor(service, with_agent(advisor, sandbox))


async def serve(
    service: "Service",
    feed: "HyperliquidFeed | DriftFeed",
    settings: "Settings",
    secrets: "Secrets",
    read: "Read | None" = None,
    audit_flags: list[str] | None = None,
    advisor: "LiveAdvisor | None" = None,
    venue: "DriftVenue | None" = None,
) -> None:
    """Run a service on its feed, with everything that looks on, until it is stopped. ``read`` has
    the settings as they stand now, for a reload; ``audit_flags`` is as of ``Lookout``; without a
    ``venue`` orders fill in the simulated one."""
    import os
    from functools import partial

    from daemon.clock import now_ms
    from daemon.live.lookout import Lookout
    from daemon.live.reloading import Reload
    from daemon.live.service import run_service
    from daemon.live.sight import watch_sight
    from daemon.observe.logs import configure
    from daemon.supervisor import Task

    interval_ms = feed.settings.interval_ms
    lookout = Lookout(service, feed.link, settings, interval_ms, secrets, os.environ, audit_flags)
    service.blind()
    sight = partial(watch_sight, service, feed, interval_ms, now_ms)
    line = [Task("line", feed.run), Task("sight", sight)]
    if venue is not None:
        venue.metrics = lookout.metrics
    if advisor is not None:
        advisor.ended = lookout.metrics.answered
        line.append(Task("advisor", advisor.run))

    def apply(found: "Settings") -> None:
        lookout.reload(found)
        configure(secrets, level=found.log.level.upper())

    try:
        await run_service(
            service,
            feed,
            begun=lookout.begun,
            ended=lookout.ended,
            edges=lambda watch: [*line, *lookout.edges(watch)],
            ready=lookout.systemd.ready,
            stopping=lookout.stopping,
            reload=Reload(settings, read or (lambda: settings), apply, lookout.systemd),
            venue=venue,
            snapshot_events=settings.live.snapshot_events,
            advisor=advisor,
            wrap=(lambda journal: journal) if advisor is None else advisor.wrap,
        )
    finally:
        lookout.close()


def live_feed(service: "Service", settings: "Settings") -> "HyperliquidFeed | DriftFeed":
    """The market's feed, to go on after the last bar the run has folded."""
    import random

    from daemon.clock import now_ms
    from markets.feeds.stream import StreamSettings
    from markets.intervals import parse_interval

    line = settings.live.feed
    followed: dict[str, Any] = {
        "coins": tuple(instrument.name for instrument in service.engine.instruments),
        "interval_ms": parse_interval(line.interval),
        # a run that goes on has its past in the journal
        "warmup_bars": 0 if service.recovered.last_bar_ms else line.warmup_bars,
        **heard_of(service),
    }
    if line.venue == "drift":
        return drift_feed(line, followed, now_ms, random.random)
    from markets.hyperliquid.client import InfoSettings
    from markets.hyperliquid.feed import MAINNET_STREAM, FeedSettings, HyperliquidFeed

    stream = StreamSettings(url=line.stream or MAINNET_STREAM)
    info = InfoSettings(url=line.info) if line.info else InfoSettings()
    return HyperliquidFeed(
        FeedSettings(**followed, stream=stream, info=info), now_ms, random.random
    )


def heard_of(service: "Service") -> "dict[str, Mapping[str, int]]":
    """What a feed must not tell again: by instrument its last bar's close, its last settlement."""
    from daemon.journal import last_settled_ms

    coins = [instrument.name for instrument in service.engine.instruments]
    known = {
        "since_ms": service.recovered.last_bar_ms,
        "settled_ms": last_settled_ms(service.journal.engine, service.journal.run_id, len(coins)),
    }
    return {what: {coins[i]: ms for i, ms in told.items()} for what, told in known.items()}


def drift_feed(
    line: "Line",
    followed: "Mapping[str, Any]",
    now_ms: "Callable[[], int]",
    chance: "Callable[[], float]",
) -> "DriftFeed":
    """Drift's feed, or a ConfigError where an address is not given: its own have stopped."""
    from core.errors import ConfigError
    from markets.drift.book import BookSettings
    from markets.drift.data_api import BROWSER, DataSettings
    from markets.drift.feed import NO_PING_S, DriftFeed, FeedSettings
    from markets.feeds.stream import StreamSettings

    for name in ("stream", "books", "info"):
        if not getattr(line, name):
            raise ConfigError(
                f"live.feed.{name}: give its address: drift's own hosts stopped in April 2026"
            )
    settings = FeedSettings(
        **followed,
        stream=StreamSettings(url=line.stream, ping_s=NO_PING_S),
        books=BookSettings(url=line.books),
        data=DataSettings(url=line.info, headers=line.headers or BROWSER),
    )
    return DriftFeed(settings, now_ms, chance)
