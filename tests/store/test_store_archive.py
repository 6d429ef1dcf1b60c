"""The trail leaves Redis for a real S3 bucket, and is read, verified and exported across both."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest
from archived_trail import AT_ONCE, TRUSTED, ArchivedTrail, archived_trail, new_archive
from s3_server import HASTY
from sealed_trail import NORMAL, SIGNER

from worker.audit.chain import export_line
from worker.audit.export import FileProof, manifest, read_manifest
from worker.clock import Clock
from worker.store import keys
from worker.store.archive.archive_state import ArchiveStates
from worker.store.archive.audit_archive import ArchiveUnavailable, AuditArchive
from worker.store.audit.archive_lag import archive_lag
from worker.store.audit.content_reads import CONTENT_READ
from worker.store.audit.export import Export
from worker.store.audit.trail import Trail
from worker.store.audit.trail_search import TrailFilter, TrailSearch
from worker.store.jobs.commit_commands import RetentionTimes
from worker.store.lifecycle.archive_retention import ArchiveRetention
from worker.store.lifecycle.archiver import Archiver, ArchiveRefused
from worker.store.lifecycle.trimming import Trimming


class LateClock(Clock):
    """The machine's clock, so many seconds later."""

    def __init__(self, seconds: float) -> None:
        self.later = timedelta(seconds=seconds)

    def now(self) -> datetime:
        return super().now() + self.later


@pytest.fixture
async def trail(redis, clock, jobs, s3) -> ArchivedTrail:
    return await archived_trail(redis, clock, jobs, s3)


async def test_what_is_archived_leaves_redis_and_the_trail_stays_whole(redis, clock, jobs, s3):
    trail = new_archive(redis, clock, jobs, s3)
    await trail.grow(20)
    before, size = await trail.sealed.rows(), await redis.xlen(keys.AUDIT)
    assert await trail.trim() == size - 1  # the newest record stays: processes recognise the store by it
    assert await redis.xlen(keys.AUDIT) == 1
    assert await redis.exists(*map(keys.chain_records, trail.sealed.ids[:-1])) == 0
    assert await trail.sealed.rows() == before
    report = await trail.verify()
    assert report.good, report.faults
    assert (report.records, report.jobs) == (len(before), 20)


async def test_reading_goes_on_from_the_archive_into_redis_without_a_seam(trail):
    rows = await trail.sealed.rows()
    whole, reader = [row.id for row in rows], Trail(trail.redis, Clock())
    assert len(whole) == len(set(whole)) > await trail.redis.xlen(keys.AUDIT) > 0
    for size in (1, 7, 60):
        assert [row.id async for page in reader.pages(count=size) for row in page] == whole
    back: list[str] = []
    while page := await reader.page_before(f"({back[-1]}" if back else "+", 13):
        back += [row.id for row in page]
    assert back == whole[::-1]
    for n in range(0, len(whole) - 5, 17):
        assert [row.id for row in await reader.page(whole[n], whole[n + 3], 9)] == whole[n : n + 4]
        assert [row.id for row in await reader.page(f"({whole[n]}", f"({whole[n + 3]}", 9)] == whole[n + 1 : n + 3]
        assert (await reader.records_at([whole[n]]))[0].id == whole[n]
    for n, job_id in enumerate(trail.sealed.ids):
        found = await reader.of_chain(job_id)
        assert [row for row in rows if job_id.encode() in row.record] == found, n
        assert (await reader.first_of_chain(job_id))["seq"] == 1


async def test_the_trail_across_both_verifies_again_and_again(trail):
    for _ in range(2):
        report = await trail.verify()
        assert report.good, report.faults
    assert report.records == len(await trail.sealed.rows())


async def test_a_search_finds_archived_records_by_app_and_end_user(trail):
    search, found, low = TrailSearch(trail.redis, Clock()), [], "-"
    while True:
        rows, last = await search.page(TrailFilter("shop", ("job.queued",)), low, "+", 5)
        found += [row.id for row in rows]
        if last is None:
            break
        low = f"({last}"
    assert len(found) == len(trail.sealed.ids)


async def test_an_export_of_both_proves_itself(trail):
    export = Export(trail.redis, Clock())
    lines = [line async for page in export.lines() for line in page]
    assert lines == [export_line(row) for row in await trail.sealed.rows()]
    raw = manifest(export.manifest, export.seals, filters={}, public=[SIGNER.public], signer=SIGNER, at=Clock().now())
    report = FileProof(lambda: lines, read_manifest(raw), TRUSTED).prove()
    assert report.good, report.faults
    assert report.seals == len(trail.sealed.shipped)


