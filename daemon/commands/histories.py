"""Reading whatever ``--data`` names: a candle file with its sidecars, or Drift's trade records."""

from pathlib import Path

from core.errors import DataError
from markets.history import History

_CANDLES = (".feather", ".parquet", ".pq", ".csv", ".csv.gz")
_TRADES_INTERVAL = "1m"


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
