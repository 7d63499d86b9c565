"""SIGHUP: settings are read again; what decides a run stays, the rest changes under it.

A run must be replayable from its journal, so nothing that decides may change without a new run.
What is only shell (whom to tell, who may ask, how much to log) may: at once, whole or not at all.
"""

from collections.abc import Callable, Iterator
from typing import Any

import structlog
from anyio import to_thread

from config.layers import Key
from config.settings import Settings
from core.errors import LockstepError
from daemon.sdnotify import Notifier

FREE: tuple[Key, ...] = (
    ("log",),
    ("notify",),
    *(("api", name) for name in ("token", "token_file", "read_token", "read_token_file")),
    *(("api", name) for name in ("metrics_open", "requests_per_minute", "burst")),
)
"""What may change under a run."""

SHELL: tuple[Key, ...] = (
    ("api",),
    ("paths", "runs"),
    ("live", "snapshot_events"),
    ("live", "audit_hours"),
    ("live", "audit_hours"),
    *(("live", "feed", name) for name in ("warmup_bars", "stream", "info")),
)
"""What a restart takes up and the run goes on; all other settings decide it."""

log = structlog.get_logger(__name__)


class Reload:
    """Reads the settings again when called. ``apply`` takes up those that may change; it raises,
    and has changed nothing, where they cannot be used. Nothing is raised from here."""

    def __init__(
        self,
        running: Settings,
        read: Callable[[], Settings],
        apply: Callable[[Settings], None],
        systemd: Notifier,
    ) -> None:
        self._running, self._read, self._apply, self._systemd = running, read, apply, systemd

    async def __call__(self) -> None:
        """Reload, and tell the log and systemd what became of it."""
        self._systemd.reloading()
        try:
            # in a thread: the loop must not wait for a disk
            told = self._take(await to_thread.run_sync(self._read))
        except (LockstepError, OSError) as error:
            log.error("reload failed, the settings stay", why=str(error))
            told = "reload failed, see the log"
        self._systemd.ready(told)

    def _take(self, wanted: Settings) -> str:
        changed = changes(self._running, wanted)
        settings = laid_over(self._running, wanted)
        # also where no key is another: a file of a secret may hold a new one
        self._apply(settings)
        self._running = settings
        taken = [key for key in changed if _below(key, FREE)]
        later = [key for key in changed if key not in taken and _below(key, SHELL)]
        never = [key for key in changed if key not in taken and key not in later]
        log.info("reloaded", changed=_spoken(taken))
        if later:
            log.warning(
                "reload refused", keys=_spoken(later), why="restart to apply; the run goes on"
            )
        if never:
            log.warning(
                "reload refused",
                keys=_spoken(never),
                why="they decide the run: restart to apply, which begins a new run (--run NAME)",
            )
        refused = _spoken(later + never)
        return f"reloaded; refused: {', '.join(refused)}" if refused else "reloaded"


def laid_over(running: Settings, wanted: Settings) -> Settings:
    """The running settings with what may change as it is wanted."""
    free = {key[1]: getattr(wanted.api, key[1]) for key in FREE if key[0] == "api"}
    api = running.api.model_copy(update=free)
    update = {"api": api, "log": wanted.log, "notify": wanted.notify}
    return running.model_copy(update=update)


def changes(ours: Settings, theirs: Settings) -> list[Key]:
    """The keys at which two settings differ, in order; their values may be secret."""
    left, right = dict(_flat(ours.model_dump(), ())), dict(_flat(theirs.model_dump(), ()))
    found = [key for key in {**left, **right} if left.get(key) != right.get(key)]
    # a table that came or went is told by what is in it, an empty one by its name
    return [key for key in found if sum(_below(other, (key,)) for other in found) == 1]


def _flat(value: Any, key: Key) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, (*key, name))
    else:
        yield key, value


def _below(key: Key, tables: tuple[Key, ...]) -> bool:
    return any(key[: len(table)] == table for table in tables)


def _spoken(keys: list[Key]) -> list[str]:
    return [".".join(key) for key in keys]
