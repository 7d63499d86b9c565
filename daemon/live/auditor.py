"""The audit on a timer: a process of its own folds the journal again and says whether it is equal.

It is another process because a fold would hold up the loop, and because what judges a record must
not share the memory of what wrote it. The first audit after a start folds the whole record, each
later one what came since. That an audit could not be made is told; it never counts as a clean one.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import structlog

from core.compiled import source_digest
from daemon.alerts.notices import Notice, parted, unaudited
from daemon.live.service import Service

HOUR_S = 3_600.0
NICE_MOST = 19
WHY_BYTES_MAX = 2_000

log = structlog.get_logger(__name__)


class AuditFailed(Exception):
    """An audit that came to no result."""


class Auditor:
    """An edge of a live run. ``flags`` name its strategies for ``lockstep audit``; ``hours`` lie
    between two audits, and are also the time one may take. ``audited`` is told how many mismatches
    an audit found that were not known, ``tell`` what the operator is to know."""

    def __init__(
        self,
        service: Service,
        flags: Sequence[str],
        hours: float,
        *,
        audited: Callable[[int], None],
        tell: Callable[[Iterable[Notice]], None],
    ) -> None:
        self._run_id, self._clock = service.journal.run_id, service.clock
        url = service.journal.engine.url
        plain = url.set(drivername=url.get_backend_name())
        self._journal = plain.render_as_string(hide_password=False)
        self._flags, self._period_s = flags, hours * HOUR_S
        # as it runs: what is on disk may be another by the time of an audit
        self._code = source_digest()[:16]
        self._audited, self._tell = audited, tell
        # an audit that found something is begun at the same place again, and finds it again
        self._known = 0

    async def run(self) -> None:
        """Audit now and every so many hours, for ever; a process under way is killed with us."""
        with TemporaryDirectory(prefix="lockstep-audit-") as folder:
            while True:
                due = anyio.current_time() + self._period_s
                try:
                    with anyio.fail_after(self._period_s):
                        self._count(await self._found(Path(folder)))
                except (AuditFailed, TimeoutError) as error:
                    why = str(error) or "it took longer than live.audit_hours"
                    log.error("audit failed", run_id=self._run_id, why=why)
                    self._tell([unaudited(self._run_id, why, ts=self._clock())])
                await anyio.sleep_until(due)

    def _count(self, found: dict[str, Any]) -> None:
        run, mismatches = self._run_id, int(found["mismatches"])
        self._audited(max(0, mismatches - self._known))
        self._known = mismatches
        told = {name: found[name] for name in ("events", "outcomes", "mismatches", "until")}
        if mismatches:
            log.error("audit found mismatches", run_id=run, first=found["first"], **told)
            self._tell([parted(run, mismatches, str(found["first"]), ts=self._clock())])
        else:
            log.info("audited", run_id=run, **told)

    async def _found(self, folder: Path) -> dict[str, Any]:
        """The JSON of ``lockstep audit``."""
        words = ["audit", self._run_id, "--json", "--checkpoint", str(folder / "checkpoint")]
        code, out, err = await _ran(
            [sys.executable, "-m", "daemon.main", *words, *self._flags],
            # not among the words: they stand in the list of processes, and it may have a password
            {**os.environ, "LOCKSTEP__PATHS__JOURNAL": self._journal},
            folder,
        )
        try:
            found = json.loads(out)
            equal, by = bool(found["equal"]), str(found["code"])
        except (ValueError, TypeError, KeyError):
            raise AuditFailed(f"it ended with {code}: {err or 'no word of why'}") from None
        if by != self._code:
            raise AuditFailed("the code on disk is no longer the code that runs: restart it")
        if code != (0 if equal else 1):
            raise AuditFailed(f"it ended with {code} though it said equal={equal}")
        return dict(found)


async def _ran(words: Sequence[str], environ: dict[str, str], folder: Path) -> tuple[int, str, str]:
    """Run a command at the lowest priority; its exit code, its output and its last error line."""
    out, err = folder / "out", folder / "err"
    with out.open("wb") as output, err.open("wb") as errors:
        process = await anyio.open_process(
            words, stdin=DEVNULL, stdout=output, stderr=errors, env=environ, start_new_session=True
        )
        async with process:
            # where the system forbids it, as our unit does, its own session still shares fairly
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, NICE_MOST)
            code = await process.wait()
    told = err.read_bytes()[-WHY_BYTES_MAX:].decode(errors="replace").strip().splitlines()
    return code, out.read_text(errors="replace"), told[-1] if told else ""
