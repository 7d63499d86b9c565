"""Every setting there is, as one frozen tree.

This package knows nothing of the rest of the product, so it can be read first and fails fast.
Tables whose keys belong elsewhere (limits, sizing, terms of an instrument, parameters of a
strategy) are plain here; whoever builds those things checks their keys.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

Scalar: TypeAlias = bool | int | float | str
Table: TypeAlias = dict[str, Scalar]


class Section(BaseModel):
    """A table of settings: no key beside those declared, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Account(Section):
    """The one account all books share: its equity in quote, and limits over all of them."""

    equity: float = Field(10_000.0, gt=0)
    limits: Table = {}


class Stanza(Section):
    """One strategy as it is run: on which instruments, with which parameters, sizing and limits.

    ``strategy`` is the stanza's own name where empty, ``instruments`` all that have data.
    ``profile`` names parameters the strategy ships, ``params`` are laid over them. ``rules`` is a
    file of the rule language. ``sizing`` and ``limits`` are laid over the tables of that name.
    """

    strategy: str = ""
    instruments: tuple[str, ...] = ()
    profile: str = ""
    rules: Path | None = None
    params: dict[str, float] = {}
    sizing: Table = {}
    limits: Table = {}
    style: Literal["ioc", "limit"] = "ioc"
    offset: float = Field(0.01, ge=0)
    ttl_bars: int = Field(1, ge=1)


class Source(Section):
    """Where an instrument's history is, and the bars wanted of it (such as ``5m``)."""

    file: Path
    interval: str = ""


class Plugins(Section):
    """Folders whose ``*.py`` files may bring strategies."""

    paths: tuple[Path, ...] = ()


class Paths(Section):
    """Where runs are kept, and the database of the journal."""

    runs: Path = Path("runs")
    journal: str = "sqlite:///journal.sqlite"


class Settings(BaseSettings):
    """The whole tree. ``sizing``, ``limits`` and ``instrument`` are defaults for every book and
    every instrument; ``instruments.NAME`` and ``strategies.NAME`` are laid over them."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    account: Account = Account()
    sizing: Table = {}
    limits: Table = {}
    instrument: Table = {}
    instruments: dict[str, Table] = {}
    strategies: dict[str, Stanza] = {}
    data: dict[str, Source] = {}
    plugins: Plugins = Plugins()
    paths: Paths = Paths()

    @classmethod
    def laid(cls, layers: Iterable[Mapping[str, Any]]) -> "Settings":
        """The layers over each other, the later the stronger, and checked as a whole."""
        given: Any = {_LAYERS: list(layers)}
        return cls(**given)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the layers. The environment is one of them, read by us: its names know neither case
        nor dashes, and every value must remember the variable it came from."""
        assert isinstance(init_settings, InitSettingsSource)
        layers = init_settings.init_kwargs[_LAYERS]
        return tuple(InitSettingsSource(settings_cls, dict(layer)) for layer in reversed(layers))


_LAYERS = "layers"
