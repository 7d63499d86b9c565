"""The daemon's side of Drift: its switches, its key, its books against the account, its command."""

import json
import math
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from drift_child import setup_of, world
from solders.keypair import Keypair
from standin_drift import Chain, Standin, spawn
from standin_drift.faults import ALWAYS
from standin_wire import Wire, opened

from config.settings import Drift, Live
from core.errors import ConfigError, LockstepError
from core.events import command_event
from core.model import Command, Kind, Mode
from core.sending import Unreachable
from daemon.clock import now_ms
from daemon.journal import RunMode, Said, open_journal, sqlite_url
from daemon.live.service import Service, open_service, paper_row
from daemon.observe.metrics import Metrics
from daemon.venues.drift import DriftVenue, Switches, open_drift, open_reader, read_key
from daemon.venues.drift_checks import drift_looks, venue_look
from markets.drift.account import MAINNET_GENESIS
from markets.drift.layout import codes

SOL = 10**9


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def driftpy() -> None:
    """Imported once, without the warnings of what it imports."""
    from markets.drift.program import load_driftpy

    load_driftpy()


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with opened() as wire:
        wire.desk.set_market(1, step=10**5, min_order_size=10**5)
        wire.desk.tick(2)
        yield wire


def service_of(folder: Path, wire: Wire) -> Service:
    setup = setup_of("script")
    row = replace(paper_row("drift", setup, started_ms=0), mode=RunMode.LIVE)
    carried = {name: history.fields for name, history in world("script", 10).items()}
    folder.mkdir(exist_ok=True)
    database = open_journal(sqlite_url(folder / "journal.sqlite"))
    return open_service(setup, carried, database, row, lambda: wire.chain.time_ms, codes())


def key_file(folder: Path, pair: Keypair, mode: int = 0o600) -> Path:
    path = folder / "key.json"
    path.write_text(json.dumps(list(bytes(pair)), separators=(",", ":")))
    path.chmod(mode)
    return path


@asynccontextmanager
async def venue_of(folder: Path, wire: Wire, **more: Any) -> AsyncIterator[DriftVenue]:
    service = service_of(folder, wire)
    settings = Drift(
        **{
            "endpoints": tuple(wire.standin.urls),
            "key_file": key_file(folder, wire.trader.key),
            "resend_s": 0.01,
            "reconcile_s": 0.05,
            **more,
        }
    )
    async with AsyncExitStack() as stack:
        stack.callback(service.journal.engine.dispose)
        stack.callback(service.stop)
        opened = open_drift(settings, Live(), service, read_key(settings, {}), flag=False)
        yield await stack.enter_async_context(opened)


@pytest.mark.parametrize(
    ("profile", "flag", "missing"),
    [
        (False, False, "live.real_money in the profile and the flag --real-money"),
        (True, False, "the flag --real-money"),
        (False, True, "live.real_money in the profile"),
        (True, True, None),
    ],
)
def test_mainnet_needs_both_switches(profile: bool, flag: bool, missing: str | None) -> None:
    switches = Switches(profile=profile, flag=flag)
    if missing is None:
        switches.expect(MAINNET_GENESIS)
        return
    with pytest.raises(ConfigError) as told:
        switches.expect(MAINNET_GENESIS)
    assert str(told.value) == f"this is mainnet, where money is real: it also needs {missing}"


@pytest.mark.anyio
async def test_a_mainnet_behind_any_address_is_found_out_before_it_is_asked(
    wire: Wire, tmp_path: Path
) -> None:
    wire.standin.nodes[0].methods["getGenesisHash"] = lambda: MAINNET_GENESIS
    with pytest.raises(ConfigError, match="this is mainnet"):
        async with venue_of(tmp_path, wire):
            pass
    assert set(wire.standin.nodes[0].calls) == {"getGenesisHash"}


@pytest.mark.anyio
async def test_nodes_of_two_chains_are_refused(wire: Wire, tmp_path: Path) -> None:
    async with Standin(Chain(program=str(Keypair().pubkey()))).open() as other:
        both = (wire.standin.url, other.url)
        async with AsyncExitStack() as stack:
            venue = venue_of(tmp_path, wire, endpoints=both)
            with pytest.raises(ConfigError, match="these nodes are of different chains"):
                await asked(await stack.enter_async_context(venue))


