"""Every scenario of the simulator, in every mode: the job ends as the contract says."""

from __future__ import annotations

from typing import Any

import pytest
from arq.connections import ArqRedis
from in_process import LUNA, SOL, Stage

from worker.jobs import fold
from worker.jobs.events import Event
from worker.jobs.record import Job
from worker.jobs.states import Outcome
from worker.jobs.view import shown_message
from worker.safety.packet import ShownMessage, build_packet
from worker.safety.packet_advice import AccountFacts
from worker.simulator import SCENARIOS
from worker.store import keys

LABELS = (
    *("Surface", "Model", "API organization ID or Codex workspace ID", "Approved account email"),
    *("Exact error message", "Request ID", "Timestamp and timezone", "VPN/proxy status"),
    "Brief redacted task description",
)
"""The template of the access guide."""
QUICK = {"on_delay": {"silence_seconds": 1.0}, "run_deadline_seconds": 8.0, "queue_deadline_seconds": 3.0}
PATIENT = {"on_delay": {"silence_seconds": 600.0}}
ACCOUNT = {"quota", "wrong_organization", "invalid_key"}  # these hold other jobs, so they run by themselves
LOOKED_AT = {"look_limited", "look_overloaded", "late_visible", "snapshot_on_resume"}
BREAKS = {"cut", "half_frame", "bad_json", "no_terminal", "resume_refused", "response_lost"} | LOOKED_AT
NOT_HERE = {"hang"}  # the idle clock is tested by itself


def wrong(name: str, job: Job, mode: str) -> str | None:
    expected = SCENARIOS[name].expected
    status, outcome, check = expected.status, expected.outcome, expected.check
    block = (expected.block, "chat_chunk" if mode == "chat" and expected.carrier == "error_event" else expected.carrier)
    if mode != "background" and name in BREAKS:
        status, outcome = "failed", {"bad_json": "protocol_error"}.get(name, "stream_cut")
    if mode == "chat" and expected.carrier in {"response_failed", "incomplete"}:
        block = (expected.block, "chat_chunk")
    if mode == "chat" and name == "no_finish_reason":
        outcome = "incomplete"
    if mode == "chat" and check == "signalled" and not SCENARIOS[name].defaults.get("shape"):
        check = None  # chat has no known signal; a gateway may add one
    got_block = (job.block.category, job.block.carrier) if job.block else (None, None)
    evidence = job.checks[0].evidence.value if job.checks else None
    outcomes = [a.outcome.value for a in job.attempts if a.outcome]
    ok = job.status.value == status and (outcome is None or outcome in outcomes) and got_block == block
    ok = ok and (evidence == check or (check is None and evidence == "suspected"))
    return None if ok else f"{name}: {job.status.value} {outcomes} {got_block} {evidence}, expected {expected}"


def policy_for(name: str) -> dict[str, Any]:
    """Short limits only where one of them is to be met."""
    expected = SCENARIOS[name].expected
    return QUICK if expected.status == "expired" or expected.check == "suspected" else PATIENT


async def packet_of(stage: Stage, job: Job) -> str:
    """Return the text of the job's support packet, as the API makes it."""
    answer = await stage.jobs.load_output(job.id) or {}
    messages = {attempt.number: ShownMessage(*shown_message(attempt, answer)) for attempt in job.attempts}
    return str(build_packet(job, messages, (), None, job.created_at, AccountFacts())["text"])


@pytest.mark.parametrize("mode", ["background", "stream", "chat"])
async def test_every_scenario_ends_as_the_contract_says(redis: ArqRedis, valkey_url: str, mode: str) -> None:
    async with Stage(redis, valkey_url, upstream=mode) as stage:
        await stage.worker()
        retry_after = "retry_after=0.2" if mode else ""
        names = [name for name in SCENARIOS if name not in ACCOUNT | NOT_HERE]
        if mode == "chat":
            names = [name for name in names if name != "check_then_nameless"]  # chat has no signal: just a fault
        ids = {name: await stage.submit(f"[[sim: {name} {retry_after}]] go", policy=policy_for(name)) for name in names}
        faults = [wrong(name, await stage.settled(job_id), mode) for name, job_id in ids.items()]
        assert [fault for fault in faults if fault] == []
        for job_id in ids.values():
            trail = [Event.load(body) for body in await stage.jobs.trail(job_id)]
            job = await stage.job(job_id)
            assert fold.replay(trail) == job, "replaying a trail gives the record"
            assert job.total_cost is not None
            assert not await redis.exists(*[keys.text(job_id, a.number) for a in job.attempts] or ["-"])
            packet = await packet_of(stage, job)
            fields = [line.partition(": ") for line in packet.splitlines()[2:11]]
            assert [label for label, _, value in fields if value] == list(LABELS), packet
            if job.block is not None:
                assert "(code " in packet, packet
                assert await stage.output(job_id) is None, "nothing of a blocked job is kept as its answer"
        blocked = [name for name in names if SCENARIOS[name].expected.status == "blocked"]
        counts = stage.sim.calls()["by_scenario"]
        assert {name: counts[name] for name in LOOKED_AT} == dict.fromkeys(LOOKED_AT, 1), "what can be read on is kept"
        assert {name: counts[name] for name in blocked} == dict.fromkeys(blocked, 1), "a block is never tried again"


