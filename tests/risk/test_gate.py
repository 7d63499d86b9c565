"""Every rule of the gate, shown blocking and letting pass, alone and in a whole run."""

from typing import Any

import numpy as np
import pytest
from worlds import MINUTE, SCRIPT, START, one_book, play, scripted

from core.events import make_events
from core.model import DESK, INSTRUMENT, INTENT, Command, InstrumentKind, Kind, Mode, Result
from risk.gate import Rule, review
from risk.limits import LIMITS, Limits, Sizing, SizingRule, limits_records

NAN, INF = float("nan"), float("inf")

INTENT_OK = {"quantity": 2.0, "price": 100.0, "limit": 101.0, "target": 1.0}
DESK_OK = {
    "instrument_open": 1,
    "linked": 1,
    "equity": 10_000.0,
    "order_notional": 200.0,
    "order_risk": 200.0,
    "instrument_notional": 200.0,
    "strategy_notional": 200.0,
    "gross_notional": 200.0,
    "cluster_risk": 200.0,
    "correlated_notional": 200.0,
    "margin": 200.0,
    "data_age_ms": 0.0,
    "quote_age_ms": 500.0,
    "oracle": 100.0,
    "bar_volume": 1_000.0,
    "since_exit_ms": 60_000.0,
    "since_repeat_ms": NAN,
}
TERMS_OK = {"tick": 0.5, "lot": 0.5, "notional_min": 10.0}

# rule: what makes it refuse, and the nearest thing it lets pass
CASES: dict[Rule, tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]] = {
    Rule.PRICE_UNKNOWN: ({"intent": {"price": NAN}}, {"intent": {"price": 99.9}}),
    Rule.NOT_A_NUMBER: ({"intent": {"quantity": INF}}, {"intent": {"quantity": 1e9}}),
    Rule.MARKET_CLOSED: ({"desk": {"instrument_open": 0}}, {"desk": {"instrument_open": 1}}),
    Rule.NOT_REDUCING: (
        {"intent": {"reduce_only": 1, "quantity": -3.0}, "desk": {"position": 2.0}},
        {"intent": {"reduce_only": 1, "quantity": -2.0}, "desk": {"position": 2.0}},
    ),
    Rule.HALTED: (
        {"desk": {"mode": Mode.HALTED}},
        {
            "desk": {"mode": Mode.HALTED, "position": 2.0},
            "intent": {"reduce_only": 1, "quantity": -2.0},
        },
    ),
    Rule.REDUCE_ONLY: (
        {"desk": {"mode": Mode.REDUCING}},
        {
            "desk": {"mode": Mode.REDUCING, "position": 2.0},
            "intent": {"reduce_only": 1, "quantity": -2.0},
        },
    ),
    Rule.LINK_DOWN: (
        {"desk": {"linked": 0}},
        {"desk": {"linked": 0, "position": 2.0}, "intent": {"reduce_only": 1, "quantity": -2.0}},
    ),
    Rule.SIZE_ZERO: ({"intent": {"quantity": 0.0}}, {"intent": {"quantity": 0.5}}),
    Rule.STALE_DATA: ({"desk": {"data_age_ms": 120_001.0}}, {"desk": {"data_age_ms": 120_000.0}}),
    Rule.STALE_QUOTE: (
        {"limits": {"quote_age_ms_max": 1_000.0}, "desk": {"quote_age_ms": NAN}},
        {"limits": {"quote_age_ms_max": 1_000.0}, "desk": {"quote_age_ms": 1_000.0}},
    ),
    Rule.TICK_OR_LOT: ({"intent": {"limit": 101.1}}, {"intent": {"limit": 100.5}}),
    Rule.PRICE_COLLAR: ({"desk": {"oracle": 90.0}}, {"desk": {"oracle": 96.0}}),
    Rule.ORDER_NOTIONAL: (
        {"limits": {"order_notional_max": 199.0}},
        {"limits": {"order_notional_max": 200.0}},
    ),
    Rule.ORDER_TOO_SMALL: ({"desk": {"order_notional": 9.0}}, {"desk": {"order_notional": 10.0}}),
    Rule.ORDER_RISK: ({"limits": {"order_risk_max": 199.0}}, {"limits": {"order_risk_max": 200.0}}),
    Rule.DUPLICATE: (
        {"limits": {"repeat_ms": 1_000.0}, "desk": {"since_repeat_ms": 999.0}},
        {"limits": {"repeat_ms": 1_000.0}, "desk": {"since_repeat_ms": 1_000.0}},
    ),
    Rule.ORDER_RATE: ({"desk": {"orders_minute": 60}}, {"desk": {"orders_minute": 59}}),
    Rule.PENDING_NOTIONAL: (
        {"limits": {"pending_notional_max": 50.0}, "desk": {"pending_notional": 51.0}},
        {"limits": {"pending_notional_max": 50.0}, "desk": {"pending_notional": 50.0}},
    ),
    Rule.INSTRUMENT_EXPOSURE: (
        {"limits": {"instrument_notional_max": 199.0}},
        {"limits": {"instrument_notional_max": 200.0}},
    ),
    Rule.STRATEGY_EXPOSURE: (
        {"limits": {"strategy_notional_max": 199.0}},
        {"limits": {"strategy_notional_max": 200.0}},
    ),
    Rule.CLUSTER_RISK: (
        {"limits": {"cluster_risk_max": 199.0}},
        {"limits": {"cluster_risk_max": 200.0}},
    ),
    Rule.CORRELATED_EXPOSURE: (
        {"limits": {"correlated_notional_max": 199.0}},
        {"limits": {"correlated_notional_max": 200.0}},
    ),
    Rule.GROSS_EXPOSURE: (
        {"limits": {"gross_notional_max": 199.0}},
        {"limits": {"gross_notional_max": 200.0}},
    ),
    Rule.LEVERAGE: (
        {"desk": {"gross_notional": 30_001.0}},
        {"desk": {"gross_notional": 30_000.0}},
    ),
    Rule.MARGIN: ({"desk": {"margin": 10_001.0}}, {"desk": {"margin": 10_000.0}}),
    Rule.DAILY_LOSS: ({"desk": {"day_return": -0.05}}, {"desk": {"day_return": -0.0499}}),
    Rule.DRAWDOWN: ({"desk": {"drawdown": 0.25}}, {"desk": {"drawdown": 0.2499}}),
    Rule.LOSING_STREAK: (
        {"limits": {"losses_in_row_max": 3.0}, "desk": {"losses_in_row": 3}},
        {"limits": {"losses_in_row_max": 3.0}, "desk": {"losses_in_row": 2}},
    ),
    Rule.COOLDOWN: (
        {"limits": {"cooldown_ms": 60_001.0}},
        {"limits": {"cooldown_ms": 60_000.0}},
    ),
    Rule.VOLUME_SHARE: (
        {"limits": {"volume_share_max": 0.0019}},
        {"limits": {"volume_share_max": 0.002}},
    ),
}


