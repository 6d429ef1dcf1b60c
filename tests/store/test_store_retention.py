"""Time removes what is over and says so; a legal hold stops it; what was removed by hand is still found."""

import asyncio
import json
from datetime import timedelta

import pytest
from arq.connections import ArqRedis
from builders import COMPLETED, STARTED, FakeClock, began, done, new_job

from worker.audit.keys import Signer, TrustedKeys
from worker.audit.report import Report
from worker.audit.seals import checkpoint, parse
from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.errors import Refused
from worker.store import keys
from worker.store.apps import Apps
from worker.store.audit.acts import Actor
from worker.store.audit.end_user_rows import EndUserRows
from worker.store.audit.hold_names import end_user_hold
from worker.store.audit.seals import Seals
from worker.store.audit.trail import Trail
from worker.store.audit.verification import TrailVerification
from worker.store.jobs.repository import Jobs, RetentionTimes as Keep
from worker.store.lifecycle.erasure import erase
from worker.store.lifecycle.legal_holds import LegalHolds, is_held
from worker.store.lifecycle.record_verification import RecordVerification
from worker.store.lifecycle.retention import Retention

SIGNER = Signer(b"s" * 32)
NORMAL = [(STARTED, None), (began(), 1), (done(), 1), (COMPLETED, 1)]
FLAGGED = (ev.AccountFlagged(), None)
DAY = 86_400


class Later(FakeClock):
    """The server's own time, which is in the ids of the stream, and days that can be passed over."""

    def __init__(self) -> None:
        super().__init__(Clock().now())


class RetainedStore:
    def __init__(self, redis: ArqRedis) -> None:
        self.redis, self.clock = redis, Later()
        self.jobs = Jobs(redis, self.clock, Keep(result=60))
        self.trail, self.holds = Trail(redis, self.clock), LegalHolds(redis, self.clock, Keep(60))
        self.retention = Retention(redis, self.clock, Keep(60, audit=DAY))

    async def job(self, *drafts, app: str = "shop") -> str:
        job = (await self.jobs.submit(new_job(app=app, safety_identifier="p" * 64)))[0].job
        if drafts:
            await self.jobs.change(job.id, lambda _: drafts)
        return job.id

    async def seal(self, size: int = 4) -> None:
        seals, last = Seals(self.redis), await Seals(self.redis).last()
        while rows := await self.trail.page(f"({last.last}" if last else "-", count=size):
            seal = checkpoint(SIGNER, last, rows, self.clock.now())
            assert await seals.append(last, seal)
            last = seal

    async def over(self, *job_ids: str) -> None:
        """The time of these jobs in Redis is over."""
        await self.redis.delete(*map(keys.job, job_ids), *map(keys.trail, job_ids))

    async def trim(self, days: float = 2) -> int:
        self.clock.step(days * DAY)
        return await self.retention.trim(SIGNER)

    async def verify(self) -> Report:
        return await TrailVerification(self.redis, self.clock, TrustedKeys([SIGNER.public])).verify()


@pytest.fixture
def store(redis) -> RetainedStore:
    return RetainedStore(redis)


async def test_expired_records_are_removed_and_the_verification_says_so(store):
    old = [await store.job(*NORMAL) for _ in range(5)]
    await store.seal()
    await store.over(*old)
    assert await store.trim(0.5) == 0, "not yet"
    assert await store.trim() == 25
    report = await store.verify()
    assert report.good, report.faults
    assert (report.records, report.removed) == (0, 25)
    assert "25 records before" in report.lines()[1]
    assert await store.redis.xlen(keys.AUDIT) == 0
    assert await store.redis.keys("vigil:audited:*") == []
    assert await store.trim(0) == 0


async def test_the_beginning_of_a_running_job_may_be_removed(store):
    long, short = await store.job(FLAGGED), await store.job(*NORMAL)
    await store.seal()
    await store.over(short)
    store.clock.step(2 * DAY)
    assert await store.retention.trim(SIGNER) == 7
    assert (await store.verify()).good
    await store.jobs.change(long, lambda _: [FLAGGED])
    await store.seal()
    await store.jobs.change(long, lambda _: NORMAL)
    report = await store.verify()
    assert report.good, report.faults
    assert (report.records, report.removed) == (5, 7)


async def test_removal_by_hand_is_distinguished_from_retention(store):
    old, long = await store.job(*NORMAL), await store.job(FLAGGED)
    await store.seal()
    await store.over(old)
    await store.trim()
    for _ in range(3):
        await store.jobs.change(long, lambda _: [FLAGGED])
    await store.seal()
    rows = await store.trail.page("-")
    await store.redis.xdel(keys.AUDIT, rows[0].id)
    report = await store.verify()
    assert [(f.kind, f.job_id) for f in report.faults][:1] == [("removed", long)]


