"""What an opinion from the cassette costs a replay: 10,000 of them over a year of minutes.

    .venv/bin/python tests/benchmark/opinions.py

The same strategy replays with and without an advisor; the difference over the questions is the
price of one: the stop of the step, the prompt, the look-up, the event, and going on.
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
from forecasting.advisor import Advisor  # noqa: E402
from forecasting.caller import Call  # noqa: E402
from forecasting.calls import Request  # noqa: E402
from forecasting.cassette import Cassette  # noqa: E402
from strategies.trend import TREND  # noqa: E402

QUESTIONS, BARS_EACH, ROUNDS = 10_000, 50, 3
MICROS_MAX = 50.0


class Ready:
    """A caller that answers at once, for recording."""

    async def call(self, _request: Request) -> Call:
        return Call(raw=GOOD, latency_ms=5, attempts=1)

    async def close(self) -> None:
        """Nothing is open."""


def advised(cassette: Cassette, caller: Any = None) -> Advised:
    advisor = Advisor(prompts=PROMPTS, registry=registry_of(), cassette=cassette, caller=caller)
    return Advised(advisor)


def measured() -> dict[str, float]:
    """Microseconds an opinion, and what it was measured from."""
    history = walk(QUESTIONS * BARS_EACH, seed=3)
    advice = Advice(model="local", consent=False, consult_ms=BARS_EACH * MINUTE)
    asking = one_book(TREND, limits=NO_LIMITS, book={"advice": advice})
    alone = one_book(TREND, limits=NO_LIMITS)
    with tempfile.TemporaryDirectory() as folder:
        play(history, asking, advisor=advised(Cassette(Path(folder)), Ready()))
        cassette, costs, questions = Cassette(Path(folder)), [], 0
        for _ in range(ROUNDS):
            bare = play(history, alone).seconds
            mine = advised(cassette)
            started = time.perf_counter()
            run = play(history, asking, advisor=mine)
            questions = len(mine.replies)
            assert time.perf_counter() - started >= run.seconds
            costs.append((run.seconds - bare) / questions * 1e6)
    return {"questions": questions, "micros_each": statistics.median(costs)}


def main() -> None:
    """Measure, and say whether it is within the bar."""
    figures = measured()
    if "--json" in sys.argv:
        print(json.dumps(figures, indent=1))
    else:
        told = f"{figures['micros_each']:.1f} us"
        print(f"{'opinions served from the cassette':<42}{figures['questions']:>20,.0f}")
        print(f"{'one of them, the replay of it and all':<42}{told:>20}  < {MICROS_MAX:.0f} us")
    sys.exit(figures["micros_each"] >= MICROS_MAX)


if __name__ == "__main__":
    main()
