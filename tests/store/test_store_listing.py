"""Lists: newest first, filtered, and a cursor that neither skips nor repeats while jobs come and go."""

from dataclasses import replace
from datetime import timedelta

import pytest
from builders import CANCELLED, LUNA, STARTED, T0, new_job

from worker.jobs.errors import Refused
from worker.store import keys
from worker.store.jobs.index_search import IndexSearch
from worker.store.jobs.list_filters import ListFilters
from worker.store.jobs.listing import list_jobs


async def submit(jobs, clock, seconds=1.0, **given):
    clock.step(seconds)
    return (await jobs.submit(new_job(**given)))[0].job.id


async def names(redis, limit=100, cursor=None, app="shop", **filters):
    found, after = await list_jobs(redis, app, ListFilters(**filters), limit, cursor)
    return [stored.job.id for stored in found], after


async def walk(redis, limit, between=None, **filters):
    """Every page's ids in a row; `between` happens after each page."""
    seen, cursor = [], None
    while True:
        page, cursor = await names(redis, limit, cursor, **filters)
        assert len(page) <= limit
        seen += page
        assert len(seen) == len(set(seen)), "no job comes twice"
        if cursor is None:
            return seen
        if between is not None:
            await between()


async def test_newest_first_and_only_the_apps_own(redis, jobs, clock):
    ids = [await submit(jobs, clock) for _ in range(3)]
    await submit(jobs, clock, app="bakery")
    assert await names(redis) == (ids[::-1], None)
    assert await names(redis, app="nobody") == ([], None)


async def test_filters_alone_and_together(redis, jobs, clock):
    plain = await submit(jobs, clock)
    luna = await submit(jobs, clock, requested_model=LUNA)
    anna = await submit(jobs, clock, safety_identifier="anna")
    both = await submit(jobs, clock, safety_identifier="anna", requested_model=LUNA)
    await jobs.change(anna, lambda _: [(STARTED, None)])
    assert (await names(redis, model=LUNA))[0] == [both, luna]
    assert (await names(redis, safety_identifier="anna"))[0] == [both, anna]
    assert (await names(redis, statuses=("queued",)))[0] == [both, luna, plain]
    assert (await names(redis, statuses=("running",)))[0] == [anna]
    assert (await names(redis, safety_identifier="anna", model=LUNA, statuses=("queued",)))[0] == [both]
    assert (await names(redis, statuses=("running",), model=LUNA))[0] == []
    assert (await names(redis, statuses=("no such status",)))[0] == []


async def test_times_include_their_beginning_and_exclude_their_end(redis, jobs, clock):
    ids = [await submit(jobs, clock) for _ in range(4)]  # T0 + 1 … T0 + 4
    at = [T0 + timedelta(seconds=n) for n in range(6)]
    assert (await names(redis, created_after=at[2]))[0] == ids[:0:-1]
    assert (await names(redis, created_before=at[3]))[0] == [ids[1], ids[0]]
    assert (await names(redis, created_after=at[2], created_before=at[4]))[0] == [ids[2], ids[1]]
    assert await walk(redis, 1, created_after=at[2], created_before=at[4]) == [ids[2], ids[1]]


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_250_jobs_come_page_by_page_each_once(redis, jobs, clock, limit):
    ids = [await submit(jobs, clock, 0.0005) for _ in range(250)]  # several in each millisecond
    assert await walk(redis, limit) == sorted(ids, reverse=True)


async def test_jobs_whose_ids_were_made_before_their_submit_come_each_once(redis, jobs, clock):
    """An upload or the turn of a conversation has its id first; meanwhile others submit."""
    early = [jobs.new_id() for _ in range(3)]
    ids = [await submit(jobs, clock) for _ in range(3)]
    for job_id in early:
        clock.step(2)
        ids.append((await jobs.submit(replace(new_job(), job_id=job_id)))[0].job.id)
        ids.append(await submit(jobs, clock))
    for limit in (1, 2, 5):
        assert await walk(redis, limit) == sorted(ids, reverse=True)
        assert sorted(await walk(redis, limit, statuses=("queued",))) == sorted(ids)


async def test_jobs_of_one_millisecond_come_each_once(redis, jobs, clock):
    ids = [await submit(jobs, clock, 0) for _ in range(230)]
    assert await walk(redis, 60) == sorted(ids, reverse=True)


