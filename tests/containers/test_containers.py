"""The image and the whole compose stack, run by `make test-containers`; skipped elsewhere, and without an engine."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from stack import ROOT, Stack, engine, wait

sys.path.append(str(ROOT / "tests" / "chaos"))
from next_release import make_next_release

MODEL = "gpt-5.6-sol"
HELD = "[[sim: check_then_clear hold=20 latency=0 queue=0 tokens=3]] hello"
ENDS = {"completed", "blocked", "failed", "cancelled", "expired"}

pytestmark = [
    pytest.mark.timeout(1_200),
    pytest.mark.skipif(
        not os.environ.get("VIGIL_TEST_CONTAINERS"),  # noqa: TID251
        reason="takes ten minutes and an engine: make test-containers",
    ),
]


class App:
    """An app that uses the stack by the command line in the API's container."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        made = stack.compose("run", "--rm", "-T", "api", "keys", "create", "--app", "shop", "--json", *_scopes())
        self.key = json.loads(made)["key"]

    def vigil(self, *words: str) -> Any:
        return json.loads(self.stack.vigil(*words, "--json", VIGIL_API_KEY=self.key, VIGIL_URL="http://127.0.0.1:8700"))

    def submit(self, prompt: str) -> str:
        return str(self.vigil("submit", "--model", MODEL, prompt)["id"])

    def checked(self, job_id: str) -> bool:
        """Return whether the job has come to its check."""
        return bool(self.vigil("get", job_id)["safety"]["state"] != "none")

    def settled(self, job_id: str) -> dict[str, Any]:
        def look() -> Any:
            job = self.vigil("get", job_id)
            return job if job["status"] in ENDS else None

        job: dict[str, Any] = wait(f"{job_id} to settle", look)
        return job


def _scopes() -> list[str]:
    return [word for scope in ("submit", "read", "audit", "ops") for word in ("--scope", scope)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    try:
        environment = engine()
    except RuntimeError as why:
        pytest.skip(f"no engine: {why}")
    one = Stack(tmp_path_factory.mktemp("stack"), environment)
    one.build(ROOT, "vigil:0.1.0")
    one.up()
    yield one
    print(one.compose("ps", "-a"))
    one.compose("--profile", "*", "down", "--volumes", "--timeout", "5")


@pytest.fixture(scope="module")
def app(stack: Stack) -> App:
    return App(stack)


def test_a_job_runs_in_the_stack_and_the_doctor_finds_nothing(stack: Stack, app: App) -> None:
    job = app.settled(app.submit("[[sim: normal tokens=3]] hello"))
    assert (job["status"], bool(job["output_text"])) == ("completed", True)
    blocked = app.settled(app.submit("[[sim: check_then_block hold=1]] hello"))
    assert (blocked["status"], blocked["output_text"]) == ("blocked", None)
    found = json.loads(stack.compose("exec", "-T", "worker", "vigil", "doctor", "--json", check=False))
    problems = [row for row in found["checks"] if row["state"] == "problem"]
    assert problems == []


def test_every_process_logs_json_and_runs_without_rights(stack: Stack) -> None:
    for service in ("api", "worker", "simulator"):
        container = stack.compose("ps", "-q", service).split()[0]
        lines = [line for line in stack.docker("logs", container, check=False).splitlines() if line]
        assert [line for line in lines if not line.startswith("{")] == [], service
        assert all(isinstance(json.loads(line), dict) for line in lines), service
        assert stack.compose("exec", "-T", service, "id", "-u").strip() == "10001"
        assert stack.compose("exec", "-T", service, "sh", "-c", "touch /x || echo no").strip() == "no"


@pytest.mark.parametrize("service", ["worker", "api", "valkey"])
def test_what_is_killed_comes_back_and_no_job_is_lost_or_called_twice(stack: Stack, app: App, service: str) -> None:
    before = stack.calls()["creates"]
    ids = [app.submit(HELD) for _ in range(3)]
    wait("checks", lambda: all(app.checked(one) for one in ids))
    stack.crash(service)
    for each in ("valkey", "api", "worker"):
        stack.healthy(each)
    jobs = [app.settled(one) for one in ids]
    assert [job["status"] for job in jobs] == ["completed"] * 3
    assert stack.calls()["creates"] - before == 3
    assert stack.compose("exec", "-T", "worker", "vigil", "audit", "verify")


def test_three_workers_stay_three(stack: Stack, app: App) -> None:
    stack.settings("demo", VIGIL_WORKERS="3")
    stack.up()
    stack.up()
    stack.healthy("worker", 3)
    ids = [app.submit("[[sim: normal tokens=3]] hello") for _ in range(6)]
    assert {app.settled(one)["status"] for one in ids} == {"completed"}
    stack.settings("demo")
    stack.up()
    stack.healthy("worker", 1)


def test_an_upgrade_stops_nobody(stack: Stack, app: App, tmp_path: Path) -> None:
    """Workers, then the API, to a release with more fields in its records, and back, while jobs are held."""
    context = make_next_release(tmp_path / "next")
    for name in ("pyproject.toml", "README.md", "LICENSE", "models.toml", ".dockerignore"):
        shutil.copy(ROOT / name, context)
    shutil.copytree(ROOT / "ops", context / "ops")
    stack.build(context, "vigil:next")
    before, ids = stack.calls()["creates"], list[str]()
    for image in ("vigil:next", "vigil:0.1.0"):
        stack.settings("demo", VIGIL_IMAGE=image)
        for service in ("worker", "api"):
            ids += [app.submit(HELD) for _ in range(2)]
            wait("checks", partial(app.checked, ids[-1]))
            stack.compose("up", "-d", "--no-build", "--no-deps", service)
            stack.healthy(service)
    assert {app.settled(one)["status"] for one in ids} == {"completed"}
    assert stack.calls()["creates"] - before == len(ids)


def test_a_copy_is_restored(stack: Stack, app: App) -> None:
    kept = app.submit("[[sim: normal tokens=3]] kept")
    answer = app.settled(kept)["output_text"]
    print(stack.compose("run", "--rm", "-T", "backup", "save", "/data", "/backups/one"))
    lost = app.submit("[[sim: normal tokens=3]] after the copy")
    app.settled(lost)
    stack.compose("stop", "api", "worker", "valkey")
    erase = "import shutil; shutil.rmtree('/data/appendonlydir')"
    stack.compose("run", "--rm", "-T", "--no-deps", "--entrypoint", "python", "backup", "-c", erase)
    stack.compose("run", "--rm", "-T", "--no-deps", "backup", "restore", "/backups/one", "/data")
    stack.compose("start", "valkey")
    stack.healthy("valkey")
    stack.compose("start", "api", "worker")
    wait("the API to run", lambda: stack.states("api") != [""])
    shown = stack.compose("run", "--rm", "-T", "worker", "store", "show", check=False)
    assert "older" in shown
    stack.compose("run", "--rm", "-T", "worker", "store", "accept")
    stack.healthy("api")
    stack.healthy("worker")
    assert app.vigil("get", kept)["output_text"] == answer
    gone = stack.vigil("get", lost, check=False, VIGIL_API_KEY=app.key, VIGIL_URL="http://127.0.0.1:8700")
    assert "There is no such job" in gone
    assert stack.compose("exec", "-T", "worker", "vigil", "audit", "verify")
    assert app.settled(app.submit("[[sim: normal tokens=3]] on"))["status"] == "completed"
