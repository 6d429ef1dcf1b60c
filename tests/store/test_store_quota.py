"""An app's quota: exact under concurrency, and never off by what a job's life, a loss or damage does to its content."""

import asyncio
import random  # noqa: TID251  seeded
from dataclasses import replace

import pytest
from builders import CANCELLED, COMPLETED, STARTED, FakeClock, backoff, began, done, new_job
from waiting import until

from worker.jobs.errors import ContentTooLarge, LeaseLost, QueueFull, Refused
from worker.jobs.states import Outcome
from worker.store import keys
from worker.store.admission.app_quota import EVENT_BYTES, EVENTS_OF_A_LIFE, JOB_BYTES, AppQuota, QuotaUse
from worker.store.apps import Apps
from worker.store.audit.acts import Actor
from worker.store.jobs.repository import Jobs, RetentionTimes
from worker.store.lifecycle.content_recount import ContentRecount
from worker.store.lifecycle.erasure import erase
from worker.store.lifecycle.legal_holds import LegalHolds
from worker.store.lifecycle.queue_repair import QueueRepair

APP = "shop"


def job(quota=None, **given):
    return replace(new_job(**given), quota=quota or AppQuota())


async def counted(redis) -> QuotaUse:
    return replace(await Apps(redis, FakeClock()).quota_use(APP), jobs=0, events=0)


async def actual(redis) -> QuotaUse:
    """What the app has, by looking at every key."""
    size = 0
    async for name in redis.scan_iter(match="vigil:job:*"):
        size += await redis.hstrlen(name, "priv") if await redis.type(name) == b"hash" else 0
    for pattern in ("vigil:in:*", "vigil:out:*"):
        async for name in redis.scan_iter(match=pattern):
            size += await redis.strlen(name)
    waiting = await redis.zcard(keys.READY) + await redis.zcard(keys.LATER)
    return QuotaUse(waiting, size)


async def exact(redis):
    assert await counted(redis) == await actual(redis)


async def run(jobs, one, *, text=None, ends=True):
    """Start a claimed job, store an output for it, and perhaps complete it."""

    async def commit(*drafts, output=None):
        change = await jobs.seal_output(one.job.id, {"output_text": output}) if output is not None else None
        await jobs.change(one.job.id, lambda _: drafts, token=one.token, output=change)

    number = len(one.job.attempts) + 1
    await commit((STARTED, None), (began(), number))
    if ends:
        await commit((done(), number), (COMPLETED, number), output=text)
    else:
        await commit((done(Outcome.SERVER_ERROR), number), (backoff(after=one.job.created_at), None), output=text)


async def test_of_many_submits_at_once_exactly_the_quota_is_accepted(redis, jobs):
    tries = [jobs.submit(job(AppQuota(waiting=7), prompt=str(n % 10))) for n in range(30)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, QueueFull)]
    assert len(refused) == 23
    assert {(error.limit, error.current, error.bound) for error in refused} == {("jobs_waiting", 7, 7)}
    size = (await counted(redis)).bytes // 7
    tries = [jobs.submit(job(AppQuota(bytes=size * 10), prompt=str(n % 10))) for n in range(20)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(answer) for answer in answers if isinstance(answer, Exception)] == [QueueFull] * 17
    await exact(redis)
    assert (await counted(redis)).waiting == 10


async def test_a_random_life_of_many_jobs_is_counted_exactly(redis, clock):
    random_bytes, jobs = random.Random(15), Jobs(redis, clock, RetentionTimes(result=3600, prompt=1800))
    prompt_gone = Jobs(redis, clock, RetentionTimes(result=3600, prompt=0))
    waiting, over = [], []
    for step in range(60):
        clock.step(10)  # what waited for its backoff is due
        match random_bytes.choice(("submit", "submit", "later", "run", "backoff", "cancel", "erase", "replay")):
            case "submit":
                waiting.append((await jobs.submit(job(prompt="x" * random_bytes.randint(1, 5000))))[0].job.id)
            case "later":
                when = clock.now().replace(year=clock.now().year + 1)
                waiting.append((await jobs.submit(job(not_before=when)))[0].job.id)
            case "replay":
                await jobs.submit(job(key="same"))
            case "cancel" if waiting:
                one = waiting.pop(random_bytes.randrange(len(waiting)))
                await random_bytes.choice((jobs, prompt_gone)).change(one, lambda _: [(CANCELLED, None)])
                over.append(one)
            case "erase" if over:
                stored = await jobs.load(over.pop(random_bytes.randrange(len(over))))
                await erase(redis, jobs, stored, "deleted", "key_1")
            case ("run" | "backoff") as which:
                _, found = await jobs.claim("w1", 1, 60)
                for one in found:
                    ends = which == "run"
                    await run(
                        random_bytes.choice((jobs, prompt_gone)),
                        one,
                        text="y" * random_bytes.randint(0, 9000),
                        ends=ends,
                    )
                    if ends and one.job.id in waiting:
                        waiting.remove(one.job.id)
                        over.append(one.job.id)
        assert (await counted(redis)) == (await actual(redis)), step
        stated, kept = await sums(redis)
        assert stated == kept, step
    assert over, "some have ended"


