"""Reading whatever ``--data`` names: a candle file with its sidecars, Drift's trade records, or a
folder of Kalshi's ladders, which holds many instruments."""

from pathlib import Path

from core.errors import DataError
from markets.history import History

_CANDLES = (".feather", ".parquet", ".pq", ".csv", ".csv.gz")
_TRADES_INTERVAL = "1m"


def read_histories(name: str, path: Path, interval: str | None = None) -> dict[str, History]:
    """The histories of one ``--data``, by instrument: one of that name, or a ladder's markets.

    The name of a ladder's data picks a series (such as KXHIGHNY); any other takes all of them.
    """
    from markets.kalshi.history import LADDER_FILE, read_ladder

    if not (path.expanduser() / LADDER_FILE).is_file():
        return {name: read_history(path, interval)}
    ladder = read_ladder(path.expanduser())
    chosen = {t: h for t, h in ladder.histories.items() if ladder.markets[t].series == name}
    if interval:
        raise DataError(f"{path}: a ladder has hourly bars; leave the interval out")
    return chosen or dict(ladder.histories)


def read_history(path: Path, interval: str | None = None) -> History:
    """The history in a file or folder, resampled to ``interval`` when it is given."""
    path = path.expanduser()
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if path.is_dir() or not path.name.lower().endswith(_CANDLES):
        from markets.drift.history import read_trades

        return read_trades(path, interval=interval or _TRADES_INTERVAL)
    from markets.sidecars import read_market

    return read_market(path, interval=interval)
