"""Which models there are: where each is served, what it costs, and until when it has read.

A cutoff or a price that nobody declared counts against the model: without a cutoff every bar is
contaminated, without a price a paid service is not asked. So it is with a sandbox that is paid for.
"""

import math
import operator
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import ROUND_CEILING, Decimal
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.errors import ConfigError, UnknownName
from core.model import MICROS_PER_UNIT

NEVER_MS, SECONDS_PER_HOUR = 2**62, 3_600


class Section(BaseModel):
    """A table that takes no key beside those declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Service(Section):
    """A server that speaks Ollama's protocol or OpenAI's.

    ``credential`` names the secret with its key. ``obey`` of Retry-After and both limits hold for
    all callers together. ``output_key`` is how the server calls the most tokens to write.
    ``extra_body`` is sent along, as routers of models want it.
    """

    protocol: Literal["ollama", "openai"]
    url: str
    credential: str = ""
    paid: bool = True
    concurrency_max: int = Field(4, ge=1)
    requests_per_minute: float = Field(60.0, gt=0)
    connect_timeout_s: float = Field(5.0, gt=0)
    attempts_max: int = Field(3, ge=1)
    wait_first_s: float = Field(0.5, ge=0)
    output_key: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    extra_body: dict[str, Any] = {}


class Parameters(Section):
    """How a model is to answer; what is not given is left to the service."""

    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    num_ctx: int | None = Field(None, ge=1)
    reasoning_effort: str | None = None

    def given(self, sample: int) -> dict[str, Any]:
        """Those that are set; each sample has a seed of its own."""
        values = self.model_dump(exclude_none=True)
        return values | {"seed": self.seed + sample} if self.seed is not None else values


class Price(Section):
    """Dollars for a million tokens, which is micros for one. No discount is counted on."""

    input_usd_per_million: Decimal = Field(ge=0)
    output_usd_per_million: Decimal = Field(ge=0)

    def cost_micros(self, tokens_in: int, tokens_out: int) -> int:
        """What so many tokens cost, rounded up."""
        exact = tokens_in * self.input_usd_per_million + tokens_out * self.output_usd_per_million
        return int(exact.to_integral_value(ROUND_CEILING))


class Rent(Section):
    """What a sandbox of a service costs while it lives: dollars an hour for each unit of its size,
    as the service asked for on the day ``asked_on``. Each second begun is counted."""

    asked_on: date
    vcpu_usd_per_hour: Decimal = Field(ge=0)
    memory_usd_per_gib_hour: Decimal = Field(ge=0)
    disk_usd_per_gib_hour: Decimal = Field(ge=0)
    vcpus: int = Field(1, ge=1)
    memory_gib: int = Field(1, ge=1)
    disk_gib: int = Field(3, ge=0)

    @property
    def size(self) -> tuple[int, int, int]:
        """Of what the price is: cores, and GiB of memory and disk."""
        return self.vcpus, self.memory_gib, self.disk_gib

    def cost_micros(self, seconds: float) -> int:
        """What so long a life costs, rounded up."""
        prices = (self.vcpu_usd_per_hour, self.memory_usd_per_gib_hour, self.disk_usd_per_gib_hour)
        usd_per_hour = sum(map(operator.mul, prices, self.size), Decimal(0))
        exact = math.ceil(seconds) * usd_per_hour * MICROS_PER_UNIT / SECONDS_PER_HOUR
        return int(exact.to_integral_value(ROUND_CEILING))


class Model(Section):
    """One model of one service. ``id`` is the service's name for it, ``cutoff`` the last day it may
    have read of, ``timeout_s`` the time for one question with all waiting and retries.

    ``output_tokens_max`` is the most it may write, what it thinks included; a prompt that asks for
    more than this says so itself.
    """

    service: str
    id: str
    cutoff: date | None = None
    price: Price | None = None
    output_tokens_max: int = Field(800, ge=1)
    timeout_s: float = Field(30.0, gt=0)
    parameters: Parameters = Parameters()

    @cached_property
    def clean_from_ms(self) -> int:
        """The first moment (unix ms) after the cutoff; never, where none is declared."""
        if self.cutoff is None:
            return NEVER_MS
        return (self.cutoff - date(1970, 1, 1) + timedelta(days=1)) // timedelta(milliseconds=1)


class Registry(Section):
    """All services and models by name, and the sandboxes that are paid for."""

    services: Mapping[str, Service] = {}
    models: Mapping[str, Model] = {}
    sandboxes: Mapping[Literal["daytona"], Rent] = {}

    @model_validator(mode="after")
    def _served(self) -> "Registry":
        for name, model in self.models.items():
            if model.service not in self.services:
                raise ValueError(f"models.{name}: no service is called '{model.service}'")
            protocol, given = self.services[model.service].protocol, model.parameters.given(0)
            foreign = "reasoning_effort" if protocol == "ollama" else "num_ctx"
            if foreign in given:
                raise ValueError(f"models.{name}: {foreign} is no parameter of {protocol}")
        return self

    @classmethod
    def parse(cls, tables: Mapping[str, Any], where: str = "models") -> "Registry":
        """From the tables of a TOML file; ConfigError names the key."""
        try:
            return cls.model_validate(tables)
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            at = ".".join(str(part) for part in found["loc"])
            raise ConfigError(f"{where}: {at + ': ' if at else ''}{found['msg']}") from None

    def model(self, name: str) -> Model:
        """A model by name; UnknownName suggests the nearest."""
        if name not in self.models:
            raise UnknownName("model", name, self.models)
        return self.models[name]

    def clean_from_ms(self, name: str) -> int:
        """The first moment (unix ms) the model cannot have read of; never, without a cutoff."""
        return self.model(name).clean_from_ms

    def contaminated(self, name: str, ts: int) -> bool:
        """Whether the model may have read of what happened at ``ts`` (unix ms, UTC)."""
        return ts < self.clean_from_ms(name)
