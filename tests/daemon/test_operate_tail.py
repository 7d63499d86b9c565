"""The readable view of the log: chosen, followed through rotation, and harmless to a terminal."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_calls import desk, refuse, succeed

from daemon.control.tailing import Filter, lines_of, view, views

__all__ = ["desk"]

STAMP = "2026-03-01T12:34:56.789Z"


def entry(**fields: Any) -> str:
    return json.dumps({"timestamp": STAMP, "level": "info", "event": "tick", **fields}) + "\n"


LINES = [
    entry(instrument="SOL-PERP", book="a", equity=10_000.5),
    entry(level="warning", event="stale", instrument="BTC-PERP", book="b"),
    entry(level="debug", event="quiet"),
    "Traceback (most recent call last):\n",
    entry(level="error", event="broke", exception="Traceback\n  File x\nValueError: no"),
]


@pytest.fixture
def log(desk: Path) -> Path:
    path = desk / "daemon.log"
    path.write_text("".join(LINES))
    return path


def test_an_entry_is_one_line_a_person_reads(log: Path) -> None:
    out = succeed("tail", log).out.splitlines()
    assert out[0] == "12:34:56 info     tick instrument=SOL-PERP book=a equity=10000.5"
    assert out[3] == "Traceback (most recent call last):"
    assert out[-1] == "    ValueError: no"


@pytest.mark.parametrize(
    ("flags", "events"),
    [
        ([], ["tick", "stale", "quiet", "broke"]),
        (["--level", "info"], ["tick", "stale", "broke"]),
        (["--level", "error"], ["broke"]),
        (["--book", "a"], ["tick"]),
        (["--book", "a", "--book", "b"], ["tick", "stale"]),
        (["--instrument", "BTC-PERP"], ["stale"]),
        (["--instrument", "BTC-PERP", "--book", "a"], []),
        (["-n", "1"], ["broke"]),
        (["-n", "0"], []),
    ],
)
def test_entries_are_chosen(log: Path, flags: list[str], events: list[str]) -> None:
    out = succeed("tail", log, "--json", *flags).out
    assert [json.loads(line)["event"] for line in out.splitlines()] == events


TICK = entry(
    instruments=["BTC-PERP", "SOL-PERP"],
    decisions=[{"book": "a", "target": 1.0}],
    fills=[{"book": "a", "quantity": 2.0}, {"book": "c", "quantity": 1.0}],
    odd=[[], 5, None, {"book": {"deep": "b"}}],
)


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        (Filter(books=("a",)), True),
        (Filter(books=("b", "c")), True),
        (Filter(books=("b",)), False),
        (Filter(instruments=("SOL-PERP",)), True),
        (Filter(instruments=("ETH-PERP",)), False),
        (Filter(books=("a",), instruments=("ETH-PERP",)), False),
    ],
)
def test_a_line_of_a_tick_is_of_every_book_it_tells_of(chosen: Filter, wanted: bool) -> None:
    assert len(list(views([TICK], chosen, raw=True))) == wanted


def test_a_filter_leaves_out_what_is_no_entry(log: Path) -> None:
    assert "most recent call" not in succeed("tail", log, "--book", "a").out


def test_stdin_is_read_to_its_end(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from daemon.main import app

    result = CliRunner().invoke(app, ["tail", "-", "--level", "error"], input="".join(LINES))
    assert result.exit_code == 0
    assert result.stdout.startswith("12:34:56 error    broke")


def test_what_cannot_be_read_is_one_line(desk: Path) -> None:
    assert "cannot be read: No such file" in refuse(3, "tail", "none.log")
    assert "cannot be read: Is a directory" in refuse(3, "tail", ".")
    assert "did you mean 'warning'" in refuse(2, "tail", "none.log", "--level", "warn")


def test_nothing_in_a_log_reaches_the_terminal_as_control() -> None:
    hostile = "\x1b[2J\x07\u202e\x9b\nforged line"
    lines = [
        entry(event=hostile, book=hostile, **{hostile: hostile}),
        entry(level=hostile, timestamp=hostile, exception=hostile),
        entry(deep={"a": [hostile]}),
        f"no json {hostile}"[:-12] + "\n",
    ]
    for text in views(lines, Filter(), raw=False):
        assert not any(letter in text for letter in "\x1b\x07\u202e\x9b")
    raw = list(views(lines, Filter(), raw=True))
    assert len(raw) == 3
    assert all("\x1b" not in line and "\n" not in line for line in raw)


@pytest.mark.parametrize(
    "line",
    ["", "\n", "[1]\n", "5\n", "null\n", "[" * 100_000, '{"level": 5, "event": null, "ts": true}'],
)
def test_odd_lines_stop_nothing(line: str) -> None:
    assert len(list(views([line, LINES[0]], Filter(), raw=True))) in (1, 2)
    for text in views([line, LINES[0]], Filter(), raw=False):
        assert len(text) < 1_000


def test_a_time_in_ms_is_shown_as_a_time() -> None:
    assert view({"ts": 1_746_316_800_000 + 3_661_000, "event": "x"}).startswith("01:01:01 ")
    assert view({"ts": 1e300, "event": "x"}).startswith("1e+300")


def steps(*acts: Callable[[], object]) -> Callable[[float], None]:
    """A sleep that does one thing each time, then stops whoever follows."""
    left = list(acts)

    def sleep(_seconds: float) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop(0)()

    return sleep


def followed(path: Path, *acts: Callable[[], object]) -> list[str]:
    found: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(iter_into(found, lines_of(path, last=1, follow=True, sleep=steps(*acts))))
    return [line.strip() for line in found]


def iter_into(found: list[str], lines: Any) -> list[str]:
    for line in lines:
        found.append(line)  # noqa: PERF402 - what was found before the end is kept
    return []


def test_following_goes_on_through_writing_cutting_and_rotation(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("old\nlast\n")

    def add(text: str) -> Callable[[], object]:
        def write() -> None:
            with path.open("a") as file:
                file.write(text)

        return write

    def rotate() -> None:
        path.replace(tmp_path / "x.log.1")

    found = followed(
        path,
        add("one\nha"),
        add("lf\n"),
        rotate,
        add("new\n"),
        lambda: None,
        lambda: path.write_text("c\n"),
        lambda: None,
        add("end\n"),
    )
    assert found == ["last", "one", "half", "new", "c", "end"]


def test_a_reader_who_leaves_is_no_error_and_an_interrupt_ends_it(log: Path) -> None:
    command = [Path(sys.executable).with_name("lockstep"), "tail", log]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as left:
        assert left.stdout is not None
        left.stdout.close()
        assert left.wait(20) == 0
        assert left.stderr is not None
        assert left.stderr.read() == b""
    with subprocess.Popen(
        [*command, "-f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as followed_on:
        assert followed_on.stdout is not None
        assert b"tick" in followed_on.stdout.readline()
        followed_on.send_signal(signal.SIGINT)
        _, told = followed_on.communicate(timeout=20)
        assert followed_on.returncode == 130
        assert b"Traceback" not in told


def test_a_line_without_end_is_not_kept_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("")
    found = followed(path, lambda: path.write_text("x" * 50_000))
    assert max(len(line) for line in found) <= 20_000
