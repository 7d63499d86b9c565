"""The chain: slots, blockhashes, transactions that land or do not, and every account through time.

The clock moves only by ``tick``. Whatever a node tells is what the chain was at some slot, so a
node that lags or a commitment that is not yet reached needs no state of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from solders.hash import Hash
from solders.transaction import VersionedTransaction

from standin_drift.accounts import LOOKUP_PROGRAM, USDC, Accounts
from standin_drift.faults import Striker
from standin_drift.layout import Layout
from standin_drift.runtime import SYSTEM, Failure, Outcome, Runtime
from standin_drift.world import DRIFT, World

GENESIS_SLOT, SKIPPED_SLOTS = 300_000_000, 20_000_000
"""Block height is smaller than the slot by the slots without a block, as on mainnet."""
BLOCKHASH_LIFE = 150
CONFIRMED_AFTER, FINALIZED_AFTER = 1, 32
STATUS_LIFE = 300
"""Slots a status is found without searching the history."""
BEHIND = {"processed": 0, "confirmed": CONFIRMED_AFTER, "finalized": FINALIZED_AFTER}


@dataclass(frozen=True)
class Account:
    data: bytes
    owner: str
    lamports: int = 10**9


@dataclass
class Pending:
    """Accepted by a node, not yet in a block."""

    transaction: VersionedTransaction
    due: int
    fail_code: int | None = None
    hide_slots: int = 0
    fork_slots: int = 0


@dataclass
class Landed:
    """A transaction in a block: the stand-in's own books."""

    signature: str
    slot: int
    time_s: int
    outcome: Outcome
    transaction: VersionedTransaction
    hidden_until: int = 0
    vanished: bool = False

    @property
    def err(self) -> Any:
        return self.outcome.err


@dataclass
class Sent:
    """One sendTransaction as it arrived, whatever became of it."""

    signature: str
    raw: bytes
    slot: int
    answer: str