def ask(change: dict[str, dict[str, Any]]) -> Rule:
    """What the gate says to the sound intent with this change."""
    intent, desk, terms = (np.zeros(1, layout)[0] for layout in (INTENT, DESK, INSTRUMENT))
    limits = limits_records([Limits()])[0]
    records = {"intent": intent, "desk": desk, "terms": terms, "limits": limits}
    sound = {"intent": INTENT_OK, "desk": DESK_OK, "terms": TERMS_OK, "limits": {}}
    for part, record in records.items():
        for name, value in {**sound[part], **change.get(part, {})}.items():
            record[name] = value
    return Rule(review(intent, desk, limits, terms))


def test_a_sound_intent_is_approved() -> None:
    assert ask({}) == Rule.NONE


def test_every_rule_has_a_case() -> None:
    assert set(CASES) == set(Rule) - {Rule.NONE}


@pytest.mark.parametrize("rule", CASES, ids=lambda rule: rule.name)
def test_the_rule_refuses(rule: Rule) -> None:
    assert ask(CASES[rule][0]) == rule


@pytest.mark.parametrize("rule", CASES, ids=lambda rule: rule.name)
def test_the_rule_lets_the_next_best_pass(rule: Rule) -> None:
    assert ask(CASES[rule][1]) == Rule.NONE


@pytest.mark.parametrize(
    "name",
    ["equity", "order_notional", "gross_notional", "margin", "data_age_ms", "drawdown"],
)
def test_a_number_that_is_missing_never_passes(name: str) -> None:
    assert ask({"desk": {name: NAN}}) != Rule.NONE


@pytest.mark.parametrize("name", [n for n in LIMITS.names or () if n.endswith("notional_max")])
def test_a_notional_limit_fails_closed_on_a_missing_number(name: str) -> None:
    desk = {name.removesuffix("_max"): NAN}
    assert ask({"limits": {name: 1e9}, "desk": desk}) != Rule.NONE


def test_a_binary_may_cost_anything_from_nothing_to_one() -> None:
    binary = {"terms": {"kind": InstrumentKind.BINARY, "tick": 0.01}}
    base = {"limit": 0.5}
    passes = ask({**binary, "intent": {**base, "price": 0.0}, "desk": {"oracle": NAN}})
    assert passes == Rule.NONE
    assert ask({**binary, "intent": {**base, "price": 1.01}}) == Rule.PRICE_UNKNOWN


def refusals(limits: Limits, targets: list[float], closes: list[float], **more: Any) -> Any:
    sizing = Sizing(rule=SizingRule.QUANTITY, value=10.0)
    history = scripted(targets, closes, closes, **more)
    setup = one_book(SCRIPT, limits=limits, sizing=sizing, book={"offset": 9.0}, leverage=2.0)
    return play(history, setup)


