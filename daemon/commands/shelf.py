"""The strategies a run can name: those that ship, plugins, and files of rules."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from config.layers import Resolved
from config.settings import Stanza
from core.errors import ConfigError, LockstepError, UnknownName
from core.strategy import Strategy, Use
from daemon.plugins import Plugins, load_plugins
from strategies.registry import all_strategies, find

WARMUP_BARS_MAX = 10_000_000
"""Nineteen years of one-minute bars: a window beyond them is a slip of the keyboard."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """Strategies by stanza of some settings, and the plugins behind them."""

    resolved: Resolved
    plugins: Plugins

    def strategy(self, label: str) -> Strategy:
        """The strategy a stanza runs; an error says where the stanza came from."""
        stanza = self.resolved.settings.strategies[label]
        where = self.resolved.source("strategies", label)
        if stanza.rules:
            if stanza.strategy:
                raise ConfigError(f"{where}: strategies.{label} has both a strategy and rules")
            return read_rules(stanza.rules)
        try:
            return find(stanza.strategy or label, self.plugins.strategies)
        except UnknownName as error:
            raise ConfigError(f"{where}: {error}") from error

    def params(self, label: str, strategy: Strategy) -> dict[str, float]:
        """The parameters a stanza chose: those of its profile, then its own."""
        stanza = self.resolved.settings.strategies[label]
        chosen = dict(self._profile(label, stanza, strategy))
        for name, value in stanza.params.items():
            try:
                strategy.values({name: value})
            except ConfigError as error:
                where = self.resolved.source("strategies", label, "params", name)
                raise ConfigError(f"{where}: {error}") from error
            chosen[name] = value
        try:
            warmup_bars(strategy, chosen)
        except ConfigError as error:
            where = self.resolved.source("strategies", label, "params")
            raise ConfigError(f"{where}: strategy {strategy.name}: {error}") from error
        return chosen

    def _profile(self, label: str, stanza: Stanza, strategy: Strategy) -> Mapping[str, float]:
        try:
            return strategy.profile(stanza.profile) if stanza.profile else {}
        except UnknownName as error:
            where = self.resolved.source("strategies", label, "profile")
            raise ConfigError(f"{where}: {error}") from error

    def everything(self) -> dict[str, Strategy]:
        """All strategies by name."""
        return all_strategies(self.plugins.strategies)


def warmup_bars(strategy: Strategy, params: Mapping[str, float]) -> int:
    """Bars until it first decides; ConfigError for a parameter no feature can work with."""
    sources = strategy.sources(strategy.values(params)).values()
    needed = max((source.warmup() for source in sources if isinstance(source, Use)), default=1)
    if needed > WARMUP_BARS_MAX:
        raise ConfigError(f"it would need {needed:,} bars to begin, at most {WARMUP_BARS_MAX:,}")
    return needed


def open_shelf(resolved: Resolved) -> Shelf:
    """The shelf of these settings; plugins are loaded now."""
    return Shelf(resolved, load_plugins(resolved.settings.plugins.paths))


def read_rules(path: Path) -> Strategy:
    """A strategy from a file of rules; ``default`` stands for the rules that ship."""
    from strategies.rules import DEFAULT_RULES, load_rules

    if str(path) == "default":
        return load_rules(DEFAULT_RULES)
    try:
        return load_rules(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except LockstepError as error:
        raise type(error)(f"{path}: {error}") from error
