"""Orders on a venue that takes signed transactions: sent again and again, landed at most once.

A transaction's signature is its identity: the chain takes the same bytes once, however often they
are sent, and not at all past their last valid height. So an order is signed once, kept, sent until
the chain itself tells what became of it, and signed anew only when it provably never will land.
"""

from core.sending import (
    Attempt,
    Attempts,
    Chain,
    Ending,
    Endpoint,
    Fill,
    Level,
    Look,
    Order,
    Preflight,
    Seen,
    Signed,
    State,
    Tip,
    Unreachable,
    Unsignable,
)
from execution.sending.sender import Sender

__all__ = [
    "Attempt",
    "Attempts",
    "Chain",
    "Ending",
    "Endpoint",
    "Fill",
    "Level",
    "Look",
    "Order",
    "Preflight",
    "Seen",
    "Sender",
    "Signed",
    "State",
    "Tip",
    "Unreachable",
    "Unsignable",
]
