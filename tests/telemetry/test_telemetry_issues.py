"""Issues: each abnormal end is one issue with its own grouping, data never is one; none has content."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from in_process import Stage, until
from ingest import Ingest, Receiver
from pydantic import BaseModel

from worker.jobs.errors import LeaseLost, StoreUnavailable
from worker.main import WorkerProcess
from worker.store import keys
from worker.telemetry import events, sentry, sentry_issues, sentry_scrubbing
from worker.telemetry.internal_errors import report_internal_error

SECRET = "CANARY-7f1c"
ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = ROOT / "ops" / "runbook"


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    with Ingest() as ingest:
        yield ingest
        sentry.stop()


@pytest.fixture
async def stage(redis: ArqRedis, valkey_url: str, ingest: Ingest) -> AsyncIterator[Stage]:
    more = {"SENTRY_DSN": ingest.dsn, "webhook_allow_private": True, "webhook_schedule": (0.01,)}
    async with Stage(redis, valkey_url, **more) as stage:
        yield stage


def arrived(ingest: Ingest) -> list[dict[str, Any]]:
    """All events, after everything had its moment to leave; none of them holds content."""
    sentry.stop()
    assert SECRET not in ingest.everything()
    assert "sk-stage" not in ingest.everything()
    return ingest.events


async def idle(worker: WorkerProcess) -> None:
    """Every run has let go, so its spans are closed."""

    async def gone() -> bool:
        return not worker.runs

    await until("the runs to let go", gone)


def test_the_table_names_events_and_fields_that_exist() -> None:
    for name, (cause, issue) in sentry_issues.EVENTS.items():
        row = events.EVENTS[name]
        assert set(issue.of) <= row.fields, name
        assert (cause == name) == issue.bug
        assert ("{" in issue.title) <= bool(issue.of)
    assert set(sentry_issues.TAGS) <= events.FIELDS.keys()
    assert len({cause for cause, _ in sentry_issues.EVENTS.values()}) == len(sentry_issues.EVENTS)
    data = ("job.blocked", "job.settled", "check.started", "check.ended", "attempt.finished", "model.substituted")
    assert not set(data) & sentry_issues.EVENTS.keys(), "blocks, checks, refusals and retries are data"
    pages = {issue.page for issue in sentry_issues.CAUSES.values()}
    assert all((RUNBOOK / f"{page}.md").exists() for page in pages)


def test_every_internal_error_that_the_code_reports_is_in_the_table() -> None:
    sources = [path.read_text() for room in ("api", "worker") for path in (ROOT / room).rglob("*.py")]
    reported = {name for text in sources for name in re.findall(r'report_internal_error\(\s*"([a-z.]+)"', text)}
    assert {name for name, (_, issue) in sentry_issues.EVENTS.items() if issue.bug} == reported


async def test_a_bug_in_a_run_is_one_event_without_content(stage: Stage, ingest: Ingest) -> None:
    worker = await stage.worker()

    def broken(*_: object) -> None:
        prompt = SECRET
        try:
            json.loads(f'{{"a": {prompt}')
        except ValueError as error:
            raise RuntimeError(f"could not read {prompt}") from error

    worker.components.accounts.all[0].access.observe = broken  # type: ignore[method-assign]
    job_id = await stage.submit(f"[[sim: normal]] {SECRET}")
    assert (await stage.settled(job_id)).status.value == "failed"
    await idle(worker)
    (event,) = arrived(ingest)
    assert event["tags"]["vigil.event"] == "run.broke"
    assert event["tags"]["job_id"] == job_id
    cause, error = event["exception"]["values"]
    assert (cause["type"], cause["value"]) == ("JSONDecodeError", "")
    assert (error["type"], error["value"]) == ("RuntimeError", "")
    frames = error["stacktrace"]["frames"]
    assert any(frame["module"] == "worker.tasks.execution.job_run" and frame["in_app"] for frame in frames)
    assert not any("vars" in frame or "context_line" in frame for frame in frames)
    assert event["fingerprint"][:2] == ["run.broke", "RuntimeError"]
    (run,) = [span for span in ingest.spans if span["op"] == "queue.process"]
    assert (run["attributes"]["vigil.ended"], run["status"]) == ("failed", "internal_error")
    assert event["contexts"]["trace"]["trace_id"] == run["trace_id"]


async def test_lost_access_is_one_event_per_model(stage: Stage, ingest: Ingest) -> None:
    workers = [await stage.worker(), await stage.worker()]
    stage.sim.deny("gpt-5.6-sol")
    for _ in range(3):
        job_id = await stage.submit(f"[[sim: normal]] {SECRET}", policy={"fallback": []})
        assert (await stage.settled(job_id)).status.value == "failed"

    async def skipped() -> bool:
        return all("gpt-5.6-sol" in worker.components.accounts.all[0].access.denied for worker in workers)

    await until("all workers to know", skipped)
    (event,) = arrived(ingest)
    assert event["fingerprint"] == ["access-lost", "gpt-5.6-sol"]
    assert event["level"] == "error"
    assert "gpt-5.6-sol" in event["logentry"]["message"]


async def test_a_lost_lease_is_one_event(stage: Stage, ingest: Ingest) -> None:
    worker = await stage.worker()
    job_id = await stage.submit(f"[[sim: normal tokens=400 rate=1]] {SECRET}")
    await stage.reaches(job_id, "text", lambda j: any(a.first_output_at for a in j.attempts))
    await stage.redis.hset(keys.job(job_id), "tok", "somebody else")

    await idle(worker)
    (event,) = arrived(ingest)
    assert event["fingerprint"] == ["lease-lost"]
    assert event["tags"]["job_id"] == job_id
    spans = {span["name"]: span for span in ingest.spans}
    assert spans["queue.process"]["attributes"]["vigil.ended"] == "lost"
    call = spans["responses gpt-5.6-sol"]["attributes"]
    assert call["safety.outcome"] == "lost", "its span is closed although nobody was told how it ended"


async def test_a_lost_job_is_one_event(stage: Stage, ingest: Ingest) -> None:
    job_id = await stage.submit(SECRET)
    await stage.redis.hset(keys.job(job_id), "rec", f'{{"{SECRET}')
    worker = await stage.worker()
    assert (await stage.settled(job_id)).error.code == "record_unreadable"
    await worker.components.incident_reporter.report()
    by_cause = {event["tags"]["vigil.cause"]: event for event in arrived(ingest)}
    assert by_cause.keys() == {"job-lost", "record-unreadable"}, "the job, and the value that it stood in"
    assert by_cause["job-lost"]["tags"]["job_id"] == job_id
    assert by_cause["job-lost"]["contexts"]["incident"]["count"] == 1


async def test_a_dead_receiver_is_one_event_that_does_not_name_it(stage: Stage, ingest: Ingest) -> None:
    worker = await stage.worker()
    with Receiver(status=500) as receiver:
        client_job = await _with_webhook(stage, receiver.url)

        async def exhausted() -> bool:
            kept = [await stage.redis.get(name) for name in await stage.redis.keys("vigil:msg:*")]
            return any(json.loads(one)["state"] == "exhausted" for one in kept)

        await until("the message to be given up", exhausted)
        await stage.stop(worker)  # its last try is over, with the trace of it
        assert len(receiver.got) == 2
    (event,) = arrived(ingest)
    assert event["fingerprint"] == ["webhook-dead", sentry_issues.digest("127.0.0.1")]
    assert (event["level"], event["tags"]["job_id"]) == ("warning", client_job)
    assert "CANARY-query" not in ingest.everything()
    tries = [span for span in ingest.spans if span["op"] == "http.client"]
    assert [(s["status"], s["attributes"]["vigil.result"]) for s in tries] == [("internal_error", "failed")] * 2


async def test_a_receiver_that_refuses_for_good_is_an_issue_of_its_own(stage: Stage, ingest: Ingest) -> None:
    worker = await stage.worker()
    with Receiver(status=410) as receiver:
        await _with_webhook(stage, receiver.url)
        await until("its refusal", lambda: _true(bool(receiver.got)))
        await stage.stop(worker)
    (event,) = arrived(ingest)
    assert event["fingerprint"] == ["webhook-gone", sentry_issues.digest("127.0.0.1")]


async def _true(value: bool) -> bool:
    return value


async def _with_webhook(stage: Stage, url: str) -> str:
    from worker.clock import Clock
    from worker.jobs import events as ev
    from worker.store.apps import Apps
    from worker.store.jobs.stored_job import NewJob

    await Apps(stage.redis, Clock()).create_key("stage", ("submit",))
    fact = ev.Queued(app="stage", key_id="k", requested_model="gpt-5.6-sol", webhook_events=("job.completed",))
    hook = {"url": url, "payload": "full", "events": ["job.completed"]}
    stored, _ = await stage.jobs.submit(NewJob(fact, {"metadata": {}, "webhook": hook}, {"input": SECRET}))
    return stored.job.id


async def test_a_stuck_queue_is_one_event_of_all_workers(redis: ArqRedis, valkey_url: str, ingest: Ingest) -> None:
    more = {"SENTRY_DSN": ingest.dsn, "max_jobs": 1, "stuck_seconds": 1.0}
    async with Stage(redis, valkey_url, **more) as stage:
        workers = [await stage.worker(), await stage.worker()]
        running = [await stage.submit("[[sim: queued_forever]] x") for _ in workers]
        for job_id in running:
            await stage.reaches(job_id, "it to run", lambda j: j.attempts)
        await stage.submit(f"waits {SECRET}")
        await asyncio.sleep(1.1)  # it must be that old
        for worker in workers * 2:
            await worker.components.sweeper.report_stuck_queue()
    (event,) = arrived(ingest)  # behind the workers' end: a span that closes after Sentry's wakes its thread again
    assert event["fingerprint"] == ["queue-stuck"]


def test_widened_checks_are_one_event_per_family(ingest: Ingest, valkey_url: str) -> None:
    from worker.settings import Settings

    sentry.start(Settings(_env_file=None, redis_url=valkey_url, SENTRY_DSN=ingest.dsn))
    events.emit("account.state", model="gpt-5.6", status="elevated", code="check_rate_up")
    events.emit("account.state", model="gpt-5.6", status="widened", code="checks_widened")
    events.emit("account.state", model="account", status="widened", code="checks_widened")
    events.emit("account.state", model="gpt-5.6", status="normal", code="over")
    (event,) = arrived(ingest)
    assert (event["fingerprint"], event["level"]) == (["checks-widened", "gpt-5.6"], "warning")


@pytest.mark.parametrize(
    "scenario",
    [
        "normal",
        "refusal",
        "check_then_block hold=1",
        "bio_block",
        "content_filter",
        "rate_limited times=1 retry_after=0.1",
        "overloaded times=1",
        "max_tokens",
    ],
)
async def test_what_is_data_is_never_an_issue(stage: Stage, ingest: Ingest, scenario: str) -> None:
    await stage.worker()
    await stage.settled(await stage.submit(f"[[sim: {scenario}]] {SECRET}"))
    assert arrived(ingest) == []


async def test_workers_and_sweepers_show_a_heartbeat_once_a_minute(
    stage: Stage, ingest: Ingest, telemetry_events: list[tuple[str, dict[str, object]]]
) -> None:
    worker = await stage.worker()

    async def swept() -> bool:
        return any(name == "sweep.done" for name, _ in telemetry_events)

    await until("a sweep", swept)
    for _ in range(3):
        await worker.components.sweeper.beat()
    sentry.stop()
    beats = ingest.items("check_in")
    assert sorted(beat["monitor_slug"] for beat in beats) == ["vigil-sweeper", "vigil-worker"]
    for beat in beats:
        assert beat["status"] == "ok"
        assert beat["monitor_config"]["schedule"] == {"type": "interval", "value": 1, "unit": "minute"}


async def test_an_interrupted_run_closes_its_spans(stage: Stage, ingest: Ingest) -> None:
    worker = await stage.worker()
    job_id = await stage.submit(f"[[sim: normal tokens=200 rate=20]] {SECRET}")
    await stage.reaches(job_id, "text", lambda j: any(a.first_output_at for a in j.attempts))
    await stage.stop(worker)
    second = await stage.worker()
    assert (await stage.settled(job_id)).status.value == "completed"
    await idle(second)
    assert arrived(ingest) == []
    runs = [span["attributes"] for span in ingest.spans if span["op"] == "queue.process"]
    assert [(r["vigil.ended"], r["messaging.message.retry.count"]) for r in runs] == [
        ("interrupted", 0),
        ("completed", 1),
    ]
    calls = [span["attributes"] for span in ingest.spans if span["name"].startswith("responses")]
    assert [call["safety.outcome"] for call in calls] == ["interrupted", "completed"]
    assert [call["vigil.purpose"] for call in calls] == ["original", "resumed"]


# -- what may leave, without anybody listening


class _Strict(BaseModel):
    age: int


def test_an_exception_is_told_by_type_and_place_and_only_in_our_own_words() -> None:
    try:
        try:
            _Strict.model_validate({"age": SECRET})
        except ValueError as error:
            raise LeaseLost("job_1") from error
    except LeaseLost as error:
        scrubbed = sentry_scrubbing.exception(error)
    assert [(one["type"], one["value"]) for one in scrubbed["values"]] == [
        ("ValidationError", ""),
        ("LeaseLost", "job_1: another worker holds the lease"),
    ]
    assert SECRET not in repr(scrubbed)


def test_an_event_that_is_not_ours_never_leaves() -> None:
    assert sentry_scrubbing.event({"message": SECRET, "level": "error"}) is None
    assert sentry_scrubbing.event({"message": SECRET, "tags": {"vigil.event": SECRET}}) is None


def test_of_an_event_of_ours_only_listed_parts_leave() -> None:
    frame = {"function": "f", "module": "worker.x", "vars": {"p": SECRET}, "context_line": SECRET, "lineno": 3}
    sent = {
        "level": "error", "message": SECRET, "request": {"data": SECRET}, "extra": {"x": SECRET},
        "user": {"id": SECRET},
        "breadcrumbs": [SECRET], "modules": {SECRET: "1"}, "server_name": SECRET, "transaction": SECRET,
        "contexts": {"trace": {"trace_id": "t", "data": SECRET}, "runtime": {"name": SECRET}},
        "tags": {"vigil.event": "run.broke", "vigil.cause": "run.broke", "job_id": "job_1", SECRET: SECRET},
        "exception": {"values": [{"type": "E", "value": "", "stacktrace": {"frames": [frame]}, "mechanism": SECRET}]},
    }  # fmt: skip
    scrubbed = sentry_scrubbing.event(sent)
    assert SECRET not in repr(scrubbed)
    assert scrubbed["exception"]["values"][0]["stacktrace"]["frames"] == [
        {"function": "f", "lineno": 3, "module": "worker.x"}
    ]


def test_of_a_transaction_only_listed_parts_leave_and_names_are_ours() -> None:
    span = {
        "op": "x",
        "description": SECRET + " x",
        "data": {"db.statement": SECRET, "vigil.attempt": 1},
        "tags": SECRET,
    }
    scrubbed = sentry_scrubbing.transaction(
        {
            "type": "transaction", "transaction": SECRET, "request": {"data": SECRET}, "extra": SECRET, "tags": SECRET,
            "breadcrumbs": [SECRET], "measurements": SECRET, "user": {"id": SECRET}, "server_name": SECRET,
            "contexts": {"trace": {"trace_id": "t", "description": SECRET, "data": {SECRET: SECRET}}, "x": SECRET},
            "spans": [span, {"op": "gen_ai.responses", "description": "responses gpt-5.6-sol"}],
        }
    )  # fmt: skip
    assert SECRET not in repr(scrubbed)
    assert scrubbed["transaction"] == "other"
    names = [(one["description"], one["data"]) for one in scrubbed["spans"]]
    assert names == [("other", {"vigil.attempt": 1}), ("responses gpt-5.6-sol", {})]
    assert sentry_issues.identifier_or_other("a prompt as a model") == "other"


def test_a_store_that_is_away_may_say_so_in_its_own_words(ingest: Ingest, valkey_url: str) -> None:
    from worker.settings import Settings

    sentry.start(Settings(_env_file=None, redis_url=valkey_url, SENTRY_DSN=ingest.dsn))
    report_internal_error("worker.broke", StoreUnavailable("Redis could not commit: TimeoutError"), what="claiming")
    (event,) = arrived(ingest)
    assert event["exception"]["values"][0]["value"] == "Redis could not commit: TimeoutError"
