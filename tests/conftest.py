"""What every test may use; that it stands here also puts ``tests/`` on the import path."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def market_data() -> Path:
    """Folder of real market data, or a skip where the machine has none."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LOCKSTEP_DATA", default))
    if not folder.is_dir():
        pytest.skip("real market data is not here: set LOCKSTEP_DATA to its folder")
    return folder
