"""What is said beside the results, and that finding a strategy stays cheap."""

import subprocess
import sys
import time

import pytest

from core.errors import UnknownName
from daemon import console
from strategies.registry import all_strategies, find


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step counts as cold after a hundredth of a second."""
    monkeypatch.setattr(console, "COLD_STEP_SECONDS", 0.01)


@pytest.mark.usefixtures("impatient")
def test_a_cold_step_is_announced_once_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with console.making(10, quiet=True):
        time.sleep(0.1)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("compiling the step once")
    assert told.err.count("\n") == 1


@pytest.mark.usefixtures("impatient")
def test_a_warm_step_is_not_announced(capsys: pytest.CaptureFixture[str]) -> None:
    with console.making(10, quiet=False) as progress:
        progress(10)
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_a_long_replay_shows_a_bar_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "EVENTS_WORTH_A_BAR", 5)
    for terminal, quiet in ((False, False), (True, True)):
        monkeypatch.setattr(sys.stderr, "isatty", lambda shown=terminal: shown)
        with console.making(10, quiet=quiet) as progress:
            progress(10)
        assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with console.making(10, quiet=False) as progress:
        progress(10)
    told = capsys.readouterr().err
    assert "10 events" in told
    assert "100%" in told


def test_json_holds_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    console.write_json({"a": float("nan"), "b": [float("inf"), 1.5], 3: {"x"}, "c": None})
    assert capsys.readouterr().out == '{"a": null, "b": [null, 1.5], "3": ["x"], "c": null}\n'


def test_a_strategy_is_found_without_importing_the_others() -> None:
    code = "import sys; from strategies.registry import find; find('trend')\n"
    code += "print('strategies.e3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_strategy_on_the_shelf_is_found_by_its_name() -> None:
    shelf = all_strategies()
    assert {"trend", "e3", "funding_fade", "probability"} <= set(shelf)
    assert all(find(name) is strategy for name, strategy in shelf.items())
    with pytest.raises(UnknownName, match="did you mean 'funding_fade'"):
        find("funding-fade")
