"""The trail is searched by app, type, end user and actor; a call reads a bounded part of it and says where to go on."""

from __future__ import annotations

import pytest
from builders import COMPLETED, STARTED, began, done, new_job

from worker.audit.chain import canonical
from worker.audit.record import note_record
from worker.store import keys
from worker.store.audit.acts import APP_CHANGED, Actor, Acts
from worker.store.audit.trail_search import TrailFilter, TrailSearch

NORMAL = [(STARTED, None), (began(), 1), (done(), 1), (COMPLETED, 1)]
ANNA, BEN = "a" * 64, "b" * 64


@pytest.fixture
def search(redis, clock):
    return TrailSearch(redis, clock)


async def lived(jobs, app, person):
    job_id = (await jobs.submit(new_job(app=app, safety_identifier=person)))[0].job.id
    await jobs.change(job_id, lambda _: NORMAL)
    return job_id


async def found(search, *, limit=100, **wanted):
    rows, low = [], "-"
    while True:
        page, last = await search.page(TrailFilter(**wanted), low, "+", limit)
        rows += page
        if last is None:
            return rows
        low = f"({last}"


async def test_each_filter_narrows_and_all_must_fit(redis, jobs, clock, search):
    annas, bens = await lived(jobs, "shop", ANNA), await lived(jobs, "shop", BEN)
    others = await lived(jobs, "bakery", ANNA)
    acts = Acts(redis, clock, Actor("lee", "Lee Li", "cli"))
    await acts.record(APP_CHANGED, app="shop", changes={"weight": [1, 2]})
    await acts.record("quarantine.added", app="shop", safety_identifier=ANNA)
    of_anna = await found(search, app="shop", end_user=ANNA, limit=2)
    assert [b'"job_id":"%b"' % annas.encode() in row.record for row in of_anna] == [True] * 5 + [False]
    assert [row.id for row in of_anna] == sorted(row.id for row in of_anna)
    assert len(await found(search, end_user=ANNA)) == 11, f"also {others}, of the other app"
    ends = await found(search, app="shop", types=("job.completed", "app.*"))
    assert [b"app.changed" in row.record for row in ends] == [False, False, True]
    assert await found(search, app="shop", types=("job.completed",), end_user=BEN) == [ends[1]]
    assert len(await found(search, app="shop", actor="Lee Li")) == len(await found(search, actor="lee")) == 2
    assert await found(search, app="shop", types=("job.complete",)) == await found(search, actor="Lee") == []
    assert bens


async def test_a_search_that_finds_nothing_reads_little_at_a_time_and_rests(redis, clock, search):
    record = canonical(note_record("content.read", at=clock.now(), app="shop", job_id=None, by="k", why="", data={}))
    async with redis.pipeline(transaction=False) as pipe:
        for _ in range(12_000):
            pipe.xadd(keys.AUDIT, {"hash": "0" * 64, "record": record})
        await pipe.execute()
    rests, sizes = [], []
    read = search._trail.page

    async def counted(low, high, count):
        sizes.append(count)
        return await read(low, high, count)

    search._trail.page = counted

    async def rest():
        rests.append(1)

    rows, last = await search.page(TrailFilter("shop", ("key.created",)), "-", "+", 20, rest=rest, seconds=60)
    assert (rows, last is None, sum(sizes), max(sizes), len(rests)) == ([], False, 10_000, 250, 39)
    sizes.clear()
    assert await search.page(TrailFilter("shop", ("key.created",)), f"({last}", "+", 20) == ([], None)
    assert sum(sizes) <= 2_250
    sizes.clear()
    _, last = await search.page(TrailFilter("shop", ("key.created",)), "-", "+", 20, seconds=0)
    assert (last is None, sum(sizes)) == (False, 250), "no more than fits into the time"
