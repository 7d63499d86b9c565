"""Flags that several commands share, each described once, and groups of them given as one.

Typer wants every flag of a command in its signature; a command that takes a group is given that
signature here, so that no list of flags is written twice.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import typer

if TYPE_CHECKING:
    from daemon.commands.choices import Choices

P = ParamSpec("P")
Group = TypeVar("Group")

Json: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Profile: TypeAlias = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help="A profile that ships (config/).")
]
Config: TypeAlias = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="A TOML profile of your own.")
]
Strategies: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--strategy", metavar="NAME", help="Strategy to run. Repeatable."),
]
Rules: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--rules", metavar="FILE.json", help="Rules as a strategy; 'default' ships."),
]
Data: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="[NAME=]FILE", help="History of an instrument. Repeatable."),
]
Instruments: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--instrument", metavar="NAME", help="Name of the one --data FILE, or a choice."),
]
Sets: TypeAlias = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting. Repeatable.")
]
Timerange: TypeAlias = Annotated[
    str | None,
    typer.Option("--timerange", metavar="FROM-TO", help="UTC, such as 20250504-20250510."),
]
Resample: TypeAlias = Annotated[
    str | None, typer.Option("--resample", metavar="5m", help="Longer bars than the file's.")
]
Shard: TypeAlias = Annotated[
    bool, typer.Option("--shards", help="Let the workers of this journal do it: lockstep worker.")
]
Record: TypeAlias = Annotated[
    bool, typer.Option("--record", help="Ask models what the cassette lacks, keep it; may cost.")
]
Page: TypeAlias = Annotated[
    Path | None, typer.Option("--report", metavar="FILE.html", help="As a page with charts.")
]
Grid: TypeAlias = Annotated[
    bool, typer.Option("--grid", help="Every combination of the ranges (default).")
]
Sobol: TypeAlias = Annotated[
    int | None, typer.Option("--sobol", metavar="N", min=1, help="N combinations, evenly spread.")
]
Metric: TypeAlias = Annotated[
    str, typer.Option("--metric", metavar="NAME", help="What the best are best in.")
]
Seed: TypeAlias = Annotated[
    int, typer.Option("--seed", metavar="N", min=0, help="Of all that is drawn.")
]
Threads: TypeAlias = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, help="Default: one a processor.")
]
Returns: TypeAlias = Annotated[
    Path | None, typer.Option("--returns", metavar="FILE.npz", help="What 'validate' reads.")
]
Purge: TypeAlias = Annotated[
    str | None,
    typer.Option("--purge", metavar="1d", help="How long an observation bears on the future."),
]
HoldOut: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--hold-out", metavar="NAME|25%", help="Trade this, fit on the others."),
]
Runs: TypeAlias = Annotated[
    Path | None, typer.Option("--runs", metavar="DIR", help="Folder of the runs (./runs).")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags that say what is run, on what, and with which settings."""

    strategy: Strategies = None
    data: Data = None
    instrument: Instruments = None
    rules: Rules = None
    set_: Sets = None
    resample: Resample = None
    profile: Profile = None
    config: Config = None
    runs: Runs = None

    @property
    def choices(self) -> "Choices":
        """What was chosen."""
        from daemon.commands.choices import Choices

        return Choices(
            profile=self.profile,
            config=self.config,
            strategies=self.strategy or (),
            rules=self.rules or (),
            data=self.data or (),
            instruments=self.instrument or (),
            resample=self.resample,
            runs=self.runs,
            sets=self.set_ or (),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFlags(Flags):
    """The flags that say how parameters are searched, and what is told of it."""

    grid: Grid = False
    sobol: Sobol = None
    metric: Metric = "sharpe"
    seed: Seed = 0
    threads: Threads = None
    report: Page = None
    returns: Returns = None
    shards: Shard = False
    timerange: Timerange = None
    json: Json = False

    @property
    def searched(self) -> dict[str, Any]:
        """What a ``Search`` takes of them."""
        shared = {field.name for field in fields(SearchFlags)} - {
            field.name for field in fields(Flags)
        }
        return {name: getattr(self, name) for name in shared - {"timerange"}}


def taking(
    group: type[Group],
) -> Callable[[Callable[Concatenate[Group, P], None]], Callable[..., None]]:
    """A command whose first argument is a ``group``: each field of it, which has a default, becomes
    a flag, after the command's own."""
    shared = inspect.signature(group, eval_str=True).parameters

    def gathering(command: Callable[Concatenate[Group, P], None]) -> Callable[..., None]:
        first, *own = inspect.signature(command, eval_str=True).parameters.values()

        @wraps(command)
        def gathered(**given: Any) -> None:
            taken = {field.name: given.pop(field.name) for field in fields(group)}  # type: ignore[arg-type]
            command(group(**taken), **given)  # type: ignore[call-arg]

        flags = [one.replace(kind=first.kind) for one in shared.values()]
        told: Any = gathered
        told.__signature__ = inspect.Signature([*own, *flags])
        told.__annotations__ = {one.name: one.annotation for one in (*own, *flags)}
        return gathered

    return gathering
