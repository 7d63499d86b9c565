"""What an opinion from the cassette costs a replay: 10,000 of them over a year of minutes.

    .venv/bin/python tests/benchmark/opinions.py

The bar is on all that a question costs the replay, which is the difference to a replay that asks
nobody: stop, case, serving, event, and going on. The serving alone (prompt, key, look-up, answer)
is told beside it. It is CPU time, and of several rounds the fastest: the rest is other work of the
machine.
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "forecasting")]

from advised import PROMPTS, registry_of  # noqa: E402
from standin_http import GOOD  # noqa: E402
from worlds import MINUTE, NO_LIMITS, one_book, play, walk  # noqa: E402

from backtest.advice import Advised  # noqa: E402
from core.engine import Advice  # noqa: E402
from core.ports import Asked  # noqa: E402
from forecasting.advisor import Advisor, Place, unplaced  # noqa: E402
from forecasting.caller import Call  # noqa: E402
from forecasting.calls import Request  # noqa: E402
from forecasting.cassette import Cassette  # noqa: E402
from forecasting.questions import Question, Reply  # noqa: E402
from strategies.trend import TREND  # noqa: E402

QUESTIONS, BARS_EACH, ROUNDS = 10_000, 50, 9
MICROS_MAX = 50.0


class Ready:
    """A caller that answers at once, for recording."""

    async def call(self, _request: Request) -> Call:
        return Call(raw=GOOD, latency_ms=5, attempts=1)

    async def close(self) -> None:
        """Nothing is open."""


class Timed(Advisor):
    """An advisor that knows how long it took to serve."""

    served_s = 0.0
    """Of all advisors together."""

    async def ask(self, question: Question, place: Place = unplaced) -> Reply:
        started = time.thread_time()
        reply = await super().ask(question, place)
        Timed.served_s += time.thread_time() - started
        return reply


class Clocked(Advised):
    """Knows when its first question came, and when its last."""

    first_s = last_s = 0.0

    async def ask(self, questions: Sequence[Asked]) -> None:
        self.last_s = time.thread_time()
        self.first_s = self.first_s or self.last_s
        await super().ask(questions)


def advised(kind: type[Advisor], cassette: Cassette, caller: Any = None) -> Clocked:
    return Clocked(kind(prompts=PROMPTS, registry=registry_of(), cassette=cassette, caller=caller))


def measured() -> dict[str, float]:
    """Microseconds an opinion, and what it was measured from."""
    history = walk(QUESTIONS * BARS_EACH, seed=3)
    advice = Advice(model="local", consent=False, consult_ms=BARS_EACH * MINUTE)
    asking = one_book(TREND, limits=NO_LIMITS, book={"advice": advice})
    alone = one_book(TREND, limits=NO_LIMITS)
    with tempfile.TemporaryDirectory() as folder:
        recording = advised(Advisor, Cassette(Path(folder)), Ready())
        play(history, asking, advisor=recording)
        cassette, questions = Cassette(Path(folder)), len(recording.replies)
        served_s, bare_s, whole_s = [], [], []
        for _ in range(ROUNDS):
            bare_s.append(play(history, alone).seconds)
            clocked = advised(Advisor, cassette)
            play(history, asking, advisor=clocked)
            whole_s.append(clocked.last_s - clocked.first_s)
            Timed.served_s = 0.0
            play(history, asking, advisor=advised(Timed, cassette))
            served_s.append(Timed.served_s)
    return {
        "questions": questions,
        "served_micros": min(served_s) / questions * 1e6,
        "question_micros": (min(whole_s) - min(bare_s)) / questions * 1e6,
    }


def main() -> None:
    """Measure, and say whether it is within the bar."""
    figures = measured()
    if "--json" in sys.argv:
        print(json.dumps(figures, indent=1))
    else:
        served, whole = (f"{figures[name]:.0f} us" for name in ("served_micros", "question_micros"))
        print(f"{'opinions asked for':<42}{figures['questions']:>20,.0f}")
        print(f"{'one served from the cassette':<42}{served:>20}")
        print(f"{'all that a question costs the replay':<42}{whole:>20}  < {MICROS_MAX:.0f} us")
    sys.exit(figures["question_micros"] >= MICROS_MAX)


if __name__ == "__main__":
    main()
