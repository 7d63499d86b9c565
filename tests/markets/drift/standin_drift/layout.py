"""Drift's bytes, written and read from its IDL alone.

The adapter under test decodes with driftpy and anchorpy. What it decodes is written here without
either, so that an error in one cannot hide in the other, and the stand-in starts at once.
"""

import json
import struct
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from solders.pubkey import Pubkey

INTEGERS = {f"{sign}{bits}" for sign in "iu" for bits in (8, 16, 32, 64, 128)}


def discriminator(space: str, name: str) -> bytes:
    """The first eight bytes that name an account, an event or an instruction (Anchor)."""
    return sha256(f"{space}:{name}".encode()).digest()[:8]


def snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


class Layout:
    """Structs are dicts in the IDL's own camel case; a field left out is zero.

    Enums are the name of their variant, public keys base58 text, byte arrays bytes.
    """

    def __init__(self, idl: dict[str, Any]) -> None:
        self.types = {one["name"]: one["type"] for one in idl["types"] + idl["accounts"]}
        self.events = {one["name"]: one["fields"] for one in idl["events"]}
        self.errors = {one["name"]: (one["code"], one.get("msg", "")) for one in idl["errors"]}
        self.instructions = {
            discriminator("global", snake(one["name"])): one for one in idl["instructions"]
        }
        self.sizes: dict[str, int] = {}

    @classmethod
    def of_driftpy(cls) -> "Layout":
        """The IDL that driftpy ships, without importing driftpy, which takes seconds."""
        spec = find_spec("driftpy")
        assert spec is not None, "driftpy is not installed"
        assert spec.submodule_search_locations is not None
        folder = Path(spec.submodule_search_locations[0])
        return cls(json.loads((folder / "idl" / "drift.json").read_text("utf-8")))

    def account(self, name: str, values: dict[str, Any]) -> bytes:
        return discriminator("account", name) + self.write({"defined": name}, values)

    def event(self, name: str, values: dict[str, Any]) -> bytes:
        return discriminator("event", name) + self.fields(self.events[name], values)

    def instruction(self, data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
        """An instruction's entry in the IDL and its arguments; KeyError if Drift has none such."""
        entry = self.instructions[data[:8]]
        values, at = {}, 8
        for argument in entry["args"]:
            values[argument["name"]], at = self.read(argument["type"], data, at)
        return entry, values

    def fields(self, fields: list[dict[str, Any]], values: dict[str, Any]) -> bytes:
        known = {field["name"] for field in fields}
        assert known >= values.keys(), values.keys() - known
        return b"".join(self.write(field["type"], values.get(field["name"])) for field in fields)

    def write(self, kind: Any, value: Any) -> bytes:
        if isinstance(kind, dict) and "option" in kind:
            return b"\0" if value is None else b"\1" + self.write(kind["option"], value)
        if value is None:
            return bytes(self.size(kind))
        if kind in INTEGERS if isinstance(kind, str) else False:
            return int(value).to_bytes(int(kind[1:]) // 8, "little", signed=kind[0] == "i")
        if kind == "bool":
            return bytes([value])
        if kind == "publicKey":
            return key_bytes(value)
        if "array" in kind:
            each, count = kind["array"]
            if each == "u8":
                return bytes(value).ljust(count, b"\0")
            items = [*value, *[None] * (count - len(value))]
            return b"".join(self.write(each, item) for item in items)
        body = self.types[kind["defined"]]
        if body["kind"] == "enum":
            return bytes([[one["name"] for one in body["variants"]].index(value)])
        return self.fields(body["fields"], value)

    def size(self, kind: Any) -> int:
        """Bytes of a type that always has as many."""
        if isinstance(kind, str):
            return {"bool": 1, "publicKey": 32}.get(kind) or int(kind[1:]) // 8
        if "array" in kind:
            return self.size(kind["array"][0]) * kind["array"][1]
        name = kind["defined"]
        if name not in self.sizes:
            body = self.types[name]
            self.sizes[name] = (
                1
                if body["kind"] == "enum"
                else sum(self.size(field["type"]) for field in body["fields"])
            )
        return self.sizes[name]

    def read(self, kind: Any, data: bytes, at: int) -> tuple[Any, int]:
        """A value and where the next one starts; struct.error where the data is too short."""
        if isinstance(kind, dict) and "option" in kind:
            return self.read(kind["option"], data, at + 1) if data[at] else (None, at + 1)
        if isinstance(kind, dict) and "defined" in kind:
            return self.read_defined(self.types[kind["defined"]], data, at)
        size = self.size(kind)
        if len(data) < at + size:
            raise struct.error(f"{kind} at {at} goes beyond {len(data)} bytes")
        part, at = data[at : at + size], at + size
        if kind == "bool":
            return part != b"\0", at
        if kind == "publicKey":
            return str(Pubkey(part)), at
        if isinstance(kind, dict):
            return part, at
        return int.from_bytes(part, "little", signed=kind[0] == "i"), at

    def read_defined(self, body: dict[str, Any], data: bytes, at: int) -> tuple[Any, int]:
        if body["kind"] == "enum":
            return body["variants"][data[at]]["name"], at + 1
        values = {}
        for field in body["fields"]:
            values[field["name"]], at = self.read(field["type"], data, at)
        return values, at


@cache
def key_bytes(key: str) -> bytes:
    return bytes(Pubkey.from_string(key))


@cache
def address(program: str, *seeds: bytes) -> str:
    """A program-derived address."""
    return str(Pubkey.find_program_address(list(seeds), Pubkey.from_string(program))[0])