async def test_a_job_that_is_still_in_redis_keeps_its_records_there_until_it_goes(redis, clock, jobs, s3):
    trail = new_archive(redis, clock, jobs, s3)
    await trail.grow(4, gone=False)
    rows = await redis.xlen(keys.AUDIT)
    assert await trail.trim() == 0
    assert await redis.xlen(keys.AUDIT) == rows
    (late,) = trail.sealed.ids[3:]
    await jobs.change(late, lambda _: NORMAL)  # it goes on in its chain
    await trail.leave(*trail.sealed.ids[:3])
    for job_id in trail.sealed.ids[:3]:
        await Trimming(redis, Clock()).remove_job(job_id)
    assert await redis.exists(*map(keys.chain_records, trail.sealed.ids[:3])) == 0
    await trail.sealed.seal()
    report = await trail.verify()
    assert report.good, report.faults


async def test_acts_and_looks_of_people_stay_in_redis_and_go_on_in_their_chains(redis, clock, jobs, s3):
    trail = new_archive(redis, clock, jobs, s3)
    await trail.sealed.fill(4)
    notes = Trail(redis, clock)
    await notes.note("key.created", app="shop", job_id=None, by="ops", why="")
    await notes.note(CONTENT_READ, app="shop", job_id=trail.sealed.ids[0], by="ops", why="", kind="prompt")
    await jobs.change(trail.sealed.ids[3], lambda _: NORMAL)
    await trail.grow(4)
    await trail.leave(*trail.sealed.ids)
    await trail.trim()
    left = [row.record for row in await notes.stored_page("-")]
    assert [b"key.created" in one for one in left[:2]] == [True, False]
    assert CONTENT_READ.encode() in left[1]
    await notes.note("key.revoked", app="shop", job_id=None, by="ops", why="")
    await trail.sealed.seal()
    report = await trail.verify()
    assert report.good, report.faults


async def test_a_crash_between_the_segment_the_manifest_and_redis_loses_and_doubles_nothing(trail):
    await trail.sealed.seal()
    before = await trail.redis.get(keys.ARCHIVE)
    await trail.archiver().run(now=True)
    for state in (before, b"", None):  # Redis was not told, or has forgotten
        if state is None:
            await trail.redis.delete(keys.ARCHIVE)
        else:
            await trail.redis.set(keys.ARCHIVE, state)
        assert await trail.archiver().run(now=True) == 0
        await trail.trim()
        report = await trail.verify()
        assert report.good, report.faults
    assert (await trail.state()).entry == 5


async def test_a_crash_between_segment_and_manifest_entry_is_made_good(trail, monkeypatch):
    await trail.sealed.seal()

    async def crash(*_):
        raise ArchiveUnavailable("write", "the process ended here")

    with monkeypatch.context() as patch, pytest.raises(ArchiveUnavailable):
        patch.setattr(trail.archive, "put_entry", crash)
        await trail.archiver().run(now=True)
    assert (await trail.state()).entry == 4
    assert await trail.archiver().run(now=True) > 0
    assert (await trail.verify()).good


async def test_of_several_workers_at_once_each_record_is_archived_once(redis, clock, jobs, s3):
    trail = new_archive(redis, clock, jobs, s3)
    await trail.sealed.fill(20)
    others = [Archiver(redis, Clock(), AuditArchive(trail.store), SIGNER, TRUSTED, 3600) for _ in range(4)]
    await asyncio.gather(*(one.run(now=True) for one in others))
    entry = await trail.entry((await trail.state()).entry)
    sealed = sum(len(line) > 0 for line in trail.sealed.shipped)
    assert entry.body["seal"] == sealed
    assert entry.body["records"] == int((await trail.sealed.verify()).records) - (await trail.verify()).unsealed
    await trail.trim()
    assert (await trail.verify()).good