async def test_an_old_record_put_back_is_found(store):
    old = await store.job(*NORMAL)
    await store.seal()
    await store.over(old)
    rows = await store.trail.page("-")
    await store.trim()
    await store.redis.delete(keys.AUDIT)
    await store.redis.xadd(keys.AUDIT, {"hash": rows[0].hash, "record": rows[0].record}, id=rows[0].id)
    report = await store.verify()
    assert report.faults[0].kind == "inserted"


async def test_repeated_retention_does_not_accumulate_seals(store):
    for _ in range(6):
        old = await store.job(*NORMAL)
        await store.seal()
        await store.over(old)
        await store.trim(0.4)
        assert (await store.verify()).good
    assert await store.redis.llen(keys.SEALS) < 12
    store.clock.step(5 * DAY)
    await store.retention.trim(SIGNER)
    report = await store.verify()
    assert (report.good, report.removed) == (True, 30)


async def test_a_hold_keeps_trail_and_content_and_says_who_and_why(store, redis):
    kept, gone = await store.job(*NORMAL), await store.job(*NORMAL)
    await store.holds.place(kept, actor=Actor("dana"), why="case 7")
    await store.seal()
    assert await redis.ttl(keys.job(kept)) == await redis.ttl(keys.job_input(kept)) == -1
    await store.over(gone)
    assert await store.trim() == 5
    report = await store.verify()
    assert report.good, report.faults
    assert (report.records, report.kept, report.removed) == (6, 6, 5)
    last = json.loads((await store.trail.of_chain(kept))[-1].record)
    assert (last["type"], last["data"]) == ("audit.hold", {"by": "dana", "reason": "case 7", "via": "http"})
    assert [(h["name"], h["by"], h["reason"]) for h in await store.holds.describe()] == [(kept, "dana", "case 7")]
    assert await is_held(redis, await store.jobs.current(kept))
    assert not await is_held(redis, await store.jobs.current(await store.job()))


async def test_a_hold_on_an_end_user_keeps_all_their_jobs_of_that_app_and_of_no_other(store, redis):
    person = end_user_hold("shop", "p" * 64)
    earlier, others = await store.job(*NORMAL), await store.job(*NORMAL, app="bakery")
    under_way = await store.job(NORMAL[0])
    await store.holds.place(person, actor=Actor("dana", "Dana"), why="case 7")
    later = await store.job(*NORMAL)
    await store.jobs.change(under_way, lambda _: NORMAL[1:])
    for job_id in (earlier, under_way, later):
        assert await redis.ttl(keys.job(job_id)) == await redis.ttl(keys.job_input(job_id)) == -1
        assert await is_held(redis, await store.jobs.current(job_id))
        with pytest.raises(Refused, match="legal case"):
            await erase(redis, store.jobs, await store.jobs.load(job_id), "deleted", "key_1")
    assert await redis.ttl(keys.job(others)) > 0
    await store.seal()
    await store.over(others, earlier)
    assert await store.trim() == 5
    report = await store.verify()
    assert (report.good, report.kept, report.removed) == (True, 16, 5), report.faults
    (row,) = await store.holds.of_app("shop")
    assert (row["name"], row["person"], await store.holds.of_app("bakery")) == (person, "Dana", [])

    await store.holds.release(person, actor=Actor("dana"), why="closed")
    assert 0 < await redis.ttl(keys.job(later)) <= 60
    await store.seal()
    assert await store.trim(0) == 16
    assert (await store.verify()).good


async def test_a_hold_on_an_end_user_that_was_removed_or_planted_is_named(store, redis, clock):
    apps = Apps(redis, clock)
    await apps.create_key("shop", ("read",), person="Dana", expires_at=clock.now() + timedelta(days=1))
    await apps.create_key("shop", ("read",))
    person, other = end_user_hold("shop", "p" * 64), end_user_hold("shop", "q" * 64)
    await store.holds.place(person, actor=Actor("dana"), why="case 7")
    await store.holds.place(other, actor=Actor("dana"), why="case 8")
    await store.holds.release(other, actor=Actor("dana"), why="closed")

    async def found() -> list[str]:
        report = Report()
        await RecordVerification(redis, clock).verify(report)
        return [fault.detail for fault in report.faults]

    assert await found() == []
    await redis.srem(keys.LEGAL_HOLDS, person)
    await redis.sadd(keys.LEGAL_HOLDS, other)
    removed, planted = await found()
    assert (removed, planted) == (
        f"{person}: a legal hold on it was removed",
        f"{other}: a legal hold on it was never placed",
    )


async def test_records_whose_end_user_is_no_longer_known_are_kept_under_a_hold(store):
    job_id = await store.job(*NORMAL)
    await store.seal(2)
    await store.holds.place(end_user_hold("shop", "q" * 64), actor=Actor("dana"), why="case 7")
    rows = await store.trail.of_chain(job_id)
    found = EndUserRows(store.redis, store.trail)
    held = {end_user_hold("shop", "q" * 64)}
    assert await found.held(rows, held) == set()
    await store.redis.ltrim(keys.chain_records(job_id), 2, -1)  # as retention leaves it
    assert await found.held(rows[2:], held) == {row.id for row in rows[2:]}


