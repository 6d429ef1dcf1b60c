"""Time removes what is over and says so; a legal hold stops it; what was removed by hand is still found."""

import asyncio
import json

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
from worker.store.audit.legal_holds import LegalHolds, held
from worker.store.audit.seals import Seals
from worker.store.audit.trail import Trail
from worker.store.audit.verification import TrailVerification
from worker.store.jobs.repository import Jobs, RetentionTimes as Keep
from worker.store.lifecycle.erasure import erase
from worker.store.lifecycle.retention import Retention

SIGNER = Signer(b"s" * 32)
NORMAL = [(STARTED, None), (began(), 1), (done(), 1), (COMPLETED, 1)]
FLAGGED = (ev.AccountFlagged(), None)
DAY = 86_400


class Later(FakeClock):
    """The server's own time, which is in the ids of the stream, and days that can be passed over."""

    def __init__(self) -> None:
        super().__init__(Clock().now())


class House:
    def __init__(self, redis: ArqRedis) -> None:
        self.redis, self.clock = redis, Later()
        self.jobs = Jobs(redis, self.clock, Keep(result=60))
        self.trail, self.holds = Trail(redis, self.clock), LegalHolds(redis, self.clock, 60)
        self.retention = Retention(redis, self.clock, audit_ttl=DAY, result_ttl=60)

    async def job(self, *said, app: str = "shop") -> str:
        job = (await self.jobs.submit(new_job(app=app, safety_identifier="p" * 64)))[0].job
        if said:
            await self.jobs.change(job.id, lambda _: said)
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

    async def prove(self) -> Report:
        return await TrailVerification(self.redis, self.clock, TrustedKeys([SIGNER.public])).prove()


@pytest.fixture
def house(redis) -> House:
    return House(redis)


async def test_what_is_over_is_removed_and_the_proof_says_so(house):
    old = [await house.job(*NORMAL) for _ in range(5)]
    await house.seal()
    await house.over(*old)
    assert await house.trim(0.5) == 0, "not yet"
    assert await house.trim() == 25
    report = await house.prove()
    assert report.good, report.faults
    assert (report.records, report.removed) == (0, 25)
    assert "25 records before" in report.lines()[1]
    assert await house.redis.xlen(keys.AUDIT) == 0
    assert await house.redis.keys("vigil:audited:*") == []
    assert await house.trim(0) == 0


async def test_a_job_that_is_cut_in_the_middle_goes_on_and_its_beginning_may_go_first(house):
    long, short = await house.job(FLAGGED), await house.job(*NORMAL)
    await house.seal()
    await house.over(short)
    house.clock.step(2 * DAY)
    assert await house.retention.trim(SIGNER) == 7
    assert (await house.prove()).good
    await house.jobs.change(long, lambda _: [FLAGGED])
    await house.seal()
    await house.jobs.change(long, lambda _: NORMAL)
    report = await house.prove()
    assert report.good, report.faults
    assert (report.records, report.removed) == (5, 7)


async def test_what_is_taken_out_by_hand_is_told_from_what_time_removed(house):
    old, long = await house.job(*NORMAL), await house.job(FLAGGED)
    await house.seal()
    await house.over(old)
    await house.trim()
    for _ in range(3):
        await house.jobs.change(long, lambda _: [FLAGGED])
    await house.seal()
    rows = await house.trail.page("-")
    await house.redis.xdel(keys.AUDIT, rows[0].id)
    report = await house.prove()
    assert [(f.kind, f.job_id) for f in report.faults][:1] == [("removed", long)]


async def test_an_old_record_put_back_is_found(house):
    old = await house.job(*NORMAL)
    await house.seal()
    await house.over(old)
    rows = await house.trail.page("-")
    await house.trim()
    await house.redis.delete(keys.AUDIT)
    await house.redis.xadd(keys.AUDIT, {"hash": rows[0].hash, "record": rows[0].record}, id=rows[0].id)
    report = await house.prove()
    assert report.faults[0].kind == "inserted"


async def test_rounds_follow_one_another_and_the_seals_do_not_pile_up(house):
    for _ in range(6):
        old = await house.job(*NORMAL)
        await house.seal()
        await house.over(old)
        await house.trim(0.4)
        assert (await house.prove()).good
    assert await house.redis.llen(keys.SEALS) < 12
    house.clock.step(5 * DAY)
    await house.retention.trim(SIGNER)
    report = await house.prove()
    assert (report.good, report.removed) == (True, 30)


async def test_a_hold_keeps_trail_and_content_and_says_who_and_why(house, redis):
    kept, gone = await house.job(*NORMAL), await house.job(*NORMAL)
    await house.holds.place(kept, by="dana", why="case 7")
    await house.seal()
    assert await redis.ttl(keys.job(kept)) == await redis.ttl(keys.asked(kept)) == -1
    await house.over(gone)
    assert await house.trim() == 5
    report = await house.prove()
    assert report.good, report.faults
    assert (report.records, report.kept, report.removed) == (6, 6, 5)
    last = json.loads((await house.trail.of_chain(kept))[-1].record)
    assert (last["type"], last["data"]) == ("audit.hold", {"by": "dana", "reason": "case 7"})
    assert [(h["name"], h["by"], h["reason"]) for h in await house.holds.told()] == [(kept, "dana", "case 7")]
    assert await held(redis, "shop", kept)
    assert not await held(redis, "shop", gone)


