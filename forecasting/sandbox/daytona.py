"""Runs code in a sandbox of Daytona: made for one run, without a network, and always deleted.

A sandbox costs money for as long as it lives, so the price of its longest life is held before it is
made, and every way out of a run deletes it, a cancelled one as well. What is left all the same
carries its owner's label: it is reaped at the next start or run, and the service itself ends it
after ``LIFE_MINUTES``, for which it is charged.
"""

import math
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any

import anyio

from forecasting.budget import Budget, Exhausted
from forecasting.registry import Rent
from forecasting.sandbox.frames import PRINTED_BYTES_KEPT, Job, make_job, verdict
from forecasting.sandbox.port import End, Limits, Ran
from forecasting.sandbox.walls import CHILD
from forecasting.text import plain

API_URL = "https://app.daytona.io/api"
OWNER_LABEL, RUN_LABEL = "lockstep-owner", "lockstep-run"
LIFE_MINUTES, CREATE_S, TRANSFER_S, DELETE_S = 15, 60, 30, 20
DELETE_ATTEMPTS, DELETE_WAIT_S = 4, 0.5
_FOLDER = "/tmp"
_PATHS = {name: f"{_FOLDER}/lockstep-{name}" for name in ("child.py", "job", "frames", "printed")}
# the exit code, how much was printed, and the end of it
_COMMAND = (
    f"python3 -I -B {_PATHS['child.py']} < {_PATHS['job']} > {_PATHS['frames']} "
    f"2> {_PATHS['printed']}; echo $?; wc -c < {_PATHS['printed']}; "
    f"tail -c {PRINTED_BYTES_KEPT} {_PATHS['printed']}"
)
_TRIAL = """
import socket

def decide(context):
    try:
        socket.create_connection((context["host"], context["port"]), 3).close()
    except OSError:
        return {"reached": False}
    return {"reached": True}
"""
# an address that is always there, and no name, which a sandbox may be unable to resolve
_OUTSIDE = b'{"host":"1.1.1.1","port":443}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whose sandboxes they are. ``owner`` marks them, and only one process at once may be it."""

    api_key: str
    owner: str
    api_url: str = API_URL
    target: str = ""
    snapshot: str = ""


class Daytona:
    """A sandbox of the service for each run, which takes seconds and is paid for from the budget.

    ``owes``: a sandbox could not be deleted; the next run tries again.
    """

    name = "daytona"

    def __init__(self, account: Account, rent: Rent, budget: Budget, runs_at_once: int = 2) -> None:
        self.account, self.rent, self.budget = account, rent, budget
        self.owes = False
        self._live: set[str] = set()
        self._seats = anyio.Semaphore(runs_at_once)

    async def available(self) -> str | None:
        """Delete what was left behind, and see that a run is answered and reaches no network."""
        self.owes = True
        ran = await self.run(_TRIAL, _OUTSIDE, Limits())
        if ran.end is End.REFUSED_BUDGET:
            return ran.reason
        if self.owes:
            return "sandboxes that were left behind cannot be deleted"
        if ran.end is not End.OK:
            return ran.reason
        return None if ran.result == '{"reached": false}' else "its self-test reached the network"

    async def run(self, code: str, context: bytes, limits: Limits) -> Ran:
        """Run the code; everything the service does wrong is End.UNAVAILABLE."""
        began_s = anyio.current_time()
        job = make_job(code, context, limits)
        async with self._seats:
            try:
                async with self._paid() as stay:
                    ran = await self._run(job, stay)
            except Exhausted as error:
                ran = Ran(end=End.REFUSED_BUDGET, reason=str(error))
            else:
                ran = replace(ran, cost_micros=self.rent.cost_micros(stay.seconds))
        return replace(ran, seconds=anyio.current_time() - began_s)

    @asynccontextmanager
    async def _paid(self) -> AsyncIterator["_Stay"]:
        """A stay whose longest is held, and which is settled as it was; Exhausted."""
        stay = _Stay()
        hold = await self.budget.hold(self.name, self.rent.cost_micros(LIFE_MINUTES * 60))
        try:
            yield stay
        finally:
            with anyio.CancelScope(shield=True):
                await self.budget.settle(hold, self.rent.cost_micros(stay.seconds))

    async def _run(self, job: Job, stay: "_Stay") -> Ran:
        try:
            async with self._client() as client, self._sandbox(client, job, stay) as sandbox:
                return await _use(sandbox, job)
        except _Failed as error:
            return Ran(end=End.UNAVAILABLE, reason=str(error))

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        async with _open(self.account) as client:
            if self.owes:
                await self._reap(client)
            yield client

    @asynccontextmanager
    async def _sandbox(self, client: Any, job: Job, stay: "_Stay") -> AsyncIterator[Any]:
        """One that is there while this is entered; it goes by its label if we never saw its id."""
        sandbox, began_s = None, anyio.current_time()
        stay.seconds = LIFE_MINUTES * 60  # until it is known to be gone
        self._live.add(job.nonce)
        try:
            with _failing("a sandbox could not be made"):
                sandbox = await client.create(self._wanted(job), timeout=CREATE_S)
            if sandbox.network_block_all is not True:
                raise _Failed("the sandbox has a network")
            if (sandbox.cpu, sandbox.memory, sandbox.disk) != self.rent.size:
                raise _Failed("the sandbox is of another size than its declared price is for")
            yield sandbox
        finally:
            self._live.discard(job.nonce)
            with anyio.CancelScope(shield=True):
                gone = await (self._reap(client) if sandbox is None else self._delete(sandbox))
            if gone:
                stay.seconds = anyio.current_time() - began_s

    def _wanted(self, job: Job) -> Any:
        return _sdk().CreateSandboxFromSnapshotParams(
            language="python",
            snapshot=self.account.snapshot or None,
            labels={OWNER_LABEL: self.account.owner, RUN_LABEL: job.nonce},
            network_block_all=True,
            ephemeral=True,
            auto_stop_interval=LIFE_MINUTES,
            ttl_minutes=LIFE_MINUTES,
        )

    async def _reap(self, client: Any) -> bool:
        """Delete all the owner's sandboxes that no run of this process is using; whether all of
        them are gone."""
        query = _sdk().ListSandboxesQuery(labels={OWNER_LABEL: self.account.owner})
        try:
            with _failing("sandboxes could not be listed"):
                found = [one async for one in client.list(query, DELETE_S)]
        except _Failed:
            self.owes = True
            return False
        self.owes = False
        for sandbox in found:
            if sandbox.labels.get(RUN_LABEL) not in self._live:
                await self._delete(sandbox)
        return not self.owes

    async def _delete(self, sandbox: Any) -> bool:
        sdk = _sdk()
        for attempt in range(DELETE_ATTEMPTS):
            await anyio.sleep(DELETE_WAIT_S * attempt)
            with suppress(sdk.DaytonaError):
                with suppress(sdk.DaytonaNotFoundError):
                    await sandbox.delete(DELETE_S)
                return True
        self.owes = True
        return False


