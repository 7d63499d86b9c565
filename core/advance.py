"""Folding blocks: every event goes through the step, and bars that move nothing go through quickly.

Most bars of most accounts move nothing: no order works, no guard is touched, the strategy repeats
itself. ``coast`` folds a run of them with the account's figures in registers, and hands over to the
step at whatever is not plainly such a bar. Live, replay and sweeps all fold through it.
"""

from typing import Any

from core.compiled import bits, call_decide, compiled, floats, inlined
from core.desk import unwinds
from core.ledger import equity_micros, gain, micros
from core.model import EVENT, MARKET, TRACK, Kind
from core.outcomes import ROWS_PER_EVENT_MAX
from core.state import (
    POSITION_SIZE,
    account_of,
    book_of,
    event_of,
    instrument_of,
    node_of,
    position_of,
    state_from,
    track_of,
)
from core.step import (
    answer,
    hold,
    observe,
    respond,
    show,
    stir,
    valid,
    watch_equity,
    within,
    word_of,
)
from core.tally import measure_equity, measure_time, tally_from

EVENT_SIZE, MARKET_SIZE, TRACK_SIZE = EVENT.itemsize, MARKET.itemsize, TRACK.itemsize


@inlined
def _coasts(state: Any, instrument: Any) -> bool:
    """Whether bars of this instrument may move nothing: one book, and nothing of it under way."""
    b = instrument.books_at
    if instrument.books_end - b != 1 or not instrument.open or account_of(state).working != 0:
        return False
    if state.correlation_bars > 0 or unwinds(state, b):
        return False
    book, position = book_of(state, b), position_of(state, b)
    heeds = book.consent and (position.asked != 0 or position.agreed != 0.0)
    busy = book.plain or heeds or instrument.external or state.tell_all
    return not busy and position.spent == 0.0


@inlined
def _calm_until(state: Any, b: int) -> int:
    """The last moment before a day begins, or the schedule of book ``b`` wants to be looked at."""
    book, position, until = book_of(state, b), position_of(state, b), account_of(state).day_end_ts
    if book.consult_ms > 0:
        until = min(until, position.consulted_ts + book.consult_ms - 1)
        if position.consulted != 0:
            until = min(until, position.consulted_ts + book.answer_ms_max)
    return int(until)


@inlined
def _quiet(event: Any, i: int, until: int, position: Any) -> bool:
    """Whether an event is a bar of instrument ``i``, known by ``until``, that no guard minds."""
    if event.kind != Kind.BAR or event.instrument != i or event.ts_known > until:
        return False
    safe = within(event.high, event.low, position.guard_low, position.guard_high)
    return position.quantity == 0.0 or safe


@inlined
def _put_back(
    state: Any,
    b: int,
    event: Any,
    values: int,
    seq: int,
    decisions: int,
    unrealised: int,
    notional: int,
    digest: Any,
) -> None:
    """Write to the records what ``coast`` held in registers after ``event``."""
    account, position = account_of(state), position_of(state, b)
    account.now = event.ts_known
    account.seq = seq
    account.decisions = decisions
    account.unrealised_micros += unrealised - position.unrealised_micros
    account.notional_micros += notional - position.notional_micros
    position.unrealised_micros = unrealised
    position.notional_micros = notional
    position.digest = digest
    instrument = instrument_of(state, event.instrument)
    instrument.bar_ts = event.ts_known
    instrument.price = event.close
    instrument.regime = floats(values)[node_of(state, instrument.nodes_at).answer]
    state.values = values


@inlined
def _shown(state: Any, book: Any, b: int) -> tuple[int, int, int]:
    """Addresses of what a strategy is shown: its features, its position, its parameters."""
    features_at = state.features + 8 * book.features_at
    return features_at, state.positions + b * POSITION_SIZE, state.params + 8 * book.params_at


@inlined
def _carry(position: Any, event: Any, quantity: float, cost: int) -> tuple[int, int]:
    """Hold a book through a bar; answers what it is worth above its cost, and its notional."""
    hold(position, event.high, event.low)
    position.gain = gain(event.close, position.entry, position.per_entry)
    value = micros(quantity * event.close)
    return value - cost, abs(value)


@inlined
def _leave_track(track: int, at: int, equity: int, notional: int, regime: float) -> None:
    row = track_of(track, at)
    row.equity_micros = equity
    row.notional_micros = notional
    row.regime = int(regime)