@pytest.mark.parametrize("limit", [1, 3])
async def test_small_pages_get_past_a_crowded_millisecond(redis, jobs, clock, limit):
    """The cursor stands in the middle of it: what lies before must be stepped over, not given again."""
    ids = [await submit(jobs, clock, 0) for _ in range(12)]
    assert await walk(redis, limit) == sorted(ids, reverse=True)


async def test_an_exact_page_has_no_next(redis, jobs, clock):
    for _ in range(2):
        await submit(jobs, clock)
    assert (await names(redis, 2))[1] is None
    assert (await names(redis, 1))[1] is not None


async def test_jobs_that_arrive_between_pages_change_nothing(redis, jobs, clock):
    ids = [await submit(jobs, clock) for _ in range(40)]
    assert await walk(redis, 7, lambda: submit(jobs, clock)) == ids[::-1]


async def test_jobs_that_vanish_between_pages_take_no_others_with_them(redis, jobs, clock):
    ids = [await submit(jobs, clock) for _ in range(40)]
    gone = iter(ids)

    async def vanish():
        await redis.delete(keys.job(next(gone)))

    seen = await walk(redis, 7, vanish)
    assert seen == ids[:4:-1], "those that vanished before their page came are missing, nobody else"
    assert await redis.zcard(keys.index("shop")) == 35, "what is gone is forgotten by the index too"


async def test_jobs_that_vanished_leave_no_hole_in_a_page(redis, jobs, clock):
    ids = [await submit(jobs, clock) for _ in range(230)]
    for job_id in ids[100:225]:
        await redis.delete(keys.job(job_id))
    page, cursor = await names(redis, 20)
    assert page == ids[:224:-1] + ids[99:84:-1]
    assert (await names(redis, 1, cursor))[0] == [ids[84]]


@pytest.mark.parametrize("what", ["arrive", "leave"])
async def test_jobs_that_come_and_go_while_a_page_is_read_change_nothing(redis, jobs, clock, what, monkeypatch):
    """A page may need several looks; what moves between two of them must not repeat or hide a job."""
    ids = [await submit(jobs, clock, safety_identifier="anna") for _ in range(250)]
    wanted = ids[160:210]  # across the seam between the first look and the second
    for job_id in wanted:
        await jobs.change(job_id, lambda _: [(STARTED, None)])
    look = IndexSearch.next

    async def look_and_stir(search, most):
        rows = await look(search, 40)
        for row in ids[-3:] if search.read == 40 else ids[155:158]:
            if what == "arrive":
                await submit(jobs, clock, safety_identifier="anna")
            else:
                await redis.zrem(keys.index("shop", "user", "anna"), row)
        return rows

    monkeypatch.setattr(IndexSearch, "next", look_and_stir)
    found, _ = await names(redis, 50, safety_identifier="anna", statuses=("running",))
    assert found == wanted[::-1]


async def test_a_cursor_outlives_the_job_it_names(redis, jobs, clock):
    ids = [await submit(jobs, clock) for _ in range(4)]
    _, cursor = await names(redis, 2)
    await redis.delete(keys.job(ids[2]))
    await redis.zrem(keys.index("shop"), ids[2])
    assert (await names(redis, 2, cursor))[0] == [ids[1], ids[0]]


async def test_what_almost_nothing_fits_is_found_at_once(redis, jobs, clock, monkeypatch):
    monkeypatch.setattr("worker.store.jobs.listing.MAX_READ", 250)
    ids = [await submit(jobs, clock, safety_identifier="anna") for _ in range(450)]
    await jobs.change(ids[0], lambda _: [(CANCELLED, None)])
    assert await names(redis, 10, safety_identifier="anna", statuses=("cancelled",)) == ([ids[0]], None)


@pytest.mark.parametrize("cursor", ["x", "a", "=", "%%%", "am9iX2p1bms", "é", "\0", "A" * 5000])
async def test_a_cursor_that_we_did_not_make_is_refused(redis, cursor):
    with pytest.raises(Refused) as caught:
        await names(redis, 10, cursor)
    assert (caught.value.code, caught.value.status) == ("invalid_cursor", 422)


async def test_a_list_carries_what_only_the_app_may_see(redis, jobs, clock):
    await submit(jobs, clock)
    found, _ = await list_jobs(redis, "shop", ListFilters(), 1, None)
    assert found[0].private == {"metadata": {"ticket": "A-17"}}