class Chain:
    """``landed`` by signature holds what counts; ``vanished`` what a fork took away again."""

    def __init__(
        self,
        *,
        program: str = DRIFT,
        start_s: int = 1_790_000_000,
        slot_ms: int = 400,
        mint: str = USDC,
    ) -> None:
        self.slot, self.time_ms, self.slot_ms = GENESIS_SLOT, start_s * 1_000, slot_ms
        self.world = World(program, self.slot)
        self.layout = Layout.of_driftpy()
        self.accounts = Accounts(self.world, self.layout, mint)
        self.runtime = Runtime(self)
        self.versions: dict[str, list[tuple[int, Account]]] = {}
        self.wallets: dict[str, int] = {}
        self.pending: dict[str, Pending] = {}
        self.landed: dict[str, Landed] = {}
        self.vanished: list[Landed] = []
        self.expired: list[str] = []
        self.sent: list[Sent] = []
        self.hashes: dict[str, int] = {}
        self.times: dict[int, int] = {}
        self.snapshots: dict[int, tuple[dict[str, Any], dict[str, int]]] = {}
        self.forks: list[tuple[int, int]] = []
        """When a fork comes out, and the slot it takes back."""
        self.listeners: list[Callable[[], None]] = []
        for table, data in self.accounts.lookup_tables().items():
            self.versions[table] = [(0, Account(data, LOOKUP_PROGRAM))]
        for _ in range(FINALIZED_AFTER + 1):
            self.tick()

    # -- time

    @property
    def now_s(self) -> int:
        return self.time_ms // 1_000

    def height(self, slot: int) -> int:
        return slot - SKIPPED_SLOTS

    def blockhash(self, slot: int) -> str:
        return str(Hash(sha256(f"{self.world.program}{slot}".encode()).digest()))

    def hash_lives(self, blockhash: str, slot: int) -> bool:
        """May a transaction with this blockhash still enter the block of ``slot``?"""
        made = self.hashes.get(blockhash)
        return made is not None and made <= slot <= made + BLOCKHASH_LIFE

    def tick(self, slots: int = 1) -> int:
        """One block after another: what is due lands, what forks vanishes, who listens hears."""
        for _ in range(slots):
            self.slot += 1
            self.time_ms += self.slot_ms
            self.times[self.slot] = self.now_s
            self.hashes[self.blockhash(self.slot)] = self.slot
            self.hashes.pop(self.blockhash(self.slot - 4 * BLOCKHASH_LIFE), None)
            self.fork_due()
            self.snapshots[self.slot] = (self.world.snapshot(), dict(self.wallets))
            self.snapshots.pop(self.slot - FINALIZED_AFTER - 1, None)
            for oracle in self.world.oracles.values():
                if oracle.follows_slot:
                    oracle.slot = self.slot
            self.land_due()
            self.publish()
            for listener in list(self.listeners):
                listener()
        return self.slot

    # -- transactions

    def submit(self, transaction: VersionedTransaction, strike: Striker) -> None:
        """Take a transaction into the queue, unless a fault loses it."""
        signature = str(transaction.signatures[0])
        if signature in self.pending or strike("drop_transaction"):
            return
        faults = strike.faults
        delay = faults.delay_slots if strike("delay_transaction") else 0
        self.pending[signature] = Pending(
            transaction,
            self.slot + 1 + delay,
            faults.fail_code if strike("fail_transaction") else None,
            faults.hide_slots if strike("hide_status") else 0,
            faults.fork_slots if strike("fork_transaction") else 0,
        )

    def land_due(self) -> None:
        for signature, pending in list(self.pending.items()):
            lives = self.hash_lives(str(pending.transaction.message.recent_blockhash), self.slot)
            if signature in self.landed or not lives:
                del self.pending[signature]
                if not lives:
                    self.expired.append(signature)
            elif pending.due <= self.slot:
                del self.pending[signature]
                self.land(signature, pending)

    def land(self, signature: str, pending: Pending) -> None:
        """Execute for good; one that cannot pay its fee never gets into a block."""
        try:
            outcome = self.runtime.execute(
                pending.transaction, self.slot, self.now_s, keep=True, fail=pending.fail_code
            )
        except Failure:
            self.expired.append(signature)
            return
        hidden = self.slot + pending.hide_slots if pending.hide_slots else 0
        self.landed[signature] = Landed(
            signature, self.slot, self.now_s, outcome, pending.transaction, hidden
        )
        if pending.fork_slots:
            self.forks.append((self.slot + pending.fork_slots, self.slot))

    def fork_due(self) -> None:
        for due, taken_back in [one for one in self.forks if one[0] <= self.slot]:
            self.forks.remove((due, taken_back))
            self.fork(taken_back)

    def fork(self, first: int) -> None:
        """Another branch wins: the blocks from ``first`` on never were, and hold no transaction.

        What a desk did to users, books and wallets since then is gone with them.
        """
        assert first in self.snapshots, "what is final does not fork"
        world, wallets = self.snapshots[first]
        self.forks = [one for one in self.forks if one[1] < first]
        self.world.restore(world)
        self.wallets = dict(wallets)
        for slot in range(first, self.slot):
            self.snapshots[slot] = (world, wallets)
        for signature, landed in list(self.landed.items()):
            if landed.slot >= first:
                landed.vanished = True
                self.vanished.append(self.landed.pop(signature))
        for key, versions in list(self.versions.items()):
            self.versions[key] = [one for one in versions if one[0] < first]
            if not self.versions[key]:
                del self.versions[key]

    # -- accounts

    def publish(self) -> None:
        """Note every account that changed, as of now; a new one as if it had always been."""
        owner = self.world.program
        now = {key: Account(data, owner) for key, data in self.accounts.all().items()}
        now |= {key: Account(b"", SYSTEM, lamports) for key, lamports in self.wallets.items()}
        for key, account in now.items():
            versions = self.versions.setdefault(key, [])
            if not versions or versions[-1][1] != account:
                versions.append((self.slot if versions else 0, account))
            while len(versions) > 1 and versions[1][0] < self.slot - 4 * FINALIZED_AFTER:
                del versions[0]

    def account(self, key: str, slot: int) -> Account | None:
        found = self.version(key, slot)
        return found[1] if found else None

    def version(self, key: str, slot: int) -> tuple[int, Account] | None:
        """The account as of a slot, and the slot it changed in."""
        for made, account in reversed(self.versions.get(key, [])):
            if made <= slot:
                return made, account
        return None

    def fund(self, wallet: str, lamports: int = 10**9) -> None:
        """Give a wallet SOL for fees."""
        self.wallets[wallet] = self.wallets.get(wallet, 0) + lamports

    def find(self, signature: str, head: int) -> Landed | None:
        """A landed transaction as a node with this head knows it."""
        landed = self.landed.get(signature)
        if landed is None or landed.slot > head or head < landed.hidden_until:
            return None
        return landed
