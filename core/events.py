"""Making EVENT records: whole columns of one kind, or one event at a time."""

from struct import Struct

import numpy as np
from numpy.typing import ArrayLike

from core.model import EVENT, HEADER_BYTES, PAYLOAD, Command, Kind, Records

_PAYLOAD_WORDS = (EVENT.itemsize - HEADER_BYTES) // 8
_PACKED = Struct(f"qqii{_PAYLOAD_WORDS}d")


def make_events(
    kind: Kind, ts_known: ArrayLike, ts_event: ArrayLike | None = None, **payload: ArrayLike
) -> Records:
    """Events of one kind from columns of equal length; payload fields not given are NaN."""
    known = np.asarray(ts_known, np.int64)
    events = np.zeros(len(known), EVENT)
    events["ts_known"] = known
    events["ts_event"] = known if ts_event is None else ts_event
    events["kind"] = kind
    for name in PAYLOAD[kind]:
        events[name] = payload.pop(name, np.nan)
    assert not payload, f"{kind.name} has no {sorted(payload)}"
    return events


def make_event(kind: Kind, instrument: int, ts: int, *payload: float) -> Records:
    """One event, known when it happened: all fields of its kind in their order. Much faster than
    columns of one."""
    rest = (0.0,) * (_PAYLOAD_WORDS - len(payload))
    return np.frombuffer(bytearray(_PACKED.pack(ts, ts, kind, instrument, *payload, *rest)), EVENT)


def link_event(instrument: int, up: bool, ts: int) -> Records:
    """The feed of an instrument went up or down."""
    return make_event(Kind.LINK, instrument, ts, up)


def command_event(word: Command, ts: int, book: int = 0, instrument: int = 0) -> Records:
    """An operator's word; ``book`` is that of CLOSE, ``instrument`` the one it trades."""
    return make_event(Kind.COMMAND, instrument, ts, word, book)


def fill_event(
    order: int,
    instrument: int,
    *,
    quantity: float,
    price: float,
    fee: float,
    final: bool,
    ts: int,
    code: int = 0,
) -> Records:
    """An outside venue filled (a part of) an order at ``ts``; ``final``: nothing more will come of
    it, whatever is left, and ``code`` is why. ``fee`` in quote."""
    return make_event(Kind.FILL, instrument, ts, order, quantity, price, fee, final, code)
