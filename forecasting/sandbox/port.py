"""What a sandbox is to those who use one: code and facts go in, one typed end comes out.

Code that a model wrote never runs in our process, nor in any process of this machine that a sandbox
has not locked in. How it ended is a value: nothing the code does raises an exception here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from core.errors import ConfigError


class SandboxUnavailable(ConfigError):
    """No sandbox could prove itself, so no code of a model can be run."""


class End(StrEnum):
    """How a run ended; only OK has a result."""

    OK = "ok"
    RAISED = "raised"  # the code raised, or is not Python
    NO_RESULT = "no_result"  # it left without one
    FORGED = "forged"  # it wrote where only the result may be written
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_TOO_LARGE = "output_too_large"  # printed too much, or a result too long
    CRASHED = "crashed"  # the interpreter died
    UNAVAILABLE = "unavailable"  # the code never ran: the sandbox failed, not the code
    REFUSED_BUDGET = "refused_budget"  # the code never ran: no money for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one run may take. ``seconds`` is wall clock, from when the code is let loose."""

    seconds: float = 10.0
    memory_bytes: int = 2**30
    printed_bytes: int = 2**20
    result_bytes: int = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How code ran. ``result`` is the JSON its ``decide`` returned, which nobody has judged yet.

    ``reason`` says in a few lines what went wrong, as a model can be shown it; ``printed`` is the
    end of what the code printed; ``seconds`` counts all of it, starting and clearing up included.
    ``cost_micros`` is what a sandbox that is paid for took of the budget.
    """

    end: End
    result: str | None = None
    reason: str = ""
    printed: str = ""
    seconds: float = 0.0
    cost_micros: int = 0


class Sandbox(Protocol):
    """Runs ``decide(context)`` of Python code; a cancelled run leaves nothing behind either."""

    name: str

    async def run(self, code: str, context: bytes, limits: Limits) -> Ran:
        """Run the code on a JSON object; every end is a Ran."""
        ...

    async def available(self) -> str | None:
        """Why no code may be run here, or None where the sandbox has just proved itself."""
        ...


async def choose(sandboxes: Mapping[str, Sandbox]) -> Sandbox:
    """The first that proves itself; SandboxUnavailable says what kept each from it."""
    reasons: list[str] = []
    for name, sandbox in sandboxes.items():
        reason = await sandbox.available()
        if reason is None:
            return sandbox
        reasons.append(f"{name}: {reason}")
    told = "; ".join(reasons) or "none is set up"
    raise SandboxUnavailable(f"no sandbox for code of a model: {told}")
