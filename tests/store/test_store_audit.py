"""The trail in Redis: read by chain, by app, from any place; written beside the events, chained with them."""

import asyncio

import pytest
from builders import COMPLETED, STARTED, FakeClock, began, done, new_job
from store_inspection import LostAnswers, audit_chains

from worker.jobs import events as ev
from worker.jobs.errors import Refused
from worker.store import keys
from worker.store.audit.trail import Trail
from worker.store.audit.trail_search import TrailFilter, TrailSearch
from worker.store.jobs.repository import Jobs

NORMAL = [(STARTED, None), (began(), 1), (done(), 1), (COMPLETED, 1)]
FLAGGED = (ev.AccountFlagged(), None)


@pytest.fixture
def trail(redis, clock) -> Trail:
    return Trail(redis, clock)


async def submitted(jobs, **given):
    return (await jobs.submit(new_job(**given)))[0].job


def deleted(trail, job_id, why="asked for"):
    return trail.note("job.content.deleted", app="shop", job_id=job_id, by="key_1", why=why)


async def test_a_job_is_read_in_order_among_many(jobs, trail):
    one, other = await submitted(jobs), await submitted(jobs)
    await jobs.change(one.id, lambda _: NORMAL[:2])
    await jobs.change(other.id, lambda _: NORMAL)
    await jobs.change(one.id, lambda _: NORMAL[2:])
    rows = await trail.of_chain(one.id)
    assert [b'"job_id":"%b"' % one.id.encode() in row.record for row in rows] == [True] * 5
    assert rows == sorted(rows, key=lambda row: row.id)
    assert await trail.of_chain("job_nobody") == []


async def test_an_app_is_read_page_by_page_and_sees_nobody_elses_records(redis, clock, jobs, monkeypatch):
    monkeypatch.setattr("worker.store.audit.trail_search._PAGE", 7)
    search = TrailSearch(redis, clock)
    for n in range(20):
        await submitted(jobs, app="shop" if n % 5 == 0 else "shop2")
    seen, low = [], "-"
    while True:
        rows, last = await search.page(TrailFilter("shop"), low, "+", 3)
        seen += rows
        if last is None:
            break
        low = f"({last}"
    assert len(seen) == len({row.id for row in seen}) == 4
    assert all(row.record.startswith(b'{"app":"shop",') for row in seen)


async def test_what_is_no_event_is_chained_to_the_job_and_the_job_goes_on_behind_it(redis, jobs, trail):
    job = await submitted(jobs)
    seen = await jobs.change(job.id, lambda _: [FLAGGED])
    await deleted(trail, job.id)
    other = Jobs(redis, FakeClock(start=10**6))
    await jobs.change(job.id, lambda _: [FLAGGED], job=seen)  # whoever remembers the chain as it was
    await deleted(trail, job.id)
    await other.change(job.id, lambda _: NORMAL)
    chain = (await audit_chains(redis))[job.id]
    kinds = ["job.queued", "job.account.flagged", "job.content.deleted", "job.account.flagged", "job.content.deleted"]
    assert [r["type"] for r in chain][:5] == kinds
    assert [r["seq"] for r in chain] == [1, 2, None, 3, None, 4, 5, 6, 7]


async def test_a_note_after_the_end_is_the_chains_end(redis, jobs, trail):
    job = await submitted(jobs)
    await jobs.change(job.id, lambda _: NORMAL)
    row = await deleted(trail, job.id)
    assert (await redis.hget(keys.job(job.id), "chain")).decode() == row.hash
    await redis.delete(keys.job(job.id))  # its time is over
    await deleted(trail, job.id, "again")
    assert len((await audit_chains(redis))[job.id]) == 7
    assert not await redis.exists(keys.job(job.id)), "a note makes no job"


async def test_notes_and_commits_at_once_make_one_chain(redis, jobs, trail):
    job = await submitted(jobs)
    notes = [deleted(trail, job.id, f"reason {n}") for n in range(3)]
    changes = [jobs.change(job.id, lambda _: [FLAGGED]) for _ in range(10)]
    await asyncio.gather(*changes, *notes)
    assert len((await audit_chains(redis))[job.id]) == 14


async def test_a_note_whose_answer_was_lost_is_written_once(redis, jobs, trail):
    job = await submitted(jobs)
    trail._append_script = LostAnswers(trail._append_script)
    with pytest.raises(Exception, match="Redis"):
        await deleted(trail, job.id)
    assert len((await audit_chains(redis))[job.id]) == 2
    await deleted(trail, job.id)  # the same clock: the same words
    assert len((await audit_chains(redis))[job.id]) == 2


async def test_an_app_has_a_chain_of_its_own(redis, trail):
    for why in ("first", "second"):
        await trail.note("audit.hold", app="shop", job_id=None, by="ops", why=why)
    rows = await trail.of_chain("app:shop")
    assert [row.record.partition(b'"reason":"')[2][:5] for row in rows] == [b"first", b"secon"]
    assert await redis.get(keys.NOTE_COUNT) == b"2"


async def test_a_note_on_a_job_that_never_was_is_refused(redis, trail):
    with pytest.raises(Refused, match="no audit trail"):
        await deleted(trail, "job_nobody")
    assert await redis.xlen(keys.AUDIT) == 0
