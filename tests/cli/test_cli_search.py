"""`vigil list` finds jobs by every filter, `vigil rerun` and `vigil actions` act on them, `vigil submit` sends all."""

from __future__ import annotations

import json

from vigil_process import Up, one_line


def ended(up: Up, scenario: str, *words: str) -> str:
    """The id of a job that has ended."""
    return str(up.json("wait", str(up("submit", f"[[sim: {scenario}]] x", *words).stdout.strip()))["id"])


def failing(up: Up, *words: str) -> str:
    job_id = up("submit", "[[sim: context_too_long]] x", *words).stdout.strip()
    up("wait", job_id)
    return job_id


def ids(up: Up, *words: str) -> list[str]:
    return [job["id"] for job in up.json("list", *words)["data"]]


def test_jobs_are_found_by_what_is_known_of_them(up: Up) -> None:
    failed = failing(up, "--metadata", "search=1", "--metadata", "team=red", "--end-user", "ann")
    done = ended(up, "normal", "--metadata", "search=1", "--metadata", "team=blue")
    job = up.json("get", failed)
    assert ids(up, "--metadata", "search=1") == [done, failed]
    assert ids(up, "--metadata", "search=1", "--metadata", "team=red") == [failed]
    assert ids(up, "--metadata", "search=1", "--status", "failed", "--status", "expired") == [failed]
    assert ids(up, "--code", job["error"]["code"], "--metadata", "search=1") == [failed]
    assert ids(up, "--end-user", "ann", "--metadata", "search=1") == [failed]
    served = up.json("get", done)
    assert ids(up, "--served-model", served["served_model"], "--metadata", "search=1") == [done]
    assert ids(up, "--response-id", served["attempts"][0]["response_id"]) == [done]
    assert ids(up, "--request-id", served["attempts"][0]["request_id"]) == [done]
    assert ids(up, "--created-before", served["created_at"], "--metadata", "search=1") == [failed]
    assert up("list", "--metadata", "search=nothing").stderr == "no jobs\n"


def test_a_job_runs_again(up: Up) -> None:
    old = failing(up)
    new = up("rerun", old, "--idempotency-key", "again").stdout.strip()
    assert up.json("get", new)["rerun_of"] == old
    assert up("rerun", old, "--idempotency-key", "again").stdout.strip() == new
    blocked = up("submit", "[[sim: block_before_stream]] x").stdout.strip()
    up("wait", blocked)
    refused = up("rerun", blocked)
    assert (refused.returncode, "(blocked)" in one_line(refused)) == (1, True)


def test_many_jobs_are_counted_before_anything_is_done(up: Up) -> None:
    old = {failing(up, "--metadata", "bulk=1") for _ in range(3)}
    found = ("--metadata", "bulk=1")
    assert up("actions", "rerun", *found, "--dry-run").stdout == "rerun: 3 jobs\n"
    unasked = up("actions", "rerun", *found)
    assert (unasked.returncode, "3 jobs would be meant; add --yes" in one_line(unasked)) == (2, True)
    made = up.json("actions", "rerun", *found, "--yes")
    assert (made["done"], {row["id"] for row in made["data"]}) == (3, old)
    again = up("actions", "rerun", *sorted(old), "--yes")
    assert (again.returncode, again.stdout.splitlines()[0]) == (0, "0 run again, 3 unchanged, 0 refused")
    some = min(old)
    mixed = up("actions", "delete-content", some, "job_nobody", "--yes", "--json")
    assert (mixed.returncode, json.loads(mixed.stdout)["refused"]) == (1, 1)
    assert up.json("get", some)["content"] == "deleted"
    assert up("actions", "cancel").returncode == 2
    assert up("actions", "cancel", some, *found).returncode == 2


def test_submit_sends_all_that_the_api_takes(up: Up) -> None:
    words = ["--priority", "low", "--not-before", "2099-01-01T00:00:00Z", "--no-store", "--require-model"]
    words += ["--fallback", "gpt-5.6-terra", "--max-attempts", "2", "--run-deadline-seconds", "60"]
    words += ["--on-delay", "switch", "--delay-model", "gpt-5.6-luna", "--queue-deadline-seconds", "90"]
    far = up("submit", "x", *words)
    assert "/not_before" in far.stderr, "the API judges the time"
    words[3] = up.json("get", ended(up, "normal"))["created_at"]
    job = up.json("submit", "x", *words, "--webhook", "https://app.example/h", "--webhook-event", "job.failed")
    assert (job["priority"], job["not_before"], job["webhook"]["url"]) == ("low", words[3], "https://app.example/h")
    policy = up.json("audit", "show", job["id"])["data"][0]["data"]["policy"]
    assert (policy["fallback"], policy["require_model"], policy["max_attempts"]) == (["gpt-5.6-terra"], True, 2)
    assert (policy["on_delay"]["model"], policy["queue_deadline_seconds"]) == ("gpt-5.6-luna", 90.0)
    none = up.json("submit", "x", "--fallback", "none")
    assert up.json("audit", "show", none["id"])["data"][0]["data"]["policy"]["fallback"] == []
