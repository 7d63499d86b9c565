"""The trial ledger in the journal's database: backtest keeps the chain, the journal its commits."""

from functools import partial

from sqlalchemy import Engine

from backtest.validation.ledger import Ledger
from daemon.journal.database import transaction


def trial_ledger(engine: Engine) -> Ledger:
    """The ledger of a journal that is open."""
    return Ledger(partial(transaction, engine, writes=True))