@inlined
def coast(  # noqa: PLR0912, PLR0915 - what it holds in registers cannot be handed around
    state: Any, block: int, count: int, tiled: bool, keep: int
) -> int:
    """Fold bars of one instrument for as long as they move nothing; answers how many.

    The last one may have moved something: it has then gone through the step's own functions.
    ``tiled`` (a constant): the events were observed before, ``state`` points at the first, and the
    TALLY at ``keep`` is updated; else each is observed here and fills a row of the track there.
    """
    event = event_of(block, 0)
    instrument, account = instrument_of(state, event.instrument), account_of(state)
    if event.kind != Kind.BAR or not _coasts(state, instrument):
        return 0
    i, b = event.instrument, instrument.books_at
    book, position, tally = book_of(state, b), position_of(state, b), tally_from(keep)
    inputs_at, inputs_n = state.inputs + 8 * book.inputs_at, book.inputs_end - book.inputs_at
    features_at, position_at, params_at = _shown(state, book, b)
    regime_at = node_of(state, instrument.nodes_at).answer
    decide, first, markets, until = book.decide, state.values, state.markets, _calm_until(state, b)
    quantity, cost, digest = position.quantity, position.cost_micros, position.digest
    settled = position.decided == position.target and position.wanted == quantity
    unrealised, notional = position.unrealised_micros, position.notional_micros
    base, others = equity_micros(account) - unrealised, account.notional_micros - notional
    alarm, peak, values, folded = account.alarm_micros, account.peak_micros, first, 0
    now, seq, told, going, word = account.now, account.seq, account.decisions, True, bits(0.0)
    target, confidence, reason, last, same = 0.0, 0.0, 0, (bits(0.0), bits(0.0), 0), False
    while folded < count:
        event = event_of(block, folded)
        if not _quiet(event, i, until, position):
            break
        if tiled:
            values = first + 8 * folded
            measure_time(tally, others + notional, event.ts_known - now)
        else:
            observe(state, event)
        folded, now = folded + 1, event.ts_known
        if quantity != 0.0:
            unrealised, notional = _carry(position, event, quantity, cost)
        equity = base + unrealised
        if not alarm < equity <= peak:
            _put_back(state, b, event, values, seq + folded, told, unrealised, notional, digest)
            watch_equity(state)
            alarm, peak = account.alarm_micros, account.peak_micros
            calm = account.working == 0 and not unwinds(state, b)
            settled, same, count = settled and calm, same and calm, count if calm else folded
        if tiled:
            measure_equity(tally, equity)
        else:
            _leave_track(keep, folded - 1, equity, others + notional, floats(values)[regime_at])
        if not show(values, inputs_at, inputs_n, features_at):
            continue
        target, confidence, reason = call_decide(decide, features_at, position_at, params_at)
        said = bits(target), bits(confidence), reason
        if not same or said != last:
            same, last = settled and target == position.decided and reason == position.reason, said
            word = word_of(target, confidence, reason)
            if not same or not valid(target, confidence):
                going = False
                break
            position.refused = 0
        told += 1
        digest = stir(digest, word)
    if folded > 0:
        event = event_of(block, folded - 1)
        _put_back(state, b, event, values, seq + folded, told, unrealised, notional, digest)
    if not going:
        if tiled:
            state.markets = markets + MARKET_SIZE * (folded - 1)
        answer(state, b, target, confidence, reason)
    return folded


@compiled
def advance(state_at: int, block: int, length: int, at: int, track: int, room: int) -> int:
    """Fold events ``at`` to ``length`` of the block at an address; answers where it stopped.

    Outcomes stand in ``state.outcomes``, ``state.written`` of them. It stops early when fewer than
    a full event's rows of ``room`` are left, when a strategy failed, and after an event that raised
    a question, whose answer may come before the next; ``state.asked`` is how many it raised. Orders
    for an outside venue do not stop it: they go out together, once the journal holds the block.
    Every event folded has its row at ``track``.
    """
    state = state_from(state_at)
    state.written = 0
    account = account_of(state)
    questions, first = account.questions, at
    room -= ROWS_PER_EVENT_MAX * (state.books_n + 1)
    while (
        at < length
        and state.written <= room
        and account.failed == 0
        and account.questions == questions
    ):
        row_at = track + TRACK_SIZE * (at - first)
        folded = coast(state, block + EVENT_SIZE * at, length - at, False, row_at)
        at += folded
        if folded > 0:
            continue
        event = event_of(block, at)
        observe(state, event)
        respond(state, event)
        instrument = instrument_of(state, event.instrument)
        gross, regime = account.notional_micros, instrument.regime
        _leave_track(track, at - first, equity_micros(account), gross, regime)
        at += 1
    state.asked = account.questions - questions
    return at
