"""``lockstep cassette``: recorded calls of language models, listed, checked, pruned, exported."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.commands.options import Json

if TYPE_CHECKING:
    from forecasting.cassette import Kept
    from forecasting.errors import CassetteDamaged

LS_EPILOG = "Example: lockstep cassette ls ./cassette --failures"
VERIFY_EPILOG = "Example: lockstep cassette verify ./cassette"
PRUNE_EPILOG = "Example: lockstep cassette prune ./cassette --failures --dry-run"
EXPORT_EPILOG = "Example: lockstep cassette export ./cassette calls.jsonl"
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the cassette.")]
Failures = Annotated[bool, typer.Option("--failures", help="Only calls that brought no answer.")]
ModelId = Annotated[str, typer.Option("--model", metavar="ID", help="Only calls of this model.")]


def ls(folder: Folder, failures: Failures = False, model: ModelId = "", json: Json = False) -> None:
    """List the calls a cassette holds.

    Who was asked, how it ended, how long it took and what it cost.
    """
    from daemon.console import write, write_json, write_table

    sound, damaged = _split(folder)
    rows = [_row(kept) for kept in sound if _wanted(kept, failures=failures, model=model)]
    if json:
        write_json(rows)
    elif rows:
        names = ("key", "model", "prompt", "outcome", "ms", "tokens", "micros")
        write_table(names, [[row[name] for name in names] for row in rows], wraps=names[1:4])
    else:
        write("no such call is held")
    _note_damage(damaged)


def verify(folder: Folder, json: Json = False) -> None:
    """Check every entry against its hash and its key.

    Exit code 3 if one is damaged.
    """
    from core.errors import DataError
    from daemon.console import write, write_json
    from forecasting.cassette import is_its_own, seal_of
    from forecasting.errors import CassetteDamaged

    sound, damaged = _split(folder)
    strange = [kept for kept in sound if not is_its_own(kept.entry)]
    damaged += [CassetteDamaged(kept.path, "holds another call than its key") for kept in strange]
    if damaged:
        held = len(sound) + len(damaged) - len(strange)
        raise DataError(f"{len(damaged)} of {held} damaged: {damaged[0]}")
    facts = {"entries": len(sound), "seal": seal_of(sound)}
    if json:
        write_json(facts)
    else:
        write(f"{len(sound):,} entries are sound; seal {facts['seal']}")


def prune(
    folder: Folder,
    failures: Failures = False,
    model: ModelId = "",
    damaged: Annotated[bool, typer.Option("--damaged", help="Damaged entries too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing.")] = False,
    json: Json = False,
) -> None:
    """Delete calls, so that they are asked anew.

    What rests on them replays no more.
    """
    from core.errors import ConfigError
    from daemon.console import write, write_json

    if not (failures or model or damaged):
        raise ConfigError("name what to prune: --failures, --model ID or --damaged")
    sound, broken = _split(folder)
    paths = [error.path for error in broken if damaged]
    if failures or model:
        paths += [kept.path for kept in sound if _wanted(kept, failures=failures, model=model)]
    if not dry_run:
        for path in paths:
            path.unlink()
    if json:
        write_json({"pruned": [path.stem for path in paths], "dry_run": dry_run})
    else:
        write(f"{len(paths):,} entries {'would be' if dry_run else 'are'} deleted")


def export(
    folder: Folder,
    target: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="One call a line.")],
    json: Json = False,
) -> None:
    """Write all calls to one file.

    With the whole prompts, the raw replies and their hashes.
    """
    from core.errors import ConfigError
    from daemon.console import write, write_json
    from forecasting.text import canonical

    if target.exists():
        raise ConfigError(f"{target}: is there already: name another file")
    sound, damaged = _split(folder)
    if damaged:
        raise damaged[0]
    with target.open("w", encoding="utf-8") as file:
        for kept in sound:
            entry = kept.entry.model_dump(mode="json")
            file.write(canonical({"digest": kept.digest, "entry": entry}) + "\n")
    if json:
        write_json({"path": str(target), "entries": len(sound)})
    else:
        write(f"{target}: {len(sound):,} calls")


def _split(folder: Path) -> tuple[list["Kept"], list["CassetteDamaged"]]:
    """The sound entries of a folder, and what is wrong with the others."""
    from core.errors import DataError
    from forecasting.cassette import scan
    from forecasting.errors import CassetteDamaged

    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder")
    sound: list[Kept] = []
    damaged: list[CassetteDamaged] = []
    for found in scan(folder):
        if isinstance(found, CassetteDamaged):
            damaged.append(found)
        else:
            sound.append(found)
    return sound, damaged


def _wanted(kept: "Kept", *, failures: bool, model: str) -> bool:
    entry = kept.entry
    return not (failures and entry.answer is not None) and model in ("", entry.head["model"])


def _row(kept: "Kept") -> dict[str, Any]:
    entry = kept.entry
    return {
        "key": entry.key[:12],
        "model": entry.head["model"],
        "prompt": entry.prompt,
        "prompt_hash": entry.prompt_hash,
        "outcome": entry.outcome.value,
        "reason": entry.reason,
        "ms": entry.latency_ms,
        "tokens": entry.tokens_in + entry.tokens_out,
        "micros": entry.cost_micros,
        "attempts": entry.attempts,
    }


def _note_damage(damaged: list["CassetteDamaged"]) -> None:
    from daemon.console import write

    for error in damaged:
        write(str(error), to_error=True)
