"""Every call of a model, kept: the one recorder that serves live runs and replays.

An entry is one file under the hash of what was asked, and never changes: not when a call failed
either, for a replay must meet the failure again. Prune failures to have them asked anew.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import DataError
from forecasting.calls import key_of
from forecasting.errors import CassetteDamaged
from forecasting.questions import Message, Outcome
from forecasting.text import canonical, digest

_FILE = re.compile(rb'\{"digest":"([0-9a-f]{64})","entry":(.*)\}\n', re.DOTALL)


class Entry(BaseModel):
    """A call and how it ended.

    ``head`` is model, parameters and schema; ``arms`` the weights its prompt was drawn by.
    ``answer`` is what the reply was parsed to, None unless ``outcome`` is OK.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    key: str
    head: dict[str, Any]
    messages: tuple[Message, ...]
    sample: int
    prompt: str
    prompt_hash: str
    arms: dict[str, int]
    outcome: Outcome
    reason: str
    raw: str
    answer: dict[str, Any] | None
    latency_ms: int
    tokens_in: int
    tokens_out: int
    cost_micros: int
    attempts: int


class Kept(NamedTuple):
    """An entry with the hash of its bytes and the file it stands in."""

    entry: Entry
    digest: str
    path: Path


class Cassette:
    """A folder of entries, all of them read and checked when it is opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used: set[str] = set()
        self._kept: dict[str, Kept] = {}
        for found in scan(folder):
            if isinstance(found, CassetteDamaged):
                raise found
            self._kept[found.entry.key] = found

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> Entry | None:
        """The entry of a call, which is then one that this run rests on."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        self.used.add(key)
        return kept.entry

    def add(self, entry: Entry) -> None:
        """Keep an entry; it is on disk whole when this returns, or not there at all."""
        assert entry.key not in self._kept, entry.key
        body = canonical(entry.model_dump(mode="json"))
        seal = digest(body)
        path = self.folder / entry.key[:2] / f"{entry.key}.json"
        try:
            _write_whole(path, f'{{"digest":"{seal}","entry":{body}}}\n')
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from error
        self._kept[entry.key] = Kept(entry, seal, path)
        self.used.add(entry.key)

    def seal(self) -> str:
        """One hash over the entries this run rests on, for its manifest."""
        return seal_of(self._kept[key] for key in self.used)


def is_its_own(entry: Entry) -> bool:
    """Whether the entry's key is the hash of its call, as it was when it was written."""
    head, told = canonical(entry.head), canonical(entry.messages)
    return entry.key == key_of(digest(head), told, entry.sample)


def seal_of(kept: Iterable[Kept]) -> str:
    """One hash over entries, whatever their order."""
    return digest("".join(sorted(f"{found.entry.key} {found.digest}\n" for found in kept)))


def scan(folder: Path) -> Iterator[Kept | CassetteDamaged]:
    """Every entry of a folder in the order of their keys; a damaged one as the error it is."""
    for path in sorted(folder.glob("??/*.json")):
        try:
            yield _read(path)
        except CassetteDamaged as error:
            yield error


def _read(path: Path) -> Kept:
    try:
        parts = _FILE.fullmatch(path.read_bytes())
    except OSError as error:
        raise CassetteDamaged(path, f"cannot be read: {error.strerror}") from None
    if parts is None:
        raise CassetteDamaged(path, "is not a whole entry")
    seal, body = parts[1].decode(), parts[2]
    if hashlib.sha256(body).hexdigest() != seal:
        raise CassetteDamaged(path, "is not what was written")
    try:
        entry = Entry.model_validate_json(body)
    except ValidationError:
        raise CassetteDamaged(path, "is an entry of another version") from None
    if entry.key != path.stem:
        raise CassetteDamaged(path, "stands under the key of another call")
    return Kept(entry, seal, path)


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
