"""Everything that looks on at a live run: metrics, the log, the watchdog, the API and the alerts.

Each sees a tick once it is durable, in the loop's own task and without waiting. Whatever needs
time (a socket, a webhook, a scrape) runs as an edge task, so that nothing here can hold up a bar.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import anyio
import structlog

from config.settings import Settings
from core.model import Records
from daemon.alerts.notices import started, stopped
from daemon.alerts.opening import open_notifier
from daemon.clock import now_ms
from daemon.control.commands import Commands
from daemon.control.engine_desk import EngineDesk
from daemon.control.serving import Api, open_api
from daemon.journal import read_outcomes
from daemon.live.auditor import Auditor
from daemon.live.service import Service
from daemon.observe.canonical import Canonical
from daemon.observe.logs import begin_tick
from daemon.observe.metrics import Metrics
from daemon.observe.redaction import Secrets
from daemon.observe.stopwatch import Stopwatch, Tick
from daemon.observe.troubles import Troubles
from daemon.sdnotify import Notifier, Watchdog
from daemon.supervisor import Task
from markets.feeds.link import Link, Trouble

LAG_LOOK_S = 0.5
EVENTS_SHOWN = 20_000  # of the past, whose decisions and trades the API can show

log = structlog.get_logger(__name__)


class Lookout:
    """The onlookers of one live run, and the edge tasks they need. ``audit_flags`` name its
    strategies for ``lockstep audit``; without them nothing is audited."""

    def __init__(
        self,
        service: Service,
        link: Link,
        settings: Settings,
        interval_ms: int,
        secrets: Secrets,
        environ: Mapping[str, str],
        audit_flags: Sequence[str] | None = None,
    ) -> None:
        self._service, self._secrets, self._environ = service, secrets, environ
        engine, run_id = service.engine, service.journal.run_id
        intervals = {instrument.name: interval_ms for instrument in engine.instruments}
        mode = "paper" if settings.live.venue == "paper" else "live"
        build = {"run_id": run_id, "mode": mode}
        venue = settings.live.feed.venue
        self.metrics = Metrics(engine, intervals, feeds=[venue], build=build)
        self.metrics.follow(venue, link, list(Trouble))
        self.troubles = Troubles(venue, link)
        self._canonical = Canonical(engine)
        self.systemd = Notifier(environ)
        self._watchdog = Watchdog(self.systemd, environ)
        books = [book.name for book in engine.books]
        self.commands = Commands(books, service.command, lambda: service.journal.seq)
        self.desk = EngineDesk(
            engine,
            command=self.commands.ask,
            commands=lambda: service.journal.commands,
            ready=lambda: link.connected and not service.stopping,
            healthy=lambda: not service.stopping,
            metrics_text=self.metrics.exposition,
            about=lambda: {"run": run_id, "mode": mode, "line": link.connected},
        )
        after = max(0, service.recovered.seq - EVENTS_SHOWN)
        past = read_outcomes(service.journal.engine, run_id, after=after)
        self.desk.observe(_NO_EVENTS, past, _NO_EVENTS)
        self._alerts = open_notifier(settings.notify, environ, hide=secrets.add)
        self._told = self._alerts.observer(engine)
        self._api: Api | None = None
        if settings.api.enabled:
            self._api = open_api(self.desk, settings, environ, hide=secrets.add)
        self._auditor: Auditor | None = None
        if audit_flags is not None and settings.live.audit_hours:
            self._auditor = Auditor(
                service,
                audit_flags,
                settings.live.audit_hours,
                audited=self.metrics.audited,
                tell=self._alerts.tell,
            )
        self._alerts.tell([started(run_id, ts=now_ms())])

    def reload(self, settings: Settings) -> None:
        """Take up other alerts, tokens and rates. ConfigError, and nothing is changed, where they
        cannot be used."""
        hide = self._secrets.add
        alerts = open_notifier(settings.notify, self._environ, hide=hide)
        if self._api is not None:
            api = open_api(self.desk, settings, self._environ, hide=hide)
            self._api.app.become(api.app)
        self._alerts.become(alerts)

    def begun(self, block: Records) -> None:
        """Bind the tick's names for every log line of it."""
        journal = self._service.journal
        begin_tick(journal.run_id, journal.seq + 1, int(block["ts_known"][0]))

    def ended(self, tick: Tick) -> None:
        """Count it, tell it in one line, keep what the API shows, and pat the watchdog."""
        self.metrics.observe(tick.events, tick.outcomes, tick.track)
        self.metrics.tick(tick.seconds)
        self.commands.observe(tick.events, tick.outcomes, tick.track)
        self.desk.observe(tick.events, tick.outcomes, tick.track)
        self._told(tick.events, tick.outcomes, tick.track)
        line = self._canonical.line(tick)
        if line:
            log.info("tick", **line)
        self._watchdog.tick_done()

    def edges(self, watch: Stopwatch) -> Sequence[Task]:
        """What must run beside the loop for this."""
        tasks = [
            Task("watchdog", partial(self._watchdog.keep, lambda: watch.waiting)),
            Task("lag", self._measure_lag),
            Task("alerts", self._alerts.run),
            Task("troubles", self.troubles.run),
        ]
        if self._auditor is not None:
            tasks.append(Task("audit", self._auditor.run))
        if self._api is not None:
            tasks.append(Task("api", self._api.run))
        return tasks

    def stopping(self) -> None:
        """Asked to stop: no more orders, though what is in the inbox is still answered."""
        self.systemd.stopping()
        self.commands.drain()
        run_id = self._service.journal.run_id
        self._alerts.tell([stopped(run_id, ts=now_ms(), why="it was asked to")])

    def close(self) -> None:
        """The loop has ended: nobody's order will be taken any more."""
        self.commands.close()

    async def _measure_lag(self) -> None:
        """How late the event loop wakes us, twice a second."""
        while True:
            due = anyio.current_time() + LAG_LOOK_S
            await anyio.sleep(LAG_LOOK_S)
            self.metrics.loop_lag(max(0.0, anyio.current_time() - due))


_NO_EVENTS: Any = ()
