"""One node's answers to JSON-RPC, every one as of the slot that node has reached."""

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import base58
from solders.message import MessageV0
from solders.transaction import VersionedTransaction

from standin_drift.faults import Faults, Striker
from standin_drift.ledger import BEHIND, BLOCKHASH_LIFE, STATUS_LIFE, Account, Chain, Landed, Sent
from standin_drift.runtime import Failure, Outcome

VERSION = "2.1.13"
SLOTS_PER_EPOCH = 432_000


class RpcError(Exception):
    """A JSON-RPC error: its code, message and data."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.body = {"code": code, "message": message}
        if data is not None:
            self.body["data"] = data


class Node:
    """A view of the chain through one RPC provider, with faults of its own."""

    def __init__(self, chain: Chain, faults: Faults | None = None, seed: int = 0) -> None:
        self.chain = chain
        self.faults = faults or Faults()
        self.strike = Striker(self.faults, seed)
        self.calls: dict[str, int] = {}
        self.stuck = chain.slot
        self.methods: dict[str, Callable[..., Any]] = {
            "getAccountInfo": self.account_info,
            "getMultipleAccounts": self.multiple_accounts,
            "getProgramAccounts": self.program_accounts,
            "getBalance": self.balance,
            "getLatestBlockhash": self.latest_blockhash,
            "isBlockhashValid": self.blockhash_valid,
            "getBlockHeight": lambda config=None: self.chain.height(self.at(config)),
            "getSlot": lambda config=None: self.at(config),
            "getEpochInfo": self.epoch_info,
            "getFirstAvailableBlock": lambda: self.faults.first_block,
            "getBlockTime": self.chain.times.get,
            "getHealth": lambda: "ok",
            "getVersion": lambda: {"solana-core": VERSION, "feature-set": 1},
            "getGenesisHash": lambda: self.chain.blockhash(0),
            "getRecentPrioritizationFees": self.priority_fees,
            "getSignatureStatuses": self.statuses,
            "getSignaturesForAddress": self.signatures_for,
            "getTransaction": self.transaction,
            "sendTransaction": self.send,
            "simulateTransaction": self.simulate,
        }

    @property
    def head(self) -> int:
        """The newest slot this node knows."""
        return self.stuck if self.faults.frozen else self.chain.slot - self.faults.lag_slots

    def turn(self, values: dict[str, Any]) -> None:
        """Set knobs; a node that freezes stays where it is now."""
        self.stuck = self.head
        self.faults.set(values)

    def at(self, config: dict[str, Any] | None, default: str = "finalized") -> int:
        return self.head - BEHIND[(config or {}).get("commitment") or default]

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The response object to one request object."""
        method = request.get("method", "")
        self.calls[method] = self.calls.get(method, 0) + 1
        head = {"jsonrpc": "2.0", "id": request.get("id")}
        if method not in self.methods:
            return head | {"error": {"code": -32601, "message": "Method not found"}}
        try:
            return head | {"result": self.methods[method](*(request.get("params") or ()))}
        except RpcError as error:
            return head | {"error": error.body}

    def with_context(self, slot: int, value: Any) -> dict[str, Any]:
        return {"context": {"apiVersion": VERSION, "slot": slot}, "value": value}

    # -- accounts

    def account_info(self, key: str, config: Any = None) -> Any:
        slot = self.at(config)
        return self.with_context(slot, shown(self.chain.account(key, slot), config))

    def multiple_accounts(self, keys: list[str], config: Any = None) -> Any:
        if len(keys) > 100:
            raise RpcError(-32602, f"Too many inputs provided; max 100, not {len(keys)}")
        slot = self.at(config)
        found = [shown(self.chain.account(key, slot), config) for key in keys]
        return self.with_context(slot, found)

    def program_accounts(self, program: str, config: Any = None) -> Any:
        slot, config = self.at(config), config or {}
        found = [
            {"pubkey": key, "account": shown(account, config)}
            for key in self.chain.versions
            if (account := self.chain.account(key, slot)) is not None
            and account.owner == program
            and passes(account, config.get("filters"))
        ]
        return self.with_context(slot, found) if config.get("withContext") else found

    def balance(self, key: str, config: Any = None) -> Any:
        slot = self.at(config)
        account = self.chain.account(key, slot)
        return self.with_context(slot, account.lamports if account else 0)

    # -- blocks

    def latest_blockhash(self, config: Any = None) -> Any:
        slot = self.at(config)
        value = {
            "blockhash": self.chain.blockhash(slot),
            "lastValidBlockHeight": self.chain.height(slot) + BLOCKHASH_LIFE,
        }
        return self.with_context(slot, value)

    def blockhash_valid(self, blockhash: str, config: Any = None) -> Any:
        slot = self.at(config)
        return self.with_context(slot, self.chain.hash_lives(blockhash, slot))

    def epoch_info(self, config: Any = None) -> Any:
        slot = self.at(config)
        epoch, index = divmod(slot, SLOTS_PER_EPOCH)
        height = {"absoluteSlot": slot, "blockHeight": self.chain.height(slot)}
        return height | {"epoch": epoch, "slotIndex": index, "slotsInEpoch": SLOTS_PER_EPOCH}

    def priority_fees(self, _keys: Any = None) -> Any:
        """A spread of fees over the last 150 slots, the same for every account."""
        return [
            {"slot": slot, "prioritizationFee": slot % 10 * 1_000}
            for slot in range(self.head - 149, self.head + 1)
        ]

    # -- transactions

    def find(self, signature: str) -> Landed | None:
        return self.chain.find(signature, self.head)

    def statuses(self, signatures: list[str], config: Any = None) -> Any:
        search = bool((config or {}).get("searchTransactionHistory"))
        found = [self.status(self.find(one), search) for one in signatures]
        return self.with_context(self.head, found)

    def status(self, landed: Landed | None, search: bool) -> Any:
        if landed is None or (not search and self.head - landed.slot > STATUS_LIFE):
            return None
        level = self.level(landed)
        return {
            "slot": landed.slot,
            "confirmations": None if level == "finalized" else self.head - landed.slot,
            "err": landed.err,
            "status": {"Ok": None} if landed.err is None else {"Err": landed.err},
            "confirmationStatus": level,
        }

    def level(self, landed: Landed) -> str:
        age = self.head - landed.slot
        return next(name for name in reversed(BEHIND) if age >= BEHIND[name])

    def signatures_for(self, key: str, config: Any = None) -> Any:
        """Newest first; ``before`` and ``until`` are signatures, both exclusive."""
        slot, config = self.at(config), config or {}
        mine = [
            one
            for one in reversed(self.chain.landed.values())
            if one.slot <= slot and self.find(one.signature) and key in one.outcome.keys
        ]
        names = [one.signature for one in mine]
        first = names.index(config["before"]) + 1 if config.get("before") in names else 0
        last = names.index(config["until"]) if config.get("until") in names else len(mine)
        return [
            {
                "signature": one.signature,
                "slot": one.slot,
                "err": one.err,
                "memo": None,
                "blockTime": one.time_s,
                "confirmationStatus": self.level(one),
            }
            for one in mine[first:last][: config.get("limit") or 1_000]
        ]

    def transaction(self, signature: str, config: Any = None) -> Any:
        config = {"encoding": config} if isinstance(config, str) else config or {}
        if config.get("commitment") == "processed":
            raise RpcError(-32602, "Method does not support commitment below `confirmed`")
        landed = self.find(signature)
        if landed is None or landed.slot > self.at(config):
            return None
        versioned = isinstance(landed.transaction.message, MessageV0)
        if versioned and config.get("maxSupportedTransactionVersion") is None:
            raise RpcError(
                -32015,
                "Transaction version (0) is not supported by the requesting client. "
                "Please try the request again with the following configuration parameter: "
                '"maxSupportedTransactionVersion": 0',
            )
        return {
            "slot": landed.slot,
            "blockTime": landed.time_s,
            "transaction": told(landed.transaction, config.get("encoding") or "json"),
            "meta": meta(landed.outcome),
            "version": 0 if versioned else "legacy",
        }

    def send(self, encoded: str, config: Any = None) -> str:
        """Verify, try it on, queue it; the stand-in's books keep every arrival."""
        config = config or {}
        raw, transaction = parsed(encoded, config.get("encoding") or "base58")
        sent = Sent(str(transaction.signatures[0]), raw, self.chain.slot, "accepted")
        self.chain.sent.append(sent)
        try:
            if not all(transaction.verify_with_results()):
                raise RpcError(-32003, "Transaction signature verification failure")
            if not config.get("skipPreflight"):
                self.preflight(transaction, config)
        except RpcError as error:
            sent.answer = error.body["message"]
            raise
        if sent.signature not in self.chain.landed:
            self.chain.submit(transaction, self.strike)
        return sent.signature

    def preflight(self, transaction: VersionedTransaction, config: dict[str, Any]) -> None:
        level = config.get("preflightCommitment") or config.get("commitment") or "finalized"
        outcome = self.tried(transaction, self.head - BEHIND[level])
        if outcome.err is not None:
            data = simulated(outcome)
            raise RpcError(-32002, f"Transaction simulation failed: {spoken(outcome)}", data)

    def tried(self, transaction: VersionedTransaction, slot: int) -> Outcome:
        """As it would go now; programs run on the newest state whatever the node's lag."""
        if self.find(str(transaction.signatures[0])):
            return Outcome(err="AlreadyProcessed")
        if not self.chain.hash_lives(str(transaction.message.recent_blockhash), slot):
            return Outcome(err="BlockhashNotFound")
        try:
            return self.chain.runtime.execute(transaction, slot, self.chain.now_s, keep=False)
        except Failure as failure:
            return Outcome(err=str(failure))

    def simulate(self, encoded: str, config: Any = None) -> Any:
        config = config or {}
        _, transaction = parsed(encoded, config.get("encoding") or "base58")
        if config.get("sigVerify") and not all(transaction.verify_with_results()):
            raise RpcError(-32003, "Transaction signature verification failure")
        slot = self.at(config)
        return self.with_context(slot, simulated(self.tried(transaction, slot)))


