"""The worker of `vigil up` has a process of its own: it delays no request, and is never left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from vigil_process import free_port, one_line, run, start_up
from waiting import LIMIT, wait_for


def children(pid: int) -> list[int]:
    """The processes that this one has started, Valkey apart."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, rest = re.fullmatch(r"\d+ \((.*)\) (.*)", stat.read_text(), re.DOTALL).groups()
            if int(rest.split()[1]) == pid and "valkey" not in name and rest[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def up(tmp_path):
    started = start_up(tmp_path, free_port(), "--speed", "100")
    yield started
    if started.process.poll() is None:
        started.process.send_signal(signal.SIGTERM)
    started.process.communicate(timeout=LIMIT)


def test_thousands_of_tiny_jobs_refuse_no_request(up):
    """Each job takes its worker milliseconds; all of them together would keep one loop busy for many seconds."""
    job = {"model": "gpt-5.6-sol", "input": "[[sim: normal tokens=3]] x"}
    headers = {"Authorization": f"Bearer {up.key()}"}
    with httpx2.Client(base_url=up.url, headers=headers, timeout=LIMIT, trust_env=False) as http:
        statuses, over = list[int](), threading.Event()

        def ask() -> None:
            while not over.is_set():
                statuses.append(http.post("/v1/jobs", json=job).status_code)
                statuses.append(http.get("/v1/jobs?limit=1").status_code)
                statuses.append(http.get("/readyz").status_code)
                time.sleep(0.02)

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask)
            rows = [row for _ in range(2) for row in http.post("/v1/jobs/batch", json={"jobs": [job] * 1000}).json()]
            assert {row["status"] for row in rows} == {202}
            time.sleep(5)
            over.set()
            asking.result(LIMIT)
        assert set(statuses) <= {200, 202}
        assert len(statuses) > 100


def test_the_worker_is_gone_when_its_parent_was_killed(up):
    (worker,) = children(up.process.pid)
    up.process.kill()
    wait_for("the end of the worker", lambda: not runs(worker))


def test_without_its_worker_it_ends_and_says_so_in_one_line(up):
    (worker,) = children(up.process.pid)
    os.kill(worker, signal.SIGKILL)
    assert up.process.wait(LIMIT) == 1
    assert up.process.stdout is not None
    assert up.process.stdout.read().strip().splitlines()[-1].startswith("vigil: the worker's process ended by itself")


def test_a_fault_of_the_worker_is_told_as_one_of_the_command(tmp_path):
    taken = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", taken))
        other.listen()
        result = run(tmp_path, "up", "--port", str(free_port()), VIGIL_WORKER_PORT=str(taken))
    assert result.returncode == 1
    assert "taken" in one_line(result)
