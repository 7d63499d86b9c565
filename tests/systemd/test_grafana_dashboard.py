"""The dashboard: every query parses, and reads metrics and labels that the daemon exports."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from promql import TARGET_LABELS, Exported, grouped_labels, promtool, selectors


@pytest.fixture(scope="module")
def dashboard(folder: Path) -> Any:
    return json.loads((folder / "grafana" / "lockstep.json").read_text())


@pytest.fixture(scope="module")
def targets(dashboard: Any) -> list[dict[str, Any]]:
    panels = [target for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return panels + dashboard["annotations"]["list"]


@pytest.fixture(scope="module")
def recorded(folder: Path) -> set[str]:
    groups = yaml.safe_load((folder / "prometheus" / "lockstep.rules.yml").read_text())["groups"]
    return {rule["record"] for group in groups for rule in group["rules"] if "record" in rule}


def test_queries_read_only_what_is_exported(
    targets: list[dict[str, Any]], exported: Exported, recorded: set[str]
) -> None:
    for target in targets:
        used = list(selectors(target["expr"]))
        assert used, target
        for name, matchers in used:
            assert name in exported or name in recorded, target
            assert {"job", "instance"} <= {label for label, _, _ in matchers}, target
            for label, _, value in matchers:
                assert label in TARGET_LABELS or value in exported[name][label], target


def test_grouping_and_legends_name_labels_that_exist(
    targets: list[dict[str, Any]], exported: Exported
) -> None:
    labels = {label for each in exported.values() for label in each} | TARGET_LABELS
    for target in targets:
        assert grouped_labels(target["expr"]) <= labels, target
        legend = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
        assert legend <= labels, target


def test_every_metric_is_on_the_dashboard_or_in_an_alert(
    folder: Path, targets: list[dict[str, Any]], exported: Exported
) -> None:
    """A metric nobody looks at is a promise for nothing; these few are for digging by hand."""
    by_hand = {"lockstep_build_info", "lockstep_instruments_unlabelled"}
    by_hand |= {"lockstep_parity_checks_total", "lockstep_feed_messages_total"}
    rules = (folder / "prometheus" / "lockstep.rules.yml").read_text()
    text = rules + " ".join(target["expr"] for target in targets)
    shown = {name for name, _ in selectors(text)}
    families = {
        re.sub(r"_(sum|count)$", "_bucket", name) if "_seconds_" in name else name
        for name in exported
        if name.startswith("lockstep_")
    }
    assert families - shown == by_hand


def test_prometheus_parses_every_query(targets: list[dict[str, Any]], tmp_path: Path) -> None:
    expressions = [target["expr"].replace("$__rate_interval", "1m") for target in targets]
    rules = [{"record": f"test:{n}", "expr": expr} for n, expr in enumerate(expressions)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    command = [promtool(), "check", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_do_not_overlap_and_are_numbered(dashboard: Any) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not mine & cells, panel["title"]
        cells |= mine
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_data_source_is_chosen_at_import(dashboard: Any) -> None:
    variables = {each["name"]: each["type"] for each in dashboard["templating"]["list"]}
    assert variables == {"datasource": "datasource", "instance": "query"}
    text = json.dumps(dashboard)
    assert set(re.findall(r'"uid": "([^"]+)"', text)) == {"${datasource}", "lockstep"}
