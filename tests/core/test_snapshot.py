"""A snapshot goes on exactly where the run it was taken from would have."""

import numpy as np
import pytest
from folding import fold_on
from shelf import SHELF, shelf_run, shelf_setup, shelf_world

from backtest.assemble import assemble
from core.model import OUTCOME, Records, joined
from core.snapshot import SnapshotError
from markets.history import merge


def fold(name: str, block: Records, snapshot: bytes | None = None) -> tuple[bytes, Records]:
    world = shelf_world(name, 1_500)
    engine = assemble(shelf_setup(name), {symbol: h.fields for symbol, h in world.items()})
    return fold_on(engine, block, snapshot)


@pytest.mark.parametrize("name", SHELF)
@pytest.mark.parametrize("share", [0.1, 0.63])
def test_a_restored_run_goes_on_to_the_same_end(name: str, share: float) -> None:
    block = merge(list(shelf_world(name, 1_500).values()))
    cut = int(len(block) * share)
    middle, first = fold(name, block[:cut])
    end, rest = fold(name, block[cut:], middle)
    whole, outcomes = fold(name, block)
    assert end == whole
    assert joined([first, rest], OUTCOME).tobytes() == outcomes.tobytes()
    assert outcomes.tobytes() == shelf_run(name, 1_500).outcomes.tobytes()


def test_a_snapshot_of_other_books_is_refused() -> None:
    worlds = {name: merge(list(shelf_world(name, 1_500).values())) for name in ("trend", "e3")}
    snapshot, _ = fold("trend", worlds["trend"][:10])
    with pytest.raises(SnapshotError, match="another set of books"):
        fold("e3", worlds["e3"][:10], snapshot)
    with pytest.raises(SnapshotError):
        fold("trend", worlds["trend"][:10], snapshot[:-1])
    assert np.frombuffer(snapshot, "u1").any()
