"""Drift's accounts as NumPy records, and its error names, read from the IDL that driftpy ships.

Every account has a fixed layout, so one view of its bytes is its decoding: microseconds, where the
IDL's own decoder takes 20 ms for a user and would hold up the loop.
"""

import json
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import ConfigError, DataError

_NUMBERS = {
    **{f"{sign}{bits}": f"<{sign}{bits // 8}" for sign in "iu" for bits in (8, 16, 32, 64)},
    "bool": "?",
    "publicKey": "V32",
    "i128": "V16",
    "u128": "V16",
}
_ANCHOR = {
    101: "InstructionFallbackNotFound",
    102: "InstructionDidNotDeserialize",
    2000: "ConstraintMut",
    2001: "ConstraintHasOne",
    2003: "ConstraintRaw",
    2006: "ConstraintSeeds",
    3002: "AccountDiscriminatorMismatch",
    3005: "AccountNotEnoughKeys",
    3007: "AccountOwnedByWrongProgram",
    3010: "AccountNotSigner",
    3012: "AccountNotInitialized",
}
_TRANSACTION_CODE, _INSTRUCTION_CODE = 1, 200
"""Where the names Solana gives without a number begin; programs' own codes leave that room."""


@cache
def idl() -> dict[str, Any]:
    """Drift's interface, of the last release of driftpy, without importing it."""
    found = find_spec("driftpy")
    if found is None or not found.submodule_search_locations:
        raise ConfigError("driftpy is not installed: trading on Drift needs it, run ./setup")
    folder = Path(found.submodule_search_locations[0])
    told: dict[str, Any] = json.loads((folder / "idl" / "drift.json").read_text("utf-8"))
    return told


@cache
def _types() -> dict[str, Any]:
    return {one["name"]: one["type"] for one in idl()["types"] + idl()["accounts"]}


@cache
def record(name: str) -> np.dtype[Any]:
    """The record of a struct or account. An enum is the number of its variant, a public key its
    bytes, and 128 bits are bytes too (``wide``)."""
    fields = _types()[name]["fields"]
    return np.dtype([(field["name"], *_shape(field["type"])) for field in fields])


def _shape(kind: Any) -> tuple[Any, ...]:
    if isinstance(kind, str):
        return (_NUMBERS[kind],)
    if "array" in kind:
        each, count = kind["array"]
        return (f"V{count}",) if each == "u8" else (*_shape(each), (count,))
    name = kind["defined"]
    return ("<u1",) if _types()[name]["kind"] == "enum" else (record(name),)


def discriminator(name: str) -> bytes:
    """The eight bytes an account of this name begins with (Anchor)."""
    return sha256(f"account:{name}".encode()).digest()[:8]


def decode(name: str, data: bytes) -> Any:
    """An account's bytes as its record. DataError when they are those of another account."""
    layout = record(name)
    if data[:8] != discriminator(name) or len(data) < 8 + layout.itemsize:
        raise DataError(
            f"{len(data)} bytes are no {name} account of Drift's IDL {idl()['version']}"
        )
    return np.frombuffer(data, layout, 1, 8)[0]


def wide(raw: Any, *, signed: bool = True) -> int:
    """A number of 128 bits."""
    return int.from_bytes(bytes(raw), "little", signed=signed)


def variant(name: str, number: int) -> str:
    """The name of an enum's variant; its number where the IDL knows none."""
    names = [one["name"] for one in _types()[name]["variants"]]
    return names[number] if number < len(names) else str(number)


@cache
def codes() -> dict[int, str]:
    """The name of every code an order can be refused with.

    Drift's program's and Anchor's numbers are their own. Solana's own errors have names only; they
    get numbers here, below those of programs.
    """
    named = {one["code"]: one["name"] for one in idl()["errors"]}
    return {
        **{_TRANSACTION_CODE + k: name for k, name in enumerate(_TRANSACTION_ERRORS)},
        **{_INSTRUCTION_CODE + k: name for k, name in enumerate(_INSTRUCTION_ERRORS)},
        **_ANCHOR,
        **named,
    }


@cache
def _numbers() -> dict[str, int]:
    return {name: code for code, name in codes().items()}


def code(name: str) -> int:
    """The number of a name; that of UnknownError where Solana has learnt a new one since."""
    return _numbers().get(name, _numbers()["UnknownError"])


def code_of(error: Any) -> int:
    """The code of a TransactionError as nodes tell it: a name, or an instruction's error."""
    if isinstance(error, str):
        return code(error)
    kind, told = next(iter(error.items()))
    if kind != "InstructionError":
        return code(kind)
    inner = told[1]
    if isinstance(inner, str):
        return code(inner)
    kind, told = next(iter(inner.items()))
    return int(told) if kind == "Custom" else code(kind)


_TRANSACTION_ERRORS = (
    *("UnknownError", "AccountInUse", "AccountLoadedTwice", "AccountNotFound"),
    *("ProgramAccountNotFound", "InsufficientFundsForFee", "InvalidAccountForFee"),
    *("AlreadyProcessed", "BlockhashNotFound", "CallChainTooDeep", "MissingSignatureForFee"),
    *("InvalidAccountIndex", "SignatureFailure", "InvalidProgramForExecution", "SanitizeFailure"),
    *("ClusterMaintenance", "AccountBorrowOutstanding", "WouldExceedMaxBlockCostLimit"),
    *("UnsupportedVersion", "InvalidWritableAccount", "WouldExceedMaxAccountCostLimit"),
    *("WouldExceedAccountDataBlockLimit", "TooManyAccountLocks", "AddressLookupTableNotFound"),
    *("InvalidAddressLookupTableOwner", "InvalidAddressLookupTableData"),
    *("InvalidAddressLookupTableIndex", "InvalidRentPayingAccount", "WouldExceedMaxVoteCostLimit"),
    *("WouldExceedAccountDataTotalLimit", "DuplicateInstruction", "InsufficientFundsForRent"),
    *("MaxLoadedAccountsDataSizeExceeded", "InvalidLoadedAccountsDataSizeLimit"),
    *("ResanitizationNeeded", "ProgramExecutionTemporarilyRestricted", "UnbalancedTransaction"),
    *("ProgramCacheHitMaxLimit", "CommitCancelled"),
)
_INSTRUCTION_ERRORS = (
    *("GenericError", "InvalidArgument", "InvalidInstructionData", "InvalidAccountData"),
    *("AccountDataTooSmall", "InsufficientFunds", "IncorrectProgramId", "MissingRequiredSignature"),
    *("AccountAlreadyInitialized", "UninitializedAccount", "NotEnoughAccountKeys"),
    *("AccountNotExecutable", "AccountBorrowFailed", "UnsupportedProgramId", "MissingAccount"),
    *("ComputationalBudgetExceeded", "PrivilegeEscalation", "ProgramFailedToComplete"),
    *("ProgramFailedToCompile", "ReadonlyDataModified", "InvalidAccountOwner"),
    *("ArithmeticOverflow", "IllegalOwner", "MaxInstructionTraceLengthExceeded"),
)
