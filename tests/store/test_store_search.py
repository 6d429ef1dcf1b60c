"""Search by terms: an app's own jobs only, nothing personal in Redis, bounded work, damaged indexes, older jobs."""

import base64
import hmac
import json

import pytest
from builders import (
    COMPLETED,
    FAILED,
    LUNA,
    PLAIN,
    STARTED,
    T0,
    FakeClock,
    began,
    disclosure,
    done,
    new_job,
)

from worker.jobs import events as ev, ids as job_ids
from worker.store import keys
from worker.store.apps import Apps
from worker.store.jobs.list_filters import ListFilters
from worker.store.jobs.listing import MAX_READ, list_jobs
from worker.store.jobs.search_terms import metadata_term
from worker.store.lifecycle.erasure import erase
from worker.store.lifecycle.index_repair import IndexRepair
from worker.store.lifecycle.queue_repair import QueueRepair
from worker.store.lifecycle.search_backfill import SearchBackfill

SERVED_LUNA = [
    (STARTED, None),
    (began(LUNA), 1),
    (done(), 1),
    (ev.Completed(served_model=LUNA, disclosure=disclosure()), 1),
]
SERVED_SOL = [(STARTED, None), (began(), 1), (done(), 1), (COMPLETED, 1)]


async def submit(jobs, clock, *drafts, metadata=None, **given):
    clock.step(1)
    new = new_job(**given)
    new.private["metadata"] = metadata or {}
    job = (await jobs.submit(new))[0].job
    if drafts:
        await jobs.change(job.id, lambda _: list(drafts))
    return job.id


async def names(redis, app="shop", limit=100, cursor=None, **filters):
    found, after = await list_jobs(redis, app, ListFilters(**filters), limit, cursor)
    return [stored.job.id for stored in found], after


async def test_terms_alone_and_together(redis, jobs, clock):
    luna = await submit(jobs, clock, *SERVED_LUNA, metadata={"team": "red"})
    sol = await submit(jobs, clock, *SERVED_SOL, metadata={"team": "red", "ticket": "A=1"})
    failed = await submit(jobs, clock, (FAILED, None), metadata={"team": "blue"})
    other = await submit(jobs, clock, *SERVED_LUNA, app="bakery", metadata={"team": "red"})
    assert (await names(redis, served_model=LUNA))[0] == [luna]
    assert (await names(redis, served_model="gpt-5.6-sol"))[0] == [sol]
    assert (await names(redis, code="overloaded"))[0] == [failed]
    assert (await names(redis, code="overloaded", statuses=("failed", "expired")))[0] == [failed]
    assert (await names(redis, statuses=("failed", "completed")))[0] == [failed, sol, luna]
    assert (await names(redis, metadata=(("team", "red"),)))[0] == [sol, luna]
    assert (await names(redis, metadata=(("team", "red"), ("ticket", "A=1"))))[0] == [sol]
    assert (await names(redis, metadata=(("team", "red"), ("ticket", "A"))))[0] == []
    assert (await names(redis, metadata=(("team", "red"),), served_model=LUNA))[0] == [luna]
    assert (await names(redis, "bakery", metadata=(("team", "red"),)))[0] == [other]


async def test_the_providers_ids_lead_to_the_apps_own_job_alone(redis, jobs, clock):
    update = ev.AttemptUpdated(request_id="req_1", response_id="resp_upstream")
    job_id = await submit(jobs, clock, (STARTED, None), (began(), 1), (update, 1))
    assert (await names(redis, request_id="req_1"))[0] == [job_id]
    assert (await names(redis, response_id="resp_upstream", request_id="req_1", statuses=("running",)))[0] == [job_id]
    assert (await names(redis, response_id=job_ids.response_id_of(job_id)))[0] == [job_id]
    for wrong in ({"request_id": "req_2"}, {"request_id": "req_1", "statuses": ("failed",)}, {"response_id": job_id}):
        assert await names(redis, **wrong) == ([], None)
    assert (await names(redis, request_id="req_1", created_before=T0))[0] == []
    assert await names(redis, "bakery", request_id="req_1") == ([], None)
    assert await names(redis, "bakery", response_id=job_ids.response_id_of(job_id)) == ([], None)


@pytest.mark.skipif(PLAIN, reason="nothing is encrypted")
async def test_nothing_that_an_app_wrote_is_plain_in_a_key_or_a_row(redis, jobs, clock):
    await submit(jobs, clock, *SERVED_SOL, metadata={"patient": "Anna Karenina"})
    stored = [name async for name in redis.scan_iter("*")]
    stored += [part for pair in (await redis.hgetall(keys.terms("shop"))).items() for part in pair]
    assert not [one for one in stored if b"patient" in one or b"Karenina" in one]


async def test_deleted_content_is_found_by_its_metadata_no_more(redis, jobs, clock):
    job_id = await submit(jobs, clock, *SERVED_SOL, metadata={"team": "red"})
    await erase(redis, jobs, await jobs.load(job_id), "deleted", "key_1")
    assert await redis.keys(keys.index("shop", "meta", "*")) == []
    assert (await names(redis, metadata=(("team", "red"),)))[0] == []
    assert (await names(redis, served_model="gpt-5.6-sol"))[0] == [job_id]