async def test_what_is_held_can_not_be_deleted_and_a_deletion_is_proven_after_its_job_has_gone(house, redis):
    job_id = await house.job(*NORMAL)
    await house.holds.place(job_id, by="dana", why="case 7")
    stored = await house.jobs.load(job_id)
    with pytest.raises(Refused, match="legal case"):
        await erase(redis, house.jobs, stored, "deleted", "key_1")
    assert await house.jobs.asked(job_id) is not None
    await house.holds.release(job_id, by="dana", why="closed")
    await erase(redis, house.jobs, stored, "deleted", "key_1")
    await house.seal()
    await house.over(job_id)
    report = await house.prove()
    assert (report.good, report.jobs, report.records) == (True, 1, 8), report.faults


async def test_what_a_hold_kept_is_still_proven(house, redis):
    kept = await house.job(*NORMAL)
    await house.holds.place(kept, by="dana", why="case 7")
    await house.seal()
    await house.trim()
    rows = await house.trail.page("-")
    await redis.xdel(keys.AUDIT, rows[2].id)
    report = await house.prove()
    assert (report.faults[0].kind, report.faults[0].seq) == ("removed", 3)


async def test_after_a_release_time_goes_on(house, redis):
    kept = await house.job(*NORMAL)
    await house.holds.place(kept, by="dana", why="case 7")
    await house.seal()
    assert await house.trim() == 0
    await house.holds.release(kept, by="dana", why="closed")
    assert 0 < await redis.ttl(keys.job(kept)) <= 60
    await house.seal()
    assert await house.trim(0) == 6
    report = await house.prove()
    assert report.good, report.faults
    assert (report.records, report.kept) == (1, 0)
    await house.over(kept)
    house.clock.step(3 * DAY)
    await house.retention.trim(SIGNER)
    assert (await house.prove()).good


async def test_a_held_app_keeps_its_jobs_those_to_come_too(house, redis):
    await house.job(*NORMAL)
    await house.holds.place("app:shop", by="dana", why="case 8")
    later, other = await house.job(*NORMAL), await house.job(*NORMAL, app="other")
    assert await redis.ttl(keys.job(later)) == -1
    assert await redis.ttl(keys.job(other)) > 0
    await house.seal()
    await house.over(other)
    assert await house.trim() == 5
    assert (await house.prove()).kept == 11
    await house.holds.release("app:shop", by="dana", why="over")
    assert await redis.ttl(keys.job(later)) > 0


async def test_holds_that_can_not_be(house):
    job_id = await house.job()
    with pytest.raises(Refused, match="no audit trail"):
        await house.holds.place("job_nobody", by="x", why="y")
    with pytest.raises(Refused, match="not held"):
        await house.holds.release(job_id, by="x", why="y")
    await house.holds.place(job_id, by="x", why="y")
    with pytest.raises(Refused, match="held already"):
        await house.holds.place(job_id, by="x", why="y")


async def test_two_trimmers_at_once_remove_everything_once(house, redis):
    old = [await house.job(*NORMAL) for _ in range(4)]
    await house.seal()
    await house.over(*old)
    house.clock.step(2 * DAY)
    clock = Later()
    clock.step(2 * DAY + 1)
    other = Retention(redis, clock, audit_ttl=DAY, result_ttl=60)
    assert sum(await asyncio.gather(house.retention.trim(SIGNER), other.trim(SIGNER))) == 20
    report = await house.prove()
    assert (report.good, report.removed) == (True, 20)
    assert parse((await redis.lrange(keys.SEALS, -1, -1))[0]).kind == "retention"


async def test_a_job_that_is_over_leaves_no_entry_behind(house, redis):
    over = (await house.jobs.submit(new_job(safety_identifier="p" * 64, webhook_events=("job.completed",))))[0].job.id
    await house.jobs.change(over, lambda _: NORMAL)
    lives = await house.job()
    assert await house.retention.clear() == 0
    await house.over(over)
    house.clock.step(61)
    assert await house.retention.clear() == 1
    for name in await redis.keys("vigil:idx:*"):
        assert await redis.zrange(name, 0, -1) == [lives.encode()], name
    for name in await redis.keys("vigil:msg*"):
        assert await redis.ttl(name) > 0, name
    assert await redis.zcard(keys.SETTLED) == 0


async def test_a_held_job_is_looked_at_again_later(house, redis):
    kept = await house.job(*NORMAL)
    await house.holds.place(kept, by="dana", why="case 7")
    house.clock.step(61)
    assert await house.retention.clear() == 0
    assert await redis.zcard(keys.SETTLED) == 1
