"""The supervisor: core tasks end the process when they end, edge tasks are started again.

A core task (the loop with its journal) that stops or raises leaves a state nobody looks after, so
the process ends and systemd starts it anew; start-up is recovery. An edge task (a feed, the API, a
notifier) may fail as often as it likes: it is restarted with a growing pause, and its outage is
told. This is the only place that may catch everything.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import structlog

PAUSE_S_FIRST = 0.5
PAUSE_S_MAX = 30.0
SETTLED_S = 60.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """A root task by name. ``core`` ends the process; ``on_fail`` is told of an edge's outage."""

    name: str
    run: Callable[[], Awaitable[None]]
    core: bool = False
    on_fail: Callable[[], Awaitable[None]] | None = None


class CoreStopped(Exception):
    """A core task ended although nobody asked it to."""


async def supervise(tasks: list[Task], stopping: Callable[[], bool]) -> None:
    """Run all tasks until the core ones are done. A core task may return only while stopping."""
    async with anyio.create_task_group() as group:
        edges = anyio.CancelScope()

        async def run_edges() -> None:
            with edges:
                async with anyio.create_task_group() as inner:
                    for task in tasks:
                        if not task.core:
                            inner.start_soon(_keep_running, task, name=task.name)

        group.start_soon(run_edges, name="edges")
        async with anyio.create_task_group() as core:
            for task in tasks:
                if task.core:
                    core.start_soon(_run_core, task, stopping, name=task.name)
        edges.cancel()


async def _run_core(task: Task, stopping: Callable[[], bool]) -> None:
    await task.run()
    if not stopping():
        raise CoreStopped(f"core task {task.name} ended by itself")


async def _keep_running(task: Task) -> None:
    """Start an edge task again whenever it ends, after a pause that grows and is jittered."""
    pause = PAUSE_S_FIRST
    while True:
        started = anyio.current_time()
        try:
            await task.run()
            log.warning("task ended", task=task.name, pause_s=round(pause, 2))
        except Exception as error:  # noqa: BLE001 - an edge's failure must not reach the core
            log.error("task failed", task=task.name, error=_told(error), pause_s=round(pause, 2))
        if task.on_fail is not None:
            await task.on_fail()
        if anyio.current_time() - started > SETTLED_S:
            pause = PAUSE_S_FIRST
        await anyio.sleep(pause * (0.5 + random.random() / 2))
        pause = min(pause * 2, PAUSE_S_MAX)


def _told(error: Any) -> str:
    """An exception in one line, the first of a group in its place."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
