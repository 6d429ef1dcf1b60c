"""One line about a job: pure."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from worker.cli.rendering import LiveLine, billed_summary, clean, format_duration, job_summary, truncate

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)


def ago(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def job(status: str, **more: Any) -> dict[str, Any]:
    return {"id": "job_1", "status": status, "created_at": ago(100.5), "requested_model": "gpt-5.6-sol", **more}


CHECK = {"evidence": "signalled", "use_cases": ["cyber"], "started_at": ago(42.5), "ended_at": None}


@pytest.mark.parametrize(
    ("one", "line"),
    [
        (job("queued"), "queued, 1:40"),
        (job("running", started_at=ago(12.5)), "running, 0:12, 240 characters"),
        (job("checking", safety={"checks": [CHECK]}), "safety check running, 0:42 (signalled: cyber)"),
        (
            job("checking", safety={"checks": [{**CHECK, "evidence": "suspected", "use_cases": []}]}),
            "safety check running, 0:42 (suspected)",
        ),
        (
            job("checking", safety={"checks": [CHECK]}, offer={"model": "gpt-5.6-luna"}),
            "safety check running, 0:42 (signalled: cyber); gpt-5.6-luna is offered",
        ),
        (job("scheduled", reason="backoff", next_attempt_at=ago(-3.9)), "waiting for retry in 0:03 (backoff)"),
        (
            job("scheduled", reason="not_before", next_attempt_at=ago(-7209.9)),
            "waiting to start in 2:00:09 (not_before)",
        ),
        (job("scheduled", reason="hold", hold={"reason": "insufficient_quota"}), "on hold, insufficient_quota"),
        (job("completed", finished_at=ago(40.5)), "completed after 1:00"),
        (job("completed", reason="max_output_tokens"), "completed (max_output_tokens)"),
        (job("completed", refusal="No."), "completed, the model declined"),
        (
            job("completed", served_model="gpt-5.6-luna", disclosure={"reason": "silence"}),
            "completed, served by gpt-5.6-luna in place of gpt-5.6-sol (silence)",
        ),
        (
            job("blocked", safety={"block": {"category": "cyber", "code": "cyber_policy", "advice": "Rephrase."}}),
            "blocked: cyber (cyber_policy). Rephrase.",
        ),
        (
            job("failed", error={"code": "model_not_found", "message": "No access.", "advice": "Ask."}),
            "failed (model_not_found): No access. Ask.",
        ),
        (job("cancelled"), "cancelled"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_job_in_one_line(one: dict[str, Any], line: str) -> None:
    assert job_summary(one, characters=240, now=NOW) == line


@pytest.mark.parametrize(("seconds", "face"), [(-5, "0:00"), (9.9, "0:09"), (725, "12:05"), (3609, "1:00:09")])
def test_a_clock_face(seconds: float, face: str) -> None:
    assert format_duration(seconds) == face


def test_a_line_never_wraps() -> None:
    assert truncate("safety check running, 0:42 (signalled: cyber)", 40) == "safety check running, 0:42 (signalled:…"
    assert len(truncate("x" * 500, 40)) < 40
    assert truncate("a\nb", 40) == "a b"


def test_an_answer_cannot_play_with_the_terminal() -> None:
    assert clean("a\x1b[2Jb\r\x07\tc\nd\u202e") == "a[2Jb\tc\nd"


def test_without_a_terminal_each_change_is_one_line() -> None:
    out = io.StringIO()
    line = LiveLine(out)
    for text, kind in (("queued, 0:00", "q"), ("queued, 0:01", "q"), ("running, 0:00", "r")):
        line.show("queued", text, kind)
    line.settle("completed", "completed")
    assert out.getvalue() == "queued, 0:00\nrunning, 0:00\ncompleted\n"


def test_the_bill_of_a_cancelled_job_is_one_line():
    unknown = {"state": "unknown", "cost": "0.010000", "estimated": True, "message": "Nobody said."}
    assert billed_summary(unknown) == "unknown, about $0.010000: Nobody said."
    assert billed_summary({**unknown, "cost": None}) == "unknown: Nobody said."
