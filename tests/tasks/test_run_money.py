"""Money of real runs: a price change between two attempts, caps that hold, tiers, and a models file that changes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from arq.connections import ArqRedis
from in_process import LUNA, SOL, Stage, until

from worker.jobs import events as ev
from worker.jobs.record import Job
from worker.jobs.spec import OnDelay, Policy
from worker.jobs.states import Outcome, Status
from worker.store import keys
from worker.store.jobs.stored_job import NewJob

LONG = "[[sim: normal tokens=4000 rate=40]] go"
PRICES = """
[models."gpt-5.6-sol"]
checked = true
[[models."gpt-5.6-sol".prices]]
from = 2026-01-01
input = "5"
output = "30"
checked_on = 2026-01-01
"""


async def submit(stage: Stage, prompt: str, params: dict[str, Any], **policy: Any) -> str:
    fact = ev.Queued(app="stage", key_id="key_stage", requested_model=SOL, policy=Policy(**policy))
    stored, _ = await stage.jobs.submit(NewJob(fact, {"metadata": {}}, {"input": prompt, "params": params}))
    return stored.job.id


async def audited_prices(redis: ArqRedis, job: Job) -> list[Any]:
    """Return the prices in the audit records of the job's ended attempts."""
    records = [json.loads(fields[b"record"]) for _, fields in await redis.xrange(keys.AUDIT)]
    own = [one for one in records if one["job_id"] == job.id and one["type"] == "job.attempt.finished"]
    return [one["call"]["price"] for one in own]


def code_of(job: Job) -> str | None:
    return job.error.code if job.error else None


async def test_an_attempt_costs_what_was_in_force_when_it_began(
    redis: ArqRedis, valkey_url: str, tmp_path: Path, telemetry_events: list[Any]
) -> None:
    file = tmp_path / "models.toml"
    file.write_text(PRICES)
    async with Stage(redis, valkey_url, speed=1, models_file=file) as stage:
        worker = await stage.worker()
        before = await stage.submit(LONG)
        started = await stage.reaches(before, "output", lambda j: j.attempts and j.attempts[0].first_output_at)
        change = datetime.now(UTC)  # noqa: TID251  later than the attempt's start, earlier than its end
        newer = f'[[models."gpt-5.6-sol".prices]]\nfrom = {change.isoformat()}\ninput = "1"\noutput = "2"\n'
        file.write_text(PRICES + newer)
        worker.parts.models_watch.reload()
        stage.hurry()
        old, new = await stage.settled(before), await stage.settled(await stage.submit("hello"))
        assert started.attempts[0].started_at < change
        for job, price_in, price_out in ((old, 5, 30), (new, 1, 2)):
            usage = job.attempts[0].usage
            assert usage
            assert (
                job.total_cost == Decimal(usage.input_tokens * price_in + usage.output_tokens * price_out) / 1_000_000
            )
        [first], [second] = await audited_prices(redis, old), await audited_prices(redis, new)
        assert (first["valid_from"], first["checked_on"]) == ("2026-01-01T00:00:00Z", "2026-01-01")
        assert first["valid_until"] == second["valid_from"]
        assert any(name == "models.reloaded" for name, _ in telemetry_events)


async def test_a_file_that_changes_is_read_and_a_bad_one_is_not(
    redis: ArqRedis, valkey_url: str, tmp_path: Path, telemetry_events: list[Any]
) -> None:
    file = tmp_path / "models.toml"
    file.write_text(PRICES)
    async with Stage(redis, valkey_url, models_file=file) as stage:
        catalogue = (await stage.worker()).components.context.catalogue

        async def refused() -> bool:
            return any(name == "models.refused" for name, _ in telemetry_events)

        async def known() -> bool:
            return catalogue.find("tiny") is not None

        file.write_text("[models.x]\nprices = 3\n")
        await until("the fault to be told", refused)
        assert catalogue.find(SOL) is not None, "what was read before stays"
        file.write_text(f"{PRICES}\n[models.tiny]\n")
        await until("the new file to be read", known)