def test_every_intent_leaves_a_risk_row_approved_or_refused() -> None:
    run = refusals(Limits(order_notional_max=999.0), [1, 1, 0], [100, 90, 90])
    assert run.refused == {"order_notional": 1}
    assert len(run.of(Result.APPROVED)) == 2


def test_an_intent_refused_again_for_the_same_reason_is_one_row() -> None:
    run = refusals(Limits(order_notional_max=999.0), [1, 1, 1, 0, 1, 1], [100.0] * 6)
    assert run.refused == {"order_notional": 2}


def test_a_daily_loss_leaves_only_reducing_until_the_next_utc_day() -> None:
    limits = Limits(daily_loss=0.05, daily_loss_soft=0.0, drawdown=0.0, drawdown_soft=0.0)
    minutes = 24 * 60
    closes = [100.0, 100.0, 40.0, 40.0] + [40.0] * minutes
    targets = [1.0, 1.0, 0.0, 1.0] + [1.0] * minutes
    run = refusals(limits, targets, closes)
    modes = run.of(Result.MODE)
    assert modes["reason"].tolist() == [Mode.REDUCING, Mode.ACTIVE]
    assert modes["ts"][1] == START + (minutes + 1) * MINUTE
    assert set(run.refused) == {"reduce_only"}
    assert [round(q) for q in run.of(Result.FILL)["quantity"]] == [10, -10, 10]


def test_a_drawdown_halts_until_an_operator_resumes() -> None:
    limits = Limits(daily_loss=0.0, daily_loss_soft=0.0, drawdown=0.05, drawdown_soft=0.0)
    resume = make_events(Kind.FUNDING, [START + 8 * MINUTE], rate=[0.0])
    resume["kind"], resume["open"] = Kind.COMMAND, Command.RESUME
    closes = [100.0, 100.0, 40.0] + [40.0] * 9
    run = refusals(limits, [1.0, 1.0, 0.0] + [1.0] * 9, closes, extra=[resume])
    assert run.of(Result.MODE)["reason"].tolist() == [Mode.HALTED, Mode.ACTIVE]
    assert [round(q) for q in run.of(Result.FILL)["quantity"]] == [10, -10, 10]
    assert run.refused == {"halted": 1}


def command(word: Command, minute: int, book: int = 0) -> Any:
    event = make_events(Kind.FUNDING, [START + minute * MINUTE], rate=[0.0])
    event["kind"], event["command"], event["book"] = Kind.COMMAND, word, book
    return event


def test_a_halt_cancels_working_orders_and_lets_exits_pass() -> None:
    halt = command(Command.HALT, 2)
    halt["ts_known"] += 1
    run = refusals(Limits(), [0, 1, 1, 0], [100.0] * 4, extra=[halt])
    assert len(run.of(Result.CANCELLED)) == 1
    assert run.refused == {"halted": 1}
    late = command(Command.HALT, 3)
    run = refusals(Limits(), [1, 1, 0, 0], [100.0] * 4, extra=[late])
    assert [round(q) for q in run.of(Result.FILL)["quantity"]] == [10, -10]


def test_a_close_command_flattens_a_book_until_its_strategy_changes_its_mind() -> None:
    close = command(Command.CLOSE, 3)
    run = refusals(Limits(), [1, 1, 1, 1, 0, 1, 1], [100.0] * 7, extra=[close])
    assert [round(q) for q in run.of(Result.FILL)["quantity"]] == [10, -10, 10]
    assert run.trades["exit"].tolist() == [6]


def test_a_close_command_also_stops_an_order_that_still_works() -> None:
    close = command(Command.CLOSE, 1)
    close["ts_known"] += 1
    run = refusals(Limits(), [1, 1, 1, 0, 1, 1], [100.0] * 6, extra=[close])
    assert len(run.of(Result.CANCELLED)) == 1
    assert [round(q) for q in run.of(Result.FILL)["quantity"]] == [10]
    assert run.of(Result.FILL)["ts"].tolist() == [START + 6 * MINUTE]


def test_exposure_counts_open_orders_and_other_books() -> None:
    from backtest.assemble import BookSetup, Setup
    from core.engine import Book
    from core.instrument import Instrument

    cap = Limits(gross_notional_max=1_500.0)
    sizing = Sizing(rule=SizingRule.QUANTITY, value=10.0)
    books = [
        BookSetup(
            book=Book(name=name, strategy=SCRIPT, instrument="X", offset=9.0),
            sizing=sizing,
            limits=cap,
        )
        for name in ("one", "two")
    ]
    setup = Setup(instruments=(Instrument(name="X"),), books=tuple(books), limits=cap)
    run = play(scripted([1, 1], [100.0] * 2, [100.0] * 2), setup)
    # both ask at one bar: the second sees the first one's open order as filled
    assert run.of(Result.APPROVED)["book"].tolist() == [0]
    assert set(run.refused) == {"gross_exposure"}