async def test_what_expires_makes_room_for_a_submit_and_a_legal_hold_keeps_its_bytes(redis, clock):
    jobs, holds = Jobs(redis, clock, RetentionTimes(result=1)), LegalHolds(redis, clock, RetentionTimes(1))
    first, held = [(await jobs.submit(job(prompt="x" * 3000)))[0].job.id for _ in range(2)]
    await holds.place(held, actor=Actor("ops"), why="a case")
    for one in (first, held):
        await jobs.change(one, lambda _: [(CANCELLED, None)])
    tight = AppQuota(bytes=7000)
    with pytest.raises(QueueFull, match="bytes_held"):
        await jobs.submit(job(tight, prompt="x" * 3000))

    async def expired():
        return not await redis.exists(keys.job_input(first))

    await until("the content of the first to expire", expired)
    await jobs.submit(job(tight, prompt="x" * 3000))
    await exact(redis)
    assert await redis.zcard(keys.content_expiry(APP)) == 0, "nothing that is left expires"
    await holds.release(held, actor=Actor("ops"), why="closed")
    await jobs.submit(job())
    assert await redis.zscore(keys.content_expiry(APP), held) > 0, "after the release it does"


async def test_a_job_larger_than_the_whole_quota_is_no_matter_of_waiting(jobs):
    with pytest.raises(ContentTooLarge) as error:
        await jobs.submit(job(AppQuota(bytes=1000), prompt="x" * 2000))
    assert (error.value.of_app, error.value.limit) == (True, 1000)


async def test_a_refused_submit_leaves_nothing_and_takes_no_token(redis, jobs):
    await jobs.submit(job())
    before = set(await redis.keys("vigil:*"))
    with pytest.raises(QueueFull):
        await jobs.submit(job(AppQuota(waiting=1), key="k"))
    assert set(await redis.keys("vigil:*")) == before


async def test_a_worker_that_lost_its_lease_changes_no_count(redis, jobs):
    await jobs.submit(job())
    _, (one,) = await jobs.claim("w1", 1, 60)
    await redis.zadd(keys.LEASED, {one.job.id: 0})
    await jobs.claim("w2", 1, 60)
    with pytest.raises(LeaseLost):
        await run(jobs, one, text="late")
    assert (await counted(redis)).bytes == (await actual(redis)).bytes


@pytest.mark.parametrize("damage", ["no counts", "too high", "negative", "another type", "a job that is gone"])
async def test_counts_that_were_lost_or_changed_are_right_after_a_recount(redis, jobs, damage):
    for n in range(3):
        await jobs.submit(job(prompt="x" * n))
    sizes = keys.content_sizes(APP)
    match damage:
        case "no counts":
            await redis.delete(sizes)
        case "too high" | "negative":
            await redis.hset(sizes, "total", "99999999" if damage == "too high" else "-5")
        case "another type":
            await redis.delete(sizes)
            await redis.set(sizes, "junk")
        case _:
            await redis.hset(sizes, "job_01ARZ3NDEKTSV4RRFFQ69G5FAV", "5000")
            await redis.hincrby(sizes, "total", 5000)
    await Apps(redis, FakeClock()).create_key(APP, ("submit",))
    await QueueRepair(redis, FakeClock()).repair(jobs.current)
    await exact(redis)


async def test_a_recount_goes_on_page_by_page_through_all_apps(redis, jobs, monkeypatch):
    monkeypatch.setattr("worker.store.lifecycle.content_recount._PAGE", 3)
    apps = [f"app{n}" for n in range(6)]
    for app in apps:
        for _ in range(7):
            await jobs.submit(job(app=app))
    wanted = {app: await redis.hget(keys.content_sizes(app), "total") for app in apps}
    await redis.delete(*map(keys.content_sizes, apps))
    recount = ContentRecount(redis)
    for _ in range(12):
        await recount.proceed(apps)
    assert {app: await redis.hget(keys.content_sizes(app), "total") for app in apps} == wanted


