"""Prompts as versioned files, and their filling: what is read from outside goes in as data only.

A prompt is ``prompts/NAME/VERSION.toml``: the schema of its answer, typed placeholders, a system
and a user part, and a repair part where an answer may be mended. Text from outside stands between
fences, lines with a token that is a hash of all that is filled in. A text would have to hold the
hash of itself to end its fence, and if one ever does the token is drawn again.
"""

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import UnknownName
from forecasting.calls import messages_of
from forecasting.errors import PromptError
from forecasting.questions import Message, Text
from forecasting.text import CUT, canonical, digest, plain

FOLDER = Path(__file__).parent / "prompts"
FENCE, ERROR_CHARS_MAX = "fence", 3_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
_PLACEHOLDER = re.compile(r"\{\{([a-z_]+)\}\}")
_DATA_TEXT_CHARS_MAX, _DATA_DEPTH_MAX = (500, 100, 20), 6
_quoted = json.JSONEncoder(ensure_ascii=False).encode


class Slot(BaseModel):
    """A placeholder's type.

    ``name``: an identifier of at most 64 letters, digits and ``._:/-``. ``number``: NaN is written
    as unknown. ``time``: unix ms, written as ISO 8601. ``data``: JSON, in a fence. ``texts``: a
    sequence of Text, each in a fence. The limits cut a text that is longer, leave out texts beyond
    the count, and refuse data that are longer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["name", "number", "time", "data", "texts"]
    chars_max: int = Field(2_000, gt=len(CUT))
    count_max: int = Field(16, ge=1)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    answer: str
    about: str
    system: str
    user: str
    repair: str = ""
    output_tokens_max: int = Field(0, ge=0)
    placeholders: dict[str, Slot]


class Filled(NamedTuple):
    """A prompt with its values: the conversation in canonical JSON, of which a call's key is made,
    and the ids of all that stands in fences."""

    told: str
    evidence: frozenset[str]

    @property
    def messages(self) -> tuple[Message, ...]:
        return messages_of(self.told)


class _Block(NamedTuple):
    """What goes in a fence."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One version of a prompt. ``hash`` is of the file's bytes, ``answer`` names the schema.

    ``told`` (canonical JSON) and ``repair`` are the texts, with placeholders as ``%`` takes them:
    whatever a value looks like, it is put in once and never read again. ``output_tokens_max`` is
    what its longest answer takes, where that is more than most take.
    """

    name: str
    version: str
    hash: str
    answer: str
    about: str
    slots: Mapping[str, Slot]
    told: str
    repair: str = ""
    output_tokens_max: int = 0

    @property
    def label(self) -> str:
        return f"{self.name}/{self.version}"

    def fill(self, context: Mapping[str, Any]) -> Filled:
        """Put every value in its place; PromptError for one that is missing, unknown or unfit."""
        if context.keys() != self.slots.keys():
            wrong = ", ".join(sorted(context.keys() ^ self.slots.keys()))
            raise PromptError(f"prompt {self.label}: missing or unknown: {wrong}")
        shown: dict[str, str] = {}
        fenced: dict[str, list[_Block]] = {}
        parts, ids = [self.hash], list[str]()
        for name, slot in self.slots.items():
            try:
                value = _value(name, slot, context[name])
            except (ValueError, TypeError, AttributeError, OSError, OverflowError) as error:
                raise PromptError(f"prompt {self.label}: {name}: {error}") from None
            if isinstance(value, str):
                shown[name] = value
                parts.append(value)
                continue
            fenced[name] = value
            for block in value:
                ids.append(block.id)
                parts += block
        evidence = frozenset(ids)
        if len(evidence) < len(ids):
            raise PromptError(f"prompt {self.label}: two texts have one id")
        fence = shown[FENCE] = _fence(parts)
        for name, blocks in fenced.items():
            # what stands in no fence holds nothing that JSON escapes
            shown[name] = canonical(_shown(blocks, fence))[1:-1]
        return Filled(self.told % shown, evidence)

    def facts(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """The same values as plain JSON, for code to read: no more of any than a fill shows."""
        return {name: _fact(name, slot, context[name]) for name, slot in self.slots.items()}

    def complain(self, error: str) -> str:
        """What a model is shown after an answer that is of no use; the error in a fence."""
        if not self.repair:
            raise PromptError(f"prompt {self.label}: has no repair part")
        block = _Block("error", plain(error, ERROR_CHARS_MAX))
        fence = _fence([self.hash, *block])
        return self.repair % {"error": _shown([block], fence), FENCE: fence}


def read_prompt(path: Path) -> Prompt:
    """A prompt from its file; PromptError names the key that is wrong."""
    try:
        raw = path.read_bytes()
        file = _File.model_validate(tomllib.loads(raw.decode()))
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        at = ".".join(str(part) for part in found["loc"])
        raise PromptError(f"{path}: {at}: {found['msg']}") from None
    except (OSError, ValueError) as error:
        raise PromptError(f"{path}: cannot be read: {error}") from None
    system, user = file.system.strip(), file.user.strip()
    if set(_PLACEHOLDER.findall(system)) - {FENCE}:
        raise PromptError(f"{path}: the system part may hold no placeholder but {{{{{FENCE}}}}}")
    if (used := set(_PLACEHOLDER.findall(user)) - {FENCE}) != file.placeholders.keys():
        wrong = ", ".join(sorted(used ^ file.placeholders.keys()))
        raise PromptError(f"{path}: placeholders declared or used, but not both: {wrong}")
    repair = file.repair.strip()
    if set(_PLACEHOLDER.findall(repair)) - {FENCE, "error"}:
        raise PromptError(f"{path}: the repair part may hold no placeholder but error and {FENCE}")
    return Prompt(
        name=path.parent.name,
        version=path.stem,
        hash=hashlib.sha256(raw).hexdigest(),
        answer=file.answer,
        about=file.about,
        slots=file.placeholders,
        told=_template(canonical([Message("system", system), Message("user", user)])),
        repair=_template(repair),
        output_tokens_max=file.output_tokens_max,
    )


class Prompts:
    """All prompts of a folder, by name and version."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.by_name: dict[str, dict[str, Prompt]] = {}
        for path in sorted(folder.glob("*/*.toml")):
            prompt = read_prompt(path)
            self.by_name.setdefault(prompt.name, {})[prompt.version] = prompt

    def get(self, name: str, version: str) -> Prompt:
        """One version; UnknownName suggests the nearest."""
        if name not in self.by_name:
            raise UnknownName("prompt", name, self.by_name)
        if version not in self.by_name[name]:
            raise UnknownName(f"version of prompt {name}", version, self.by_name[name])
        return self.by_name[name][version]

    def choose(self, wanted: str, question_id: str, arms: Mapping[str, int]) -> Prompt:
        """``name/version``, or ``name`` drawn by the weights of ``arms``.

        Without arms a name must have one version only: a new file changes no run by itself.
        """
        name, _, version = wanted.partition("/")
        if version:
            return self.get(name, version)
        if arms:
            return self.get(name, assigned(name, question_id, arms))
        versions = self.by_name.get(name, {})
        if len(versions) > 1:
            raise PromptError(f"prompt {name} has versions {', '.join(versions)}: say which")
        return self.get(name, next(iter(versions), ""))


