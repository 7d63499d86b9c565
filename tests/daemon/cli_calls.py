"""Calling the real command line in this process, and the small market its tests run on."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from daemon.main import app
from markets.export import write
from markets.history import History
from markets.synthetic import binary_sample, sample

BARS = 1_500


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call left on stdout and stderr, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout, which must be one JSON value on one line."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


def call(*words: object, **environ: str) -> Answer:
    """Run ``lockstep`` with these words; an exception that is no exit fails the test."""
    result = CliRunner().invoke(app, [str(word) for word in words], env=environ)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


def succeed(*words: object, **environ: str) -> Answer:
    """Run and require success."""
    answer = call(*words, **environ)
    assert answer.code == 0, answer.err
    return answer


def refuse(code: int, *words: object, **environ: str) -> str:
    """Run and require one line on stderr, nothing on stdout, and this exit code; the line."""
    answer = call(*words, **environ)
    assert answer.code == code, answer
    assert answer.out == ""
    assert answer.err.count("\n") == 1, answer.err
    assert answer.err.startswith("lockstep: ")
    assert "Traceback" not in answer.err
    return answer.err.removeprefix("lockstep: ").rstrip()


@cache
def perpetuals() -> dict[str, History]:
    """Two small synthetic perpetuals."""
    return sample(bars=BARS)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with SOL-PERP.feather, BTC-PERP.feather and EVENT-01.feather."""
    folder = tmp_path_factory.mktemp("shop")
    for name, history in {**perpetuals(), **binary_sample(bars=120, markets=1)}.items():
        write(history, folder / f"{name}.feather")
    return folder


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; runs are kept in ``runs`` under it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
