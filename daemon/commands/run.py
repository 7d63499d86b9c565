"""``lockstep run``: the loop as a service, on paper, against a live market."""

from typing import TYPE_CHECKING, Annotated

import typer

from daemon.commands.journals import Url, journal_url
from daemon.commands.options import Config, Profile, Rules, Sets, Strategies

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.settings import Settings
    from daemon.live.advising import LiveAdvisor
    from daemon.live.service import Service
    from daemon.observe.redaction import Secrets
    from markets.hyperliquid.feed import HyperliquidFeed

    Read = Callable[[], Settings]

EPILOG = (
    "Example: lockstep run --config paper.toml\n\n"
    "It trades on paper: orders fill in the simulated venue, with every cost. SIGTERM drains and "
    "ends it; started again, it goes on where its journal stands."
)
CARRIED = frozenset(
    {
        *("open", "high", "low", "close", "volume", "mark", "oracle", "bid", "ask"),
        *("bid_depth", "ask_depth", "open_interest", "funding_rate"),
    }
)
"""What the live feed carries."""

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
) -> None:
    """Trade on paper against a live market, until stopped."""
    import anyio

    from daemon.clock import now_ms
    from daemon.commands.choices import Choices, flags_of, read_settings
    from daemon.commands.setups import live_setup
    from daemon.commands.shelf import open_shelf
    from daemon.journal import open_journal
    from daemon.live.service import open_service, paper_row
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
    database = open_journal(journal or journal_url(resolved.settings.paths.journal))
    try:
        row = paper_row(run_ or resolved.settings.live.run, setup, started_ms=now_ms())
        carried = {instrument.name: CARRIED for instrument in setup.instruments}
        service = open_service(setup, carried, database, row, now_ms)

        def read() -> "Settings":
            return read_settings(choices).settings

        asked = live_advisor(service, resolved.settings)
        told = (SECRETS, read, flags_of(choices), asked)
        anyio.run(_serve, service, resolved.settings, *told)
    finally:
        database.dispose()


async def _serve(
    service: "Service",
    settings: "Settings",
    secrets: "Secrets",
    read: "Read",
    flags: list[str],
    advisor: "LiveAdvisor | None",
) -> None:
    feed = live_feed(service, settings)
    await serve(service, feed, settings, secrets, read, flags, advisor)


def live_advisor(service: "Service", settings: "Settings") -> "LiveAdvisor | None":
    """Who answers the books that ask; None where none does."""
    advice = [book.advice for book in service.engine.books if book.advice is not None]
    if not advice:
        return None
    from daemon.clock import now_ms
    from daemon.commands.advisors import calling_advisor, choose_sandbox, with_agent
    from daemon.live.advising import LiveAdvisor

    journal, models = service.journal, settings.models
    agents = any(each.agent for each in advice)
    sandbox = choose_sandbox(models, journal.run_id) if agents else None
    advisor = calling_advisor(models, journal.engine, journal.run_id, now_ms)
    return LiveAdvisor(service, with_agent(advisor, sandbox))


async def serve(
    service: "Service",
    feed: "HyperliquidFeed",
    settings: "Settings",
    secrets: "Secrets",
    read: "Read | None" = None,
    audit_flags: list[str] | None = None,
    advisor: "LiveAdvisor | None" = None,
) -> None:
    """Run a service on its feed, with everything that looks on, until it is stopped. ``read`` has
    the settings as they stand now, for a reload; ``audit_flags`` is as of ``Lookout``."""
    import gc
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
    sight = partial(watch_sight, service, feed, interval_ms, now_ms)
    line = [Task("line", feed.run), Task("sight", sight)]
    if advisor is not None:
        advisor.ended = lookout.metrics.answered
        line.append(Task("advisor", advisor.run))

    def apply(found: "Settings") -> None:
        lookout.reload(found)
        configure(secrets, level=found.log.level.upper())

    # what is loaded by now stays, and the collector would hold the loop to walk through all of it
    gc.collect()
    gc.freeze()
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
            snapshot_events=settings.live.snapshot_events,
            advisor=advisor,
            wrap=(lambda journal: journal) if advisor is None else advisor.wrap,
        )
    finally:
        lookout.close()
        if advisor is not None:
            await advisor.close()


def live_feed(service: "Service", settings: "Settings") -> "HyperliquidFeed":
    """The market's feed, to go on after the last bar the run has folded."""
    import random

    from daemon.clock import now_ms
    from markets.feeds.stream import StreamSettings
    from markets.hyperliquid.client import InfoSettings
    from markets.hyperliquid.feed import MAINNET_STREAM, FeedSettings, HyperliquidFeed
    from markets.intervals import parse_interval

    line = settings.live.feed
    coins = tuple(instrument.name for instrument in service.engine.instruments)
    since = {coins[i]: close for i, close in service.recovered.last_bar_ms.items()}
    followed = FeedSettings(
        coins=coins,
        interval_ms=parse_interval(line.interval),
        # a run that goes on has its past in the journal
        warmup_bars=0 if since else line.warmup_bars,
        since_ms=since,
        settled_ms=since,
        stream=StreamSettings(url=line.stream or MAINNET_STREAM),
        info=InfoSettings(url=line.info) if line.info else InfoSettings(),
    )
    return HyperliquidFeed(followed, now_ms, random.random)
