"""Just enough of PromQL for the tests: the names and label matchers that an expression uses."""

import re
import shutil
from collections.abc import Iterator, Mapping

import pytest

SELECTOR = re.compile(r"(?<![\w:$])((?:lockstep|process)[_:][\w:]*)(?:\s*\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
Exported = Mapping[str, Mapping[str, frozenset[str]]]
"""Every sample's name, with its labels and the values each has."""

TARGET_LABELS = {"job", "instance"}


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Every metric selected, with its matchers (label, operator, value)."""
    for name, inside in SELECTOR.findall(expression):
        yield name, MATCHER.findall(inside)


def grouped_labels(expression: str) -> set[str]:
    """Labels named by ``by`` and ``on``."""
    return {name.strip() for names in GROUPING.findall(expression) for name in names.split(",")}


def promtool() -> str:
    """The path of promtool, or a skip."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not on PATH (Debian: apt-get install prometheus)")
    return found