def parsed(encoded: str, encoding: str) -> tuple[bytes, VersionedTransaction]:
    try:
        raw = (
            b64decode(encoded, validate=True) if encoding == "base64" else base58.b58decode(encoded)
        )
        return raw, VersionedTransaction.from_bytes(raw)
    except ValueError as error:
        raise RpcError(-32602, f"invalid transaction: {error}") from None


def shown(account: Account | None, config: Any) -> Any:
    if account is None:
        return None
    data, cut = account.data, (config or {}).get("dataSlice")
    if cut:
        data = data[cut["offset"] : cut["offset"] + cut["length"]]
    return {
        "data": [b64encode(data).decode(), "base64"],
        "executable": False,
        "lamports": account.lamports,
        "owner": account.owner,
        "rentEpoch": 2**64 - 1,
        "space": len(account.data),
    }


def passes(account: Account, filters: Any) -> bool:
    for one in filters or ():
        if "dataSize" in one and len(account.data) != one["dataSize"]:
            return False
        if "memcmp" in one:
            wanted = one["memcmp"]
            known = wanted.get("encoding") == "base64"
            text = b64decode(wanted["bytes"]) if known else base58.b58decode(wanted["bytes"])
            if account.data[wanted["offset"] :][: len(text)] != text:
                return False
    return True


