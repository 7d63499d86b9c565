"""Drift as the daemon's venue: the order life on its chain, and books reconciled with its account.

Nothing is traded before the account is found fit, what the last process left is settled by the
chain's own evidence, and the books agree with what the venue says we hold.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import TypeVar

import anyio
import numpy as np
import structlog

from config.settings import Drift, Live
from core.errors import ConfigError, LockstepError
from core.model import Command, Mode, Records
from core.sending import Unreachable
from daemon.control.credentials import CREDENTIALS, Hide, read_secret
from daemon.journal.attempts import SqlAttempts
from daemon.live.inbox import Inbox
from daemon.live.service import Clock, Service
from daemon.observe.metrics import Metrics
from daemon.observe.redaction import SECRETS
from daemon.supervisor import Task
from daemon.venues.drift_funding import FundingWatch
from execution.reconcile import mismatches
from execution.sending import Sender
from markets.drift.account import (
    MAINNET_GENESIS,
    ORDERS_MAX,
    Holdings,
    check_access,
    find_markets,
    read_holdings,
)
from markets.drift.cancelling import Cancelling
from markets.drift.chain import DriftChain, Terms
from markets.drift.keys import Key
from markets.drift.makers import BookServer, ListedMakers, Makers
from markets.drift.program import DRIFT, Program
from markets.drift.rpc import HISTORY_SLOTS_MIN, Node
from markets.drift.views import Reader

START_TRIES = 10
_SLOT_MS = 400

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Mailbox:
    """Where the ends of orders go: into the inbox, once recovery has let them through."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self.held: list[Records] | None = []

    async def put(self, event: Records) -> None:
        """Hold it back during recovery, tell it at once after that."""
        if self.held is None:
            await self._inbox.put(event)
        else:
            self.held.append(event)

    async def release(self) -> None:
        """Recovery is done: what was held goes in first."""
        held, self.held = self.held or [], None
        for event in held:
            await self._inbox.put(event)


