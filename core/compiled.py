"""The seam to the compiler: functions are compiled once and called through their addresses.

The step calls features, strategies, the gate and the simulated venue through plain addresses, so it
is compiled once for all of them and a new strategy never recompiles it. Every pointer is passed as
an integer. With ``NUMBA_DISABLE_JIT=1`` the same addresses name Python functions in a table, and
every line of the step runs in the interpreter: the two must agree byte for byte.

numba keys its on-disk cache by one file's time stamp and does not see a change in a callee that
stands in another file. So the cache folder itself is named by a digest of our sources.
"""

import ctypes
import hashlib
import os
import struct
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
COMPILED_PACKAGES = ("core", "strategies", "risk", "execution")


def source_digest() -> str:
    """Hex digest of every source file that may hold compiled code."""
    digest = hashlib.sha256()
    for package in COMPILED_PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _cache_folder() -> Path:
    base = os.environ.get("LOCKSTEP_CACHE") or os.environ.get("CACHE_DIRECTORY")
    home = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return home / "lockstep" / "numba" / source_digest()[:16]


os.environ.setdefault("NUMBA_CACHE_DIR", str(_cache_folder()))

import numba  # noqa: E402 - numba reads its cache folder from the environment when imported
from llvmlite import ir  # noqa: E402
from numba.core import cgutils, config, types  # noqa: E402
from numba.core.errors import NumbaError  # noqa: E402
from numba.extending import intrinsic  # noqa: E402

Function = TypeVar("Function", bound=Callable[..., Any])
Floats = NDArray[np.float64]

config.reload_config()  # in case somebody imported numba before us

INTERPRETED = bool(getattr(config, "DISABLE_JIT", False))
"""True under ``NUMBA_DISABLE_JIT=1``: every address names a Python function."""


# numba's own overloads know neither `_nrt` nor `forceinline`
_njit: Any = numba.njit


def compiled(function: Function) -> Function:
    """Compile for the step: cached on disk, IEEE arithmetic, no exceptions on division.

    Without numba's reference counting, whose atomics cost more than the step itself: compiled code
    allocates nothing, and the engine keeps every array alive.
    """
    return cast("Function", _njit(cache=True, error_model="numpy", _nrt=False)(function))


def inlined(function: Function) -> Function:
    """``compiled``, and always inlined: for what runs on every event, in few places."""
    made = _njit(cache=True, error_model="numpy", _nrt=False, forceinline=True)(function)
    return cast("Function", made)


def threaded(function: Function) -> Function:
    """``compiled``, and without Python's lock while it runs: for what threads call side by side."""
    made = _njit(cache=True, error_model="numpy", _nrt=False, nogil=True)(function)
    return cast("Function", made)


# ---------------------------------------------------------------------------------------------
# Signatures. R is the address of a record, F of float64 memory, f a float; after the colon the
# result: f a float, i an integer, d a decision (target, confidence, reason).

_VALUE = {"f": types.float64, "i": types.int64, "F": types.CPointer(types.float64)}
_DECISION = types.Tuple((types.float64, types.float64, types.int64))
_RESULT = {"f": types.float64, "i": types.int64, "d": _DECISION}


class Interpreted:
    """Calls a Python function with records and float memory laid over raw addresses."""

    def __init__(self, function: Callable[..., Any], shape: str, dtypes: tuple[Any, ...]) -> None:
        self.function, self.shape, self.dtypes = function, shape, dtypes

    def __call__(self, *args: Any) -> Any:
        return self.function(*(self._argument(place, arg) for place, arg in enumerate(args)))

    def _argument(self, place: int, arg: Any) -> Any:
        if self.shape[place] in "fi":
            return arg
        dtype = self.dtypes[place]
        return _memory_at(int(arg)) if dtype is None else _record_at(int(arg), dtype)


