"""Alert rules: promtool accepts them, each is shown firing and not, and they read what exists."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from promql import TARGET_LABELS, Exported, grouped_labels, promtool, selectors

WANTED = {"summary", "description", "runbook"}
QUANTILE = re.compile(r"(lockstep_\w+)_bucket.*>\s*([\d.]+)\s*$", re.DOTALL)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.fixture(scope="module")
def rules(folder: Path) -> list[dict[str, Any]]:
    groups = read(folder / "prometheus" / "lockstep.rules.yml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def run(*arguments: str | Path) -> str:
    command = [promtool(), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules(folder: Path) -> None:
    run("check", "rules", folder / "prometheus" / "lockstep.rules.yml")


def test_promtool_accepts_the_scrape_stanza(folder: Path, tmp_path: Path) -> None:
    text = (folder / "prometheus" / "prometheus.yml").read_text()
    token = tmp_path / "token"
    token.write_text("x")
    here = text.replace("/opt/lockstep", str(folder.parent))
    here = here.replace("/etc/prometheus/lockstep_read_token", str(token))
    (tmp_path / "prometheus.yml").write_text(here)
    assert "18 rules found" in run("check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("name", ["lockstep.test.yml", "lockstep.daily.test.yml"])
def test_the_unit_tests_of_the_rules_pass(folder: Path, name: str) -> None:
    assert "SUCCESS" in run("test", "rules", folder / "prometheus" / name)


def test_every_alert_is_shown_firing_and_not_firing(
    folder: Path, rules: list[dict[str, Any]]
) -> None:
    shown: dict[bool, set[str]] = {True: set(), False: set()}
    for path in (folder / "prometheus").glob("*.test.yml"):
        for test in read(path)["tests"]:
            for each in test["promql_expr_test"]:
                alert = re.search(r'alertname="(\w+)"', each["expr"])
                assert alert
                shown[bool(each["exp_samples"])].add(alert[1])
    alerts = {rule["alert"] for rule in rules if "alert" in rule}
    assert shown[True] == shown[False] == alerts


def test_every_alert_says_what_to_do_and_how_urgent_it_is(rules: list[dict[str, Any]]) -> None:
    for rule in rules:
        if "alert" in rule:
            assert set(rule["annotations"]) == WANTED
            assert rule["labels"]["severity"] in {"page", "ticket"}
            assert len(rule["annotations"]["runbook"]) > 60


def test_rules_read_only_what_is_exported(rules: list[dict[str, Any]], exported: Exported) -> None:
    recorded = {rule["record"] for rule in rules if "record" in rule}
    for rule in rules:
        used = list(selectors(rule["expr"]))
        assert used
        for name, matchers in used:
            assert name in recorded or name in exported, (rule, name)
            for label, _, value in matchers:
                known = label in TARGET_LABELS or value in exported[name][label]
                assert known, (rule, label, value)
    labels = {label for each in exported.values() for label in each} | TARGET_LABELS
    assert grouped_labels(" ".join(rule["expr"] for rule in rules)) <= labels


def test_annotations_name_only_metrics_that_exist(
    rules: list[dict[str, Any]], exported: Exported
) -> None:
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported} | set(exported)
    for rule in rules:
        for text in rule.get("annotations", {}).values():
            for name, _ in selectors(text):
                assert name in families, (rule["alert"], name)


def test_a_threshold_on_a_histogram_is_an_edge_of_it(
    rules: list[dict[str, Any]], exported: Exported
) -> None:
    found = 0
    for rule in rules:
        match = QUANTILE.search(rule["expr"])
        if match:
            edges = exported[f"{match[1]}_bucket"]["le"]
            assert float(match[2]) in {float(edge) for edge in edges}, rule
            found += 1
    assert found == 3