def spoken(outcome: Outcome) -> str:
    """A TransactionError in the words of Solana's nodes."""
    if isinstance(outcome.err, str):
        return {
            "AlreadyProcessed": "This transaction has already been processed",
            "BlockhashNotFound": "Blockhash not found",
            "AccountNotFound": "Attempt to debit an account but found no record of a prior credit.",
            "InsufficientFundsForFee": "Insufficient funds for fee",
        }.get(outcome.err, outcome.err)
    at, error = outcome.err["InstructionError"]
    said = f"custom program error: {outcome.code:#x}" if outcome.code else error
    return f"Error processing Instruction {at}: {said}"


def simulated(outcome: Outcome) -> dict[str, Any]:
    return {
        "err": outcome.err,
        "logs": outcome.logs,
        "accounts": None,
        "unitsConsumed": outcome.units,
        "returnData": None,
        "innerInstructions": None,
    }


def told(transaction: VersionedTransaction, encoding: str) -> Any:
    if encoding in ("base64", "base58"):
        raw = bytes(transaction)
        text = b64encode(raw) if encoding == "base64" else base58.b58encode(raw)
        return [text.decode(), encoding]
    message = transaction.message
    header = message.header
    body = {
        "accountKeys": [str(key) for key in message.account_keys],
        "header": {
            "numRequiredSignatures": header.num_required_signatures,
            "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
            "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
        },
        "recentBlockhash": str(message.recent_blockhash),
        "instructions": [
            {
                "programIdIndex": one.program_id_index,
                "accounts": list(bytes(one.accounts)),
                "data": base58.b58encode(bytes(one.data)).decode(),
                "stackHeight": None,
            }
            for one in message.instructions
        ],
    }
    if isinstance(message, MessageV0):
        body["addressTableLookups"] = [
            {
                "accountKey": str(one.account_key),
                "writableIndexes": list(bytes(one.writable_indexes)),
                "readonlyIndexes": list(bytes(one.readonly_indexes)),
            }
            for one in message.address_table_lookups
        ]
    return {"signatures": [str(one) for one in transaction.signatures], "message": body}


def meta(outcome: Outcome) -> dict[str, Any]:
    return {
        "err": outcome.err,
        "status": {"Ok": None} if outcome.err is None else {"Err": outcome.err},
        "fee": outcome.fee,
        "preBalances": outcome.before,
        "postBalances": outcome.after,
        "innerInstructions": [],
        "logMessages": outcome.logs,
        "preTokenBalances": [],
        "postTokenBalances": [],
        "rewards": [],
        "loadedAddresses": outcome.loaded,
        "computeUnitsConsumed": outcome.units,
    }
