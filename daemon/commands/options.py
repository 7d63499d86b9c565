"""Flags that several commands share, each described once."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

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
Runs: TypeAlias = Annotated[
    Path | None, typer.Option("--runs", metavar="DIR", help="Folder of the runs (./runs).")
]
