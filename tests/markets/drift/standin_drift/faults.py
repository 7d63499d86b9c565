"""What can go wrong at one RPC node, as knobs a test or another process may turn at any time."""

import random
from dataclasses import asdict, dataclass, field
from typing import Any

from standin_drift.world import set_fields

ALWAYS = 1e9


@dataclass
class Faults:
    """A count of 1 or more strikes the next so many times; one between 0 and 1 is a probability.

    The HTTP faults strike requests that hold one of ``methods``, or any if it is empty. Those of
    transactions strike what is sent through this node, those of notices what it pushes.
    """

    methods: list[str] = field(default_factory=list)
    http_429: float = 0
    http_500: float = 0
    http_timeout: float = 0
    """The request is taken and never answered."""
    http_refused: float = 0
    """The connection drops before anything was done."""
    http_lost_answer: float = 0
    """All is done, and the connection drops before the answer."""

    drop_transaction: float = 0
    """Accepted, never lands; the same bytes sent again have a new chance."""
    delay_transaction: float = 0
    delay_slots: int = 20
    fail_transaction: float = 0
    """Passes preflight, lands with ``fail_code``."""
    fail_code: int = 6003
    hide_status: float = 0
    """Lands, but no node tells of it before ``hide_slots`` have passed."""
    hide_slots: int = 20
    fork_transaction: float = 0
    """Lands and is confirmed; its block vanishes after ``fork_slots``, with all that followed."""
    fork_slots: int = 10

    lose_notice: float = 0
    delay_notice: float = 0
    delay_notice_slots: int = 20
    false_notice: float = 0
    """It tells of a signature that it has not seen, at any slot until then."""
    duplicate_notice: float = 0
    reorder_notice: float = 0
    """Held back until after the socket's next notice."""
    close_clean: float = 0
    """Instead of a notice, the socket closes with code 1000."""
    close_abrupt: float = 0

    lag_slots: int = 0
    """This node's newest slot is so far behind the chain's."""
    frozen: bool = False
    """This node's newest slot stays what it is."""
    first_block: int = 0
    """It says that it knows nothing of what was before."""

    def set(self, values: dict[str, Any]) -> None:
        set_fields(self, values)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Striker:
    """Decides, from a seed, whether a knob strikes now; counts down those that count."""

    def __init__(self, faults: Faults, seed: int = 0) -> None:
        self.faults, self.random = faults, random.Random(seed)
        self.struck: dict[str, int] = {}

    def __call__(self, name: str) -> bool:
        knob: float = getattr(self.faults, name)
        if knob >= 1:
            setattr(self.faults, name, knob - 1)
        elif not (knob > 0 and self.random.random() < knob):
            return False
        self.struck[name] = self.struck.get(name, 0) + 1
        return True

    def http(self, name: str, methods: list[str]) -> bool:
        wanted = self.faults.methods
        return (not wanted or not set(wanted).isdisjoint(methods)) and self(name)
