"""The files of ``systemd/`` and what the daemon exports, to be held against each other."""

import sys
from collections import defaultdict
from pathlib import Path
from types import MappingProxyType

import pytest
from promql import Exported

FOLDER = Path(__file__).resolve().parents[2] / "systemd"
sys.path.insert(0, str(FOLDER.parent / "tests" / "daemon"))


@pytest.fixture(scope="session")
def folder() -> Path:
    """Where the files are."""
    return FOLDER


@pytest.fixture(scope="session")
def exported() -> Exported:
    """Every sample's name, with its labels and the values each has."""
    from observed_world import FEED, new_engine, new_metrics, samples

    class Line:
        connected, connections, messages, age_s, skew_ms = True, 1, 1, 1.0, 1
        counts = MappingProxyType({"silent": 1})

    metrics = new_metrics(new_engine())
    metrics.follow(FEED, Line(), ["silent"])
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, labels in samples(metrics):
        found[name]
        for label, value in labels:
            found[name][label].add(value)
    return {
        name: {label: frozenset(values) for label, values in labels.items()}
        for name, labels in found.items()
    }
