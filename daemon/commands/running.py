"""Running a plan: replay it, keep the run, write what was asked for, and tell the result."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtest.replay import evenly, replay
from backtest.run import Run
from daemon.commands.kept import keep
from daemon.commands.setups import Plan, runs_folder
from daemon.commands.shelf import warmup_bars
from daemon.commands.summary import summarise, told_by, write_summary
from daemon.console import making, write, write_json

if TYPE_CHECKING:
    from backtest.advice import Advised
    from forecasting.questions import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a replay shall leave behind beside its run."""

    report: str | None = None
    journal: str | None = None
    block: int | None = None
    every_decision: bool = False
    seed: int | None = None
    json: bool = False
    calls: bool = False
    masked: bool = False


def run_and_tell(plan: Plan, wishes: Wishes) -> None:
    """Replay, keep the run, write the report and the journal if wished, and tell the result."""
    with _advisor(plan, wishes) as asked:
        run = run_plan(plan, wishes, asked)
    folder = keep(run, runs_folder(plan.shelf.resolved))
    result = summarise(run, folder)
    if asked is not None:
        result["advice"] = told_by(run, asked.replies)
        if wishes.masked:
            with _advisor(plan, wishes, masked=True) as hidden:
                control = run_plan(plan, wishes, hidden)
            result["control"] = _control(result, summarise(control))
    result["caveats"] = [*_never_warm(plan), *result["caveats"]]
    places = _written(run, wishes, folder, asked.replies if asked else ())
    if wishes.json:
        write_json({**result, **places})
        return
    write_summary(run, result)
    write()
    for name, place in {"kept": folder, **places}.items():
        write(f"{name}: {place}")


def _never_warm(plan: Plan) -> Iterator[str]:
    """Books that had fewer bars than their strategy needs before its first decision."""
    for book in (entry.book for entry in plan.setup.books):
        needed = warmup_bars(book.strategy, book.params)
        bars = plan.histories[book.instrument].bar_count
        if bars < needed:
            yield f"{book.name} never decided: it needs {needed:,} bars to begin, of {bars:,} here."


def _written(run: Run, wishes: Wishes, folder: Path, replies: "Sequence[Reply]") -> dict[str, str]:
    """Report and journal, where they were wished for, and where they are now."""
    places = {}
    if wishes.report is not None:
        from daemon.commands.reports import write_html

        page = folder / "report.html" if wishes.report == "auto" else Path(wishes.report)
        places["report"] = str(write_html(run, page))
    if wishes.journal is not None:
        from daemon.clock import now_ms
        from daemon.commands.recording import record

        result = summarise(run)
        places["journal"] = record(
            run, wishes.journal, kept_ms=now_ms(), path=folder, result=result, replies=replies
        )
    return places


def _control(open_: dict[str, Any], masked: dict[str, Any]) -> dict[str, Any]:
    """What the models made of it without ticker, dates and price level, and what that cost."""
    told = {name: masked[name] for name in ("run_id", "decisions_hash", "trades", "net_pnl")}
    known = (open_["net_pnl"], masked["net_pnl"])
    return {**told, "gap": None if None in known else known[0] - known[1]}


def run_plan(plan: Plan, wishes: Wishes, asked: "Advised | None" = None) -> Run:
    """The finished run of a plan; ``asked`` answers the books that ask."""
    events = sum(len(history.events) for history in plan.histories.values())
    with making(events, quiet=wishes.json) as progress:
        run = replay(
            plan.setup,
            plan.histories,
            cuts=evenly(events, wishes.block) if wishes.block else None,
            tell_all=wishes.every_decision,
            seed=wishes.seed,
            progress=progress,
            advisor=asked,
        )
    return _with_plugins(run if asked is None else asked.sealed(run), plan)


def _advisor(
    plan: Plan, wishes: Wishes, *, masked: bool = False
) -> "AbstractContextManager[Advised | None]":
    """Who answers the books that ask; None where none does."""
    advice = [entry.book.advice for entry in plan.setup.books if entry.book.advice is not None]
    if not advice:
        return nullcontext()
    from daemon.commands.advisors import open_advised

    settings, agents = plan.shelf.resolved.settings, any(each.agent for each in advice)
    return open_advised(settings, calls=wishes.calls, agents=agents, masked=masked)


def _with_plugins(run: Run, plan: Plan) -> Run:
    """A plugin's file is code as much as ours, so the manifest's code covers it."""
    digests = [plan.shelf.plugins.digest(book.strategy) for book in run.books]
    known = sorted({digest for digest in digests if digest})
    if not known:
        return run
    code = hashlib.sha256("".join([run.manifest.code, *known]).encode()).hexdigest()[:16]
    return replace(run, manifest=replace(run.manifest, code=code))
