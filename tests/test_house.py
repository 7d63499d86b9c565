"""The house rules that other tools keep: each runs as a developer would run it, and must pass."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(tool: str, *arguments: str) -> None:
    """Run a tool of this environment in the checkout; fail with all it said."""
    command = [str(Path(sys.executable).with_name(tool)), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{tool} {' '.join(arguments)}\n{done.stdout}{done.stderr}", pytrace=False)


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", "--quiet", ".")


def test_every_file_is_formatted() -> None:
    run("ruff", "format", "--check", "--quiet", ".")


def test_every_type_holds() -> None:
    run("mypy", "--no-error-summary")


def test_the_law_of_imports_holds() -> None:
    run("lint-imports", "--no-logo")
