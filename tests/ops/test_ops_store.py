"""A Redis that lost its data under a whole Vigil: /readyz, doctor, metric and log say so; nothing starts anew."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx2
from deployment import Deployment, deployed, wait_for
from ops_server import ROOT, free_port, secrets, server


def ready(url: str) -> tuple[int, str]:
    try:
        answer = httpx2.get(f"{url}/readyz", timeout=10)
    except httpx2.HTTPError:
        return 0, ""
    return answer.status_code, answer.text


def both(vigil: Deployment, worker: str, status: int) -> tuple[str, str] | None:
    """What API and worker say, once both answer with this status."""
    answers = ready(vigil.url), ready(worker)
    print(answers)  # shown when what is waited for does not come
    return (answers[0][1], answers[1][1]) if {answers[0][0], answers[1][0]} == {status} else None


def doctor(vigil: Deployment) -> dict[str, dict[str, Any]]:
    ended = vigil.vigil("worker", "doctor", "--json", VIGIL_URL=vigil.url)
    return {row["name"]: row for row in json.loads(ended.stdout)["checks"]}


def shown(vigil: Deployment) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(vigil.vigil("worker", "store", "show", "--json").stdout)
    return answer


def changed(url: str) -> list[str]:
    return re.findall(r"^vigil_store_changed (\S+)$", httpx2.get(f"{url}/metrics").text, re.MULTILINE)


def refused_everywhere(vigil: Deployment, worker: str) -> None:
    for answers in wait_for("both refuse", lambda: both(vigil, worker, 503)):
        assert "came back empty" in answers
        assert "vigil store accept" in answers
    assert (changed(vigil.url), changed(worker)) == (["1.0"], ["1.0"])
    answer = vigil.http.post("/v1/jobs", json={"model": "gpt-5.6-sol", "input": "x"})
    assert (answer.status_code, answer.json()["code"]) == (503, "store_changed")
    found = doctor(vigil)["store"]
    assert (found["state"], "vigil store accept" in found["fix"]) == ("problem", True)
    assert vigil.vigil("worker", "store", "show").returncode == 1
    refused = vigil.vigil("api", "keys", "create", "--app", "new")
    assert (refused.returncode != 0, "came back empty" in refused.stderr) == (True, True)
    for act in ("hold", "release"):
        refused = vigil.vigil("worker", "audit", act, "--app", "shop", "--reason", "a case")
        assert (refused.returncode, "came back empty" in refused.stderr) == (1, True), refused.stderr


def newer_than_the_copy(vigil: Deployment, tmp_path: Path) -> str:
    """A job that both processes have seen the record of."""

    def mark() -> dict[str, Any]:
        known: dict[str, Any] = json.loads((tmp_path / "v" / ".vigil" / "store.external.json").read_text())
        return known

    before = mark()["record"]
    job = vigil.submit("[[sim: normal]] newer than the copy")
    vigil.settled(job)
    wait_for("the mark to follow", lambda: mark()["record"] != before)
    looks = mark()["looks"]
    wait_for("both to have looked", lambda: mark()["looks"] >= looks + 4)
    return job


def run_sh(act: str, folder: Path, port: int) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "SECRETS": str(folder / "s"), "DATA": str(folder / "data"), "VALKEY_PORT": str(port)}  # noqa: TID251
    words = [ROOT / "ops" / "run.sh", act, folder / "kept"]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_an_emptied_and_an_older_store_are_noticed_and_accepted_on_purpose(tmp_path: Path) -> None:  # noqa: PLR0915
    made = secrets(tmp_path / "s", "valkey:6379")
    data, options, port = tmp_path / "data", ("--aclfile", str(tmp_path / "s" / "users.acl")), free_port()
    urls = {role: made[f"redis_url_{role}"].replace("valkey:6379", f"127.0.0.1:{port}") for role in ("api", "worker")}
    (tmp_path / "v").mkdir()
    worker_port = free_port()
    worker = f"http://127.0.0.1:{worker_port}"
    with server(data, *options, port=port) as first:
        vigil_of = deployed(tmp_path / "v", urls, VIGIL_WORKER_PORT=str(worker_port))
        vigil = vigil_of.__enter__()
        try:
            job = vigil.submit("[[sim: normal]] hello")
            assert vigil.settled(job)["status"] == "completed"
            wait_for("both ready", lambda: both(vigil, worker, 200))
            wait_for("the mark", (tmp_path / "v" / ".vigil" / "store.external.json").exists)
            assert doctor(vigil)["store"]["state"] in {"ok", "warning"}  # (a warning where the disk is a container's)
            # a restart with its data: nobody notices more than a pause
            first.kill()
            with server(data, *options, port=port) as second:
                wait_for("both ready again", lambda: both(vigil, worker, 200))
                assert vigil.get(f"/v1/jobs/{job}")["status"] == "completed"
                copied = run_sh("backup", tmp_path, port)
                assert (copied.returncode, "copied" in copied.stdout) == (0, True), copied.stderr
                assert "exists already" in run_sh("backup", tmp_path, port).stderr
                assert "still runs" in run_sh("restore", tmp_path, port).stderr
                second.kill()
            # one without: the volume is gone
            shutil.rmtree(data / "appendonlydir")
            with server(data, *options, port=port) as third:
                refused_everywhere(vigil, worker)
                third.kill()
            # its data is back: both go on by themselves
            assert "move it away first" in run_sh("restore", tmp_path, port).stderr
            shutil.rmtree(data)
            assert run_sh("restore", tmp_path, port).returncode == 0
            with server(data, *options, port=port) as fourth:
                wait_for("both ready with their data", lambda: both(vigil, worker, 200))
                newer = newer_than_the_copy(vigil, tmp_path)
                fourth.kill()
            shutil.rmtree(data)
            assert run_sh("restore", tmp_path, port).returncode == 0
            with server(data, *options, port=port):
                for answers in wait_for("both refuse the older one", lambda: both(vigil, worker, 503)):
                    assert "came back older" in answers
                assert vigil.vigil("api", "store", "accept").returncode == 0
                assert shown(vigil)["redis"].endswith("-z"), "a compressed store stays one"
                wait_for("both take it", lambda: both(vigil, worker, 200))
                assert changed(vigil.url) == ["0.0"]
                assert vigil.http.get(f"/v1/jobs/{newer}").status_code == 404
                assert vigil.settled(vigil.submit("[[sim: normal]] on"))["status"] == "completed"
                assert vigil.get(f"/v1/jobs/{job}")["output_text"]
                verified = vigil.vigil("worker", "audit", "verify")
                assert verified.returncode == 0, verified.stdout + verified.stderr
        finally:
            vigil_of.__exit__(None, None, None)
    log = (tmp_path / "v" / "api.log").read_text() + (tmp_path / "v" / "worker.log").read_text()
    assert '"store.changed"' in log


def test_a_worker_that_starts_on_an_emptied_store_stays_and_says_so(tmp_path: Path) -> None:
    port, worker_port = free_port(), free_port()
    worker = f"http://127.0.0.1:{worker_port}"
    one = Deployment(tmp_path, {"worker": f"redis://127.0.0.1:{port}/0"}, {"VIGIL_WORKER_PORT": str(worker_port)})
    with server(tmp_path / "a", port=port), one.process("worker", "worker"):
        wait_for("the worker", lambda: ready(worker)[0] == 200)
    with server(tmp_path / "b", port=port), one.process("worker", "worker"):
        wait_for("the worker refuses", lambda: ready(worker)[0] == 503)
        assert "came back empty" in ready(worker)[1]
        assert one.vigil("worker", "store", "accept").returncode == 0
        wait_for("the worker takes it", lambda: ready(worker)[0] == 200)
