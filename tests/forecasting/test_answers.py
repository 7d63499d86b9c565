"""A reply is an answer as a whole, or a reason why not."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.parsing import Malformed, parse
from forecasting.questions import SCHEMAS, Forecast, Opinion

GOOD: dict[str, Any] = {
    "side": "short",
    "confidence": 0.25,
    "rationale": "It rained.",
    "evidence": ["n1"],
    "probability": 0.9,
}
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)


def test_probability_and_confidence_are_different_numbers() -> None:
    answer = parse(json.dumps(GOOD), Forecast, {"n1"})
    assert (answer.probability, answer.confidence, answer.side) == (0.9, 0.25, "short")
    assert parse(f"\n {json.dumps(GOOD)}\n", Forecast, {"n1"}) == answer


@pytest.mark.parametrize("missing", GOOD)
def test_every_key_is_required(missing: str) -> None:
    with pytest.raises(Malformed, match=f"{missing}: Field required"):
        parse(json.dumps({k: v for k, v in GOOD.items() if k != missing}), Forecast, {"n1"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"probability": 1.0000001}, "probability: "),
        ({"probability": -0.1}, "probability: "),
        ({"probability": None}, "probability: "),
        ({"confidence": "0.5"}, "confidence: "),
        ({"confidence": True}, "confidence: "),
        ({"side": "buy"}, "side: "),
        ({"side": "Long"}, "side: "),
        ({"side": ["long"]}, "side: "),
        ({"rationale": "x" * 2_001}, "rationale: "),
        ({"evidence": "n1"}, "evidence: "),
        ({"evidence": [1]}, "evidence.0: "),
        ({"evidence": ["n1"] * 17}, "evidence: "),
        ({"evidence": ["n2", "n1"]}, "evidence that was not offered: 'n2'"),
        ({"quantity": 5}, "quantity: Extra inputs"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(change: dict[str, Any], told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse(json.dumps(GOOD | change), Forecast, {"n1"})


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("", "not JSON"),
        ("null", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("{}{}", "not JSON: Extra data"),
        ('{"confidence":-Infinity}', "-Infinity is not JSON"),
        ('{"side":"long","side":"long"}', "a key stands twice"),
        ('{"a":{"b":1,"b":2}}', "a key stands twice"),
        ("{'side':'long'}", "not JSON"),
        ("[" * 60_000, "not JSON"),
        ('{"confidence":' + "9" * 5_000 + "}", "not JSON"),
        (" " * 64_001, "longer than 64,000"),
        ('{"side":"\ud800"}', "unicode"),
        ('\ufeff{"side":"long"}', "not JSON"),
    ],
)
def test_what_is_not_one_json_object_is_refused(raw: str, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        parse(raw, Opinion, ())


@given(ANY | st.dictionaries(st.sampled_from(sorted(GOOD)), ANY))
def test_whatever_json_comes_is_in_bounds_or_malformed(value: Any) -> None:
    with suppress(Malformed):
        answer = parse(json.dumps(value), Forecast, {"n1"})
        assert 0 <= answer.probability <= 1
        assert 0 <= answer.confidence <= 1


@given(st.text())
def test_whatever_text_comes_ends_in_a_reason(text: str) -> None:
    with pytest.raises(Malformed):
        parse(text, Opinion, ())


@pytest.mark.parametrize("name", SCHEMAS)
def test_an_answer_survives_its_own_json(name: str) -> None:
    schema = SCHEMAS[name]
    given = {key: value for key, value in GOOD.items() if key in schema.model_fields}
    answer = parse(json.dumps(given), schema, {"n1"})
    assert schema.model_validate(answer.model_dump(mode="json"), strict=False) == answer