async def test_a_job_of_which_nothing_is_left_does_not_wait_for_ever(redis, jobs):
    stored, _ = await jobs.submit(job())
    gone = stored.job.id
    records = await redis.lrange(keys.chain_records(gone), 0, -1)
    await redis.xdel(keys.AUDIT, *records)
    await redis.delete(keys.job(gone), keys.trail(gone), keys.chain_records(gone), keys.job_input(gone))
    await Apps(redis, FakeClock()).create_key(APP, ("submit",))
    repair = QueueRepair(redis, FakeClock())
    for _ in range(3):
        await jobs.claim("w1", 5, 60)
        await repair.repair(jobs.current)
    assert await counted(redis) == QuotaUse(0, 0)


async def test_an_unreadable_record_that_is_settled_stops_counting_as_waiting(redis, jobs):
    stored, _ = await jobs.submit(job(prompt="x" * 100))
    await redis.hset(keys.job(stored.job.id), "rec", "junk")
    await jobs.load(stored.job.id)
    assert (await counted(redis)).waiting == 0
    await exact(redis)


async def test_an_app_has_the_bounds_of_its_own_quota_and_the_default_for_the_rest(redis):
    apps = Apps(redis, FakeClock())
    _, key, _ = await apps.create_key(APP, ("submit",))
    assert await apps.quota(APP) is None
    await apps.set_quota(APP, AppQuota(waiting=5, bytes=None))
    found = await apps.find(key)
    assert found.quota.over(AppQuota(100, 200)) == AppQuota(5, 200)
    await apps.set_quota(APP, None)
    assert (await apps.find(key)).quota is None
    with pytest.raises(Refused):
        await apps.set_quota("nobody", AppQuota(1, 1))


async def test_small_jobs_count_with_all_that_belongs_to_them_towards_the_share_of_memory(redis, jobs):
    most = JOB_BYTES + EVENTS_OF_A_LIFE * EVENT_BYTES
    tight = AppQuota(memory=5 * most)
    tries = [jobs.submit(job(tight, prompt="x")) for _ in range(12)]
    answers = await asyncio.gather(*tries, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, QueueFull)]
    assert (len(refused), {error.limit for error in refused}) == (8, {"memory_held"})
    before = (await redis.info("memory"))["used_memory"]
    for _ in range(200):
        await jobs.submit(job(prompt="x"))
    grown = (await redis.info("memory"))["used_memory"] - before
    assert grown < 200 * most, "a waiting job takes less than it is counted for"


async def memory_of(redis, clock, life):
    """(bytes of memory that an app is counted with, bytes that Redis has taken) for 100 jobs with this life."""

    async def now():
        found = await redis.info("memory")
        data = int(found["used_memory"]) - int(found.get("mem_clients_normal", 0))
        return (await Apps(redis, clock).quota_use(APP)).memory, data

    for _ in range(10):  # what all jobs share is there
        await life()
    before = await now()
    for _ in range(100):
        await life()
    return [after - first for after, first in zip(await now(), before, strict=True)]


@pytest.mark.parametrize("size", [100, 12_000])
@pytest.mark.parametrize("end", ["completed", "cancelled", "deleted", "completed and deleted", "tried again"])
async def test_what_an_app_is_counted_with_is_what_its_settled_jobs_take(redis, clock, jobs, size, end):
    async def life():
        stored, _ = await jobs.submit(job(prompt="x" * size))
        if end in ("cancelled", "deleted"):
            await jobs.change(stored.job.id, lambda _: [(CANCELLED, None)])
        else:
            if end == "tried again":
                (one,) = await held(redis, jobs, stored.job.id)
                await run(jobs, one, text="y" * size, ends=False)
            (one,) = await held(redis, jobs, stored.job.id)
            await run(jobs, one, text="y" * size)
        if "deleted" in end:
            await erase(redis, jobs, await jobs.load(stored.job.id), "deleted", "key_1")

    counted_with, taken = await memory_of(redis, clock, life)
    assert 0.5 * taken < counted_with < 1.8 * taken, counted_with / taken


async def held(redis, jobs, job_id):
    """The job's lease, whoever had it."""
    await redis.zrem(keys.LATER, job_id)
    await redis.zadd(keys.LEASED, {job_id: 0})
    return [one for one in (await jobs.claim("w1", 5, 60))[1] if one.job.id == job_id]


async def sums(redis):
    """The sums of what is stated of each job, and the sums as they are kept."""
    rows = {name: value.split() for name, value in (await redis.hgetall(keys.content_sizes(APP))).items()}
    kept = [int(rows.pop(name, [b"0"])[0]) for name in (b"total", b"events")]
    return [sum(int(row[column]) for row in rows.values()) for column in (0, 1)], kept