async def test_held_content_is_not_deleted_and_a_deletion_verifies_after_its_job_expired(store, redis):
    job_id = await store.job(*NORMAL)
    await store.holds.place(job_id, actor=Actor("dana"), why="case 7")
    stored = await store.jobs.load(job_id)
    with pytest.raises(Refused, match="legal case"):
        await erase(redis, store.jobs, stored, "deleted", "key_1")
    assert await store.jobs.load_input(job_id) is not None
    await store.holds.release(job_id, actor=Actor("dana"), why="closed")
    await erase(redis, store.jobs, stored, "deleted", "key_1")
    await store.seal()
    await store.over(job_id)
    report = await store.verify()
    assert (report.good, report.jobs, report.records) == (True, 1, 8), report.faults


async def test_records_under_a_hold_still_verify(store, redis):
    kept = await store.job(*NORMAL)
    await store.holds.place(kept, actor=Actor("dana"), why="case 7")
    await store.seal()
    await store.trim()
    rows = await store.trail.page("-")
    await redis.xdel(keys.AUDIT, rows[2].id)
    report = await store.verify()
    assert (report.faults[0].kind, report.faults[0].seq) == ("removed", 3)


async def test_after_a_release_content_expires(store, redis):
    kept = await store.job(*NORMAL)
    await store.holds.place(kept, actor=Actor("dana"), why="case 7")
    await store.seal()
    assert await store.trim() == 0
    await store.holds.release(kept, actor=Actor("dana"), why="closed")
    assert 0 < await redis.ttl(keys.job(kept)) <= 60
    await store.seal()
    assert await store.trim(0) == 6
    report = await store.verify()
    assert report.good, report.faults
    assert (report.records, report.kept) == (1, 0)
    await store.over(kept)
    store.clock.step(3 * DAY)
    await store.retention.trim(SIGNER)
    assert (await store.verify()).good


async def test_a_hold_on_an_app_keeps_its_present_and_future_jobs(store, redis):
    await store.job(*NORMAL)
    await store.holds.place("app:shop", actor=Actor("dana"), why="case 8")
    later, other = await store.job(*NORMAL), await store.job(*NORMAL, app="other")
    assert await redis.ttl(keys.job(later)) == -1
    assert await redis.ttl(keys.job(other)) > 0
    await store.seal()
    await store.over(other)
    assert await store.trim() == 5
    assert (await store.verify()).kept == 11
    await store.holds.release("app:shop", actor=Actor("dana"), why="over")
    assert await redis.ttl(keys.job(later)) > 0


async def test_holds_that_are_refused(store):
    job_id = await store.job()
    with pytest.raises(Refused, match="no audit trail"):
        await store.holds.place("job_nobody", actor=Actor("x"), why="y")
    with pytest.raises(Refused, match="not held"):
        await store.holds.release(job_id, actor=Actor("x"), why="y")
    await store.holds.place(job_id, actor=Actor("x"), why="y")
    with pytest.raises(Refused, match="held already"):
        await store.holds.place(job_id, actor=Actor("x"), why="y")


async def test_two_trimmers_at_once_remove_everything_once(store, redis):
    old = [await store.job(*NORMAL) for _ in range(4)]
    await store.seal()
    await store.over(*old)
    store.clock.step(2 * DAY)
    clock = Later()
    clock.step(2 * DAY + 1)
    other = Retention(redis, clock, Keep(60, audit=DAY))
    assert sum(await asyncio.gather(store.retention.trim(SIGNER), other.trim(SIGNER))) == 20
    report = await store.verify()
    assert (report.good, report.removed) == (True, 20)
    assert parse((await redis.lrange(keys.SEALS, -1, -1))[0]).kind == "retention"


async def test_an_expired_job_leaves_no_index_entry(store, redis):
    over = (await store.jobs.submit(new_job(safety_identifier="p" * 64, webhook_events=("job.completed",))))[0].job.id
    await store.jobs.change(over, lambda _: NORMAL)
    lives = await store.job()
    assert await store.retention.clear() == 0
    await store.over(over)
    store.clock.step(61)
    assert await store.retention.clear() == 1
    for name in await redis.keys("vigil:idx:*"):
        assert await redis.zrange(name, 0, -1) == [lives.encode()], name
    for name in await redis.keys("vigil:msg*"):
        assert await redis.ttl(name) > 0, name
    assert await redis.zcard(keys.SETTLED) == 0


async def test_a_held_job_is_checked_again_later(store, redis):
    kept = await store.job(*NORMAL)
    await store.holds.place(kept, actor=Actor("dana"), why="case 7")
    store.clock.step(61)
    assert await store.retention.clear() == 0
    assert await redis.zcard(keys.SETTLED) == 1