@dataclass
class DriftVenue:
    """A ``daemon.live.service.Outside``; ``markets`` is the market of each of our instruments, and
    ``metrics`` hears how books and venue compare."""

    service: Service
    sender: Sender
    cancelling: Cancelling
    funding: FundingWatch
    reader: Reader
    address: str
    markets: Mapping[str, int]
    reconcile_s: float
    mailbox: Mailbox
    metrics: Metrics | None = None
    closed: anyio.Event = field(default_factory=anyio.Event)
    fell: anyio.Event = field(default_factory=anyio.Event)

    async def submit(self, approved: Records) -> None:
        """Take a new order."""
        await self.sender.submit(approved)

    async def halt(self) -> None:
        """Send nothing more that grows a position, and have what rests on the account cancelled:
        ours never rest, but a halt is when nobody wants to rely on that."""
        await self.sender.halt()
        self.fell.set()

    async def recover(self, working: Records) -> None:
        """Settle what was under way; LockstepError when the books then differ from the account."""
        log.info("settling what was under way", orders=len(working))
        await self.sender.recover(working)
        books = {int(row["id"]): int(row["book"]) for row in working}
        filled: dict[int, float] = defaultdict(float)
        for event in self.mailbox.held or ():
            filled[books[int(event["order"][0])]] += float(event["fill_quantity"][0])
        pause_s = self.reconcile_s / START_TRIES
        for _ in range(START_TRIES):
            holdings = await patiently(self._holdings, pause_s=pause_s)
            found = self._differences(holdings, filled, set())
            # what is open, a halted run cancels
            if not found and (not holdings.open_orders or self._mode() == Mode.HALTED):
                break
            found = found or [_unknown_orders(holdings)]
            # a node may not have seen yet what another has finalized
            await anyio.sleep(pause_s)
        else:
            raise LockstepError(
                f"{'; '.join(found)}: trading does not begin; let nobody else trade this account, "
                "and bring it to what the books hold"
            )
        self.funding.begin(holdings)
        await self.mailbox.release()
        log.info("reconciled", account=self.address, settled=len(working))

    @property
    def tasks(self) -> Sequence[Task]:
        """What runs beside the loop; only a restart takes up what they leave undone."""
        return [
            Task("orders", self.sender.run, core=True),
            Task("reconcile", self._reconcile, core=True),
            Task("cancel", self._cancel),
        ]

    def close(self) -> None:
        """Let the tasks end."""
        self.sender.close()
        self.closed.set()

    async def _reconcile(self) -> None:
        """Compare from time to time; a difference that is there twice in a row halts."""
        last: Sequence[str] = ()
        while not self.closed.is_set():
            with anyio.move_on_after(self.reconcile_s):
                await self.closed.wait()
                return
            try:
                unsettled = self._unsettled()
                holdings = await self._holdings()
            except Unreachable as silence:
                log.warning("not reconciled", why=str(silence))
                continue
            found = self._differences(holdings, {}, unsettled)
            if holdings.open_orders:
                found.append(_unknown_orders(holdings))
            await self._told(len(found), holdings)
            if holdings.open_orders and self._mode() == Mode.HALTED:
                self.fell.set()
            elif found and found == last and self._mode() != Mode.HALTED:
                log.error("books and venue differ: halted", found=found)
                await self.service.command(Command.HALT)
            last = found

    async def _told(self, differences: int, holdings: Holdings) -> None:
        """Count what a comparison found, of the funding as well."""
        received = await self.funding.look(holdings)
        if self.metrics is not None:
            self.metrics.reconciled(differences)
            if received is not None:
                self.metrics.funding_reconciled(received.apart_micros)

    async def _cancel(self) -> None:
        """While the latch is HALTED let nothing rest on the account, after a restart as well."""
        while True:
            self.fell = anyio.Event()
            if self._mode() == Mode.HALTED:
                await self.cancelling.clear()
                log.info("no order is open", account=self.address)
            await self.fell.wait()

    async def _holdings(self) -> Holdings:
        """The account as finalized."""
        return await read_holdings(
            self.reader,
            self.address,
            self.service.clock,
            commitment="finalized",
            markets=self.markets.values(),
        )

    def _differences(
        self, holdings: Holdings, filled: Mapping[int, float], unsettled: set[str]
    ) -> list[str]:
        """How the account differs from the books and what recovery found filled besides; but for
        what was unsettled before it was read, or is now."""
        engine, names = self.service.engine, {index: name for name, index in self.markets.items()}
        venue: dict[str, Decimal] = {}
        by_market = {market.name: market.index for market in self.reader.perps.values()}
        for market, quantity in holdings.positions.items():
            venue[names.get(by_market[market], market)] = quantity
        positions = engine.arrays["positions"]["quantity"]
        books = [
            (book.instrument, float(positions[b]) + filled.get(b, 0.0))
            for b, book in enumerate(engine.books)
        ]
        lots = {instrument.name: instrument.lot for instrument in engine.instruments}
        now = self._unsettled() if self.mailbox.held is None else set()
        return [str(one) for one in mismatches(books, venue, lots, unsettled=unsettled | now)]

    def _unsettled(self) -> set[str]:
        engine = self.service.engine
        return {engine.instruments[int(i)].name for i in engine.sent()["instrument"]}

    def _mode(self) -> int:
        return int(self.service.engine.arrays["account"][0]["mode"])


def _unknown_orders(holdings: Holdings) -> str:
    """Ours never rest, so an open order is another's."""
    return f"the account has {holdings.open_orders} open orders that are not ours"


def _tell_open(orders: int | None, why: str) -> None:
    if why:
        log.warning("open orders not cancelled yet", orders=orders, why=why)
    else:
        log.warning("cancelling open orders", orders=orders)


def read_key(settings: Drift, environ: Mapping[str, str], hide: Hide = SECRETS.add) -> Key:
    """The signing key, from a systemd credential or a file of its owner alone; never from the
    environment, which every child inherits."""
    only = {CREDENTIALS: environ[CREDENTIALS]} if CREDENTIALS in environ else {}
    secret = read_secret(
        "drift", "key", given=None, file=settings.key_file, environ=only, hide=hide
    )
    if secret is None:
        raise ConfigError(
            "no key to sign with: give the systemd credential drift_key, or drift.key_file"
        )
    return Key(secret)


class Switches:
    """Which chain the nodes are of: all of one, and of mainnet only if real money was asked for
    twice. ConfigError else."""

    def __init__(self, *, profile: bool, flag: bool) -> None:
        self._wanted = {"live.real_money in the profile": profile, "the flag --real-money": flag}
        self.genesis = ""

    def expect(self, genesis: str) -> None:
        """A node told its chain."""
        missing = " and ".join(name for name, on in self._wanted.items() if not on)
        if genesis == MAINNET_GENESIS and missing:
            raise ConfigError(f"this is mainnet, where money is real: it also needs {missing}")
        if self.genesis not in ("", genesis):
            raise ConfigError("drift.endpoints: these nodes are of different chains")
        self.genesis = genesis