def assigned(name: str, question_id: str, arms: Mapping[str, int]) -> str:
    """The version a question gets: by weight over questions, always the same for one."""
    total = sum(arms.values())
    if total <= 0 or min(arms.values()) < 0:
        raise PromptError(f"prompt {name}: weights must be positive")
    drawn = int(digest(canonical([name, question_id])), 16) % total
    for version, weight in sorted(arms.items()):
        drawn -= weight
        if drawn < 0:
            return version
    raise AssertionError(arms)


def _template(text: str) -> str:
    return _PLACEHOLDER.sub(r"%(\1)s", text.replace("%", "%%"))


def _value(name: str, slot: Slot, value: Any) -> str | list[_Block]:
    """A value as the prompt will show it; what needs a fence, as blocks."""
    match slot.kind:
        case "name":
            return _name(value)
        case "number":
            return f"{value:.10g}" if math.isfinite(value) else "unknown"
        case "time":
            return datetime.fromtimestamp(value / 1_000, UTC).isoformat(timespec="seconds")
        case "data":
            return [_Block(name, _data(value, slot.chars_max))]
        case "texts":
            return _texts(value, slot)


def _fact(name: str, slot: Slot, value: Any) -> Any:
    match slot.kind:
        case "number":
            return value if math.isfinite(value) else None
        case "data":
            return json.loads(_data(value, slot.chars_max))
        case "texts":
            return [{"id": id_, "text": text} for id_, text in _texts(value, slot)]
        case _:
            return _value(name, slot, value)


def _data(value: Any, chars_max: int) -> str:
    """The value as JSON; long strings in it are cut until it fits, numbers and keys never."""
    for text_chars_max in _DATA_TEXT_CHARS_MAX:
        text = _spelled(value, text_chars_max, _DATA_DEPTH_MAX)
        if len(text) <= chars_max:
            return text
    raise ValueError(f"{len(text)} characters of data, at most {chars_max}")


def _texts(texts: Sequence[Text], slot: Slot) -> list[_Block]:
    shown = texts[: slot.count_max]
    return [_Block(_name(id_), plain(text, slot.chars_max)) for id_, text in shown]


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("not an identifier of letters, digits and ._:/-")
    return value


@lru_cache
def _names(values: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(sorted(map(_name, values)))


def _spelled(value: Any, chars_max: int, depth: int) -> str:
    """The JSON of a value, keys in order, without hidden characters or NaN, nor nested for ever."""
    if isinstance(value, float):
        return float.__repr__(value) if math.isfinite(value) else "null"
    if value is None or isinstance(value, int):
        return _quoted(value)
    if isinstance(value, str):
        return _quoted(plain(value, chars_max))
    if not depth:
        raise ValueError("nested too deep")
    if isinstance(value, Mapping):
        keys = _names(tuple(value))
        pairs = [f'"{key}":{_spelled(value[key], chars_max, depth - 1)}' for key in keys]
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join([_spelled(inner, chars_max, depth - 1) for inner in value]) + "]"
    raise TypeError(f"{type(value).__name__} is not JSON")


def _fence(parts: Iterable[str]) -> str:
    """A token that stands in none of the parts; none of them holds the NUL between them here."""
    everything = "\0".join(parts)
    token = digest(everything)[:24]
    while token in everything:
        token = digest(token + everything)[:24]
    return token


def _shown(blocks: list[_Block], fence: str) -> str:
    lines = [f"<<data {fence} {id_}>>\n{text}\n<<end {fence}>>" for id_, text in blocks]
    return "\n".join(lines) or "none"
