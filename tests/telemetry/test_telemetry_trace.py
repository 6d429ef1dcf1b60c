"""One trace from the submit over the worker to the webhook, however the job ends; against a fake Sentry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from api_server import Running, running
from arq.connections import ArqRedis
from in_process import Stage, until
from ingest import Ingest, Receiver

from worker.clock import Clock
from worker.settings import Settings
from worker.telemetry import sentry

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = f"{TRACE}-b7ad6b7169203331-1"
SECRETS = {
    "prompt": "CANARY-prompt",
    "instructions": "CANARY-instructions",
    "metadata": "CANARY-metadata",
    "end_user": "CANARY-person",
    "query": "CANARY-query",
    "provider key": "sk-stage",
    "webhook secret": "whsec_",
    "api key": "vgl_",
    "output": "harbour wakes",
    "more output": "patient host",
    "address": "/hooks?",
}


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    with Ingest() as ingest:
        yield ingest


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


class TracedStack:
    """API, worker, provider, receiver and Sentry."""

    def __init__(self, api: Running, stage: Stage, ingest: Ingest, receiver: Receiver) -> None:
        self.api, self.stage, self.ingest, self.receiver = api, stage, ingest, receiver

    async def submit(self, prompt: str, headers: dict[str, str] | None = None, **more: Any) -> str:
        client = await self.api.client()
        body = {
            "model": "gpt-5.6-sol",
            "input": f"{prompt} CANARY-prompt",
            "instructions": "CANARY-instructions",
            "metadata": {"note": "CANARY-metadata"},
            "end_user": "CANARY-person",
            "webhook": {"url": self.receiver.url, "events": [f"job.{s}" for s in ENDS]},
            **more,
        }
        answer = await client.post("/v1/jobs", json=body, headers=headers or {})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def over(self, job_id: str, status: str) -> None:
        """The job is settled, its webhook delivered, and all of it has left for Sentry."""
        job = await self.stage.settled(job_id)
        assert job.status.value == status
        sent = len(self.receiver.got)
        if not sent:
            await until("the webhook", lambda: _true(len(self.receiver.got) > sent))

        async def ended() -> bool:
            busy = (worker.runs or worker.components.dispatcher._sending for worker, _, _ in self.stage._workers)
            return not any(busy)

        await until("the delivery's receipt", lambda: self._kept(job_id))
        await until("the run and the delivery to let go", ended)
        for worker, _, _ in self.stage._workers:
            await worker.components.incident_reporter.report()

    async def _kept(self, job_id: str) -> bool:
        client = await self.api.client()
        rows = (await client.get(f"/v1/jobs/{job_id}/deliveries")).json()["data"]
        return bool(rows) and all(row["deliveries"] for row in rows)


async def _true(value: bool) -> bool:
    return value


ENDS = ("completed", "blocked", "failed", "cancelled", "expired")


@pytest.fixture
async def stack(
    redis: ArqRedis, valkey_url: str, clock: Clock, tmp_path: Path, ingest: Ingest, receiver: Receiver
) -> AsyncIterator[TracedStack]:
    more = {"SENTRY_DSN": ingest.dsn, "webhook_allow_private": True, "webhook_schedule": (0.05,)}
    settings = Settings(_env_file=None, redis_url=valkey_url, data_dir=tmp_path, **more)
    async with Stage(redis, valkey_url, **more) as stage, running(settings, redis, clock) as api:
        await stage.worker()
        yield TracedStack(api, stage, ingest, receiver)
    sentry.stop()


def check_canaries(ingest: Ingest) -> None:
    text = ingest.everything()
    assert not {what for what, secret in SECRETS.items() if secret in text}


ANSWERS = ("completed", "refused", "blocked")


def ordinary_format(ingest: Ingest) -> None:
    """Every part of the trace came as a transaction event with its spans, as every Sentry reads it."""
    assert ingest.items("span") == []
    for one in ingest.items("transaction"):
        assert one["type"] == "transaction"
        assert one["start_timestamp"] <= one["timestamp"]
        assert {"trace_id", "span_id", "op", "status"} <= one["contexts"]["trace"].keys()
        for span in one["spans"]:
            assert span["trace_id"] == one["contexts"]["trace"]["trace_id"]
            assert one["start_timestamp"] <= span["start_timestamp"] <= span["timestamp"]
            # a call that a deadline ends may close its span just after the run's
            assert seconds_of(span["timestamp"]) <= seconds_of(one["timestamp"]) + 1


def seconds_of(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def one_tree(spans: list[dict[str, Any]], root: str) -> None:
    """All spans hang together below `root`, the caller's."""
    parents = {span["span_id"]: span["parent_span_id"] for span in spans}
    assert len(parents) == len(spans)
    assert set(parents.values()) - parents.keys() == {root}