@asynccontextmanager
async def open_reader(
    settings: Drift,
    authority: str,
    clock: Clock,
    switches: Switches,
    history_slots: int = HISTORY_SLOTS_MIN,
) -> AsyncIterator[Reader]:
    """The nodes of the settings, for the user of an authority."""
    if not settings.endpoints:
        raise ConfigError("drift.endpoints: give the address of at least one Solana RPC node")
    sockets = settings.sockets or ("",) * len(settings.endpoints)
    if len(sockets) != len(settings.endpoints):
        raise ConfigError("drift.sockets: give one for each of drift.endpoints, or none")
    program = Program(settings.program or DRIFT)
    address = program.user(authority, settings.sub_account)
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                Node(
                    url,
                    program,
                    address,
                    expect=switches.expect,
                    history_slots=history_slots,
                    socket=socket,
                )
            )
            for url, socket in zip(settings.endpoints, sockets, strict=True)
        ]
        yield Reader(program, nodes, clock)


@asynccontextmanager
async def open_drift(
    settings: Drift, live: Live, service: Service, key: Key, *, flag: bool
) -> AsyncIterator[DriftVenue]:
    """The venue of a run, its account and markets found fit.

    ConfigError when they are not, Unreachable when no node answers.
    """
    attempts = SqlAttempts(service.journal.engine, service.journal.run_id)
    left = [one.signed_ms for one in (await attempts.load([])).values()]
    age_ms = service.clock() - min(left, default=service.clock())
    reach = HISTORY_SLOTS_MIN + 2 * age_ms // _SLOT_MS
    authority = settings.authority or key.address
    async with AsyncExitStack() as stack:
        switches = Switches(profile=live.real_money, flag=flag)
        opened = open_reader(settings, authority, service.clock, switches, reach)
        reader = await stack.enter_async_context(opened)
        engine = service.engine
        lots = {one.name: one.lot for one in engine.instruments}
        again = partial(patiently, pause_s=settings.resend_s)

        def halted() -> bool:
            return int(engine.arrays["account"][0]["mode"]) == Mode.HALTED

        # a halted run cancels them itself
        access = partial(check_access, open_orders=ORDERS_MAX if halted() else 0)
        await again(partial(access, reader, key.address, authority, settings.sub_account))
        markets = await again(partial(find_markets, reader, lots))
        ours = {i: markets[one.name] for i, one in enumerate(engine.instruments)}
        tables = await again(partial(reader.tables, settings.lookup_tables))
        makers: Makers = ListedMakers(settings.makers)
        if settings.book_server:
            makers = await stack.enter_async_context(BookServer(settings.book_server))
        chain = DriftChain(
            reader,
            key,
            authority,
            settings.sub_account,
            ours,
            makers,
            terms_of(settings),
            tables,
        )
        mailbox = Mailbox(service.inbox)
        sender = Sender(
            chain,
            attempts,
            mailbox.put,
            books=lambda i: np.flatnonzero(engine.arrays["books"]["instrument"] == i).tolist(),
            held=lambda book: float(engine.arrays["positions"]["quantity"][book]),
            halted=halted,
            ttl_ms=round(settings.ttl_s * 1_000),
            clock=service.clock,
            resend_s=settings.resend_s,
        )
        names = {i: reader.perps[index].name for i, index in ours.items()}
        yield DriftVenue(
            service,
            sender,
            Cancelling(chain, reader, _tell_open, pause_s=settings.resend_s),
            FundingWatch(service.journal, names, service.clock),
            reader,
            chain.user,
            markets,
            settings.reconcile_s,
            mailbox,
        )


async def patiently(ask: Callable[[], Awaitable[T]], *, pause_s: float) -> T:
    """An answer, if one comes within some tries: at the start nothing is at stake yet."""
    for _ in range(START_TRIES - 1):
        with suppress(Unreachable):
            return await ask()
        await anyio.sleep(pause_s)
    return await ask()


def terms_of(settings: Drift) -> Terms:
    """How orders are placed, from the settings."""
    return Terms(
        collar=settings.collar,
        units=settings.compute_units,
        fee_percentile=settings.fee_percentile,
        fee_min=settings.fee_min,
        fee_max=settings.fee_max,
        only_if_filled=settings.only_if_filled,
    )
