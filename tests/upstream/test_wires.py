"""The corpus of wires: each file of `wires/` through a real worker, on a real Valkey, over a real socket.

How a case is written stands in `wires/README.md`. Waits between attempts cost no time: a job that waits for its next
attempt is made due at once (unless its deadline comes first), and pauses within an attempt are 1/50 as long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from waiting import LIMIT

from tests.upstream.wire_case import WIRES, Case, Expect, Mode, Submitted, every_case, read
from tests.upstream.wire_provider import WireProvider
from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.record import Job
from worker.jobs.spec import OnDelay, Policy
from worker.main import WorkerProcess
from worker.safety.output import REPAIR_FLAGS
from worker.settings import Settings
from worker.store import keys
from worker.store.jobs.repository import Jobs, NewJob
from worker.telemetry import events
from worker.upstream.content import MALFORMED_CONTENT, NOT_A_NUMBER
from worker.upstream.surrogates import REPLACED

PERSON = "u_wires"
USUAL = {"max_attempts": 3, "queue_deadline_seconds": 8.0, "run_deadline_seconds": 8.0}
LONGEST = LIMIT


class QuickClock(Clock):
    """The machine's clock; who pauses pauses a fiftieth of it."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 50)


@pytest.mark.parametrize(
    ("path", "mode"),
    every_case(),
    ids=lambda given: str(given.relative_to(WIRES)) if isinstance(given, Path) else given,
)
async def test_a_wire(path: Path, mode: Mode, redis: ArqRedis, valkey_url: str) -> None:
    case = read(path)
    async with WireProvider(case) as provider:
        settings = Settings(
            _env_file=None,  # type: ignore[call-arg]
            redis_url=valkey_url,
            OPENAI_API_KEY="sk-wires",
            OPENAI_BASE_URL=provider.url,
            upstream=mode,
            audit_key="A" * 43,
            allow_unknown_models=True,
            probe_seconds=0,
        )
        clock = QuickClock()
        worker, jobs = WorkerProcess(settings, redis, clock), Jobs(redis, clock)
        mended: list[str] = []

        def record(_: str, fields: Mapping[str, object]) -> None:
            mended.append(str(fields["what"]))

        events.subscribe(record, ["answer.mended"])
        stop, ready = asyncio.Event(), asyncio.Event()
        serving = asyncio.create_task(worker.serve(stop, ready))
        await ready.wait()
        try:
            job_id = await _submit(jobs, case.job)
            job, waits = await _settled(worker, jobs, redis, job_id)
        finally:
            stop.set()
            await serving
            events.unsubscribe(record)
        assert sorted(mended) == sorted(flag for a in job.attempts for flag in a.flags if flag in REPAIR_FLAGS)
        got = await _seen(job, await jobs.load_output(job_id) or {}, provider, redis)
        got["waits"] = waits
        _compare(case.about, case.expect, got)
        if job.block is not None:
            assert got["text"] is None, "nothing of a blocked job is delivered (P2)"


async def _submit(jobs: Jobs, submitted: Submitted) -> str:
    policy = {**USUAL, **submitted.policy}
    if isinstance(policy.get("on_delay"), dict):
        policy["on_delay"] = OnDelay(**policy["on_delay"])
    fact = ev.Queued(
        app="wires",
        key_id="key_wires",
        requested_model=submitted.model,
        policy=Policy(**policy),
        safety_identifier=PERSON,
        store=submitted.store,
    )
    content = {"input": "What is it?", "params": submitted.params}
    stored, _ = await jobs.submit(NewJob(fact, {"metadata": {}}, content))
    return stored.job.id


async def _settled(worker: WorkerProcess, jobs: Jobs, redis: ArqRedis, job_id: str) -> tuple[Job, list[float]]:
    """The job once it is terminal, and the seconds for which it was put off after each attempt."""
    end, waits, skipped = time.monotonic() + LONGEST, [], 0
    while True:
        stored = await jobs.load(job_id)
        assert stored is not None
        job = stored.job
        if job.settled:
            return job, waits
        assert time.monotonic() < end, f"the job is still {job.status} ({job.reason}) after {LONGEST} s"
        due = job.next_attempt_at
        if due is not None and job.reason == "backoff" and job.version > skipped:
            skipped = job.version
            last = job.attempts[-1].finished_at
            assert last is not None
            waits.append((due - last).total_seconds())
            assert job.started_at is not None
            if due < job.started_at + timedelta(seconds=job.policy.run_deadline_seconds):
                await redis.zadd(keys.LATER, {job_id: 0}, xx=True)
                worker.components.claimer.wake()
        await asyncio.sleep(0.005)


async def _seen(job: Job, answer: dict[str, Any], provider: WireProvider, redis: ArqRedis) -> dict[str, Any]:
    """All that an expectation may name."""
    last = job.attempts[-1] if job.attempts else None
    error, block = job.error or (last.error if last is not None else None), job.block
    provider_code = error.provider.code if error is not None and error.provider is not None else None
    usage = last.usage if last is not None else None
    items = answer.get("output") or []
    return {
        "status": job.status.value,
        "reason": job.reason,
        "outcomes": [a.outcome.value if a.outcome else None for a in job.attempts],
        "flags": list(last.flags) if last is not None else [],
        "code": block.code if block is not None else provider_code,
        "error": error.code if error is not None else None,
        "category": block.category if block is not None else None,
        "carrier": block.carrier if block is not None else None,
        "after_output": block.after_output if block is not None else None,
        "text": answer.get("output_text"),
        "refusal": answer.get("refusal"),
        "calls": [[i.get("name"), i.get("arguments")] for i in items if i.get("type") == "function_call"],
        "usage": usage.model_dump(exclude={"estimated"}) if usage is not None and not usage.estimated else {},
        "creates": len(provider.creates),
        "looks": len(provider.looks),
        "cancels": len(provider.cancels),
        "resumed": sum(a.resumed for a in job.attempts),
        "quarantine_counts": bool(await redis.exists(keys.ledger(PERSON, "blocks"))),
    }


def _compare(about: str, expect: Expect, got: dict[str, Any]) -> None:
    wrong: dict[str, tuple[Any, Any]] = {}
    for name in expect.model_fields_set:
        wanted, have = getattr(expect, name), got[name]
        if name == "flags":
            right = set(wanted) <= set(have)
        elif name == "usage" and wanted:
            right = {key: have.get(key) for key in wanted} == wanted
        elif name == "waits":
            right = len(have) == len(wanted) and all(h >= w - 0.001 for h, w in zip(have, wanted, strict=True))
        else:
            right = have == wanted
        if not right:
            wrong[name] = (have, wanted)
    assert not wrong, f"{about} (what came, what was expected): {wrong}; all that came: {got}"


def test_what_is_counted_as_mended_are_the_flags_of_the_readers() -> None:
    assert {NOT_A_NUMBER, MALFORMED_CONTENT, REPLACED, "usage_not_believed"} == REPAIR_FLAGS


@pytest.mark.parametrize(
    "wrong",
    [{"expect": {}}, {"expect": {"status": "completed", "stauts": "x"}}, {"answer": [{"body": "", "chunks": []}]}],
)
def test_a_file_that_is_no_case_is_refused(wrong: dict[str, Any]) -> None:
    right = {"about": "Something long enough.", "modes": ["chat"], "answer": [{}], "expect": {"status": "completed"}}
    assert Case.model_validate(right)
    with pytest.raises(ValueError, match="validation error"):
        Case.model_validate(right | wrong)
