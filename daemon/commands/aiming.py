"""From flags to what a search works on: a strategy whose parameters move, its data, its ranges."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from backtest.sweep.space import Axis, axes_of
from backtest.sweep.sweep import Subject
from config.layers import Resolved, suggest
from core.errors import ConfigError
from daemon.commands.choices import Choices, read_settings
from daemon.commands.names import parse_timerange
from daemon.commands.setups import plan_run, sizing_of
from daemon.commands.shelf import open_shelf

_NUMBER = r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?"
_RANGE = re.compile(rf"{_NUMBER}(?:[:,]{_NUMBER})+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is searched: a subject, the ranges of its parameters, and the settings behind both."""

    subject: Subject
    axes: list[Axis]
    resolved: Resolved


def aim(choices: Choices, timerange: str | None) -> Target:
    """Read settings and data. ``--set`` with a range searches a parameter, any other fixes it."""
    ranges = [text for text in choices.sets if _RANGE.fullmatch(text.partition("=")[2].strip())]
    rest = [text for text in choices.sets if text not in ranges]
    resolved = read_settings(replace(choices, sets=rest))
    subject, label = _subject(resolved, timerange)
    fixed = resolved.settings.strategies[label].params
    axes = axes_of(subject.strategy, _named(ranges, label), fixed)
    return Target(subject=subject, axes=axes, resolved=resolved)


def _subject(resolved: Resolved, timerange: str | None) -> tuple[Subject, str]:
    """What is swept, and the stanza whose parameters are searched."""
    labels = list(resolved.settings.strategies)
    shelf = open_shelf(resolved)
    span = parse_timerange(timerange) if timerange else (None, None)
    plan = plan_run(resolved, shelf, span)
    if len(labels) != 1:
        raise ConfigError(f"a search is of one strategy, this run has {', '.join(labels)}")
    label = labels[0]
    strategy = shelf.strategy(label)

    def sizer(moved: Any, params: Mapping[str, float]) -> Any:
        return sizing_of(resolved, label, moved, params)

    books = frozenset(entry.book.name for entry in plan.setup.books)
    subject = Subject(
        setup=plan.setup,
        books=books,
        histories=plan.histories,
        sizer=sizer if strategy.program is not None else None,
        plugin=shelf.plugins.digest(strategy.name),
    )
    return subject, label


def _named(ranges: Iterable[str], label: str) -> dict[str, str]:
    """Ranges by parameter; ``trend.fast`` is ``fast`` when the strategy is ``trend``."""
    named: dict[str, str] = {}
    for text in ranges:
        key, _, value = (part.strip() for part in text.partition("="))
        owner, dot, name = key.rpartition(".")
        if dot and owner not in {label, f"strategies.{label}.params"}:
            hint = suggest(owner, [label])
            raise ConfigError(f"--set {text}: only parameters may have a range: {hint}")
        named[name] = value
    return named
