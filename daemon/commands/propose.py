"""``lockstep propose``: rules for a market, written by a language model and checked before use."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.commands.options import (
    Config,
    Json,
    Profile,
    Record,
    Resample,
    Sets,
    Timerange,
    taking,
)

if TYPE_CHECKING:
    from config.layers import Resolved
    from forecasting.advisor import Advisor
    from forecasting.questions import Question
    from forecasting.rules import Language, Proposed
    from markets.history import History

EPILOG = (
    "Example: lockstep propose --model llama3.1 --data SOL-PERP.feather --out rules.json "
    "--record\n\n"
    "Then: lockstep replay --rules rules.json --data SOL-PERP.feather\n\n"
    "Without --record nobody is asked: the proposal is that of the cassette. Rules that the "
    "model may have written from memory, because it has read of these bars, are told as "
    "contaminated. Paid models need money: --set models.run_usd=0.1 --set models.day_usd=1"
)
CLOSES_TOLD, SPAN_BARS = 48, 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Flags that say how a model is asked."""

    cassette: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Recorded calls (models.cassette).")
    ] = None
    record: Record = False
    prompt: Annotated[str, typer.Option(metavar="NAME/VERSION", help="Its prompt.")] = "rules/v1"
    sample: Annotated[int, typer.Option(metavar="N", min=0, help="Another try, by number.")] = 0
    set_: Sets = None
    profile: Profile = None
    config: Config = None

    def resolved(self) -> "Resolved":
        """The settings, with the cassette that was named."""
        from daemon.commands.choices import Choices, read_settings

        named = [f"models.cassette={self.cassette}"] if self.cassette else []
        sets = [*(self.set_ or ()), *named]
        return read_settings(Choices(profile=self.profile, config=self.config, sets=sets))


@taking(Asking)
def propose(
    asking: Asking,
    model: Annotated[str, typer.Option(metavar="NAME", help="A model that is declared.")],
    data: Annotated[str, typer.Option(metavar="[NAME=]FILE", help="History of an instrument.")],
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="Where the rules go.")],
    timerange: Timerange = None,
    resample: Resample = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.json.")] = False,
    json: Json = False,
) -> None:
    """Ask a language model for trading rules, and check them.

    They are written to a file.
    """
    import anyio

    from core.errors import ConfigError
    from daemon.console import write_json, write_pairs
    from forecasting.questions import Question

    if out.exists() and not force:
        raise ConfigError(f"{out}: is there already: name another file, or add --force")
    name, history = _history(data, timerange, resample)
    ts = int(history.bars["ts_known"][-1])
    question = Question(
        id=f"propose/{name}/{ts}",
        book="propose",
        instrument=name,
        ts=ts,
        side="flat",
        model=model,
        prompt=asking.prompt,
        context={"instrument": name, "time": ts, "market": figures(history)},
        sample=asking.sample,
    )
    facts = anyio.run(_ask, asking, question, _language(history), out)
    if json:
        write_json(facts)
    else:
        write_pairs(facts.items())


async def _ask(
    asking: Asking, question: "Question", language: "Language", out: Path
) -> dict[str, Any]:
    """Rules from the model or from the cassette, written; what there is to tell of them."""
    from forecasting.rules import propose as propose_rules

    async with AsyncExitStack() as stack:
        advisor = await _advisor(stack, asking)
        proposed = await propose_rules(advisor, question, language)
    _write(out, proposed.rules)
    return _facts(proposed, out, advisor.cassette.seal())


async def _advisor(stack: AsyncExitStack, asking: Asking) -> "Advisor":
    from daemon.commands.advisors import calling_advisor, calling_budget, replaying_advisor

    settings = asking.resolved().settings
    if not asking.record:
        return replaying_advisor(settings.models)
    budget = stack.enter_context(calling_budget(settings, "propose"))
    advisor = calling_advisor(settings.models, budget)
    stack.push_async_callback(advisor.close)
    return advisor


