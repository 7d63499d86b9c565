"""Solana's part in a transaction: lookup tables, fees, compute budget, all or nothing."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from standin_drift.call import Call, Meta, Refused
from standin_drift.program import Program
from standin_drift.world import Draft

if TYPE_CHECKING:
    from standin_drift.ledger import Chain

SYSTEM = "11111111111111111111111111111111"
COMPUTE_BUDGET = "ComputeBudget111111111111111111111111111111"
MEMO = "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"
UNITS_EACH, UNITS_MAX = 200_000, 1_400_000
SIGNATURE_FEE = 5_000
LOOKUP_HEADER = 56


class Failure(Exception):
    """A transaction no block would take: the name of Solana's TransactionError."""


@dataclass
class Outcome:
    """What a transaction did: ``err`` as RPC nodes tell it, None on success."""

    err: Any = None
    code: int | None = None
    logs: list[str] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    orders: list[dict[str, Any]] = field(default_factory=list)
    units: int = 0
    fee: int = 0
    keys: list[str] = field(default_factory=list)
    loaded: dict[str, list[str]] = field(default_factory=dict)
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)


class Runtime:
    def __init__(self, chain: "Chain") -> None:
        self.chain, self.world = chain, chain.world
        self.program = Program(chain.accounts, chain.layout)

    def execute(
        self,
        transaction: VersionedTransaction,
        slot: int,
        now_s: int,
        *,
        keep: bool,
        fail: int | None = None,
    ) -> Outcome:
        """Run against the world as it is; ``keep`` makes it so. ``fail`` forces that custom code.

        Failure: no block would take it. The fee of one that fails inside is paid all the same.
        """
        message = transaction.message
        outcome = Outcome()
        metas = self.load(message, outcome, slot)
        outcome.fee = self.fee(message, metas)
        payer = metas[0].key
        lamports = self.chain.wallets.get(payer, 0)
        if lamports == 0:
            raise Failure("AccountNotFound")
        if lamports < outcome.fee:
            raise Failure("InsufficientFundsForFee")
        draft = Draft(self.world, self.world.state)
        self.run_all(message, metas, draft, outcome, slot, now_s, fail)
        outcome.before = [self.chain.wallets.get(key, 10**9) for key in outcome.keys]
        outcome.after = [outcome.before[0] - outcome.fee, *outcome.before[1:]]
        if keep:
            self.chain.wallets[payer] = lamports - outcome.fee
            if outcome.err is None:
                self.world.keep(draft)
        return outcome

    def load(self, message: Any, outcome: Outcome, slot: int) -> list[Meta]:
        """All accounts in order: static keys, then writable and read-only ones of the tables."""
        static = message.account_keys
        metas = [
            Meta(str(key), message.is_signer(at), message.is_maybe_writable(at))
            for at, key in enumerate(static)
        ]
        outcome.loaded = {"writable": [], "readonly": []}
        for lookup in getattr(message, "address_table_lookups", ()):
            table = self.chain.account(str(lookup.account_key), slot)
            if table is None:
                raise Failure("AddressLookupTableNotFound")
            keys = [
                str(Pubkey(table.data[at : at + 32]))
                for at in range(LOOKUP_HEADER, len(table.data), 32)
            ]
            try:
                outcome.loaded["writable"] += [keys[at] for at in lookup.writable_indexes]
                outcome.loaded["readonly"] += [keys[at] for at in lookup.readonly_indexes]
            except IndexError:
                raise Failure("InvalidAddressLookupTableIndex") from None
        for kind in ("writable", "readonly"):
            metas += [Meta(key, False, kind == "writable") for key in outcome.loaded[kind]]
        outcome.keys = [meta.key for meta in metas]
        return metas

    def budget(self, message: Any, metas: list[Meta]) -> tuple[int, int]:
        """Compute units allowed, and their price in micro-lamports."""
        others, limit, price = 0, None, 0
        for instruction in message.instructions:
            data = bytes(instruction.data)
            if metas[instruction.program_id_index].key != COMPUTE_BUDGET:
                others += 1
            elif data[0] == 2:
                limit = int.from_bytes(data[1:5], "little")
            elif data[0] == 3:
                price = int.from_bytes(data[1:9], "little")
        return min(UNITS_EACH * others if limit is None else limit, UNITS_MAX), price

    def fee(self, message: Any, metas: list[Meta]) -> int:
        units, price = self.budget(message, metas)
        signatures = message.header.num_required_signatures
        return signatures * SIGNATURE_FEE + -(-units * price // 10**6)

    def run_all(
        self,
        message: Any,
        metas: list[Meta],
        draft: Draft,
        outcome: Outcome,
        slot: int,
        now_s: int,
        fail: int | None,
    ) -> None:
        left, _ = self.budget(message, metas)
        for at, instruction in enumerate(message.instructions):
            program = metas[instruction.program_id_index].key
            call = Call(draft, [metas[one] for one in bytes(instruction.accounts)], slot, now_s)
            outcome.logs.append(f"Program {program} invoke [1]")
            error: Any = None
            if program == self.world.program:
                error = self.run_drift(call, bytes(instruction.data), outcome, fail)
            elif program == COMPUTE_BUDGET:
                call.units = 150
            elif program != MEMO:
                error = "UnsupportedProgramId"
            if call.units > left:
                call.units, error = left, "ComputationalBudgetExceeded"
            outcome.units += call.units
            outcome.logs += call.logs
            if program == self.world.program:
                outcome.logs.append(
                    f"Program {program} consumed {call.units} of {left} compute units"
                )
            left -= call.units
            if error is not None:
                outcome.err = {"InstructionError": [at, error]}
                said = f"custom program error: {outcome.code:#x}" if outcome.code else error
                outcome.logs.append(f"Program {program} failed: {said}")
                outcome.events, outcome.orders = [], []
                return
            outcome.logs.append(f"Program {program} success")
            outcome.events += call.events
            outcome.orders += call.orders

    def run_drift(self, call: Call, data: bytes, outcome: Outcome, fail: int | None) -> Any:
        """The instruction's error as RPC nodes tell it, or None."""
        try:
            self.program.run(call, data)
        except Refused as refused:
            outcome.code = self.program.code(refused.name)
            message = self.world_message(refused)
            call.say(
                f"AnchorError occurred. Error Code: {refused.name}. "
                f"Error Number: {outcome.code}. Error Message: {message}."
            )
            return {"Custom": outcome.code}
        if fail is not None:
            outcome.code = fail
            call.say(f"Error Number: {fail}.")
            return {"Custom": fail}
        return None

    def world_message(self, refused: Refused) -> str:
        known = self.chain.layout.errors.get(refused.name)
        return refused.said or (known[1] if known else refused.name)
