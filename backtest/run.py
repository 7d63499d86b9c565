"""What a replay leaves behind: every outcome, the track of equity, and a manifest that names its
causes. Two runs with equal manifests are equal byte for byte, so the run id is derived from it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backtest.assemble import Setup
from core.errors import DataError, UnknownName
from core.model import EVENT, MICROS_PER_UNIT, OUTCOME, Records, Result
from core.outcomes import fold_outcomes
from core.strategy import Strategy
from markets.history import Quality
from risk.gate import Rule

Words = NDArray[np.int64]

ARRAYS = "run.npz"
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The causes of a run: code, configuration, data; ``seed`` is that of generated data."""

    code: str
    config: str
    data: Mapping[str, str]
    seed: int | None = None

    @property
    def run_id(self) -> str:
        """Twelve hex digits of a hash over all causes."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class BookInfo:
    """What a report needs to know of a book: names, parameters and the texts of reason codes."""

    name: str
    strategy: str
    instrument: str
    params: Mapping[str, float]
    reasons: Mapping[int, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A finished replay. ``block`` are its events, ``track`` a row for each, ``outcomes`` in order.

    ``decisions_hash`` covers every decision of every bar and every outcome: equal hashes, equal
    runs. ``seconds`` is the wall time of the loop alone. Where language models were asked, what
    lies before ``clean_from_ms`` is contaminated: one of them may have read of it.
    """

    manifest: Manifest
    setup: Mapping[str, Any]
    books: tuple[BookInfo, ...]
    instruments: tuple[str, ...]
    block: Records
    track: Records
    outcomes: Records
    digests: tuple[int, ...]
    quality: Mapping[str, Quality]
    plain: Mapping[str, str]
    seconds: float
    equity_start: float
    costs_on: bool
    clean_from_ms: int | None = None

    @property
    def run_id(self) -> str:
        """Derived from the manifest."""
        return self.manifest.run_id

    @cached_property
    def decisions_hash(self) -> str:
        """Hex digest over all decisions and outcomes."""
        return decisions_hash(self.digests, self.outcomes)

    def of(self, kind: Result) -> Records:
        """The outcomes of one kind, a copy."""
        return self.outcomes[self.outcomes["kind"] == kind]

    @cached_property
    def trades(self) -> Records:
        """TRADE outcomes: finished round trips."""
        return self.of(Result.TRADE)

    @property
    def equity(self) -> np.ndarray[Any, Any]:
        """Equity in quote after each event, shape (events,)."""
        return self.track["equity_micros"] / MICROS_PER_UNIT

    @cached_property
    def refused(self) -> dict[str, int]:
        """Refused intents by rule."""
        rules, counts = np.unique(self.of(Result.REFUSED)["rule"], return_counts=True)
        return {Rule(rule).name.lower(): int(n) for rule, n in zip(rules, counts, strict=True)}


def beyond(run: Run, ts: int) -> Run | None:
    """The part of a run that was known after ``ts``, as a run of its own; None when there is none.
    A trade counts where it ended."""
    start = int(np.searchsorted(run.block["ts_known"], ts, "right"))
    if start == len(run.block):
        return None
    first = run.equity_start if start == 0 else float(run.equity[start - 1])
    return replace(
        run,
        block=run.block[start:],
        track=run.track[start:],
        outcomes=run.outcomes[run.outcomes["ts"] > ts],
        equity_start=first,
    )


def decisions_hash(digests: Sequence[int], outcomes: Records) -> str:
    """Hex digest over the decisions of every book and over every outcome."""
    rows = np.ascontiguousarray(outcomes)
    assert rows.dtype == OUTCOME, "records of another layout"
    lanes = np.zeros(2, np.int64)
    fold_outcomes(rows.ctypes.data, len(rows), lanes.ctypes.data)
    return combined_hash(digests, lanes, len(rows))