CASES = [
    ("completed", "[[sim: normal]]", {}, ["completed"]),
    ("completed", "[[sim: refusal]]", {}, ["refused"]),
    ("completed", "[[sim: check_then_clear hold=1]]", {}, ["completed"]),
    ("blocked", "[[sim: check_then_block hold=1]]", {}, ["blocked"]),
    ("blocked", "[[sim: block_before_stream]]", {}, ["blocked"]),
    ("failed", "[[sim: server_error]]", {"policy": {"max_attempts": 1}}, ["server_error"]),
    ("completed", "[[sim: rate_limited times=1 retry_after=0.1]]", {}, ["rate_limited", "completed"]),
    ("completed", "[[sim: cut times=1]]", {}, ["completed"]),
    ("expired", "[[sim: queued_forever]]", {"policy": {"run_deadline_seconds": 1}}, ["timed_out"]),
    (
        "completed",
        "[[sim: check_then_clear hold=60]]",
        {"policy": {"on_delay": {"action": "switch", "after_seconds": 1, "model": "gpt-5.6-luna"}}},
        ["substituted", "completed"],
    ),
]


@pytest.mark.parametrize(
    ("status", "prompt", "more", "outcomes"), CASES, ids=[c[1].strip("[]").split()[1] for c in CASES]
)
async def test_one_trace_in_every_outcome(
    stack: TracedStack, status: str, prompt: str, more: dict[str, Any], outcomes: list[str]
) -> None:
    job_id = await stack.submit(prompt, {"sentry-trace": CALLER}, **more)
    await stack.over(job_id, status)
    sentry.stop()
    spans = stack.ingest.spans
    assert {span["trace_id"] for span in spans} == {TRACE}
    by_op: dict[str, list[dict[str, Any]]] = {}
    for span in spans:
        by_op.setdefault(span["op"], []).append(span)
    (served,), (published,) = by_op["http.server"], by_op["queue.publish"]
    assert served["parent_span_id"] == CALLER[33:49]
    assert published["parent_span_id"] == served["span_id"]
    assert published["attributes"]["messaging.message.id"] == job_id
    assert served["attributes"]["http.response.status_code"] == 202
    ordinary_format(stack.ingest)
    one_tree(spans, root=CALLER[33:49])
    tasks = {task["span_id"]: task for task in by_op["queue.task"]}
    assert {task["parent_span_id"] for task in tasks.values()} == {published["span_id"]}
    for run in by_op["queue.process"]:
        assert tasks[run["parent_span_id"]]["name"] == "vigil.run"
        assert run["attributes"]["messaging.message.receive.latency"] >= 0
        assert run["attributes"]["messaging.destination.name"] == "vigil"
    last = by_op["queue.process"][-1]
    assert last["attributes"]["vigil.status"] == status
    assert last["status"] == {"failed": "internal_error", "expired": "deadline_exceeded"}.get(status, "ok")
    assert [task["status"] for task in tasks.values() if task["name"] == "vigil.run"][-1] == last["status"]
    calls = by_op["gen_ai.responses"]
    assert [call["attributes"]["safety.outcome"] for call in calls] == outcomes
    runs = {run["span_id"] for run in by_op["queue.process"]}
    assert {call["parent_span_id"] for call in calls} <= runs
    assert {call["name"] for call in calls} <= {"responses gpt-5.6-sol", "responses gpt-5.6-luna"}
    assert {call["status"] for call in calls if call["attributes"]["safety.outcome"] in ANSWERS} <= {"ok"}
    assert {commit["parent_span_id"] for commit in by_op["db"]} == runs
    (delivery,) = by_op["http.client"]
    assert tasks[delivery["parent_span_id"]]["name"] == "webhook.deliver"
    assert delivery["attributes"]["vigil.result"] == "delivered"
    assert stack.receiver.got[0]["sentry-trace"].startswith(TRACE)
    assert "baggage" not in stack.receiver.got[0]
    issues = [event["tags"]["vigil.cause"] for event in stack.ingest.events]
    assert issues == {"failed": ["job-failed"], "expired": ["job-expired"]}.get(status, []), "a block is data"
    check_canaries(stack.ingest)


