"""``lockstep``: the command line, and where an error becomes one line and an exit code."""

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from core.errors import LockstepError
from daemon.commands import (
    audit,
    cassette,
    catalogue,
    cross_validate,
    data,
    demo,
    doctor,
    fetch,
    journals,
    operate,
    portfolio,
    propose,
    replay,
    run,
    runs,
    settings,
    stress,
    sweep,
    validate,
    walk_forward,
    worker,
)

USAGE = 2
ALIASES = {"backtest": "replay", "pause": "reduce-only"}
HELP = "A trading daemon with one loop for live, paper and replay."
EPILOG = """\b
Begin with: lockstep demo

\b
Exit codes:
  0    done (diff: equal; doctor: healthy)
  1    failed (diff: not equal; doctor: something must be mended;
       validate: it does not pass)
  2    a setting, flag or key is wrong
  3    data cannot be used
  4    data lack what a strategy needs
  5    a strategy failed
  6    the journal refuses
  7    the journal cannot be reached now: try again
  130  interrupted

Errors are one line on stderr; --debug anywhere shows where they came from.
"""


class Commands(TyperGroup):
    """The root command: errors on one line, aliases, and ``--debug`` wherever it stands."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by its name or an alias."""
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def main(self, args: Sequence[str] | None = None, *_: Any, **extra: Any) -> NoReturn:
        """Run, and exit with the code the documentation promises."""
        given = list(sys.argv[1:] if args is None else args)
        words = [word for word in given if word != "--debug"] or ["--help"]
        sys.exit(self._run(words, debug=len(words) < len(given), **extra))

    def _run(self, words: list[str], *, debug: bool, **extra: Any) -> int:
        extra |= {"standalone_mode": False, "prog_name": "lockstep"}
        try:
            code = super().main(words, **extra)
        except LockstepError as error:
            return _tell(error, str(error), error.exit_code, debug=debug)
        except BaseExceptionGroup as group:
            ours, others = group.split(LockstepError)
            if ours is None or others is not None:
                raise
            first = _first(ours)
            return _tell(first, str(first), first.exit_code, debug=debug)
        except typer.TyperException as error:
            return _tell(error, _usage(error), USAGE, debug=debug)
        except OSError as error:
            text = f"{error.filename or 'the system'}: {error.strerror or error}"
            return _tell(error, text, LockstepError.exit_code, debug=debug)
        return code if isinstance(code, int) else 0


def _first(error: Any) -> Any:
    """The error for which a task group ended: groups stand in groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "lockstep"
    return f"{error.format_message()} (see: {path} --help)"


def _tell(error: Exception, text: str, code: int, *, debug: bool) -> int:
    from daemon.observe.redaction import SECRETS, names_a_secret

    settings = (name for name in os.environ if name.upper().startswith("LOCKSTEP__"))
    SECRETS.add(*(os.environ[name] for name in settings if names_a_secret(name)))
    if debug:
        import traceback

        typer.echo(SECRETS.hide("".join(traceback.format_exception(error))), err=True, nl=False)
    typer.echo(SECRETS.hide(f"lockstep: {' '.join(text.split())}"), err=True)
    return code


def _group(text: str) -> typer.Typer:
    return typer.Typer(help=text, rich_markup_mode=None, add_completion=False)


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=HELP,
    epilog=EPILOG,
)
app.command(epilog=demo.EPILOG)(demo.demo)
app.command(epilog=replay.EPILOG)(replay.replay)
app.command(epilog=propose.EPILOG)(propose.propose)
app.command(epilog=sweep.EPILOG)(sweep.sweep)
app.command("walk-forward", epilog=walk_forward.EPILOG)(walk_forward.walk_forward)
app.command("cross-validate", epilog=cross_validate.EPILOG)(cross_validate.cross_validate)
app.command(epilog=worker.EPILOG)(worker.worker)
app.command(epilog=run.EPILOG)(run.run)
app.command(epilog=runs.RUNS_EPILOG)(runs.runs)
app.command(epilog=runs.REPORT_EPILOG)(runs.report)
app.command(epilog=runs.DIFF_EPILOG)(runs.diff)
app.command(epilog=audit.AUDIT_EPILOG)(audit.audit)
app.command("what-if", epilog=audit.WHAT_IF_EPILOG)(audit.what_if)
app.command(epilog=validate.EPILOG)(validate.validate)
app.command(epilog=stress.EPILOG)(stress.stress)
app.command(epilog=portfolio.EPILOG)(portfolio.portfolio)
app.command(epilog=catalogue.STRATEGIES_EPILOG)(catalogue.strategies)
app.command(epilog=catalogue.FEATURES_EPILOG)(catalogue.features)

app.command(epilog=operate.STATUS_EPILOG)(operate.status)
app.command(epilog=operate.POSITIONS_EPILOG)(operate.positions)
app.command(epilog=operate.TRADES_EPILOG)(operate.trades)
app.command(epilog=operate.COMMANDS_EPILOG)(operate.commands)
app.command(epilog=operate.HALT_EPILOG)(operate.halt)
app.command("reduce-only", epilog=operate.REDUCE_EPILOG)(operate.reduce_only)
app.command(epilog=operate.RESUME_EPILOG)(operate.resume)
app.command(epilog=operate.CLOSE_EPILOG)(operate.close)
app.command(epilog=operate.TAIL_EPILOG)(operate.tail)

data_app = _group("Inspect, convert or fetch data files, write the sample.")
data_app.command(epilog=data.INSPECT_EPILOG)(data.inspect)
data_app.command(epilog=data.CONVERT_EPILOG)(data.convert)
data_app.command(epilog=data.SAMPLE_EPILOG)(data.sample)
data_app.command(epilog=fetch.EPILOG)(fetch.fetch)
app.add_typer(data_app, name="data")

journal_app = _group("List, upgrade and tidy the journal.")
journal_app.command("list", epilog=journals.LIST_EPILOG)(journals.list_)
journal_app.command(epilog=journals.UPGRADE_EPILOG)(journals.upgrade)
journal_app.command(epilog=journals.REMOVE_EPILOG)(journals.remove)
app.add_typer(journal_app, name="journal")

cassette_app = _group("List, check, prune and export recorded model calls.")
cassette_app.command(epilog=cassette.LS_EPILOG)(cassette.ls)
cassette_app.command(epilog=cassette.VERIFY_EPILOG)(cassette.verify)
cassette_app.command(epilog=cassette.PRUNE_EPILOG)(cassette.prune)
cassette_app.command(epilog=cassette.EXPORT_EPILOG)(cassette.export)
app.add_typer(cassette_app, name="cassette")

app.command("show-config", epilog=settings.EPILOG)(settings.show_config)
app.command(epilog=doctor.EPILOG)(doctor.doctor)


def main() -> None:
    """Entry point of the ``lockstep`` script."""
    app()


if __name__ == "__main__":
    main()
