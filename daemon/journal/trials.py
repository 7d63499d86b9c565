"""The trial ledger and the table of shards in the journal's database: backtest keeps what they
mean, the journal its commits."""

from functools import partial

from sqlalchemy import Engine

from backtest.shards import Shards
from backtest.validation.ledger import Ledger
from daemon.journal.database import transaction


def trial_ledger(engine: Engine) -> Ledger:
    """The ledger of a journal that is open."""
    return Ledger(partial(transaction, engine, writes=True))


def shard_table(engine: Engine) -> Shards:
    """The shards of a journal that is open."""
    return Shards(partial(transaction, engine, writes=True))