async def test_filters_that_never_match_together_cost_no_more_for_many_jobs(redis, jobs, clock):
    """Half of the jobs are anna's, half have the code; the search says that it is not over."""
    score = 1_782_907_200_000
    rows = {job_ids.new_id("job", score + n, bytes(10)): score + n for n in range(12_000)}
    await redis.zadd(keys.index("shop", "user", "anna"), dict(list(rows.items())[::2]))
    await redis.zadd(keys.index("shop", "code", "rare"), dict(list(rows.items())[1::2]))
    await redis.config_resetstat()
    found, cursor = await names(redis, safety_identifier="anna", code="rare")
    calls = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert (found, cursor is not None) == ([], True)
    assert calls <= MAX_READ / 250
    pages = 1
    while cursor:
        found, cursor = await names(redis, safety_identifier="anna", code="rare", cursor=cursor)
        pages += 1
        assert (found, pages <= 4) == ([], True)


async def test_jobs_of_different_times_are_not_compared_one_by_one(redis, jobs, clock):
    score = 1_782_907_200_000
    rows = [(job_ids.new_id("job", score + n, bytes(10)), score + n) for n in range(12_000)]
    await redis.zadd(keys.index("shop", "user", "anna"), dict(rows[6_000:]))
    await redis.zadd(keys.index("shop", "code", "rare"), dict(rows[:6_000]))
    assert await names(redis, safety_identifier="anna", code="rare") == ([], None)


@pytest.mark.parametrize("kind", ["meta", "served", "code"])
async def test_a_spoiled_index_of_a_term_is_whole_again(redis, jobs, clock, kind):
    drafts = {"served": SERVED_LUNA, "code": [(FAILED, None)], "meta": []}[kind]
    made = [await submit(jobs, clock, *drafts, metadata={"team": "red"}) for _ in range(5)]
    filters = {
        "served": {"served_model": LUNA},
        "code": {"code": "overloaded"},
        "meta": {"metadata": (("team", "red"),)},
    }
    (index,) = await redis.keys(keys.index("shop", kind, "*"))
    await redis.delete(index)
    await redis.set(index, "x")
    assert (await names(redis, **filters[kind]))[0] == made[::-1]
    repair = IndexRepair(redis, clock)
    repair.add(index.decode())
    await repair.proceed()
    assert [row.decode() for row in await redis.zrange(index, 0, -1)] == made


async def test_jobs_of_an_older_release_are_indexed_once(redis, jobs, clock, monkeypatch):
    monkeypatch.setattr("worker.store.lifecycle.search_backfill._PAGE", 3)
    made = [await submit(jobs, clock, *SERVED_LUNA, metadata={"team": "red"}) for _ in range(7)]
    waiting = await submit(jobs, clock, metadata={"team": "red"})
    gone = await submit(jobs, clock, *SERVED_LUNA, metadata={"team": "red"})
    await erase(redis, jobs, await jobs.load(gone), "deleted", "key_1")
    before = {name: await redis.zrange(name, 0, -1) for name in await redis.keys(keys.index("shop", "*"))}
    rows = await redis.hgetall(keys.terms("shop"))
    for kind in ("meta", "served", "code"):
        if found := await redis.keys(keys.index("shop", kind, "*")):
            await redis.delete(*found)
    await redis.delete(keys.terms("shop"))
    backfill = SearchBackfill(redis, clock)
    await backfill.proceed(["shop"])
    assert {name: await redis.zrange(name, 0, -1) for name in await redis.keys(keys.index("shop", "*"))} == before
    found = await redis.hgetall(keys.terms("shop"))
    assert found.pop(keys.COMPLETE.encode())
    assert {name: set(row.split()) for name, row in found.items()} == {n: set(r.split()) for n, r in rows.items()}
    assert (await names(redis, metadata=(("team", "red"),)))[0] == [waiting, *made[::-1]]
    await redis.hdel(keys.terms("shop"), made[0])
    await backfill.proceed(["shop"])
    assert not await redis.hexists(keys.terms("shop"), made[0]), "it is done once"


async def test_members_that_name_no_job_are_removed_and_hide_nothing(redis, jobs, clock):
    made = [await submit(jobs, clock, (FAILED, None), safety_identifier="anna") for _ in range(3)]
    index = keys.index("shop", "code", "overloaded")
    await redis.zadd(index, {"not a job": 9e12, b"\xff\xfe": 5, job_ids.new_id("job", 5, bytes(10)): 9e12})
    assert (await names(redis, code="overloaded"))[0] == made[::-1]
    assert await redis.zcard(index) == 3


async def test_the_repair_of_the_queue_indexes_what_is_missing(redis, jobs, clock):
    await Apps(redis, clock).create_key("shop", ("read",))
    job_id = await submit(jobs, clock, (FAILED, None))
    await redis.delete(keys.terms("shop"), keys.index("shop", "code", "overloaded"))
    await QueueRepair(redis, FakeClock()).repair(jobs.current)
    assert (await names(redis, code="overloaded"))[0] == [job_id]


@pytest.mark.parametrize("text", ["A-17", "", 'a"b\\c', "\x00\x1f\x7f", "\u2028é\U0001f600", "\ud800"])
def test_a_term_is_the_digest_of_the_json_of_its_pair(text):
    secret = b"k" * 32
    named = json.dumps(["metadata", "app", text, text]).encode()
    digest = base64.urlsafe_b64encode(hmac.digest(secret, named, "sha256")[:8]).decode().rstrip("=")
    assert metadata_term(secret, "app", text, text) == f"meta:{digest}"
