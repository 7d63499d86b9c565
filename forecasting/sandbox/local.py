"""Runs code on this machine behind a wall, watched from outside, and leaves no process behind."""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field, replace
from subprocess import PIPE

import anyio
import anyio.to_thread
from anyio.abc import ByteReceiveStream, Process

from forecasting.sandbox.frames import PRINTED_BYTES_KEPT, Job, make_job, verdict
from forecasting.sandbox.port import End, Limits, Ran, SandboxUnavailable
from forecasting.sandbox.proof import prove
from forecasting.sandbox.walls import WALLS, Wall

START_S, CLEAR_S = 30.0, 10.0


class Local:
    """A sandbox behind one kind of wall, ``bubblewrap`` or ``landlock``.

    Processes are started by the thread that runs the event loop, and end with it.
    """

    def __init__(self, wall: str, runs_at_once: int = 2) -> None:
        self.name = wall
        self._build = WALLS[wall]
        self._seats = anyio.Semaphore(runs_at_once)

    async def available(self) -> str | None:
        """Why it cannot be trusted here; a few tenths of a second."""
        return await prove(self)

    async def run(self, code: str, context: bytes, limits: Limits) -> Ran:
        """Run the code; the clock of the limit starts when it is let loose."""
        began_s = anyio.current_time()
        try:
            wall = await anyio.to_thread.run_sync(self._build)
        except SandboxUnavailable as error:
            return Ran(end=End.UNAVAILABLE, reason=str(error))
        job = make_job(code, context, limits, readable=wall.readable, program=wall.filter)
        async with self._seats:
            ran = await _run(wall, job)
        return replace(ran, seconds=anyio.current_time() - began_s)


@dataclass(slots=True)
class _Watch:
    """What has come out of a run so far, and whether it has to end."""

    job: Job
    scope: anyio.CancelScope
    frames: bytearray = field(default_factory=bytearray)
    printed: bytearray = field(default_factory=bytearray)
    printed_bytes: int = 0
    stopped: End | None = None

    def stop(self, end: End) -> None:
        """End the run, for the first reason that is given."""
        self.stopped = self.stopped or end
        self.scope.cancel()

    async def read_printed(self, stream: ByteReceiveStream) -> None:
        """Count what is printed, and keep its end."""
        async for chunk in stream:
            self.printed_bytes += len(chunk)
            self.printed = (self.printed + chunk)[-PRINTED_BYTES_KEPT:]
            if self.printed_bytes > self.job.limits.printed_bytes:
                self.stop(End.OUTPUT_TOO_LARGE)

    async def read_frames(self, stream: ByteReceiveStream) -> None:
        """Keep the frames; the first says that the code is let loose, so its time begins."""
        async for chunk in stream:
            if not self.frames:
                self.scope.deadline = anyio.current_time() + self.job.limits.seconds
            self.frames += chunk
            if len(self.frames) > self.job.frames_bytes_max:
                self.stop(End.FORGED)


async def _run(wall: Wall, job: Job) -> Ran:
    try:
        # cancelled in the middle, the library would kill one process of what may be three by then
        with anyio.CancelScope(shield=True):
            process = await anyio.open_process(
                wall.argv,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env=wall.env,
                cwd="/",
                start_new_session=True,
            )
    except OSError as error:
        return Ran(end=End.UNAVAILABLE, reason=f"it cannot be started: {error.strerror}")
    watch = _Watch(job, anyio.CancelScope(deadline=anyio.current_time() + START_S))
    try:
        await _watched(process, watch)
    finally:
        with anyio.CancelScope(shield=True):
            code = await _clear(process)
    return verdict(job, bytes(watch.frames), bytes(watch.printed), code, watch.stopped)


async def _watched(process: Process, watch: _Watch) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    with watch.scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_feed, process, watch.job.text)
            tasks.start_soon(watch.read_printed, process.stderr)
            tasks.start_soon(watch.read_frames, process.stdout)
            await process.wait()
    if watch.scope.cancelled_caught:
        watch.stop(End.TIMEOUT)


async def _feed(process: Process, job: bytes) -> None:
    assert process.stdin is not None
    try:
        await process.stdin.send(job)
        await process.stdin.aclose()
    except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        return  # it died before it had read its job, which its end will tell


async def _clear(process: Process) -> int:
    """Kill what still runs, all of it at once: its session is its own, and nothing can leave it.

    Its pipes end when the last process that holds them is gone.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with anyio.move_on_after(CLEAR_S):
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            async for _ in stream:
                pass
    await process.aclose()
    assert process.returncode is not None
    return process.returncode
