"""What is done to the trail in Redis is found and named: altered, removed, inserted, reordered, truncated, forged."""

from datetime import UTC, datetime

import pytest
from sealed_trail import NORMAL, SIGNER, House
from thorough import cases
from trail_tampering import TAMPERINGS, matches, remove_a_whole_job

from worker.audit.chain import canonical, stream_id
from worker.audit.keys import TrustedKeys
from worker.audit.report import Report
from worker.audit.seals import parse
from worker.store import keys
from worker.store.audit.trail import Trail
from worker.store.audit.verification import TrailVerification

TRUSTED = TrustedKeys([SIGNER.public])


@pytest.fixture
async def house(redis, clock, jobs) -> House:
    house = House(redis, clock, jobs)
    await house.fill(40)
    return house


async def test_an_honest_trail_is_good_and_counted(house):
    report = await house.prove(shipped=True)
    assert report.good, report.faults
    assert (report.records, report.jobs, report.seals) == (180, 40, 7)
    assert 0 < report.unsealed < 25
    assert report.lines()[-1].startswith("ok: nothing was altered")


async def test_it_stays_good_while_jobs_go_on_and_are_forgotten(house):
    for n, job_id in enumerate(house.ids):
        if n % 4 == 3:
            await house.jobs.change(job_id, lambda _: NORMAL)
    await Trail(house.redis, house.clock).note("job.content.deleted", app="shop", job_id=house.ids[0], by="k", why="w")
    await house.redis.delete(keys.job(house.ids[1]), keys.job(house.ids[2]))  # their time is over
    assert (await house.prove()).good
    await house.seal()
    assert (await house.prove()).unsealed == 0


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda f: f.__name__)
async def test_tampering_is_found_and_named(house, tamper):
    expected = await tamper(house)
    report = await house.prove()
    assert not report.good, "nobody noticed"
    assert matches(expected, report), (expected, report.faults)
    assert report.dump()["first_bad"] == report.faults[0].dump()
    assert report.lines()[-len(report.faults)].startswith("BAD: ")


async def test_the_job_whose_trail_vanished_is_named_too(house):
    await remove_a_whole_job(house)
    faults = (await house.prove()).faults
    assert (faults[-1].kind, faults[-1].job_id) == ("removed", house.ids[house.middle])


async def test_tail_and_seals_cut_together_are_found_by_the_shipped_copy_alone(house):
    for job_id in house.ids[3::4]:
        await house.jobs.change(job_id, lambda _: NORMAL)
    await house.seal()
    await house.fill(1)
    await house.seal()
    rows = await house.rows()
    await house.rebuild(rows[:-5])
    await house.redis.rpop(keys.SEALS)
    await house.redis.delete(*map(keys.job, house.ids))  # whoever cuts well leaves no job that remembers
    assert (await house.prove()).good
    (fault,) = (await house.prove(shipped=True)).faults
    assert (fault.kind, fault.checkpoint, fault.record) == ("truncated", len(house.shipped), rows[-1].id)


async def test_seals_that_differ_from_the_shipped_ones_are_named(house):
    forged = dict(parse(house.shipped[-1]).body)
    copy = [*house.shipped[:-1], canonical({**forged, "at": "2020-01-01T00:00:00.000Z"})]
    report = await TrailVerification(house.redis, house.clock, TRUSTED).prove(copy)
    assert [f.checkpoint for f in report.faults] == [parse(house.shipped[-1]).number]


async def test_records_that_nothing_covers_in_time_are_missing_checkpoints(house):
    async def prove(seconds: float, *, within: float | None = 600, trusted: TrustedKeys = TRUSTED) -> Report:
        first = stream_id((await house.rows())[0].id)[0]
        house.clock.at = datetime.fromtimestamp(first / 1000 + seconds, UTC)
        return await TrailVerification(house.redis, house.clock, trusted, within).prove()

    assert (await prove(300)).good
    (late,) = (await prove(7200)).faults
    assert (late.kind, late.checkpoint) == ("checkpoint", len(house.shipped) + 1)
    await house.redis.delete(keys.SEALS)
    assert (await prove(300)).good
    (gone,) = (await prove(7200)).faults
    assert (gone.kind, gone.checkpoint, gone.record) == ("checkpoint", 1, (await house.rows())[0].id)
    assert gone.detail.startswith("missing checkpoints: none covers the last 180 records, the oldest 2.0 hours old")
    assert (await prove(7200, within=None)).good
    assert (await prove(7200, trusted=TrustedKeys([]))).good, "without a key nobody knows whether there were any"
    house.shipped.clear()
    await house.seal()
    assert (await prove(7200)).good


async def test_many_jobs_and_every_kind_of_tampering(redis, clock, jobs):
    house = House(redis, clock, jobs)
    count = cases(200, 1000)
    await house.fill(count, size=count // 4)  # one by one: what stands at the end of a range is told in other words
    honest = await house.prove(shipped=True)
    assert (honest.good, honest.records, honest.jobs) == (True, count * 9 // 2, count), honest.faults
    whole, missed = await house.copy(), {}
    for tamper in TAMPERINGS:
        expected = await tamper(house)
        report = await house.prove()
        if not matches(expected, report):
            missed[tamper.__name__] = expected, report.faults
        await house.restore(whole)
    assert not missed
    assert (await house.prove(shipped=True)).good