@dataclass(slots=True)
class _Stay:
    """How long a sandbox lived, as far as its service may charge for it."""

    seconds: float = 0.0


class _Failed(Exception):
    """The service failed, not the code; ``late`` where it did not answer in time."""

    def __init__(self, reason: str, *, late: bool = False) -> None:
        super().__init__(reason)
        self.late = late


@contextmanager
def _failing(what: str) -> Iterator[None]:
    """Every way the client has to fail as one; parts of it raise what its libraries raise."""
    import aiohttp

    try:
        yield
    except (_sdk().DaytonaError, aiohttp.ClientError, OSError, ValueError) as error:
        late = isinstance(error, _sdk().DaytonaTimeoutError | TimeoutError)
        told = plain(str(error) or type(error).__name__, 200)
        raise _Failed(f"{what}: {told}", late=late) from None


async def _use(sandbox: Any, job: Job) -> Ran:
    """One run in a sandbox that is there."""
    await _upload(sandbox, job)
    stopped, told = None, ["137", "0", ""]
    try:
        with _failing("the code could not be run"):
            done = await sandbox.process.exec(_COMMAND, timeout=math.ceil(job.limits.seconds) + 1)
            told = done.result.split("\n", 2)
    except _Failed as failed:
        if not failed.late:
            raise
        stopped = End.TIMEOUT
    if len(told) < 3 or not (told[0].isdecimal() and told[1].strip().isdecimal()):
        raise _Failed("the code could not be run: the shell did not answer")
    if int(told[1]) >= job.limits.printed_bytes:
        stopped = End.OUTPUT_TOO_LARGE
    frames = await _frames(sandbox, job.frames_bytes_max)
    if len(frames) > job.frames_bytes_max:
        stopped = stopped or End.FORGED
    return verdict(job, frames, told[2].encode(), int(told[0]), stopped)


async def _upload(sandbox: Any, job: Job) -> None:
    child = await anyio.Path(CHILD).read_bytes()
    upload = _sdk().FileUpload
    files = [upload(child, _PATHS["child.py"]), upload(job.text, _PATHS["job"])]
    with _failing("the code could not be sent"):
        await sandbox.fs.upload_files(files, TRANSFER_S)


async def _frames(sandbox: Any, most: int) -> bytes:
    """The frames, and no more of them than shows that they are too many."""
    read = bytearray()
    with _failing("the result could not be read"):
        chunks = await sandbox.fs.download_file_stream(_PATHS["frames"], TRANSFER_S)
        async with aclosing(chunks):
            async for chunk in chunks:
                read += chunk
                if len(read) > most:
                    break
    return bytes(read)


def _open(account: Account) -> Any:
    """A client that asks how a sandbox is: its channel of events leaks a connection, and a sandbox
    that lives for seconds has no events to wait for."""
    sdk = _sdk()
    with _deprecated("Polling-only mode"):
        return sdk.AsyncDaytona(
            sdk.DaytonaConfig(
                api_key=account.api_key,
                api_url=account.api_url,
                target=account.target or None,
                use_deprecated_polling=True,
            )
        )


@cache
def _sdk() -> ModuleType:
    """The library, by the name it is pinned under, which it says will be given up."""
    with _deprecated("The 'daytona_sdk' package is deprecated"):
        import daytona_sdk
    return daytona_sdk


@contextmanager
def _deprecated(told: str) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", told, DeprecationWarning)
        yield
