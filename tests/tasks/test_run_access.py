"""A model that is known to be denied is not called: after a real denial that a probe confirmed, and only then."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from arq.connections import ArqRedis
from in_process import LUNA, SOL, TERRA, Stage, until

from worker.clock import Clock
from worker.jobs import events as ev, fold
from worker.jobs.record import Job
from worker.jobs.states import Outcome, Purpose, Status
from worker.main import WorkerProcess
from worker.safety.access import OK, UNCLEAR, Diagnosis, ModelAccess
from worker.store import keys
from worker.tasks.execution.inbox import Control

NOT_GRANTED = Diagnosis("not_granted", "model_not_granted")
QUIET = {"probe_seconds": 0}
CHECK = "[[sim: check_then_clear hold=600 latency=0 queue=0 tokens=3]] go"  # until the provider hurries


def now() -> datetime:
    return Clock().now()


async def set_row(worker: WorkerProcess, model: str, row: ModelAccess) -> None:
    """What is known of the model, in Redis and in this worker."""
    await worker.components.accounts.all[0].access.store.change(model, lambda _: row)
    await worker.components.accounts.all[0].access.refresh()


async def deny(worker: WorkerProcess, *models: str) -> None:
    """The models were denied for real, and by a probe since, just now."""
    for model in models:
        row = ModelAccess().after_denial(now())
        assert row is not None
        await set_row(worker, model, row.after_probe(NOT_GRANTED, "req_probe", now()))


async def open_calls(redis: ArqRedis, model: str) -> float:
    """Return how many calls of the model are counted as under way."""
    return float(await redis.hget(keys.meter(f"default:{model}"), "open_calls") or 0)


async def knows(
    worker: WorkerProcess, what: str, model: str, condition: Callable[[ModelAccess], object]
) -> ModelAccess:
    async def look() -> ModelAccess | None:
        row = (await worker.components.accounts.all[0].access.store.all()).get(model, ModelAccess())
        return row if condition(row) else None

    row: ModelAccess = await until(what, look)
    return row


async def is_skipped(worker: WorkerProcess, model: str) -> ModelAccess:
    row = await knows(worker, f"{model} to be skipped", model, lambda access: access.skipped)

    async def here() -> bool:
        return model in worker.components.accounts.all[0].access.denied

    await until("this worker to know", here)
    return row


def probe_count(stage: Stage, model: str) -> int:
    """How often the provider was asked whether the model is there."""
    return sum(call["path"] == f"/v1/models/{model}" for call in stage.sim.calls()["calls"])


async def replayed(stage: Stage, job: Job) -> None:
    assert fold.replay([ev.Event.load(body) for body in await stage.jobs.trail(job.id)]) == job


async def test_after_a_denial_and_a_probe_the_model_is_skipped_and_another_stands_in(
    redis: ArqRedis, valkey_url: str
) -> None:
    async with Stage(redis, valkey_url, **QUIET) as stage:
        worker = await stage.worker()
        stage.sim.deny(SOL)
        first = await stage.settled(await stage.submit("go"))
        assert [(a.model, a.outcome) for a in first.attempts] == [
            (SOL, Outcome.ACCESS_DENIED),
            (TERRA, Outcome.COMPLETED),
        ]
        row = await is_skipped(worker, SOL)
        assert (row.status, row.code, row.tries) == ("not_granted", "model_not_granted", 1)
        assert row.request_id is not None
        assert row.next_probe_at is not None
        assert row.probed_at is not None
        assert row.next_probe_at - row.probed_at == timedelta(seconds=30)
        before = [await open_calls(redis, model) for model in (SOL, TERRA)]
        second = await stage.settled(await stage.submit("go"))
        assert [(a.model, a.purpose, a.because) for a in second.attempts] == [
            (TERRA, Purpose.FALLBACK, "access_denied"),
        ]
        assert [await open_calls(redis, model) for model in (SOL, TERRA)] == before, "counted where it went"
        assert (second.status, second.served_model) == (Status.COMPLETED, TERRA)
        assert second.disclosure is not None
        assert (second.disclosure.reason, second.disclosure.decided_by) == ("access_denied", "policy")
        assert probe_count(stage, SOL) == 1
        await replayed(stage, second)


@pytest.mark.parametrize("policy", [{"fallback": ()}, {"require_model": True}, {"fallback": (SOL,)}], ids=str)
async def test_without_a_stand_in_the_job_fails_at_once_and_nothing_is_called(
    redis: ArqRedis, valkey_url: str, policy: dict[str, object]
) -> None:
    async with Stage(redis, valkey_url, **QUIET) as stage:
        await deny(await stage.worker(), SOL)
        job = await stage.settled(await stage.submit("go", policy=policy))
        assert (job.status, job.attempts, job.disclosure) == (Status.FAILED, (), None)
        assert job.error is not None
        assert (job.error.type, job.error.code) == ("access_denied", "model_not_granted")
        assert stage.sim.calls()["creates"] == 0
        assert await open_calls(redis, SOL) == 0, "what the claim had counted is given back"
        assert await stage.types(job.id) == ["job.queued", "job.started", "job.failed"]
        await replayed(stage, job)


async def test_an_alias_of_a_denied_model_is_denied(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, **QUIET) as stage:
        await deny(await stage.worker(), SOL)
        job = await stage.settled(await stage.submit("go", model="gpt-5.6", policy={"fallback": ("gpt-5.6", LUNA)}))
        assert [a.model for a in job.attempts] == [LUNA]


async def test_the_chain_leaves_out_who_is_known_to_be_denied(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, **QUIET) as stage:
        worker = await stage.worker()
        await deny(worker, TERRA)
        real = await stage.settled(await stage.submit("[[sim: model_not_found only=gpt-5.6-sol]] go"))
        assert [a.model for a in real.attempts] == [SOL, LUNA]
        await deny(worker, SOL)
        known = await stage.settled(await stage.submit("go"))
        assert [a.model for a in known.attempts] == [LUNA]
        await deny(worker, LUNA)
        outside = await stage.settled(await stage.submit("go"))
        assert [a.model for a in outside.attempts] == ["gpt-5.5"], "the chain leaves the previewed family"
        await deny(worker, "gpt-5.5")
        none = await stage.settled(await stage.submit("go"))
        assert (none.status, none.attempts) == (Status.FAILED, ())


async def test_a_grant_that_appears_is_used_without_a_restart(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, **QUIET) as stage:
        one, other = await stage.worker(), await stage.worker()
        stage.sim.deny(SOL)
        await stage.settled(await stage.submit("go"))
        await is_skipped(one, SOL)
        await is_skipped(other, SOL)
        skipped = (await one.components.accounts.all[0].access.store.all())[SOL]
        stage.sim.deny()
        before = probe_count(stage, SOL)
        await one.components.accounts.all[0].access.store.change(
            SOL, lambda row: row.evolve(next_probe_at=now())
        )  # half a minute goes by
        row = await knows(one, "the grant to be seen", SOL, lambda access: access.status == "ok")
        assert (row.skipped, row.denied_by_attempt_at, row.tries, row.next_probe_at) == (False, None, 0, None)
        assert row.since is not None
        assert skipped.since is not None
        assert row.since > skipped.since
        assert probe_count(stage, SOL) == before + 1, "one of two workers asks"

        async def both_know() -> bool:
            return (
                not one.components.accounts.all[0].access.denied and not other.components.accounts.all[0].access.denied
            )

        await until("both workers to know", both_know)
        job = await stage.settled(await stage.submit("go"))
        assert ([a.model for a in job.attempts], job.disclosure) == ([SOL], None)


async def test_the_wait_doubles_while_the_denial_lasts(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, **QUIET) as stage:
        worker = await stage.worker()
        stage.sim.deny(SOL)
        await deny(worker, SOL)
        for tries, seconds in ((2, 60), (3, 120), (4, 240), (5, 480), (6, 600), (7, 600)):
            before = now()
            await worker.components.accounts.all[0].access.store.change(
                SOL, lambda row: row.evolve(next_probe_at=now())
            )

            def again(access: ModelAccess, tries: int = tries) -> bool:
                return access.tries == tries

            row = await knows(worker, f"probe {tries}", SOL, again)
            assert row.skipped
            assert row.next_probe_at is not None
            claimed = row.next_probe_at - timedelta(seconds=seconds)
            second = timedelta(seconds=1)  # between the test's clock and that of Redis, which the worker goes by
            assert before - second <= claimed <= now() + second


async def test_a_denial_that_the_probe_does_not_confirm_skips_nothing(redis: ArqRedis, valkey_url: str) -> None:
    denied = "[[sim: model_not_found only=gpt-5.6-sol]] go"  # the call is denied, the model list has the model
    async with Stage(redis, valkey_url, **QUIET) as stage:
        worker = await stage.worker()
        for _ in range(2):
            count = probe_count(stage, SOL)
            job = await stage.settled(await stage.submit(denied))
            assert [a.model for a in job.attempts] == [SOL, TERRA]

            async def probed(count: int = count) -> bool:
                return probe_count(stage, SOL) > count

            await until("the denial to be probed", probed)
            row = await knows(worker, "the probe's answer", SOL, lambda access: access.status == "ok")
            assert not row.skipped


@pytest.mark.parametrize("found", [UNCLEAR, OK, Diagnosis("key", "invalid_key"), Diagnosis("network", "edge_refused")])
async def test_only_a_probe_that_denies_skips(redis: ArqRedis, valkey_url: str, found: Diagnosis) -> None:
    async with Stage(redis, valkey_url, **QUIET) as stage:
        worker = await stage.worker()
        row = ModelAccess().after_denial(now())
        assert row is not None
        await set_row(worker, SOL, row.after_probe(NOT_GRANTED, None, now()).after_probe(found, None, now()))
        job = await stage.settled(await stage.submit("go"))
        assert [a.model for a in job.attempts] == [SOL]


async def test_a_probe_alone_skips_nothing(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url) as stage:
        stage.sim.deny(SOL)
        worker = await stage.worker()  # its cron probes at the start
        await knows(worker, "the probe", SOL, lambda access: access.status == "not_granted")
        stage.sim.deny()
        await worker.components.accounts.all[0].access.refresh()
        job = await stage.settled(await stage.submit("go"))
        assert [a.model for a in job.attempts] == [SOL]
        row = await knows(worker, "the answer to be noted", SOL, lambda access: access.status == "ok")
        assert row.request_id == job.attempts[0].request_id


async def test_an_answer_is_noted_once(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, **QUIET) as stage:
        worker = await stage.worker()
        first = await stage.settled(await stage.submit("go"))
        row = await knows(worker, "the answer to be noted", SOL, lambda access: access.status == "ok")
        assert row.request_id == first.attempts[0].request_id
        for _ in range(3):
            await stage.settled(await stage.submit("go"))
        await stage.stop(worker)
        assert (await worker.components.accounts.all[0].access.store.all())[SOL] == row
        assert stage.sim.calls()["models"] == 0


async def test_another_models_answer_proves_nothing(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, **QUIET) as stage:
        worker = await stage.worker()
        job = await stage.settled(await stage.submit("[[sim: rerouted]] go"))
        assert job.served_model != SOL
        await stage.stop(worker)
        assert await worker.components.accounts.all[0].access.store.all() == {}


@pytest.mark.parametrize("action", ["offer", "switch", "race", "draft"])
async def test_the_delay_rule_never_turns_to_a_denied_model(redis: ArqRedis, valkey_url: str, action: str) -> None:
    async with Stage(redis, valkey_url, speed=1, **QUIET) as stage:
        await deny(await stage.worker(), LUNA)
        rule = {"on_delay": {"action": action, "after_seconds": 0.2, "silence_seconds": 0}}
        job_id = await stage.submit(CHECK, policy=rule)

        def over(job: Job) -> bool:
            """The time at which the rule would act has passed."""
            return bool(job.checks) and now() - job.checks[0].started_at > timedelta(seconds=0.7)

        await stage.reaches(job_id, "the time to act", over)
        stage.hurry()
        job = await stage.settled(job_id)
        assert (job.status, [a.model for a in job.attempts], job.disclosure) == (Status.COMPLETED, [SOL], None)
        assert "job.offer.made" not in await stage.types(job.id)


async def test_an_accepted_model_that_was_denied_since_does_not_stop_the_original(
    redis: ArqRedis, valkey_url: str
) -> None:
    async with Stage(redis, valkey_url, speed=1, **QUIET) as stage:
        worker = await stage.worker()
        rule = {"on_delay": {"action": "offer", "after_seconds": 0.2, "silence_seconds": 0}}
        job_id = await stage.submit(CHECK, policy=rule)
        await stage.reaches(job_id, "the offer", lambda job: job.offer)
        await deny(worker, LUNA)
        await stage.jobs.change(job_id, lambda _: [(ev.OfferAccepted(model=LUNA, by="key"), None)])
        next(iter(worker.runs)).notify(Control.OFFER)
        stage.hurry()
        job = await stage.settled(job_id)
        assert (job.status, job.served_model, [a.model for a in job.attempts]) == (Status.COMPLETED, SOL, [SOL])


async def test_a_new_worker_knows_who_is_denied_before_its_first_job(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, **QUIET) as stage:
        first = await stage.worker()
        await deny(first, SOL)
        await stage.stop(first)
        job_id = await stage.submit("go")
        await stage.worker()
        assert [a.model for a in (await stage.settled(job_id)).attempts] == [TERRA]