@pytest.mark.parametrize("name", sorted(ACCOUNT))
async def test_an_account_at_fault_holds_the_job_until_its_queue_deadline(
    redis: ArqRedis, valkey_url: str, name: str
) -> None:
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        job_id = await stage.submit(f"[[sim: {name}]] go", policy=QUICK)
        held = await stage.reaches(job_id, "a hold", lambda j: j.hold is not None)
        assert held.status.value == "scheduled"
        assert held.reason == "hold"
        second = await stage.submit("hello", policy=QUICK)
        waiting = await stage.reaches(second, "the second to be held", lambda j: j.hold is not None)
        assert waiting.attempts == ()
        assert waiting.started_at is None
        job = await stage.settled(job_id)
        assert (job.status.value, job.reason) == ("expired", "queue_deadline")
        assert {a.outcome for a in job.attempts} <= {Outcome.QUOTA_EXHAUSTED, Outcome.AUTH_FAILED}
        own, cause = job.error, job.attempts[-1].error
        assert own is not None
        assert cause is not None
        assert (own.type, own.code, own.advice, own.provider) == ("expired", cause.code, cause.advice, cause.provider)
        assert own.provider is not None
        assert own.provider.http_status == job.attempts[-1].http_status
        other = (await stage.settled(second)).error  # it was never sent, and says what it was held for all the same
        assert other is not None
        assert (other.code, other.advice) == (own.code, own.advice)
        assert other.provider == own.provider.evolve(request_id=None)


async def test_a_deployment_at_fault_behind_a_gateway_holds_only_jobs_of_its_model(
    redis: ArqRedis, valkey_url: str
) -> None:
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        refused = await stage.submit(f"[[sim: gateway_key_refused only={SOL} times=1]] go")
        held = await stage.reaches(refused, "a hold", lambda j: j.hold is not None)
        assert held.hold is not None
        assert (held.hold.scope, held.hold.reason) == (f"deployment:{SOL}", "deployment_auth_failed")
        other = await stage.settled(await stage.submit("hello", model=LUNA))
        same = await stage.settled(await stage.submit("hello"))
        assert (other.status.value, same.status.value) == ("completed", "completed"), "the account is not at fault"
        job = await stage.settled(refused)
        assert job.status.value == "completed", "tried again by itself"
        assert [a.outcome for a in job.attempts] == [Outcome.AUTH_FAILED, Outcome.COMPLETED]


async def test_a_trial_that_works_lets_every_held_job_go(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        first = await stage.submit("[[sim: quota times=1]] go")
        await stage.reaches(first, "a hold", lambda j: j.hold is not None)
        others = [await stage.submit(f"hello {n}") for n in range(5)]
        for other in others:
            await stage.reaches(other, "a hold", lambda j: j.hold is not None)
        for job_id in [first, *others]:
            assert (await stage.settled(job_id)).status.value == "completed"


async def test_no_prompt_is_in_arqs_keys_or_logs(
    redis: ArqRedis, valkey_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    canary = "CANARY-7f1c"
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        seen: dict[str, Any] = {}
        ids = [
            await stage.submit(f"[[sim: {name} retry_after=0.2]] {canary}", policy=QUICK)
            for name in ("normal", "rate_limited", "block_before_stream")
        ]
        while not all([(await stage.job(i)).settled for i in ids]):
            for key in await redis.keys("arq:*"):
                seen[key.decode()] = await redis.dump(key)
        assert seen, "arq was used"
        assert not [key for key, value in seen.items() if value and canary.encode() in value]
        assert canary not in caplog.text
        records = [await redis.hget(keys.job(i), "rec") for i in ids]
        assert not [r for r in records if canary.encode() in r], "the record holds no content"
        for stream_id, fields in await redis.xrange(keys.AUDIT):
            assert canary.encode() not in fields[b"record"], stream_id


async def test_the_text_and_the_bill_are_exact(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        job = await stage.settled(await stage.submit("[[sim: normal tokens=100]] hello there"))
        answer = await stage.jobs.load_output(job.id)
        attempt = job.attempts[0]
        assert answer is not None
        assert answer["output_text"]
        assert attempt.usage is not None
        assert attempt.usage.output_tokens == 100
        assert job.total_cost == stage.settings().catalogue().cost(SOL, attempt.usage, attempt.started_at)
        assert job.total_cost
        assert attempt.price is not None
        assert (attempt.price.model, attempt.price.tier) == (SOL, "standard")
        assert job.wasted_cost == 0
        assert job.served_model == SOL
        assert attempt.request_id
        assert attempt.response_id
        assert attempt.organization == "org-sim"
        times = [
            job.created_at,
            job.started_at,
            attempt.started_at,
            attempt.first_event_at,
            attempt.first_output_at,
            attempt.finished_at,
            job.finished_at,
        ]
        assert all(t is not None for t in times)
        assert times == sorted(times)  # type: ignore[type-var]
