"""Writing a run's report and chart to files."""

from pathlib import Path

from backtest.run import Run
from core.errors import LockstepError


def write_html(run: Run, path: Path) -> Path:
    """The HTML report of a run."""
    from backtest.report import write_report

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_report(run, path)
    except OSError as error:
        raise LockstepError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def write_chart(run: Run, path: Path) -> Path:
    """The equity curve of a run as a PNG."""
    from backtest.report import write_png

    try:
        write_png(run, path)
    except OSError as error:
        raise LockstepError(f"{path}: cannot be written: {error.strerror}") from error
    return path
