"""What is done to the trail in Redis is found and named: altered, removed, inserted, reordered, truncated, forged."""

from datetime import UTC, datetime

import pytest
from sealed_trail import NORMAL, SIGNER, SealedTrail
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
async def sealed(redis, clock, jobs) -> SealedTrail:
    sealed = SealedTrail(redis, clock, jobs)
    await sealed.fill(40)
    return sealed


async def test_an_intact_trail_is_good_and_counted(sealed):
    report = await sealed.verify(shipped=True)
    assert report.good, report.faults
    assert (report.records, report.jobs, report.seals) == (180, 40, 7)
    assert 0 < report.unsealed < 25
    assert report.lines()[-1].startswith("ok: nothing was altered")


async def test_it_stays_good_while_jobs_run_and_expire(sealed):
    for n, job_id in enumerate(sealed.ids):
        if n % 4 == 3:
            await sealed.jobs.change(job_id, lambda _: NORMAL)
    await Trail(sealed.redis, sealed.clock).note(
        "job.content.deleted", app="shop", job_id=sealed.ids[0], by="k", why="w"
    )
    await sealed.redis.delete(keys.job(sealed.ids[1]), keys.job(sealed.ids[2]))  # their time is over
    assert (await sealed.verify()).good
    await sealed.seal()
    assert (await sealed.verify()).unsealed == 0


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda f: f.__name__)
async def test_tampering_is_found_and_named(sealed, tamper):
    expected = await tamper(sealed)
    report = await sealed.verify()
    assert not report.good, "nobody noticed"
    assert matches(expected, report), (expected, report.faults)
    assert report.dump()["first_bad"] == report.faults[0].dump()
    assert report.lines()[-len(report.faults)].startswith("BAD: ")


async def test_the_job_without_a_trail_is_named(sealed):
    await remove_a_whole_job(sealed)
    faults = (await sealed.verify()).faults
    assert (faults[-1].kind, faults[-1].job_id) == ("removed", sealed.ids[sealed.middle])


async def test_tail_and_seals_cut_together_are_found_by_the_shipped_copy_alone(sealed):
    for job_id in sealed.ids[3::4]:
        await sealed.jobs.change(job_id, lambda _: NORMAL)
    await sealed.seal()
    await sealed.fill(1)
    await sealed.seal()
    rows = await sealed.rows()
    await sealed.rebuild(rows[:-5])
    await sealed.redis.rpop(keys.SEALS)
    await sealed.redis.delete(*map(keys.job, sealed.ids))  # whoever cuts well leaves no job that remembers
    assert (await sealed.verify()).good
    (fault,) = (await sealed.verify(shipped=True)).faults
    assert (fault.kind, fault.checkpoint, fault.record) == ("truncated", len(sealed.shipped), rows[-1].id)


async def test_seals_that_differ_from_the_shipped_ones_are_named(sealed):
    forged = dict(parse(sealed.shipped[-1]).body)
    copy = [*sealed.shipped[:-1], canonical({**forged, "at": "2020-01-01T00:00:00.000Z"})]
    report = await TrailVerification(sealed.redis, sealed.clock, TRUSTED).verify(copy)
    assert [f.checkpoint for f in report.faults] == [parse(sealed.shipped[-1]).number]


async def test_records_unsealed_for_too_long_are_missing_checkpoints(sealed):
    async def verify(seconds: float, *, within: float | None = 600, trusted: TrustedKeys = TRUSTED) -> Report:
        first = stream_id((await sealed.rows())[0].id)[0]
        sealed.clock.at = datetime.fromtimestamp(first / 1000 + seconds, UTC)
        return await TrailVerification(sealed.redis, sealed.clock, trusted, within).verify()

    assert (await verify(300)).good
    (late,) = (await verify(7200)).faults
    assert (late.kind, late.checkpoint) == ("checkpoint", len(sealed.shipped) + 1)
    await sealed.redis.delete(keys.SEALS)
    assert (await verify(300)).good
    (gone,) = (await verify(7200)).faults
    assert (gone.kind, gone.checkpoint, gone.record) == ("checkpoint", 1, (await sealed.rows())[0].id)
    assert gone.detail.startswith("missing checkpoints: none covers the last 180 records, the oldest 2.0 hours old")
    assert (await verify(7200, within=None)).good
    assert (await verify(7200, trusted=TrustedKeys([]))).good, "without a key nobody knows whether there were any"
    sealed.shipped.clear()
    await sealed.seal()
    assert (await verify(7200)).good


async def test_many_jobs_and_every_kind_of_tampering(redis, clock, jobs):
    sealed = SealedTrail(redis, clock, jobs)
    count = cases(200, 1000)
    await sealed.fill(count, size=count // 4)  # one by one: what stands at the end of a range is told in other words
    honest = await sealed.verify(shipped=True)
    assert (honest.good, honest.records, honest.jobs) == (True, count * 9 // 2, count), honest.faults
    whole, missed = await sealed.copy(), {}
    for tamper in TAMPERINGS:
        expected = await tamper(sealed)
        report = await sealed.verify()
        if not matches(expected, report):
            missed[tamper.__name__] = expected, report.faults
        await sealed.restore(whole)
    assert not missed
    assert (await sealed.verify(shipped=True)).good
