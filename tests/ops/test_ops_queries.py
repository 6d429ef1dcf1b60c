"""The dashboard's queries and the rules' expressions, run by a real Prometheus that scrapes a real API and worker."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import yaml
from deployment import Deployment, deployed, wait_for
from ops_server import free_port, server
from ops_tools import tool
from test_ops_watch import ALERTS, ALL, GENERATE, PROMETHEUS

JOBS = [
    "[[sim: normal]] a",
    "[[sim: check_then_clear hold=20]] a",
    "[[sim: check_then_block hold=10]] a",
    "[[sim: refusal]] a",
    "[[sim: cut]] a",
    "[[sim: server_error times=1]] a",
    "[[sim: rate_limited times=1]] a",
    "[[sim: max_tokens]] a",
    "[[sim: rerouted]] a",
]


class Prometheus:
    """Asked over its HTTP API."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, query: str) -> list[dict[str, Any]]:
        answer = httpx2.get(f"{self.url}/api/v1/query", params={"query": query}).json()
        assert answer["status"] == "success", f"{query}: {answer.get('error')}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/-/ready").status_code == 200
        except httpx2.HTTPError:
            return False


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    binary = tool("prometheus")
    folder = tmp_path_factory.mktemp("watched")
    worker_port, port = free_port(), free_port()
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / "rules.yml")]
    with (
        server(folder / "data") as redis,
        deployed(folder, {"api": redis.url, "worker": redis.url}, VIGIL_WORKER_PORT=str(worker_port)) as vigil,
    ):
        targets = {"vigil-api": vigil.port, "vigil-worker": worker_port}
        for one in config["scrape_configs"]:
            one["static_configs"] = [{"targets": [f"127.0.0.1:{targets[one['job_name']]}"]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        words = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
        with (folder / "prometheus.log").open("wb") as log:
            process = subprocess.Popen(
                [binary, *words, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log, cwd=folder
            )
        try:
            prometheus = Prometheus(port)
            wait_for("Prometheus", prometheus.ready)
            wait_for("both targets", lambda: len(prometheus.ask("up == 1")) == 2)
            work(vigil)
            before = wait_for("what was counted", lambda: prometheus.ask("sum(vigil_jobs_finished_total)"))
            assert before
            work(vigil)  # once more, so that every rate has two points
            wait_for("all of it counted", lambda: _sum(prometheus, "vigil_jobs_finished_total") > 2 * len(JOBS))
            for what in ("api", "worker"):
                assert vigil.vigil(what, "health", what).returncode == 0
            yield prometheus
        finally:
            process.terminate()
            process.wait(20)


def _sum(prometheus: Prometheus, name: str) -> float:
    rows = prometheus.ask(f"sum({name})")
    return float(rows[0]["value"][1]) if rows else 0.0


def work(vigil: Deployment) -> None:
    hook = {"webhook": {"url": f"http://127.0.0.1:{vigil.sim_port}/nowhere", "events": ["job.completed"]}}
    switch = {"policy": {"on_delay": {"action": "switch", "after_seconds": 0}}}
    ids = [vigil.submit(prompt, **hook) for prompt in JOBS]
    for job_id in [*ids, vigil.submit("[[sim: check_then_clear hold=60]] a", **switch)]:
        vigil.settled(job_id)


PANELS = [
    (f"{panel.title}: {legend}", query.replace(GENERATE.RATE, "1m"))
    for row in GENERATE.ROWS.values()
    for panel in row
    for legend, query in panel.queries.items()
]
NOTHING = {
    "Fallbacks: {{requested}} to {{served}}",
    "Faults of ours: dropped",
    "Submits refused: {{limit}}",
    "Mended answers: {{flag}}",
    "Unreadable values: {{kind}}",
}
"""What is empty with a healthy Vigil and a healthy provider: no access was denied, every event is in its table, no
quota is used up, every answer is well-formed and every stored value can be read.
"""


@pytest.mark.parametrize(("title", "query"), PANELS, ids=[title for title, _ in PANELS])
def test_a_panel_shows_something(watched: Prometheus, title: str, query: str) -> None:
    assert title in NOTHING or wait_for(title, lambda: watched.ask(query))
    assert watched.ask(query) is not None


@pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_can_be_asked(watched: Prometheus, rule: dict[str, Any]) -> None:
    watched.ask(rule["expr"])


def test_prometheus_takes_every_rule_and_a_healthy_vigil_wakes_nobody(watched: Prometheus) -> None:
    groups = httpx2.get(f"{watched.url}/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules if rule["type"] == "alerting"} == {rule["alert"] for rule in ALERTS}
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
    firing = {row["metric"]["alertname"] for row in watched.ask('ALERTS{alertstate="firing",severity="page"}')}
    assert firing == set()
