"""What an opinion from the cassette costs a replay: 10,000 of them over a year of minutes.

    .venv/bin/python tests/benchmark/opinions.py

Told are the serving alone (prompt, key, look-up, answer) and all that a question costs the replay,
which is the difference to a replay that asks nobody: stop, case, serving, event, and going on.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "forecasting")]

from advised import PROMPTS, registry_of  # noqa: E402
from standin_http import GOOD  # noqa: E402
from worlds import MINUTE, NO_LIMITS, one_book, play, walk  # noqa: E402

from backtest.advice import Advised  # noqa: E402
from core.engine import Advice  # noqa: E402
from forecasting.advisor import Advisor, Place, unplaced  # noqa: E402
from forecasting.caller import Call  # noqa: E402
from forecasting.calls import Request  # noqa: E402
from forecasting.cassette import Cassette  # noqa: E402
from forecasting.questions import Question, Reply  # noqa: E402
from strategies.trend import TREND  # noqa: E402

QUESTIONS, BARS_EACH, ROUNDS = 10_000, 50, 3
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

    async def ask(self, question: Question, place: Place = unplaced) -> Reply:
        started = time.perf_counter()
        reply = await super().ask(question, place)
        self.served_s += time.perf_counter() - started
        return reply


def timed(cassette: Cassette, caller: Any = None) -> Timed:
    return Timed(prompts=PROMPTS, registry=registry_of(), cassette=cassette, caller=caller)


def measured() -> dict[str, float]:
    """Microseconds an opinion, and what it was measured from."""
    history = walk(QUESTIONS * BARS_EACH, seed=3)
    advice = Advice(model="local", consent=False, consult_ms=BARS_EACH * MINUTE)
    asking = one_book(TREND, limits=NO_LIMITS, book={"advice": advice})
    alone = one_book(TREND, limits=NO_LIMITS)
    with tempfile.TemporaryDirectory() as folder:
        play(history, asking, advisor=Advised(timed(Cassette(Path(folder)), Ready())))
        cassette, served, costs, questions = Cassette(Path(folder)), [], [], 0
        for _ in range(ROUNDS):
            bare = play(history, alone).seconds
            advisor = timed(cassette)
            mine = Advised(advisor)
            run = play(history, asking, advisor=mine)
            questions = len(mine.replies)
            served.append(advisor.served_s / questions * 1e6)
            costs.append((run.seconds - bare) / questions * 1e6)
    return {
        "questions": questions,
        "served_micros": statistics.median(served),
        "question_micros": statistics.median(costs),
    }


def main() -> None:
    """Measure, and say whether it is within the bar."""
    figures = measured()
    if "--json" in sys.argv:
        print(json.dumps(figures, indent=1))
    else:
        served, whole = (f"{figures[name]:.0f} us" for name in ("served_micros", "question_micros"))
        print(f"{'opinions asked for':<42}{figures['questions']:>20,.0f}")
        print(f"{'one served from the cassette':<42}{served:>20}  < {MICROS_MAX:.0f} us")
        print(f"{'all that a question costs the replay':<42}{whole:>20}")
    sys.exit(figures["served_micros"] >= MICROS_MAX)


if __name__ == "__main__":
    main()