async def test_a_cap_holds_by_a_limit_on_the_output(redis: ArqRedis, valkey_url: str) -> None:
    cap = Decimal("0.01")
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        job = await stage.settled(await submit(stage, "[[sim: normal tokens=4000]] go", {}, max_cost_usd=cap))
        assert (job.status, job.reason) == (Status.COMPLETED, "max_output_tokens"), "the answer is cut, not the cap"
        attempt = job.attempts[0]
        assert attempt.terms is not None
        assert attempt.terms.max_output_tokens
        assert attempt.usage is not None
        assert attempt.usage.output_tokens == attempt.terms.max_output_tokens
        assert 0 < (job.total_cost or 0) <= cap
        own = await stage.settled(
            await submit(stage, "[[sim: normal tokens=4000]] go", {"max_output_tokens": 20}, max_cost_usd=Decimal(9))
        )
        assert own.attempts[0].usage is not None
        assert own.attempts[0].usage.output_tokens == 20, "the app's own limit is never raised"


async def test_over_the_cap_the_job_fails_before_it_costs(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        large = await submit(stage, "word " * 5000, {}, max_cost_usd=Decimal("0.05"))
        nothing = await submit(stage, "hello", {}, max_cost_usd=Decimal(0))
        for job in (await stage.settled(large), await stage.settled(nothing)):
            assert (job.status, code_of(job), job.attempts) == (Status.FAILED, "cost_limit", ())
            assert (job.total_cost, job.wasted_cost) == (0, 0)
        assert stage.sim.calls()["creates"] == 0


async def test_a_fallback_that_is_too_dear_is_not_called(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        prompt = f"[[sim: model_not_found only={LUNA}]] go"
        fact = ev.Queued(
            app="stage",
            key_id="key_stage",
            requested_model=LUNA,
            policy=Policy(max_cost_usd=Decimal("0.0002"), fallback=("gpt-5.5",)),
        )
        stored, _ = await stage.jobs.submit(NewJob(fact, {"metadata": {}}, {"input": prompt}))
        job = await stage.settled(stored.job.id)
        assert [(a.model, a.outcome, a.cost) for a in job.attempts] == [(LUNA, Outcome.ACCESS_DENIED, 0)]
        assert code_of(job) == "cost_limit"


async def test_a_cap_that_leaves_no_room_lets_no_faster_model_run_beside(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        rule = OnDelay(action="race", after_seconds=0.1, model="gpt-5.5")
        held = "[[sim: check_then_clear hold=600 tokens=50]] go"
        job_id = await submit(stage, held, {}, on_delay=rule, max_cost_usd=Decimal("0.01"))
        free = await submit(stage, held, {}, on_delay=rule)
        await stage.reaches(free, "the race", lambda j: len(j.attempts) == 2)
        await stage.reaches(job_id, "the check", lambda j: j.checks)
        stage.hurry()
        job = await stage.settled(job_id)
        assert (job.status, len(job.attempts)) == (Status.COMPLETED, 1)
        assert (job.total_cost or 0) <= Decimal("0.01")


async def test_a_stand_in_that_refuses_the_effort_is_neither_offered_nor_called(
    redis: ArqRedis, valkey_url: str
) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        rule = OnDelay(action="switch", after_seconds=0.1, model="gpt-6.2-sol")
        held, low = f"[[sim: check_then_clear hold=600 tokens=50 only={SOL}]] go", {"reasoning": {"effort": "minimal"}}
        refused = await submit(stage, held, low, on_delay=rule)
        taken = await submit(stage, held, {"reasoning": {"effort": "high"}}, on_delay=rule)
        assert (await stage.settled(taken)).served_model == "gpt-6.2-sol"
        chain = await submit(
            stage, f"[[sim: model_not_found only={SOL}]] go", low, fallback=("gpt-6.2-sol", "gpt-6.1-terra")
        )
        assert [a.model for a in (await stage.settled(chain)).attempts] == [SOL, "gpt-6.1-terra"]
        assert len((await stage.job(refused)).attempts) == 1
        stage.hurry()
        assert (await stage.settled(refused)).served_model == SOL
