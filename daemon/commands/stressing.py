"""Stressing a kept run, here or by workers: each world and each part of its luck is a share of its
own, decided by what it is alone, so both ways give the same."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from backtest.recorded import Find
from backtest.run import Run
from backtest.shards import Shard
from backtest.stress import (
    AS_IT_WAS,
    Draws,
    Luck,
    World,
    drawn,
    in_world,
    lot_of,
    luck_of,
    world_names,
    world_of,
)
from core.compiled import source_digest
from core.errors import DataError, LockstepError
from daemon.commands.audit import finder
from daemon.commands.choices import Choices, read_settings
from daemon.commands.kept import open_run
from daemon.commands.offering import Board, Unfit, packed, shard_of, typed, unpacked, untyped
from daemon.commands.setups import runs_folder
from daemon.commands.shelf import open_shelf

PATHS_PER_SHARD = 500


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """A kept run, and where the strategies that it names are found."""

    choices: Choices
    journal: str
    run: Run
    find: Find
    plugins: Sequence[str | None]

    @cached_property
    def key(self) -> str:
        """Hash of all that decides what becomes of it elsewhere."""
        told = [source_digest(), *self.plugins, self.run.decisions_hash, self.run.setup]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        digest.update(self.run.block.tobytes())
        return digest.hexdigest()

    @property
    def worlds(self) -> list[str]:
        """What it is replayed in, as it was first."""
        return [AS_IT_WAS, *world_names(self.run.block)]

    def world(self, name: str, seed: int) -> World:
        """What becomes of it in a world."""
        return world_of(in_world(name, self.run.setup, self.run.block, self.find, seed=seed))


def open_kept(choices: Choices, name: str) -> Kept:
    """A run of the folder of runs, by its name."""
    resolved = read_settings(choices)
    run, plugins = open_run(runs_folder(resolved), name), open_shelf(resolved).plugins
    return Kept(
        choices=choices,
        journal=resolved.settings.paths.journal,
        run=run,
        find=finder(resolved),
        plugins=[plugins.digest(book.strategy) for book in run.books],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wished:
    """How much luck is drawn, from which seed, and what is called ruin."""

    paths: int
    seed: int
    ruin_at: float


def stress_here(
    kept: Kept, wished: Wished, progress: Callable[[int], None]
) -> tuple[dict[str, World], Luck]:
    """The worlds of a run, as it was first, and its luck."""
    lot, worlds = lot_of(kept.run), {}
    for name in kept.worlds:
        worlds[name] = kept.world(name, wished.seed)
        _refuse_other(kept, worlds)
        progress(len(kept.run.block))
    draws = [drawn(lot, seed=wished.seed, paths=range(wished.paths))]
    return worlds, luck_of(lot, draws, ruin_at=wished.ruin_at)


def stress_there(
    kept: Kept, wished: Wished, board: Board, progress: Callable[[int], None]
) -> tuple[dict[str, World], Luck]:
    """The same, done by workers."""
    lot, names = lot_of(kept.run), kept.worlds
    told = {
        "choices": typed(kept.choices),
        "run": kept.run.run_id,
        "key": kept.key,
        "seed": wished.seed,
    }
    shares = [
        {"first": first, "count": min(PATHS_PER_SHARD, wished.paths - first), "block": lot.block}
        for first in range(0, wished.paths, PATHS_PER_SHARD)
    ]
    study = f"stress-{kept.run.run_id}"
    shards = [
        *(shard_of(study, k, "world", {**told, "world": name}) for k, name in enumerate(names)),
        *(shard_of(study, k, "luck", {**told, **s}) for k, s in enumerate(shares, len(names))),
    ]
    results, worlds = board.results(board.offer(shards)), {}
    for name, result in zip(names, results, strict=False):
        worlds[name] = World(**{**result, "growth": tuple(result["growth"])})
        _refuse_other(kept, worlds)
        progress(len(kept.run.block))
    return worlds, luck_of(lot, map(_unpacked, results), ruin_at=wished.ruin_at)


def _refuse_other(kept: Kept, worlds: dict[str, World]) -> None:
    if worlds[AS_IT_WAS].decisions_hash != kept.run.decisions_hash:
        raise DataError(
            f"run {kept.run.run_id} is not what this code makes of its events: replay it again"
        )


def work(shard: Shard) -> dict[str, Any]:
    """The result of a shard. Unfit when it would be another."""
    payload = shard.payload
    kept = _kept(json.dumps(payload["choices"]), payload["run"])
    if kept.key != payload["key"]:
        raise Unfit(f"shard of {shard.study}: this worker has other code, settings or data")
    if shard.kind == "world":
        return asdict(kept.world(payload["world"], payload["seed"]))
    paths = range(payload["first"], payload["first"] + payload["count"])
    # the length of a block is a sum over days, which two machines may round differently
    lot = replace(lot_of(kept.run), block=payload["block"])
    growth, falls = drawn(lot, seed=payload["seed"], paths=paths)
    return {"paths": len(paths), "growth": packed(growth), "falls": packed(falls)}


@lru_cache(maxsize=1)
def _kept(choices: str, run: str) -> Kept:
    """The run, read here; a worker that cannot is unfit, whatever the reason."""
    try:
        return open_kept(untyped(json.loads(choices)), run)
    except LockstepError as error:
        raise Unfit(f"this worker cannot read the run that is stressed: {error}") from error


def _unpacked(result: Any) -> Draws:
    growth = unpacked(result["growth"], "<f8").reshape(result["paths"], -1)
    return growth, unpacked(result["falls"], "<f8")
