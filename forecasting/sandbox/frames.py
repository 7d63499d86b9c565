"""What goes into a run and what comes out of it, the same for every sandbox.

In goes a job. Out come frames, lines that begin with the job's nonce: one when the code is let
loose, one when it is done. Anything else in their stream was not written by the program that waits
around the code, and is a forgery.
"""

import json
import secrets
import signal
from dataclasses import dataclass

from forecasting.sandbox.port import End, Limits, Ran

PRINTED_BYTES_KEPT = 2_000
FRAMES_BYTES_MORE = 2**14  # a reason may be longer than a result may be
_ENDS = {
    "returned": End.OK,
    "raised": End.RAISED,
    "memory": End.MEMORY,
    "too_large": End.OUTPUT_TOO_LARGE,
}
_REASONS = {
    End.TIMEOUT: "it took too long",
    End.MEMORY: "it wanted more memory than it may have",
    End.OUTPUT_TOO_LARGE: "it printed or returned too much",
    End.FORGED: "it wrote to the stream of the result itself",
}


@dataclass(frozen=True, slots=True)
class Job:
    """One run: ``text`` is what the program around the code is given."""

    nonce: str
    limits: Limits
    text: bytes

    @property
    def frames_bytes_max(self) -> int:
        """Most that can come out in frames, unless the code forges them."""
        return self.limits.result_bytes + FRAMES_BYTES_MORE


def make_job(
    code: str,
    context: bytes,
    limits: Limits,
    *,
    readable: tuple[str, ...] = (),
    program: bytes = b"",
) -> Job:
    """A job with a nonce of its own; ``readable`` and ``program`` are how it locks itself in."""
    nonce = secrets.token_hex(16)
    text = json.dumps(
        {
            "nonce": nonce,
            "seconds": limits.seconds,
            "memory_bytes": limits.memory_bytes,
            "printed_bytes": limits.printed_bytes,
            "result_bytes": limits.result_bytes,
            "readable": readable,
            "filter": program.hex(),
            "code": code,
            "context": context.decode(),
        }
    )
    return Job(nonce, limits, text.encode())


def verdict(job: Job, frames: bytes, printed: bytes, code: int, stopped: End | None) -> Ran:
    """How it ended: ``code`` is the exit code, ``stopped`` why we ended it, if we did."""
    told = printed[-PRINTED_BYTES_KEPT:].decode(errors="replace")
    ready = f"{job.nonce} ready null\n".encode()
    if not frames.startswith(ready):
        last = (told.strip().splitlines() or ["it did not start"])[-1]
        return Ran(end=End.UNAVAILABLE, reason=last, printed=told)
    said = frames.removeprefix(ready)
    if stopped is not None:
        end, text = stopped, ""
    elif said:
        end, text = _read(job, said)
    else:
        end, text = _silent(code)
    if end is End.OK:
        return Ran(end=end, result=text, printed=told)
    return Ran(end=end, reason=text or _REASONS[end], printed=told)


def _read(job: Job, said: bytes) -> tuple[End, str]:
    """The one frame there may be, and what it holds; whatever else was written is a forgery."""
    words = said.decode(errors="replace").removesuffix("\n").split(" ", 2)
    if len(words) < 3 or words[0] != job.nonce or "\n" in words[2] or words[1] not in _ENDS:
        return End.FORGED, ""
    end = _ENDS[words[1]]
    if end is not End.RAISED:
        return end, words[2] if end is End.OK else ""
    try:
        return end, str(json.loads(words[2]))
    except ValueError:
        return End.FORGED, ""


def _silent(code: int) -> tuple[End, str]:
    """A process that ended without a word: a signal shows as 128 and its number."""
    number = -code if code < 0 else code - 128
    if number in (signal.SIGXCPU, signal.SIGALRM):
        return End.TIMEOUT, ""
    if number in {one.value for one in signal.Signals}:
        return End.CRASHED, f"the interpreter died of {signal.Signals(number).name}"
    return End.NO_RESULT, f"it left with exit code {code} and without a result"