def figures(history: "History") -> dict[str, Any]:
    """What a model is told of a market: the last closes, and what the bars of late were like."""
    import numpy as np

    bars = history.bars[-SPAN_BARS:]
    close, volume = bars["close"], bars["volume"]
    returns = np.diff(np.log(close))
    path = float(np.abs(returns).sum())
    found = {
        "bar_minutes": history.interval_ms / 60_000,
        "bars": len(bars),
        "close": float(close[-1]),
        "high": float(bars["high"].max()),
        "low": float(bars["low"].min()),
        "change": float(close[-1] / close[0] - 1),
        "volatility_of_a_bar": float(returns.std()) if len(returns) else float("nan"),
        # 1 where all bars go the same way, 0 where they lead nowhere
        "trend_strength": abs(float(returns.sum())) / path if path else 0.0,
        "volume_mean": float(volume.mean()),
        "volume_last": float(volume[-1]),
    }
    rounded = {name: float(f"{value:.6g}") for name, value in found.items()}
    closes = [float(f"{value:.6g}") for value in close[-CLOSES_TOLD:]]
    return rounded | {"closes": closes, "fields": sorted(history.fields)}


def _history(data: str, timerange: str | None, resample: str | None) -> "tuple[str, History]":
    from core.errors import DataError
    from daemon.commands.histories import read_history
    from daemon.commands.names import parse_timerange
    from markets.history import crop

    name, _, path = data.rpartition("=")
    history = read_history(Path(path), resample)
    if timerange:
        history = crop(history, *parse_timerange(timerange))
    if len(history.bars) < 2:
        raise DataError(f"{path}: {len(history.bars)} bars are too few to tell anything of")
    return name or Path(path).name.partition(".")[0], history


def _language(history: "History") -> "Language":
    """The rule language as it is, and rules checked against it and against what the data carry."""
    from core.errors import ConfigError
    from forecasting.rules import Language
    from strategies.rules import parse_rules
    from strategies.rules.ruleset import RulesDocument

    def check(rules: Mapping[str, Any]) -> list[str]:
        from daemon.commands.shelf import warmup_bars

        try:
            strategy = parse_rules(rules).strategy()
            needed = warmup_bars(strategy, strategy.values({}))
        except ConfigError as error:
            return [str(error)]
        lacking = sorted(strategy.fields - history.fields)
        errors = [f"the data do not carry: {', '.join(lacking)}"] if lacking else []
        if needed >= len(history.bars):
            errors.append(f"they need {needed:,} bars, and there are {len(history.bars):,}")
        return errors

    return Language(schema=RulesDocument.model_json_schema(), about=_about(), check=check)


def _about() -> str:
    """The language in a page, from what the parser knows."""
    from json import dumps

    from strategies.rules import DEFAULT_RULES
    from strategies.rules.grammar import CROSSES
    from strategies.rules.names import CODES, FIXED, FUNCTIONS, HELD

    calls = [f"{name}({', '.join(feature.params)})" for name, feature in sorted(FUNCTIONS.items())]
    return "\n".join(
        (
            "A condition compares numbers (< <= > >= == !=); it may use and, or, not, + - * /.",
            f"Fields and lines: {', '.join(FIXED)}",
            f"Functions of the close, or of a series given first: {', '.join(calls)}",
            "A window may be a suffix: ma_20, rsi_14.",
            f"Crossings: {', '.join(f'{name}(a, b)' for name in CROSSES)}",
            f"Of the open position: {', '.join(HELD)}",
            f"regime can be compared with: {', '.join(CODES)}",
            "All of entry must hold, one of exit is enough; short_entry, short_exit mirror them.",
            f"Example: {dumps(DEFAULT_RULES)}",
        )
    )


def _write(path: Path, rules: Mapping[str, Any]) -> None:
    from json import dumps

    from core.errors import DataError

    try:
        path.write_text(dumps(rules, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}") from error


def _facts(proposed: "Proposed", path: Path, seal: str) -> dict[str, Any]:
    last = proposed.replies[-1]
    return {
        "path": str(path),
        "regime": proposed.proposal.regime,
        "confidence": proposed.proposal.confidence,
        "insight": proposed.proposal.insight,
        "calls": len(proposed.replies),
        "replayed": all(reply.replayed for reply in proposed.replies),
        "contaminated": last.contaminated,
        "cost_micros": proposed.cost_micros,
        "prompt": last.prompt,
        "seal": seal,
    }