async def test_what_a_call_was_like_stands_on_its_span(stack: TracedStack) -> None:
    job_id = await stack.submit("[[sim: check_then_clear hold=6 tokens=40]]")
    await stack.over(job_id, "completed")
    job = await stack.stage.job(job_id)
    sentry.stop()
    (call,) = [s for s in stack.ingest.spans if s["op"] == "gen_ai.responses"]
    attributes, attempt = call["attributes"], job.attempts[0]
    assert attributes["gen_ai.request.model"] == attributes["gen_ai.response.model"] == "gpt-5.6-sol"
    assert attributes["gen_ai.usage.output_tokens"] == attempt.usage.output_tokens > 0
    assert attributes["gen_ai.usage.total_tokens"] == attempt.usage.total_tokens
    assert attributes["gen_ai.response.finish_reasons"] == ["completed"]
    assert attributes["openai.request_id"] == attempt.request_id
    assert attributes["safety.check.seconds"] > 0
    assert attributes["gen_ai.response.time_to_first_token"] >= attributes["safety.check.seconds"]
    assert attributes["model.substituted"] is False
    assert call["timestamp"] > call["start_timestamp"]


async def test_each_job_of_a_worker_has_a_trace_of_its_own(stack: TracedStack) -> None:
    ids = [await stack.submit("[[sim: normal]]") for _ in range(4)]
    for job_id in ids:
        await stack.over(job_id, "completed")
    sentry.stop()
    runs = {
        s["attributes"]["messaging.message.id"]: s["trace_id"] for s in stack.ingest.spans if s["op"] == "queue.process"
    }
    assert runs.keys() == set(ids)
    assert len(set(runs.values())) == 4
    assert not any("sentry-trace" in got for got in stack.receiver.got), "an app that traces nothing is sent nothing"


async def test_w3cs_traceparent_is_continued_and_given_back(stack: TracedStack) -> None:
    job_id = await stack.submit("[[sim: normal]]", {"traceparent": f"00-{TRACE}-{CALLER[33:49]}-01"})
    await stack.over(job_id, "completed")
    sentry.stop()
    one_tree(stack.ingest.spans, root=CALLER[33:49])
    (got,) = stack.receiver.got
    assert got["traceparent"].startswith(f"00-{TRACE}-")
    assert got["traceparent"].endswith("-01")
    assert "sentry-trace" not in got, "it speaks W3C"


async def test_a_cancelled_job_closes_its_spans(stack: TracedStack) -> None:
    job_id = await stack.submit("[[sim: normal tokens=400 rate=1]]", {"sentry-trace": CALLER})
    await stack.stage.reaches(job_id, "text", lambda j: any(a.first_output_at for a in j.attempts))
    client = await stack.api.client()
    assert (await client.post(f"/v1/jobs/{job_id}/cancel")).status_code in (200, 202)
    await stack.over(job_id, "cancelled")
    sentry.stop()
    (call,) = [s for s in stack.ingest.spans if s["op"] == "gen_ai.responses"]
    assert (call["trace_id"], call["attributes"]["safety.outcome"]) == (TRACE, "cancelled")
    check_canaries(stack.ingest)


async def test_a_batch_is_one_trace_with_a_span_for_each_job(stack: TracedStack) -> None:
    client = await stack.api.client()
    jobs = [{"model": "gpt-5.6-sol", "input": "CANARY-prompt"} for _ in range(3)]
    rows = (await client.post("/v1/jobs/batch", json={"jobs": jobs}, headers={"sentry-trace": CALLER})).json()
    for row in rows:
        await stack.stage.settled(row["job"]["id"])
    sentry.stop()
    published = [s for s in stack.ingest.spans if s["name"] == "queue.publish"]
    assert {s["attributes"]["messaging.message.id"] for s in published} == {row["job"]["id"] for row in rows}
    assert {s["trace_id"] for s in stack.ingest.spans} == {TRACE}


async def test_an_unsampled_trace_stays_unsampled(stack: TracedStack) -> None:
    job_id = await stack.submit("[[sim: normal]]", {"sentry-trace": CALLER[:-1] + "0"})
    await stack.over(job_id, "completed")
    sentry.stop()
    assert stack.ingest.spans == []


async def test_the_provider_never_hears_of_a_trace(stack: TracedStack) -> None:
    job_id = await stack.submit("[[sim: normal]]", {"sentry-trace": CALLER})
    await stack.over(job_id, "completed")
    (call,) = (await asyncio.to_thread(stack.stage.sim.calls))["calls"][:1] or [{}]
    assert TRACE not in repr(call)