@pytest.mark.anyio
async def test_a_socket_may_be_named_for_each_node(wire: Wire, tmp_path: Path) -> None:
    signature = str(wire.trader.key.sign_message(b""))
    async with venue_of(tmp_path, wire, sockets=("ws://127.0.0.1:1",)) as venue:
        with pytest.raises(Unreachable, match="signatureSubscribe: ConnectionRefusedError"):
            await venue.reader.nodes[0].hint(signature)
    with pytest.raises(ConfigError, match=r"one for each of drift\.endpoints, or none"):
        async with venue_of(tmp_path, wire, sockets=("ws://a", "ws://b")):
            pass


async def asked(venue: DriftVenue) -> None:
    for node in venue.reader.nodes:
        await node.slot()


def test_the_key_comes_from_a_private_file_or_a_credential_alone(tmp_path: Path) -> None:
    pair = Keypair()
    address = str(pair.pubkey())
    path = key_file(tmp_path, pair)
    hidden: list[str] = []
    key = read_key(Drift(key_file=path), {}, hidden.append)
    assert (key.address, hidden) == (address, [path.read_text()])
    (tmp_path / "drift_key").write_text(path.read_text())
    assert read_key(Drift(), {"CREDENTIALS_DIRECTORY": str(tmp_path)}).address == address
    with pytest.raises(ConfigError, match="no key to sign with"):
        read_key(Drift(), {"LOCKSTEP__DRIFT__KEY": path.read_text()})
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others may read this secret"):
        read_key(Drift(key_file=path), {})


