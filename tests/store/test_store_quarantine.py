"""The ledger and the quarantine: so many blocks shut one end user out, in the last one's commit, and nobody else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from builders import BLOCKED, PLAIN, STARTED, T0, began, done, new_job, noticed
from store_inspection import places, sound

from worker.jobs import events as ev
from worker.jobs.errors import EndUserQuarantined, Refused
from worker.jobs.states import CheckEnd, Outcome
from worker.store import keys
from worker.store.connection.pool import connect
from worker.store.end_users.ledger_entries import QuarantineLimits
from worker.store.end_users.quarantine import Quarantine
from worker.store.jobs.repository import Jobs
from worker.tasks.maintenance.quarantine_cleanup import cancel_quarantined_jobs

ANN, BOB = "a" * 64, "b" * 64
BEGIN = [(STARTED, None), (began(), 1)]


@pytest.fixture
def quarantine(redis, clock):
    return Quarantine(redis, clock)


async def submit(jobs, clock, person=ANN, **given):
    clock.step(1)
    return (await jobs.submit(new_job(safety_identifier=person, **given)))[0].job.id


async def block(jobs, clock, person=ANN, **given):
    """One job that the provider blocked."""
    job_id = await submit(jobs, clock, person, **given)
    held = next(h for h in (await jobs.claim("w1", 100, 60.0))[1] if h.job.id == job_id)
    drafts = [(STARTED, None), (began(), 1), (noticed(), 1), (ev.CheckEnded(ended_by=CheckEnd.BLOCKED), 1)]
    drafts += [(done(Outcome.BLOCKED), 1), (BLOCKED, 1)]
    return await jobs.change(job_id, lambda _: drafts, token=held.token)


async def refused(jobs, clock, person=ANN, **given):
    with pytest.raises(Refused) as caught:
        await submit(jobs, clock, person, **given)
    return (caught.value.status, caught.value.code) == (403, "end_user_quarantined")


async def test_the_third_block_shuts_out_this_end_user_and_nobody_else(redis, jobs, clock, quarantine):
    for _ in range(2):
        await block(jobs, clock)
    assert await quarantine.of_app("shop") == []
    await block(jobs, clock)
    assert await refused(jobs, clock)
    await submit(jobs, clock, BOB)
    await submit(jobs, clock, None)
    (row,) = await quarantine.of_app("shop")
    assert (row.safety_identifier, row.source, row.by, row.until_ms) == (ANN, "blocks", "vigil", 0)
    assert await quarantine.counts(ANN, 86_400) == {"checks": 3, "blocks": 3, "warnings": 0}
    assert await quarantine.of_app("mall") == []


async def test_blocks_that_are_old_do_not_count(jobs, clock, quarantine):
    await block(jobs, clock)
    await block(jobs, clock)
    clock.step(86_400)
    await block(jobs, clock)
    assert await quarantine.of_app("shop") == []


async def test_how_many_blocks_is_a_setting_and_none_means_never(redis, clock, quarantine):
    await block(Jobs(redis, clock, limits=QuarantineLimits(blocks=1)), clock, BOB)
    assert [one.safety_identifier for one in await quarantine.of_app("shop")] == [BOB]
    never = Jobs(redis, clock, limits=QuarantineLimits(blocks=0))
    for _ in range(5):
        await block(never, clock)
    assert len(await quarantine.of_app("shop")) == 1


async def test_what_waits_is_cancelled_with_who_and_why_and_what_runs_goes_on(redis, jobs, clock, quarantine):
    running = await submit(jobs, clock)
    (held,) = (await jobs.claim("w1", 1, 60.0))[1]
    await jobs.change(running, lambda _: [(STARTED, None), (began(), 1)], token=held.token)
    waiting = [await submit(jobs, clock), await submit(jobs, clock, not_before=T0 + timedelta(days=9))]
    others = [await submit(jobs, clock, BOB), await submit(jobs, clock, None)]
    await quarantine.add("shop", ANN, by="key_ops", reason="reported")
    assert await cancel_quarantined_jobs(jobs, quarantine) == 2
    for job_id in waiting:
        job = (await jobs.load(job_id)).job
        assert (job.status, job.error.code) == ("cancelled", "end_user_quarantined")
        cancel_request, _ = (await jobs.trail(job_id))[-2:]
        assert (cancel_request["type"], cancel_request["data"]["by"]) == ("job.cancel.requested", "quarantine")
        assert await places(redis, job_id) == []
    assert (await jobs.load(running)).job.status == "running"
    assert await jobs.renew(60, [(running, held.token)]) == [""]
    assert [(await jobs.load(job_id)).job.status for job_id in others] == ["queued", "queued"]
    assert await cancel_quarantined_jobs(jobs, quarantine) == 0
    await sound(redis, jobs, [running, *waiting, *others])


async def test_a_submit_that_races_the_quarantine_is_refused_or_cancelled(redis, clock, quarantine):
    rooms = [Jobs(redis, clock) for _ in range(4)]
    tries = [room.submit(new_job(safety_identifier=ANN)) for room in rooms for _ in range(10)]
    made = await asyncio.gather(
        *tries[:20], quarantine.add("shop", ANN, by="k", reason=""), *tries[20:], return_exceptions=True
    )
    await cancel_quarantined_jobs(rooms[0], quarantine)
    ids = [one[0].job.id for one in made if isinstance(one, tuple)]
    assert all(isinstance(one, Refused) for one in made if isinstance(one, BaseException))
    assert {(await rooms[0].load(job_id)).job.status for job_id in ids} <= {"cancelled"}
    assert await redis.zcard(keys.READY) == 0


async def test_after_a_lift_the_old_blocks_and_the_old_notice_count_no_more(jobs, clock, quarantine):
    at = clock.now()
    for _ in range(3):
        await block(jobs, clock)
    assert await quarantine.lift("mall", ANN, by="key_ops", reason="appeal") is None, "another app can't let anybody in"
    lifted = await quarantine.lift("shop", ANN, by="key_ops", reason="appeal")
    assert lifted is not None
    assert await quarantine.lift("shop", ANN, by="key_ops", reason="appeal") is None
    await block(jobs, clock)
    assert await quarantine.add_by_provider("shop", ANN, at, "safety_identifier.blocked") is False
    await submit(jobs, clock)
    clock.step(60)
    assert await quarantine.add_by_provider("shop", ANN, clock.now(), "safety_identifier.blocked") is True
    assert await quarantine.add_by_provider("shop", ANN, clock.now(), "safety_identifier.blocked") is False
    assert await refused(jobs, clock)
    (row,) = await quarantine.of_app("shop")
    assert (row.source, row.reason) == ("provider", "safety_identifier.blocked")


async def test_it_ends_by_itself_at_its_time(redis, jobs, quarantine):
    from worker.clock import Clock

    real, now = Clock(), Clock().now()
    here = Quarantine(redis, real)
    await here.add("shop", ANN, by="key_ops", reason="", until=now + timedelta(hours=1))
    with pytest.raises(Refused):
        await jobs.submit(new_job(safety_identifier=ANN))
    await here.add("shop", ANN, by="key_ops", reason="", until=now - timedelta(seconds=2), shorten=True)
    assert await here.of_app("shop") == []
    await jobs.submit(new_job(safety_identifier=ANN))


async def test_a_repeated_request_still_gets_the_job_that_was_accepted(jobs, clock, quarantine):
    job_id = await submit(jobs, clock, key="k")
    await quarantine.add("shop", ANN, by="key_ops", reason="")
    stored, replayed = await jobs.submit(new_job(safety_identifier=ANN, key="k"))
    assert (stored.job.id, replayed) == (job_id, True)


async def test_a_name_that_was_typed_is_kept_sealed(redis, quarantine):
    await quarantine.add("shop", ANN, by="key_ops", reason="", name="ann@example.com")
    assert (await quarantine.of_app("shop"))[0].name == "ann@example.com"


async def taken_up(jobs, clock, person=ANN):
    """A job that a worker has claimed and is about to begin."""
    job_id = await submit(jobs, clock, person)
    return next(h for h in (await jobs.claim("w1", 100, 60.0))[1] if h.job.id == job_id)


async def test_what_was_claimed_before_does_not_begin_after(redis, jobs, clock, quarantine):
    held, bobs = await taken_up(jobs, clock), await taken_up(jobs, clock, BOB)
    nobodys = await taken_up(jobs, clock, None)
    await quarantine.add("shop", ANN, by="key_ops", reason="")
    with pytest.raises(EndUserQuarantined):
        await jobs.change(held.job.id, lambda _: BEGIN, token=held.token)
    job = (await jobs.load(held.job.id)).job
    assert (job.status, job.version, job.attempts) == ("queued", 1, ())
    for other in (bobs, nobodys):
        assert (await jobs.change(other.job.id, lambda _: BEGIN, token=other.token)).status == "running"
    await quarantine.lift("shop", ANN, by="key_ops", reason="appeal")
    assert (await jobs.change(held.job.id, lambda _: BEGIN, token=held.token)).status == "running"
    await sound(redis, jobs, [one.job.id for one in (held, bobs, nobodys)])


async def test_a_lost_attempt_is_not_sent_again_and_a_running_job_writes_on(jobs, clock, quarantine):
    runs, dead = await taken_up(jobs, clock), await taken_up(jobs, clock)
    for one in (runs, dead):
        await jobs.change(one.job.id, lambda _: BEGIN, token=one.token)
    await quarantine.add("shop", ANN, by="key_ops", reason="")
    again = [(ev.Rescued(worker="w2", generation=2), None), (done(Outcome.LOST), 1), (began(), 2)]
    with pytest.raises(EndUserQuarantined):
        await jobs.change(dead.job.id, lambda _: again, token=dead.token)
    drafts = [(done(Outcome.SUBSTITUTED), 1), (began(), 2)]  # a switch of its own accord
    assert len((await jobs.change(runs.job.id, lambda _: drafts, token=runs.token)).attempts) == 2


async def test_when_begin_and_quarantine_race_nothing_begins_after_its_answer(redis, jobs, clock, quarantine):
    rooms = [Jobs(redis, clock) for _ in range(4)]
    taken = [await taken_up(jobs, clock) for _ in range(40)]
    begun, shut = [], asyncio.Event()

    async def begin(room, held):
        late = shut.is_set()
        try:
            await room.change(held.job.id, lambda _: BEGIN, token=held.token)
        except EndUserQuarantined:
            return
        begun.append((held.job.id, late))

    async def shut_out():
        await quarantine.add("shop", ANN, by="key_ops", reason="")
        shut.set()

    async with asyncio.TaskGroup() as group:
        for number, held in enumerate(taken):
            group.create_task(begin(rooms[number % 4], held))
            if number == 10:
                group.create_task(shut_out())
            await asyncio.sleep(0.0005)
    assert 0 < len(begun) < 40, "the quarantine came in between"
    assert not [job_id for job_id, late in begun if late]
    for held in taken:
        running = (await jobs.load(held.job.id)).job.status == "running"
        assert running == (held.job.id in dict(begun)), "refused is refused whole"


async def test_the_name_is_learnt_from_a_job_and_outlives_it(redis, jobs, clock, quarantine):
    """A block and the provider know no name; the newest job that still has it tells."""
    for _ in range(3):
        await block(jobs, clock)
    named = replace(new_job(safety_identifier=ANN), private={"metadata": {}, "end_user": "ann@example.com"})
    with pytest.raises(Refused):
        await jobs.submit(named)
    await quarantine.lift("shop", ANN, by="key_ops", reason="appeal")
    await jobs.submit(named)
    await submit(jobs, clock)  # a newer job, of which the name is gone
    for _ in range(3):
        await block(jobs, clock)
    await quarantine.add_by_provider("shop", BOB, clock.now(), "safety_identifier.blocked")
    await cancel_quarantined_jobs(jobs, quarantine)
    for job_id in await redis.zrange(keys.index("shop"), 0, -1):
        await redis.delete(keys.job(job_id.decode()))
    assert {one.safety_identifier: one.name for one in await quarantine.of_app("shop")} == {
        ANN: "ann@example.com",
        BOB: None,
    }
    assert PLAIN or b"ann@" not in await redis.hget(keys.QUARANTINE, ANN)
    lifted = await quarantine.lift("shop", ANN, by="key_ops", reason="appeal")
    assert (lifted.name, lifted.source) == ("ann@example.com", "blocks")


async def test_a_name_that_looks_sealed_breaks_no_list(valkey_url, redis, clock):
    plain = connect(valkey_url)
    try:
        here = Quarantine(plain, clock)
        for name in ("sealed:x", "sealed:MQ=="):
            await here.add("shop", ANN, by="key_ops", reason="", name=name)
            assert [one.name for one in await here.of_app("shop")] == [None]
    finally:
        await plain.aclose()


async def test_the_provider_shuts_out_again_whose_time_was_over(redis, quarantine):
    from worker.clock import Clock

    here, now = Quarantine(redis, Clock()), Clock().now()
    await here.add("shop", ANN, by="key_ops", reason="", until=now - timedelta(seconds=2))
    assert await here.add_by_provider("shop", ANN, now, "safety_identifier.blocked") is True
    assert [one.source for one in await here.of_app("shop")] == ["provider"]


async def test_a_warning_is_one_line_however_often_its_notice_is_looked_at(clock, quarantine):
    for notice in ("evt_1", "evt_1", "evt_2"):
        await quarantine.record_warning("shop", ANN, notice, clock.now())
    assert (await quarantine.counts(ANN, 86_400))["warnings"] == 2
    clock.step(91 * 86_400)
    await quarantine.record_warning("shop", ANN, "evt_3", clock.now())
    assert (await quarantine.counts(ANN, 365 * 86_400))["warnings"] == 1
