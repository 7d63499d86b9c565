"""Every setting there is, as one frozen tree.

This package knows nothing of the rest of the product, so it can be read first and fails fast.
Tables whose keys belong elsewhere (limits, sizing, terms of an instrument, parameters of a
strategy) are plain here; whoever builds those things checks their keys.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

Scalar: TypeAlias = bool | int | float | str
Table: TypeAlias = dict[str, Scalar]
Secret: TypeAlias = Annotated[SecretStr, BeforeValidator(lambda given: SecretStr(str(given)))]
"""A value that no error, dump or listing shows. Its check never fails, for a failure would tell it.
It stands here so that its variable is known; who needs it reads it from where secrets may stand."""


class Section(BaseModel):
    """A table of settings: no key beside those declared, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Account(Section):
    """The one account all books share: its equity in quote, and limits over all of them."""

    equity: float = Field(10_000.0, gt=0)
    limits: Table = {}


class Advice(Section):
    """Which model a strategy asks, by which prompt (``name`` or ``name/version``).

    With ``consent`` an entry waits for an answer of its side with ``confidence_min``; ``consult``
    (such as ``1h``) asks that often of itself. An answer later than ``answer_s_max`` counts for
    nothing. An ``agent`` writes code that decides, run in a sandbox.
    """

    model: str
    prompt: str = "ai_gate"
    agent: bool = False
    consent: bool = True
    consult: str = ""
    confidence_min: float = Field(0.6, ge=0, le=1)
    answer_s_max: float = Field(60.0, gt=0)


class Models(Section):
    """Language models: the file that declares them (the one that ships where empty), the cassette
    that keeps every call, and the most money to spend, nothing unless it is said here.

    ``arms`` are weights by prompt and version. An agent's code runs in the first sandbox of the
    list that proves itself, and without one not at all; Daytona costs of the same money, and
    ``model_day_usd.daytona`` limits it alone. The key of a service, which the file names, comes
    from the systemd credential ``models_keys__NAME``, ``LOCKSTEP__MODELS__KEYS__NAME``, or a
    file of ``key_files`` that only its owner may read.
    """

    file: Path | None = None
    cassette: Path = Path("cassette")
    run_usd: float = Field(0.0, ge=0)
    day_usd: float = Field(0.0, ge=0)
    model_day_usd: dict[str, float] = {}
    arms: dict[str, dict[str, int]] = {}
    sandboxes: tuple[Literal["bubblewrap", "landlock", "daytona"], ...] = ("bubblewrap", "landlock")
    daytona_url: str = ""
    keys: dict[str, Secret] = {}
    key_files: dict[str, Path] = {}


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
    advice: Advice | None = None


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


class Api(Section):
    """The daemon's HTTP API. Beside loopback it answers only with a token the operator gave.

    The token comes from the systemd credential ``api_token``, ``LOCKSTEP__API__TOKEN``, or a file
    only its owner may read; ``read_token`` may only look. On loopback a token that is nowhere is
    made, in ``token_file`` (``control.token`` among the runs). ``metrics_open``: /metrics needs no
    token on loopback.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(8321, ge=0, le=65_535)
    token: Secret | None = None
    token_file: Path | None = None
    read_token: Secret | None = None
    read_token_file: Path | None = None
    metrics_open: bool = False
    requests_per_minute: float = Field(240.0, gt=0)
    burst: int = Field(60, ge=1)


Topic: TypeAlias = Literal["fill", "trade", "mode", "refusal", "link", "run"]


class Notify(Section):
    """Where the daemon tells its operator what happened, and of what.

    The webhook's address and Telegram's token are secrets: they come from the systemd credentials
    ``notify_webhook`` and ``notify_telegram_token``, ``LOCKSTEP__NOTIFY__WEBHOOK`` and
    ``LOCKSTEP__NOTIFY__TELEGRAM_TOKEN``, or files only their owner may read.
    """

    webhook: Secret | None = None
    webhook_file: Path | None = None
    telegram_token: Secret | None = None
    telegram_token_file: Path | None = None
    telegram_chat: int | str = ""
    topics: tuple[Topic, ...] = ("fill", "trade", "mode", "refusal", "link", "run")
    messages_per_minute: float = Field(10.0, gt=0)


class Log(Section):
    """What the daemon's log tells: lines of this level and above."""

    level: Literal["debug", "info", "warning", "error"] = "info"


class Line(Section):
    """The market a live run follows: whose, the bars wanted, and how many of them to begin with.

    ``stream`` and ``info`` are the venue's addresses, its own where empty. Drift's own stopped, so
    there all three must be given: ``stream`` and ``books`` of the book server, ``info`` of the Data
    API; ``headers`` go with each question to it, its site's where empty.
    """

    venue: Literal["hyperliquid", "drift"] = "hyperliquid"
    interval: str = "1m"
    warmup_bars: int = Field(500, ge=0)
    stream: str = ""
    info: str = ""
    books: str = ""
    headers: dict[str, str] = {}


class Drift(Section):
    """Trading on Drift: the nodes, the account, and how orders are placed.

    The signing key comes from the systemd credential ``drift_key`` or from ``key_file``, which its
    owner alone may read. ``authority`` is whose account it is where the key is a delegate's.
    ``makers`` are users to trade against; ``book_server`` is asked for them where it is given.
    ``collar`` is how far from the oracle a price may lie, ``ttl_s`` how long an order may live;
    with ``only_if_filled`` one that would meet nothing fails, instead of landing without a fill.
    ``sockets`` are the endpoints' websockets, in their order, where they are not one port up from
    a port that is named, else the same; one that cannot be had costs a second or two an order.
    """

    endpoints: tuple[str, ...] = ()
    sockets: tuple[str, ...] = ()
    program: str = ""
    authority: str = ""
    sub_account: int = Field(0, ge=0, le=65_535)
    key_file: Path | None = None
    makers: tuple[str, ...] = ()
    book_server: str = ""
    lookup_tables: tuple[str, ...] = ()
    ttl_s: float = Field(20.0, gt=0)
    resend_s: float = Field(2.0, gt=0)
    collar: float = Field(0.02, gt=0, lt=1)
    compute_units: int = Field(600_000, ge=100_000, le=1_300_000)
    fee_percentile: float = Field(0.75, gt=0, le=1)
    fee_min: int = Field(1_000, ge=0)
    fee_max: int = Field(200_000, ge=0)
    only_if_filled: bool = False
    reconcile_s: float = Field(30.0, gt=0)


class Live(Section):
    """A live run: its name in the journal, where its orders go, and how often its state is kept.

    ``venue``: on paper they fill in the simulated venue. ``real_money`` is the one of two switches
    that stands in a profile; the other is the flag ``--real-money``. The run is audited at its
    start and every ``audit_hours``; 0 for never.
    """

    run: str = Field("paper", min_length=1)
    venue: Literal["paper", "drift"] = "paper"
    real_money: bool = False
    snapshot_events: int = Field(20_000, ge=1)
    audit_hours: float = Field(24.0, ge=0)
    feed: Line = Line()


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
    models: Models = Models()
    live: Live = Live()
    drift: Drift = Drift()
    api: Api = Api()
    notify: Notify = Notify()
    log: Log = Log()

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
