"""The registry: what is declared holds, what is not declared counts against the model."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from advised import registry_of
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError, UnknownName
from forecasting.registry import Price, Registry, Rent

SHIPPED = Path(__file__).resolve().parents[2] / "forecasting" / "models.toml"


def ms(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp()) * 1_000  # type: ignore[arg-type]


def test_the_shipped_registry_is_sound() -> None:
    registry = Registry.parse(tomllib.loads(SHIPPED.read_text()), str(SHIPPED))
    for name, model in registry.models.items():
        service = registry.services[model.service]
        assert model.price or not service.paid, name
        assert service.credential or not service.paid, name


def test_bars_up_to_the_cutoffs_last_moment_are_contaminated() -> None:
    registry = registry_of()
    assert registry.contaminated("local", ms(2023, 6, 1))
    assert registry.contaminated("local", ms(2024, 1, 1) - 1)
    assert not registry.contaminated("local", ms(2024, 1, 1))
    assert registry.contaminated("paid", ms(2030, 1, 1))


def test_a_price_is_exact_and_rounded_up() -> None:
    price = Price.model_validate({"input_usd_per_million": 0.15, "output_usd_per_million": "0.60"})
    assert price.cost_micros(1_000_000, 0) == 150_000
    assert price.cost_micros(1, 0) == 1
    assert price.cost_micros(0, 5) == 3
    assert price.cost_micros(0, 0) == 0


def test_a_rent_counts_every_unit_and_each_second_begun() -> None:
    rent = Rent.model_validate(
        {
            "asked_on": "2026-11-21",
            "vcpu_usd_per_hour": "0.05",
            "memory_usd_per_gib_hour": "0.02",
            "disk_usd_per_gib_hour": "0.0001",
            "vcpus": 2,
            "memory_gib": 4,
            "disk_gib": 10,
        }
    )
    assert rent.size == (2, 4, 10)
    assert rent.cost_micros(3_600) == 2 * 50_000 + 4 * 20_000 + 10 * 100
    assert rent.cost_micros(0) == 0
    assert rent.cost_micros(0.1) == rent.cost_micros(1) == 51


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({"daytona": {"vcpu_usd_per_hour": 1}}, "sandboxes.daytona.asked_on: Field required"),
        ({"landlock": {}}, "sandboxes"),
    ],
)
def test_a_rent_without_its_day_or_of_what_is_free_is_refused(
    tables: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        Registry.parse({"sandboxes": tables})


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_a_price_never_rounds_down(tokens_in: int, tokens_out: int) -> None:
    price = Price.model_validate(
        {"input_usd_per_million": "0.07", "output_usd_per_million": "0.333"}
    )
    cost = price.cost_micros(tokens_in, tokens_out)
    assert 0 <= cost * 1_000 - (70 * tokens_in + 333 * tokens_out) < 1_000


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"service": "olama"}, "no service is called 'olama'"),
        ({"cutof": "2024-01-01"}, "models.local.cutof: Extra inputs"),
        ({"timeout_s": 0}, "models.local.timeout_s"),
        ({"parameters": {"temperature": float("nan")}}, "models.local.parameters.temperature"),
        ({"parameters": {"model": "other"}}, "models.local.parameters.model: Extra inputs"),
        ({"parameters": {"reasoning_effort": "low"}}, "reasoning_effort is no parameter of ollama"),
        ({"service": "openai"}, "num_ctx is no parameter of openai"),
        ({"price": {"input_usd_per_million": -1, "output_usd_per_million": 1}}, "greater than"),
    ],
)
def test_a_wrong_table_is_refused_by_its_key(change: dict[str, Any], told: str) -> None:
    tables = registry_of().model_dump(mode="json")
    tables["models"]["local"] |= change
    with pytest.raises(ConfigError, match=told):
        Registry.parse(tables)


def test_an_unknown_model_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'local'"):
        registry_of().model("locl")