@pytest.mark.anyio
async def test_it_starts_flat_and_refuses_to_start_on_a_position_it_does_not_know(
    wire: Wire, tmp_path: Path
) -> None:
    async with venue_of(tmp_path, wire) as venue:
        await venue.recover(venue.service.engine.sent())
    wire.desk.set_book(wire.maker["user"], 0, asks=[(150_010_000, SOL)])
    wire.desk.tick()
    from standin_orders import params

    await wire.landed(wire.trader.take(params(base_asset_amount=SOL // 2), [wire.maker]))
    wire.desk.tick(40)
    async with venue_of(tmp_path, wire) as venue:
        with pytest.raises(LockstepError) as told:
            await venue.recover(venue.service.engine.sent())
    assert "SOL-PERP: the books hold 0.00, the venue 0.5 (it has +0.50 more)" in str(told.value)
    assert "trading does not begin" in str(told.value)


def exported(metrics: Metrics, name: str) -> float:
    value = metrics.registry.get_sample_value(f"lockstep_{name}")
    assert value is not None, name
    return value


@pytest.mark.anyio
@pytest.mark.parametrize("what", ["position", "order"])
async def test_a_difference_that_stays_halts_and_none_does_not(
    wire: Wire, tmp_path: Path, what: str
) -> None:
    async with venue_of(tmp_path, wire) as venue, anyio.create_task_group() as group:
        service, looks = venue.service, wire.standin.nodes[0].calls
        intervals = {instrument.name: 60_000 for instrument in service.engine.instruments}
        venue.metrics = Metrics(service.engine, intervals)
        assert exported(venue.metrics, "last_reconcile_timestamp_seconds") == 0.0
        assert math.isnan(exported(venue.metrics, "funding_apart_quote"))
        await venue.recover(service.engine.sent())
        (_, reconcile, _) = venue.tasks
        group.start_soon(reconcile.run)

        async def looked(times: int) -> None:
            until = looks["getMultipleAccounts"] + 2 * times
            while looks["getMultipleAccounts"] < until:  # noqa: ASYNC110 - the node is no event
                await anyio.sleep(0.01)

        await looked(3)
        assert service.inbox.waiting == 0
        assert exported(venue.metrics, "reconcile_mismatches") == 0.0
        assert exported(venue.metrics, "funding_apart_quote") == 0.0
        ages = ("last_reconcile_timestamp_seconds", "last_funding_check_timestamp_seconds")
        assert min(exported(venue.metrics, name) for name in ages) > 0.0
        if what == "position":
            service.engine.arrays["positions"]["quantity"][0] = 0.5
        else:
            wire.desk.set_book(wire.trader.user, 0, bids=[(100_000_000, SOL)])
            wire.desk.tick(40)
        await looked(4)
        venue.close()
        assert exported(venue.metrics, "reconcile_mismatches") == 1.0
        assert service.inbox.waiting > 0
        block = await anext(aiter(service.inbox))
        assert block["kind"][0] == Kind.COMMAND
        assert block["command"][0] == Command.HALT


async def until(met: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not met():  # noqa: ASYNC110 - the chain is no event
            await anyio.sleep(0.01)


async def halted_run(folder: Path, wire: Wire) -> None:
    """A run on record that was halted, and ended."""
    service = service_of(folder, wire)
    block = command_event(Command.HALT, wire.chain.time_ms)
    step = service.engine.advance(block, 0)
    service.journal.say(Said())
    await service.journal.append(block, step.outcomes, step.track)
    service.stop()
    service.journal.engine.dispose()


def rest(wire: Wire) -> None:
    wire.desk.set_book(wire.trader.user, 0, bids=[(100_000_000, SOL)])


def resting(wire: Wire) -> int:
    return len(wire.desk.user(wire.trader.user)["orders"])


@pytest.mark.anyio
async def test_a_halt_cancels_what_rests_and_only_a_halt_does(wire: Wire, tmp_path: Path) -> None:
    wire.desk.clock(slots_per_s=200)
    async with venue_of(tmp_path, wire) as venue, anyio.create_task_group() as group:
        await venue.recover(venue.service.engine.sent())
        group.start_soon(venue.tasks[-1].run)
        rest(wire)
        await anyio.sleep(0.2)
        assert resting(wire) == 1
        venue.service.engine.arrays["account"]["mode"] = Mode.HALTED
        await venue.halt()
        await until(lambda: not resting(wire))
        # a fork cannot bring it back any more, and the next halt finds nothing to send
        sent = len(wire.desk.books()["sent"])
        await anyio.sleep(0.5)
        await venue.halt()
        await anyio.sleep(0.2)
        assert len(wire.desk.books()["sent"]) == sent
        group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_halt_waits_for_no_node_and_cancels_when_one_is_back(
    wire: Wire, tmp_path: Path
) -> None:
    wire.desk.clock(slots_per_s=200)
    async with venue_of(tmp_path, wire) as venue, anyio.create_task_group() as group:
        await venue.recover(venue.service.engine.sent())
        group.start_soon(venue.tasks[-1].run)
        rest(wire)
        wire.desk.faults(0, http_refused=ALWAYS)
        venue.service.engine.arrays["account"]["mode"] = Mode.HALTED
        with anyio.fail_after(0.1):
            await venue.halt()
        await until(lambda: wire.desk.faults(0)["struck"].get("http_refused", 0) > 5)
        assert resting(wire) == 1
        wire.desk.faults(0, http_refused=0)
        await until(lambda: not resting(wire))
        group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_halted_run_starts_on_open_orders_and_cancels_them_whenever_they_appear(
    wire: Wire, tmp_path: Path
) -> None:
    rest(wire)
    wire.desk.tick(40)
    with pytest.raises(ConfigError, match="1 open orders that are not ours"):
        async with venue_of(tmp_path / "active", wire):
            pass
    await halted_run(tmp_path, wire)
    wire.desk.clock(slots_per_s=200)
    async with venue_of(tmp_path, wire) as venue, anyio.create_task_group() as group:
        await venue.recover(venue.service.engine.sent())
        for task in venue.tasks[1:]:
            group.start_soon(task.run)
        await until(lambda: not resting(wire))
        await anyio.sleep(0.5)
        rest(wire)
        await until(lambda: not resting(wire))
        assert venue.service.inbox.waiting == 0
        venue.close()
        group.cancel_scope.cancel()


def test_replays_and_help_import_nothing_of_drift() -> None:
    look = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from daemon.main import app\n"
        "for words in (['--help'], ['doctor', '--help'], ['demo', '--bars', '1000']):\n"
        "    done = CliRunner().invoke(app, words)\n"
        "    assert done.exit_code == 0, done.output\n"
        "names = ('driftpy', 'solana', 'solders', 'anchorpy', 'construct')\n"
        "print([name for name in names if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", look],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


PROFILE = """
[live]
venue = "drift"

[drift]
endpoints = ["{url}"]
key_file = "{key}"

[instruments.SOL]
lot = 0.01
"""


def doctor(folder: Path, url: str) -> dict[str, tuple[str, str]]:
    profile = folder / "drift.toml"
    profile.write_text(PROFILE.format(url=url, key=folder / "key.json"))
    words = ["doctor", "--venue", "drift", "--config", str(profile), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", "from daemon.main import main; main()", *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    told = json.loads(done.stdout)
    checks = {one["check"]: (one["state"], one["detail"]) for one in told["checks"]}
    assert done.returncode == (0 if told["ok"] else 1)
    return {name: said for name, said in checks.items() if name.startswith("drift")}


def looks(folder: Path, url: str) -> dict[str, tuple[str, str]]:
    """The same without a command line around it."""
    settings = Drift(endpoints=(url,), key_file=folder / "key.json")

    async def look() -> dict[str, tuple[str, str]]:
        lots = {"SOL": 0.01}
        found = drift_looks(settings, Live(venue="drift"), lots, {}, now_ms)
        return {f"drift {one.check}": (one.state, one.detail) async for one in found}

    return anyio.run(look)


def test_doctor_looks_at_everything_an_order_needs(tmp_path: Path) -> None:
    pair = Keypair()
    key_file(tmp_path, pair)
    with spawn("--slots-per-s", "2.5") as process:
        desk, host = process.desk, process.url.removeprefix("http://")
        unknown = looks(tmp_path, process.url)["drift account"]
        assert unknown[0] == "fail"
        assert "is unknown to program" in unknown[1]
        user = desk.add_user(str(pair.pubkey()))["user"]
        desk.tick(2)
        told = doctor(tmp_path, process.url)
        assert {state for state, _ in told.values()} == {"ok"}, told
        assert list(told) == [
            "drift key",
            f"drift node {host}",
            *(f"drift {name}" for name in ("venue", "clock", "account", "collateral")),
            *(f"drift {name}" for name in ("markets", "fees")),
        ]
        assert user in told["drift account"][1]
        assert "10,000.00 in quote" in told["drift collateral"][1]
        assert "1.000000 SOL" in told["drift fees"][1]
        desk.set_market(0, status="ReduceOnly")
        desk.set_state(exchange_status=8)
        desk.set_user(user, collateral=0)
        desk.fund(str(pair.pubkey()), -(10**9) + 5_000)
        desk.tick(60)
        told = looks(tmp_path, process.url)
    assert told["drift markets"] == ("fail", "SOL-PERP is ReduceOnly")
    assert told["drift venue"] == ("fail", "the exchange has closed: FillPaused")
    for name in ("collateral", "fees", "clock"):
        assert told[f"drift {name}"][0] == "fail", name
    assert "0.000005 SOL for fees" in told["drift fees"][1]
    silent = looks(tmp_path, process.url)
    assert "ConnectError" in silent[f"drift node {host}"][1]
    assert {state for name, (state, _) in silent.items() if name != "drift key"} == {"fail"}


def test_drift_v2_is_told_to_be_closed_on_mainnet() -> None:
    async def told() -> tuple[str, str]:
        async with opened() as wire:
            wire.standin.nodes[0].methods["getGenesisHash"] = lambda: MAINNET_GENESIS
            switches = Switches(profile=True, flag=True)
            settings = Drift(endpoints=tuple(wire.standin.urls))
            authority = str(wire.trader.key.pubkey())
            async with open_reader(settings, authority, now_ms, switches) as reader:
                return await venue_look(reader, switches)

    assert anyio.run(told) == (
        "fail",
        "Drift v2 is closed: its program was emptied on 2026-04-01",
    )
