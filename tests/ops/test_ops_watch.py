"""Rules, dashboard and runbook speak of metrics that exist, belong together, and fire when they should."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ops_server import ROOT
from ops_tools import tool

from worker.telemetry.metrics import METRICS

PROMETHEUS = ROOT / "ops" / "prometheus"
RUNBOOK = ROOT / "ops" / "runbook"
RULES: dict[str, Any] = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())
ALL = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in ALL if "alert" in rule]
RECORDED = {rule["record"] for rule in ALL if "record" in rule}


def load_generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "ops" / "grafana" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


GENERATE = load_generator()
QUERIES = [(panel.title, query) for row in GENERATE.ROWS.values() for panel in row for query in panel.queries.values()]


def unknown(expression: str) -> list[str]:
    """Names in a query that neither the table of metrics nor a recorded rule has."""
    names = re.findall(r"\bvigil[a-z0-9_:]*", re.sub(r'"[^"]*"', '""', expression))
    known = {name for name, row in METRICS.items() if row.kind != "histogram"} | RECORDED
    for name, row in METRICS.items():
        if row.kind == "histogram":
            known |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return sorted(set(names) - known)


def wrong_labels(expression: str) -> list[str]:
    """Selectors on a label, or a label's value, that the metric doesn't have."""
    wrong = []
    for name, inside in re.findall(r"\b(vigil_[a-z0-9_]+)\{([^}]*)\}", expression):
        row = METRICS[name.removesuffix("_bucket") if name.removesuffix("_bucket") in METRICS else name]
        wrong += [f"{name}: {label}" for label in re.findall(r"(\w+)\s*[=!]", inside) if label not in row.labels]
    return wrong


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.get("alert") or rule["record"])
def test_rules_ask_for_metrics_that_exist(rule: dict[str, Any]) -> None:
    assert unknown(rule["expr"]) == []
    assert wrong_labels(rule["expr"]) == []


@pytest.mark.parametrize(("title", "query"), QUERIES, ids=[f"{t}-{n}" for n, (t, _) in enumerate(QUERIES)])
def test_panels_ask_for_metrics_that_exist(title: str, query: str) -> None:
    assert unknown(query) == []
    assert wrong_labels(query) == []


def test_a_name_that_no_table_has_is_noticed() -> None:
    assert unknown("sum(rate(vigil_job_finished_total[5m]))") == ["vigil_job_finished_total"]
    assert unknown("vigil_job_wait_seconds") == ["vigil_job_wait_seconds"]  # a histogram has no series of that name
    assert wrong_labels('vigil_jobs_finished_total{outcome="x"}') == ["vigil_jobs_finished_total: outcome"]


def test_every_metric_is_seen_somewhere() -> None:
    text = " ".join([*(rule["expr"] for rule in ALL), *(query for _, query in QUERIES)])
    assert [name for name in METRICS if not re.search(rf"\b{name}(_bucket)?\b", text)] == []


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_tells_how_bad_it_is_and_where_its_page_is(rule: dict[str, Any]) -> None:
    name = rule["alert"]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"].endswith(".")
    page = ROOT / rule["annotations"]["runbook_url"]
    assert page == RUNBOOK / f"{name}.md"
    text = page.read_text()
    assert text.startswith(f"# {name}\n")
    assert f"Severity: {rule['labels']['severity']}\n" in text
    for part in ("## What you see", "## First step", "## Then", "## How it ends"):
        assert len(text.split(part)[1].split("##")[0].strip()) > 12, part
    assert f"[{name}]({name}.md) | {rule['labels']['severity']} |" in (RUNBOOK / "README.md").read_text()


def test_every_page_has_its_alert_and_links_go_somewhere() -> None:
    pages = {path.stem for path in RUNBOOK.glob("*.md")} - {"README"}
    assert pages == {rule["alert"] for rule in ALERTS}
    for path in RUNBOOK.glob("*.md"):
        for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_every_alert_is_tested_in_both_ways() -> None:
    files = (PROMETHEUS / "tests.yml", PROMETHEUS / "tests-long.yml")
    tests = [one for file in files for one in yaml.safe_load(file.read_text())["tests"]]
    seen = {}
    for one in tests:
        (query,) = one["promql_expr_test"]
        alert, _, way = one["name"].partition(" ")
        assert query["expr"] == f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})'
        assert bool(query["exp_samples"]) == (way == "fires")
        assert way in {"fires", "stays silent"}
        seen.setdefault(alert, set()).add(way)
        for series in one["input_series"]:
            assert unknown(series["series"]) == []
            assert wrong_labels(series["series"].replace(',instance="a"', "").replace(',instance="b"', "")) in (
                [],
                [f"{series['series'].split('{')[0]}: instance"],
                [f"{series['series'].split('{')[0]}: le"],
            )
    assert seen == {rule["alert"]: {"fires", "stays silent"} for rule in ALERTS}


def promtool(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("promtool"), *map(str, words)], capture_output=True, text=True, check=False, timeout=100
    )


def test_promtool_takes_rules_and_configuration() -> None:
    checked = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", ["tests.yml", "tests-long.yml"])
def test_alerts_fire_and_stay_silent_as_told(name: str) -> None:
    tested = promtool("test", "rules", PROMETHEUS / name)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_broken_threshold_is_noticed(tmp_path: Path) -> None:
    text = (PROMETHEUS / "rules.yml").read_text()
    assert text.count("> 300") == 1
    (tmp_path / "rules.yml").write_text(text.replace("> 300", "> 3000"))
    (tmp_path / "tests.yml").write_text((PROMETHEUS / "tests.yml").read_text())
    tested = promtool("test", "rules", tmp_path / "tests.yml")
    assert tested.returncode == 1
    assert 'alertname=\\"QueueAgeHigh\\"' in tested.stdout + tested.stderr


def test_the_dashboard_is_up_to_date() -> None:
    assert GENERATE.FILE.read_text() == GENERATE.text(), "run ops/grafana/generate.py"
    board = GENERATE.dashboard()
    assert board["uid"] == "vigil"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
