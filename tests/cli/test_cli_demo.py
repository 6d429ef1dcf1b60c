"""`vigil demo`: every outcome, against the simulator, in one run; and its judge, which must be able to say no."""

from __future__ import annotations

import json
from pathlib import Path

from vigil_process import run

from worker.cli.demo.cases import CASES, find_mismatch


def test_every_job_of_the_demo_comes_out_as_it_should(tmp_path: Path) -> None:
    # settings of a real installation do not count: a demo must not touch it, and says nothing of it
    result = run(
        tmp_path,
        "demo",
        "--json",
        VIGIL_REDIS_URL="redis://127.0.0.1:1",
        OPENAI_API_KEY="sk-real",
        OPENAI_BASE_URL="http://127.0.0.1:1/v1",
        VIGIL_UPSTREAM="chat",
    )
    found = json.loads(result.stdout)
    assert [(one["title"], one["wrong"]) for one in found["jobs"] if not one["ok"]] == []
    assert (result.returncode, found["ok"], len(found["jobs"])) == (0, True, len(CASES))
    assert list(tmp_path.iterdir()) == []


def job(**more: object) -> dict[str, object]:
    attempt = {"outcome": "completed"}
    return {"status": "completed", "requested_model": "a", "served_model": "a", "attempts": [attempt], **more}


def test_a_mismatch_is_reported() -> None:
    normal = next(case for case in CASES if case.scenario == "normal")
    assert find_mismatch(normal, job()) is None
    assert find_mismatch(normal, None) == "it was not accepted"
    assert find_mismatch(normal, job(status="failed")) == "status is failed, not completed"
    assert find_mismatch(normal, job(served_model="b")) == "another model answered without a disclosure"
    block = next(case for case in CASES if case.scenario == "misalignment")
    blocked = job(
        status="blocked",
        served_model=None,
        attempts=[{"outcome": "blocked"}],
        safety={"block": {"category": "misalignment", "carrier": "http_403"}},
    )
    assert find_mismatch(block, blocked) is None
    assert find_mismatch(block, {**blocked, "output_text": "x"}) == "a blocked job delivered text"
