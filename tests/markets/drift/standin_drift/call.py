"""One instruction at work, and the way it ends badly."""

from dataclasses import dataclass, field
from typing import Any

from standin_drift.world import Draft


class Refused(Exception):
    """The program returned an error: its name in the IDL or in Anchor, and what it logged."""

    def __init__(self, name: str, said: str = "") -> None:
        super().__init__(name, said)
        self.name, self.said = name, said


@dataclass(frozen=True)
class Meta:
    key: str
    signer: bool
    writable: bool


@dataclass
class Call:
    """One instruction at work: what it may touch and what it leaves behind."""

    draft: Draft
    metas: list[Meta]
    slot: int
    now_s: int
    logs: list[str] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    orders: list[dict[str, Any]] = field(default_factory=list)
    units: int = 0
    named: int = 0
    """Accounts the IDL names; those after them are markets, oracles and makers."""

    def say(self, text: str) -> None:
        self.logs.append(f"Program log: {text}")

    @property
    def remaining(self) -> list[Meta]:
        return self.metas[self.named :]