class Row:
    """A record in place, its fields as attributes, as compiled code sees it.

    Not NumPy's own ``record``, on which a field called ``size`` or ``mean`` is hidden by a method.
    """

    __slots__ = ("_record",)

    def __init__(self, record: Any) -> None:
        object.__setattr__(self, "_record", record)

    def __getattr__(self, name: str) -> Any:
        return self._record[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self._record[name] = value


@lru_cache(maxsize=65_536)
def _record_at(place: int, dtype: Any) -> Row:
    raw = (ctypes.c_char * dtype.itemsize).from_address(place)
    return Row(np.frombuffer(raw, dtype=dtype)[0])


@lru_cache(maxsize=65_536)
def _memory_at(place: int) -> Any:
    # It has no declared end here: its owner sized it, as for compiled code.
    return (ctypes.c_double * 65_536).from_address(place)


_TABLE: dict[int, Any] = {}
_KEPT: dict[tuple[Any, ...], tuple[int, Any]] = {}


def address_of(function: Callable[..., Any], shape: str, *dtypes: Any) -> int:
    """Address under which compiled code may call ``function``.

    ``shape`` is like ``"RfFR:f"``; ``dtypes`` are the record types of its R's in order. Raises
    numba's error when the function cannot be compiled.
    """
    key = (function, shape, *dtypes)
    if key not in _KEPT:
        arguments, result = shape.split(":")
        records = iter(dtypes)
        layout = tuple(next(records) if letter == "R" else None for letter in arguments)
        if INTERPRETED:
            target: Any = Interpreted(function, arguments, layout)
            number = len(_TABLE) + 1
            _TABLE[number] = target
        else:
            number, target = _compile(function, arguments, result, layout)
        _KEPT[key] = (number, target)
    return _KEPT[key][0]


def _compile(function: Any, arguments: str, result: str, layout: tuple[Any, ...]) -> Any:
    """The dispatcher of ``function`` for exactly this signature, and its machine code's address.

    Not a ``cfunc``: its wrapper for C would add a second call to every one the step makes.
    """
    kinds = tuple(
        numba.from_dtype(dtype) if letter == "R" else _VALUE[letter]
        for letter, dtype in zip(arguments, layout, strict=True)
    )
    wrap = _njit(_RESULT[result](*kinds), cache=True, error_model="numpy", _nrt=False)
    dispatcher = wrap(getattr(function, "py_func", function))
    made = dispatcher.overloads[kinds]
    return made.library.get_pointer_to_function(made.fndesc.llvm_func_name), dispatcher


def compile_error(function: Callable[..., Any], shape: str, *dtypes: Any) -> str | None:
    """Why ``function`` cannot be compiled, in one line, or None when it can."""
    try:
        address_of(function, shape, *dtypes)
    except (NumbaError, NotImplementedError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return next((line for line in lines if "Failed in" not in line), type(error).__name__)
    return None


def plain_address(callback: Callable[[], None]) -> int:
    """Address of a Python callback without arguments; what it needs lies in memory both know."""
    kept = ctypes.PYFUNCTYPE(None)(callback)
    number = ctypes.cast(kept, ctypes.c_void_p).value or 0
    if INTERPRETED:
        number = len(_TABLE) + 1
        _TABLE[number] = callback
    _KEPT[(callback,)] = (number, kept)
    return number


def _call(arguments: str, result: str) -> Any:
    """Code generator of a call through an address, by numba's own convention: the answer and an
    exception come back through pointers. What is called here cannot raise, so no status is read."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        convention = context.call_conv
        wanted = [ir.DoubleType() if letter == "f" else pointer for letter in arguments]
        answer_at = convention.get_return_type(_RESULT[result])
        kind = ir.FunctionType(ir.IntType(32), [answer_at, pointer.as_pointer(), *wanted])
        callee = builder.inttoptr(args[0], kind.as_pointer())
        values = [
            builder.inttoptr(value, pointer) if want is pointer else value
            for value, want in zip(args[1:], wanted, strict=True)
        ]
        answer = cgutils.alloca_once(builder, answer_at.pointee)
        raised = cgutils.alloca_once(builder, pointer)
        builder.call(callee, [answer, raised, *values])
        return context.get_returned_value(builder, _RESULT[result], builder.load(answer))

    return codegen


def _call_back(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
    """Code generator of a call to a C function without arguments."""
    kind = ir.FunctionType(ir.VoidType(), [])
    builder.call(builder.inttoptr(args[0], kind.as_pointer()), [])
    return _context.get_dummy_value()


if INTERPRETED:

    def call_feature(callee: int, market: int, value: float, memory: int, params: int) -> float:
        """Update one feature with the newest market."""
        return cast("float", _TABLE[callee](market, value, memory, params))

    def call_decide(
        callee: int, features: int, position: int, params: int
    ) -> tuple[float, float, int]:
        """Ask a compiled strategy."""
        return cast("tuple[float, float, int]", _TABLE[callee](features, position, params))

    def call_value(callee: int, a: int, b: int, c: int, d: int) -> float:
        """Call a port that answers with a float."""
        return cast("float", _TABLE[callee](a, b, c, d))

    def call_code(callee: int, a: int, b: int, c: int, d: int) -> int:
        """Call a port that answers with a code."""
        return cast("int", _TABLE[callee](a, b, c, d))

    def call_watch(callee: int, a: int, b: int) -> int:
        """Call the port that watches the account."""
        return cast("int", _TABLE[callee](a, b))

    def call_plain(callee: int) -> None:
        """Call back into Python."""
        _TABLE[callee]()

    def rows(dtype: Any) -> Any:
        """Reader of a record type: ``read(base, index)`` is the record there, not a copy."""

        def read(base: int, index: int) -> Any:
            return _record_at(int(base) + int(index) * dtype.itemsize, dtype)

        return read

    def floats(base: int) -> Any:
        """The float64 memory at an address."""
        return _memory_at(int(base))

    def ints(base: int) -> Any:
        """The int64 memory at an address."""
        return (ctypes.c_int64 * 65_536).from_address(int(base))

    def bits(value: float) -> Any:
        """The 64 bits of a float."""
        return np.uint64(struct.unpack("<Q", struct.pack("<d", value))[0])

    def folded(a: int, b: int) -> int:
        """Both halves of the 128-bit product of two words, one laid over the other."""
        product = (a % 2**64) * (b % 2**64)
        word = (product ^ product >> 64) % 2**64
        return word - 2**64 if word >> 63 else word

else:
    _I = types.int64

    @intrinsic
    def call_feature(_typing, callee, market, value, memory, params):  # type: ignore[no-untyped-def]
        return types.float64(_I, _I, types.float64, _I, _I), _call("RfFR", "f")

    @intrinsic
    def call_decide(_typing, callee, features, position, params):  # type: ignore[no-untyped-def]
        return _DECISION(_I, _I, _I, _I), _call("RRR", "d")

    @intrinsic
    def call_value(_typing, callee, a, b, c, d):  # type: ignore[no-untyped-def]
        return types.float64(_I, _I, _I, _I, _I), _call("RRRR", "f")

    @intrinsic
    def call_code(_typing, callee, a, b, c, d):  # type: ignore[no-untyped-def]
        return _I(_I, _I, _I, _I, _I), _call("RRRR", "i")

    @intrinsic
    def call_watch(_typing, callee, a, b):  # type: ignore[no-untyped-def]
        return _I(_I, _I, _I), _call("RR", "i")

    @intrinsic
    def call_plain(_typing, callee):  # type: ignore[no-untyped-def]
        return types.void(_I), _call_back

    def rows(dtype: Any) -> Any:
        """Reader of a record type: ``read(base, index)`` is the record there, not a copy."""
        record, size = numba.from_dtype(dtype), dtype.itemsize

        @intrinsic
        def read(_typing, base, index):  # type: ignore[no-untyped-def]
            def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                offset = builder.mul(args[1], ir.IntType(64)(size))
                kind = context.get_value_type(signature.return_type)
                return builder.inttoptr(builder.add(args[0], offset), kind)

            return record(_I, _I), codegen

        return read

    def _pointer(element: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(element)(_I), codegen

    @intrinsic
    def floats(_typing, base):  # type: ignore[no-untyped-def]
        return _pointer(types.float64)

    @intrinsic
    def ints(_typing, base):  # type: ignore[no-untyped-def]
        return _pointer(types.int64)

    @intrinsic
    def bits(_typing, value):  # type: ignore[no-untyped-def]
        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], ir.IntType(64))

        return types.uint64(types.float64), codegen

    @intrinsic
    def folded(_typing, a, b):  # type: ignore[no-untyped-def]
        def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            wide = ir.IntType(128)
            product = builder.mul(*(builder.zext(word, wide) for word in args))
            high = builder.lshr(product, ir.Constant(wide, 64))
            return builder.trunc(builder.xor(product, high), ir.IntType(64))

        return _I(_I, _I), codegen