async def test_during_an_outage_redis_keeps_the_trail_and_the_lag_is_told(trail, s3):
    await trail.sealed.seal()
    rows, hasty = await trail.redis.xlen(keys.AUDIT), s3.open(trail.store.address.bucket, "vigil", HASTY)
    archive = AuditArchive(hasty)
    with s3.silent():
        with pytest.raises(ArchiveUnavailable, match="unreachable"):
            await Archiver(trail.redis, Clock(), archive, SIGNER, TRUSTED, 3600).run(now=True)
        with pytest.raises(ArchiveUnavailable, match="unreachable"):
            await Trimming(trail.redis, Clock()).run(await trail.state(), archive, AT_ONCE)
        assert await trail.redis.xlen(keys.AUDIT) == rows
        assert await archive_lag(trail.redis, Clock()) > 0
    assert await trail.archiver().run(now=True) > 0
    assert await archive_lag(trail.redis, Clock()) == 0
    assert (await trail.verify()).good


async def test_nothing_is_archived_that_its_seal_does_not_prove(trail):
    await trail.sealed.seal()
    newest = (await trail.sealed.rows())[-3]
    await trail.redis.xdel(keys.AUDIT, newest.id)
    with pytest.raises(ArchiveRefused, match=r"sealed .* records, there are"):
        await trail.archiver().run(now=True)


async def test_another_trails_archive_is_refused(trail, clock, jobs):
    await trail.redis.flushall()
    await trail.sealed.fill(4)
    with pytest.raises(ArchiveRefused, match="holds another trail"):
        await trail.archiver().run(now=True)
    assert await ArchiveStates(trail.redis).get() is None


async def test_without_the_archive_the_verification_and_readers_say_where_the_trail_is(trail):
    trail.redis.archive = None
    report = await trail.sealed.verify()
    assert "VIGIL_ARCHIVE is not set" in report.faults[0].detail
    assert trail.archive.address in report.faults[0].detail


async def test_a_write_once_bucket_takes_it_all(redis, clock, jobs, s3):
    trail = await archived_trail(redis, clock, jobs, s3, write_once=True, undeletable=True)
    report = await trail.verify()
    assert report.good, report.faults


async def test_whole_segments_that_are_over_go_with_an_entry_that_says_so(trail, clock):
    keep = RetentionTimes(result=60, prompt=None, audit=60)
    rows, later = await trail.sealed.rows(), LateClock(3600)
    removal = ArchiveRetention(trail.redis, later, trail.archive, SIGNER, keep)
    counts = [int((await trail.entry(number)).body["count"]) for number in (1, 2, 3)]
    assert await removal.run(await trail.archiver().state()) == sum(counts)  # the fourth has not left Redis yet
    assert [one.name for one in await trail.store.list_page("audit/segments")] == [(await trail.entry(4)).name]
    assert (await trail.entry(5)).body["removed"] == sum(counts)
    report = await trail.verify()
    assert report.good, report.faults
    assert report.records == len(rows) - sum(counts) == len(await trail.sealed.rows())
    assert (report.removed, report.removed_before is not None) == (sum(counts), True)
    assert await removal.run(await trail.archiver().state()) == 0
    export = Export(trail.redis, Clock())
    lines = [line async for page in export.lines() for line in page]
    assert len(lines) == report.records


async def test_a_legal_hold_keeps_a_whole_segment_until_it_is_released(trail, clock):
    keep = RetentionTimes(result=60, prompt=None, audit=60)
    held = trail.sealed.ids[8]  # of the second segment
    await trail.redis.sadd(keys.LEGAL_HOLDS, held)
    removal = ArchiveRetention(trail.redis, LateClock(3600), trail.archive, SIGNER, keep)
    await removal.run(await trail.archiver().state())
    assert (await trail.state()).kept == (2,)
    assert await trail.sealed.of(held)
    report = await trail.verify()
    assert report.good, report.faults
    assert report.kept == (await trail.entry(2)).body["count"]
    await trail.redis.srem(keys.LEGAL_HOLDS, held)
    assert await removal.run(await trail.archiver().state()) == report.kept
    assert not await trail.sealed.of(held)
    assert (await trail.verify()).good


async def test_in_a_write_once_bucket_what_is_over_is_no_longer_read_although_it_is_there(redis, clock, jobs, s3):
    trail = await archived_trail(redis, clock, jobs, s3, undeletable=True)
    keep, rows = RetentionTimes(result=60, prompt=None, audit=60), await trail.sealed.rows()
    removal = ArchiveRetention(trail.redis, LateClock(3600), trail.archive, SIGNER, keep)
    removed = await removal.run(await trail.archiver().state())
    assert await trail.store.head((await trail.entry(1)).name) is not None
    assert len(await trail.sealed.rows()) == len(rows) - removed
    assert (await trail.verify()).good