def combined_hash(digests: Sequence[int], lanes: Words, outcomes: int) -> str:
    """``decisions_hash`` from the digests of books and of outcomes (two words), how many."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.array(digests, np.uint64).tobytes())
    digest.update(lanes.tobytes())
    digest.update(outcomes.to_bytes(8, "little"))
    return digest.hexdigest()


def describe(strategy: Strategy, codes: Records) -> dict[int, str]:
    """Texts of the reason codes that occurred."""
    return {int(code): strategy.explain(int(code)) for code in np.unique(codes)}


def config_hash(setup: Setup, tell_all: bool) -> tuple[str, dict[str, Any]]:
    """Hash of everything beside the events that decides a run, and the same as plain data."""
    plain: dict[str, Any] = {
        "tell_all": tell_all,
        "equity": setup.equity,
        "limits": asdict(setup.limits),
        "instruments": [asdict(instrument) for instrument in setup.instruments],
        "books": [],
    }
    for entry in setup.books:
        book = entry.book
        plain["books"].append(
            {
                "name": book.name,
                "strategy": book.strategy.name,
                "instrument": book.instrument,
                "params": book.strategy.values(book.params),
                "program": program_hash(book.strategy),
                "style": book.style.name,
                "offset": book.offset,
                "ttl_bars": book.ttl_bars,
                "sizing": asdict(entry.sizing),
                "limits": asdict(entry.limits),
                "advice": asdict(book.advice) if book.advice else None,
            }
        )
    text = json.dumps(plain, sort_keys=True, default=int)
    return hashlib.sha256(text.encode()).hexdigest()[:16], plain


def program_hash(strategy: Strategy) -> str | None:
    """Hash of a strategy's program, if it is one that is interpreted."""
    if strategy.program is None:
        return None
    return hashlib.sha256(strategy.program.tobytes()).hexdigest()[:16]


def save(run: Run, folder: Path) -> Path:
    """Write a run to ``folder/<run id>``: its arrays and its manifest; answers the path."""
    path = folder / run.run_id
    path.mkdir(parents=True, exist_ok=True)
    np.savez(
        path / ARRAYS,
        # the payloads of EVENT overlap, which a .npy header cannot say: its bytes go as integers
        block=run.block.view("i8"),
        track=run.track,
        outcomes=run.outcomes,
        digests=np.array(run.digests, np.uint64),
    )
    rest = {
        "manifest": asdict(run.manifest),
        "setup": run.setup,
        "books": [asdict(book) for book in run.books],
        "instruments": run.instruments,
        "quality": {name: asdict(quality) for name, quality in run.quality.items()},
        "plain": dict(run.plain),
        "seconds": run.seconds,
        "equity_start": run.equity_start,
        "costs_on": run.costs_on,
        "clean_from_ms": run.clean_from_ms,
        "decisions_hash": run.decisions_hash,
    }
    (path / MANIFEST).write_text(json.dumps(rest, indent=1, default=int))
    return path


def load(folder: Path, run_id: str) -> Run:
    """Read a saved run; an unknown id suggests the nearest. DataError when it does not verify."""
    path = folder / run_id
    if not (path / MANIFEST).is_file():
        known = [entry.name for entry in folder.glob("*") if (entry / MANIFEST).is_file()]
        raise UnknownName("run", run_id, known or ["none yet"])
    rest = json.loads((path / MANIFEST).read_text())
    with np.load(path / ARRAYS) as arrays:
        run = Run(
            manifest=Manifest(**rest["manifest"]),
            setup=rest["setup"],
            books=tuple(_book_info(book) for book in rest["books"]),
            instruments=tuple(rest["instruments"]),
            block=arrays["block"].view(EVENT),
            track=arrays["track"],
            outcomes=arrays["outcomes"],
            digests=tuple(int(value) for value in arrays["digests"]),
            quality={name: Quality(**fields) for name, fields in rest["quality"].items()},
            plain=rest["plain"],
            seconds=rest["seconds"],
            equity_start=rest["equity_start"],
            costs_on=rest["costs_on"],
            clean_from_ms=rest["clean_from_ms"],
        )
    if run.decisions_hash != rest["decisions_hash"]:
        raise DataError(
            f"{path}: the arrays do not match the manifest's decisions_hash: run it again"
        )
    return run


def _book_info(fields: dict[str, Any]) -> BookInfo:
    reasons = {int(code): text for code, text in fields.pop("reasons").items()}
    return BookInfo(reasons=reasons, **fields)
