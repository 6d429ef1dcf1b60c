"""The counters of what safety cost: each job once, by week, model and end user; bounded; proven by the audit trail."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from arq.connections import ArqRedis
from builders import BLOCKED, LUNA, SOL, STARTED, TERRA, FakeClock, began, done, life, new_job, noticed
from sealed_trail import SIGNER

from worker.audit.chain import GENESIS
from worker.audit.seals import checkpoint, retention
from worker.clock import Clock, to_ms
from worker.jobs import events as ev
from worker.jobs.errors import Refused
from worker.jobs.record import Usage
from worker.jobs.states import CheckEnd, Outcome
from worker.safety.loss_counts import week_of
from worker.store import keys
from worker.store.audit.trail import Trail
from worker.store.jobs import loss_counters
from worker.store.jobs.repository import Jobs
from worker.store.lifecycle.loss_proof import LossVerification
from worker.store.stats.loss_report import LossQuery, LossReport

NOW = Clock().now()  # the ids of audit records are by the server's clock
WEEK = week_of(NOW)
ANN, BOB = "a" * 64, "b" * 64
COST = {"usage": Usage(input_tokens=10, output_tokens=5), "cost": Decimal("0.002")}


def normal(model: str = SOL) -> list[Any]:
    return [(STARTED, None), (began(model), 1), (done(**COST), 1), (ev.Completed(served_model=model), 1)]


NORMAL = normal()
WITHHELD = [
    *((STARTED, None), (began(), 1), (noticed(), 1), (ev.CheckEnded(ended_by=CheckEnd.BLOCKED), 1)),
    *((done(Outcome.BLOCKED, **COST), 1), (BLOCKED, None)),
]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def report(redis: ArqRedis) -> LossReport:
    return LossReport(redis)


async def live(jobs: Jobs, facts: list[Any], **new: Any) -> str:
    stored, _ = await jobs.submit(new_job(**new))
    await jobs.change(stored.job.id, lambda _: facts)
    return stored.job.id


def verification(redis: ArqRedis, *, app: str | None = None) -> LossVerification:
    return LossVerification(redis, Clock(), [WEEK], app)


async def rows(report: LossReport, **query: Any) -> dict[tuple[Any, ...], Counter[str]]:
    page = await report.read(LossQuery(**{"weeks": [WEEK], "app": "shop", **query}))
    return {(row.app, row.week, row.model, row.end_user): counts for row, counts in page.rows}


async def test_each_job_counts_once_by_week_model_and_end_user(redis, clock, jobs, report):
    await live(jobs, NORMAL, safety_identifier=ANN)
    await live(jobs, WITHHELD, safety_identifier=BOB)
    await live(jobs, NORMAL, app="other")
    found = await rows(report)
    assert found[None, WEEK, SOL, None]["jobs"] == 2
    assert found[None, WEEK, SOL, None]["blocked.usd"] == 2_000_000
    by_app = await rows(report, app=None, group_by=("app",))
    assert {key[0]: counts["jobs"] for key, counts in by_app.items()} == {"shop": 2, "other": 1}
    people = await rows(report, group_by=("end_user",))
    assert [key[3] for key in people] == [BOB, ANN], "who lost most comes first"
    assert people[None, None, None, BOB]["blocked"] == 1
    one = await rows(report, end_user=ANN)
    assert one[None, WEEK, SOL, None] == people[None, None, None, ANN]


async def test_more_jobs_leave_no_more_to_read(redis: ArqRedis, jobs):
    async def held() -> dict[bytes, int]:
        """How many fields or members each key of the counters has."""
        names = [name async for name in redis.scan_iter("vigil:loss*")]
        hashes = [await redis.type(name) == b"hash" for name in names]
        return {
            n: await (redis.hlen(n) if is_hash else redis.zcard(n)) for n, is_hash in zip(names, hashes, strict=True)
        }

    await live(jobs, NORMAL, safety_identifier=ANN)
    before = await held()
    for _ in range(5):
        await live(jobs, NORMAL, safety_identifier=ANN)
    assert await held() == before


async def test_a_commit_that_is_sent_again_counts_once(redis, jobs, report, monkeypatch):
    run = jobs._scripts.commit

    async def twice(*args: Any, **more: Any) -> Any:
        await run(*args, **more)
        return await run(*args, **more)  # as after a lost answer

    monkeypatch.setattr(jobs._scripts, "commit", twice)
    await live(jobs, NORMAL)
    assert (await rows(report))[None, WEEK, SOL, None]["jobs"] == 1


async def test_content_that_is_removed_later_changes_nothing(redis, jobs, report):
    job_id = await live(jobs, NORMAL)
    await jobs.change(job_id, lambda _: [(ev.ContentRemoved(because="deleted", by="k"), None)])
    assert (await rows(report))[None, WEEK, SOL, None]["jobs"] == 1
    assert (await verification(redis).run()).good


def test_a_later_correction_is_counted_as_the_difference():
    job, _ = life(*NORMAL)
    corrected = job.evolve(attempts=(job.attempts[0].evolve(cost=Decimal("0.003")),))
    assert loss_counters.loss_commands(job, job.evolve(version=9), 60) == []
    [command] = loss_counters.loss_commands(job, corrected, 60)
    assert command[-2:] == ("all.usd", 1_000_000)


async def test_counters_go_when_their_audit_records_go(redis, jobs):
    await live(jobs, WITHHELD, safety_identifier=ANN)
    names = [name async for name in redis.scan_iter("vigil:loss*")]
    assert len(names) == 4
    longest = jobs._keep.audit + loss_counters.KEPT_LONGER_S
    assert all([jobs._keep.audit < await redis.ttl(name) <= longest for name in names])


async def test_models_and_end_users_with_counts_of_their_own_are_bounded(redis, jobs, report, monkeypatch):
    monkeypatch.setattr(loss_counters, "MAX_MODELS", 2)
    monkeypatch.setattr(loss_counters, "MAX_END_USERS", 2)
    monkeypatch.setattr("worker.store.lifecycle.loss_proof.MAX_MODELS", 2)
    monkeypatch.setattr("worker.store.lifecycle.loss_proof.MAX_END_USERS", 2)
    for model, person in ((SOL, ANN), (TERRA, BOB), (LUNA, "c" * 64), ("gpt-x", ANN), (SOL, "d" * 64)):
        await live(jobs, normal(model), requested_model=model, safety_identifier=person)
    found = await rows(report, group_by=("model",))
    assert {key[2]: counts["jobs"] for key, counts in found.items()} == {SOL: 2, TERRA: 1, "*": 2}
    page = await report.read(LossQuery([WEEK], "shop", ("end_user",), limit=1))
    assert page.more
    assert {row.end_user for row, _ in page.rows} <= {ANN, BOB}
    assert page.totals["jobs"] == 5
    assert len([name async for name in redis.scan_iter("vigil:loss:*")]) == 2, "nobody else has counts"
    assert page.rest["jobs"] == 5 - page.rows[0][1]["jobs"], "everybody else, listed or not"
    assert (await verification(redis).run()).good


@pytest.mark.parametrize(("spoil", "left"), [("type", 1), ("text", 1), ("overflow", 2)])
async def test_a_damaged_counter_never_stops_a_job(redis: ArqRedis, jobs, report, spoil, left):
    await live(jobs, NORMAL)
    name, field = keys.losses(WEEK, "shop"), f"{SOL}|jobs"
    if spoil == "type":
        await redis.set(name, "not a hash")
    elif spoil == "text":
        await redis.hset(name, field, "many")
    else:
        await redis.hset(name, f"{SOL}|all.usd", str(2**63 - 1))
    job_id = await live(jobs, NORMAL)
    assert (await jobs.load(job_id)).job.status == "completed"
    assert int(await redis.hget(name, field)) == left
    if spoil == "overflow":
        await redis.set(keys.end_user_losses(WEEK, "shop", ""), "not a hash")
    proof = verification(redis)
    found = await proof.run()
    assert not found.good
    await proof.correct(found, 3_600)
    assert (await verification(redis).run()).good


async def test_the_trail_proves_the_counters_and_names_what_differs(redis, jobs):
    await live(jobs, NORMAL, safety_identifier=ANN)
    await live(jobs, WITHHELD, safety_identifier=BOB)
    await live(jobs, NORMAL, app="other")
    found = await verification(redis).run()
    assert found.good, found.differences
    assert (found.jobs, found.is_steady, found.unproven) == (3, True, {})
    assert found.compared > 30
    await redis.hincrby(keys.losses(WEEK, "shop"), f"{SOL}|blocked.usd", -1_500_000)
    await redis.hincrby(keys.end_user_losses(WEEK, "shop", BOB), f"{SOL}|{'jobs'}", 2)
    [app, person] = (await verification(redis, app="shop").run()).differences
    assert (app.end_user, app.name, app.counted, app.by_trail) == (None, "blocked.usd", 500_000, 2_000_000)
    assert (person.end_user, person.name, person.counted, person.by_trail) == (BOB, "jobs", 3, 1)
    assert (await verification(redis, app="other").run()).good
    proof = verification(redis)
    await proof.correct(await proof.run(), 3_600)
    assert (await verification(redis).run()).good


async def test_jobs_that_end_while_the_counters_are_read_are_no_difference(redis, jobs, monkeypatch):
    await live(jobs, NORMAL)
    proof = verification(redis)
    places, late = proof._places, [WITHHELD, NORMAL]

    async def read_late() -> Any:
        if late:
            await live(jobs, late.pop(), safety_identifier=ANN)
        return await places()

    monkeypatch.setattr(proof, "_places", read_late)
    found = await proof.run()
    assert (found.good, found.jobs, found.is_steady) == (True, 3, True)


async def test_what_an_earlier_release_did_not_count_is_added_from_the_trail(redis, jobs, report):
    await live(jobs, WITHHELD, safety_identifier=BOB)
    before = await rows(report, group_by=("end_user", "model"))
    async for name in redis.scan_iter("vigil:loss*"):
        await redis.delete(name)
    proof = verification(redis)
    found = await proof.run()
    assert not found.good
    await live(jobs, NORMAL, safety_identifier=ANN)  # ends between the two
    await proof.correct(found, 3_600)
    after = await rows(report, group_by=("end_user", "model"))
    assert list(after) == [(None, None, SOL, BOB), (None, None, SOL, ANN)]
    assert after[None, None, SOL, BOB] == before[None, None, SOL, BOB]
    assert (await verification(redis).run()).good
    assert all([await redis.ttl(name) > 0 async for name in redis.scan_iter("vigil:loss*")])


async def test_jobs_whose_records_retention_took_prove_nothing(redis, jobs):
    job_id = await live(jobs, NORMAL)
    first = await redis.lpop(keys.chain_records(job_id))
    await redis.xdel(keys.AUDIT, first)
    found = await verification(redis).run()
    assert found.good
    assert found.unproven == {(WEEK, "shop"): 1}
    upto = f"{to_ms(NOW + timedelta(1))}-0"
    nothing = {"removed": 0, "heads": {}, "kept": (0, GENESIS), "holds": set[str]()}
    sealed = checkpoint(SIGNER, None, await Trail(redis, Clock()).page("-"), NOW)
    seal = retention(SIGNER, sealed, (1, sealed.hash), upto=upto, at=NOW, **nothing)
    await redis.set(keys.RETENTION_SEAL, seal.line)
    assert (await verification(redis).run()).removed_weeks == [WEEK]


async def test_more_apps_than_a_request_may_read_are_refused(redis, report):
    await redis.zadd(keys.loss_apps(WEEK), {f"app{n}": 0 for n in range(31)})
    assert (await report.read(LossQuery([WEEK], None))).rows == []
    with pytest.raises(Refused, match="name an app"):
        await report.read(LossQuery([WEEK], None, ("end_user",)))
