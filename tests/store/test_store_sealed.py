"""Encryption as the store lives it: nothing readable in Redis; a missing key delays and never loses."""

from __future__ import annotations

import pytest
from arq.connections import ArqRedis
from builders import STARTED, FakeClock, began, new_job, queued

from worker.jobs.errors import ContentDamaged, ContentNotSealed, KeyMissing, RecordUnreadable
from worker.store import keys
from worker.store.apps import Apps
from worker.store.connection.kept_secrets import KeptSecrets
from worker.store.connection.pool import connect
from worker.store.envelope import MasterKeyring
from worker.store.jobs.batch_reads import outputs
from worker.store.jobs.list_filters import ListFilters
from worker.store.jobs.listing import list_jobs
from worker.store.jobs.output_chunks import OutputChunk, OutputChunks, PendingChunk
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import NewJob
from worker.store.webhooks.endpoints import Endpoints

KEY, OTHER = bytes([7]) * 32, bytes([8]) * 32
BEGUN = [(STARTED, None), (began(), 1)]
SECRET = "canary-2b9e"


@pytest.fixture
async def sides(redis: ArqRedis, valkey_url: str):
    """Clients on one Redis by what keys they were given."""
    made = {
        "one": connect(valkey_url, keyring=MasterKeyring([KEY])),
        "same": connect(valkey_url, keyring=MasterKeyring([KEY])),
        "other": connect(valkey_url, keyring=MasterKeyring([OTHER])),
        "none": connect(valkey_url),
        "accepting": connect(valkey_url, keyring=MasterKeyring([KEY], accept_plain=True)),
    }
    yield made
    for client in made.values():
        await client.aclose()


def secret_job(**changes) -> NewJob:
    job_input = {"input": SECRET, "instructions": SECRET, "params": {"tools": [{"name": SECRET}]}}
    return NewJob(queued(**changes), {"metadata": {"k": SECRET}, "end_user": SECRET}, job_input)


async def everything(redis: ArqRedis) -> bytes:
    """All values of all keys."""
    out = b""
    for name in await redis.keys("*"):
        match await redis.type(name):
            case b"string":
                out += await redis.get(name)
            case b"hash":
                out += b"".join(b for pair in (await redis.hgetall(name)).items() for b in pair)
            case b"list":
                out += b"".join(await redis.lrange(name, 0, -1))
            case b"set":
                out += b"".join(await redis.smembers(name))
            case b"stream":
                out += repr(await redis.xrange(name)).encode()
            case _:
                out += repr(await redis.zrange(name, 0, -1)).encode()
    return out


async def run(redis: ArqRedis) -> tuple[Jobs, str]:
    jobs = Jobs(redis, FakeClock())
    stored, _ = await jobs.submit(secret_job())
    _, (held,) = await jobs.claim("w1", 5, 60)
    assert held.input == {"input": SECRET, "instructions": SECRET, "params": {"tools": [{"name": SECRET}]}}
    assert held.private["metadata"] == {"k": SECRET}
    await OutputChunks(redis).append([PendingChunk(held.job.id, held.token, 1, OutputChunk(1, 0, SECRET))])
    wrote = await jobs.seal_output(held.job.id, {"output_text": SECRET, "draft": SECRET})
    await jobs.change(held.job.id, lambda _: BEGUN, token=held.token, output=wrote)
    return jobs, stored.job.id


async def test_nothing_that_an_app_sent_or_got_can_be_read_in_redis(sides) -> None:
    redis = sides["one"]
    await run(redis)
    await Apps(redis, FakeClock()).create_key("acme", ("read",))
    await Endpoints(redis, FakeClock()).create(
        "acme",
        url=f"https://a.example/{SECRET}",
        events=("job.completed",),
        payload="thin",
        description="",
        secret=SECRET,
    )
    kept = await KeptSecrets(redis, FakeClock()).get("digest")
    raw = await everything(redis)
    assert SECRET.encode() not in raw
    assert b"whsec_" not in raw
    assert kept.hex().encode() not in raw


async def test_a_process_with_the_same_key_reads_all_of_it(sides) -> None:
    _, job_id = await run(sides["one"])
    jobs = Jobs(sides["same"], FakeClock())
    assert (await outputs(sides["same"], [job_id]))[job_id]["output_text"] == SECRET
    assert (await jobs.load_input(job_id) or {})["input"] == SECRET
    assert [p.text for p in await OutputChunks(sides["same"]).read(job_id, 1)] == [SECRET]
    stored = await jobs.load(job_id)
    assert stored is not None
    assert stored.private["end_user"] == SECRET


@pytest.mark.parametrize("who", ["other", "none"])
async def test_without_the_key_a_job_says_so_and_lists_still_show_the_others(sides, who: str) -> None:
    _, job_id = await run(sides["one"])
    plain, _ = await Jobs(sides[who], FakeClock(start=50)).submit(new_job())
    jobs = Jobs(sides[who], FakeClock())
    with pytest.raises(KeyMissing):
        await jobs.load(job_id)
    with pytest.raises(KeyMissing):
        await jobs.load_output(job_id)
    found, _ = await list_jobs(sides[who], plain.job.app, ListFilters(), 10, None)
    assert {one.job.id: bool(one.private.get("locked")) for one in found} == {job_id: True, plain.job.id: False}


async def test_a_claim_hands_out_jobs_whose_key_is_missing_as_locked(sides) -> None:
    locked, _ = await Jobs(sides["one"], FakeClock()).submit(secret_job())
    fine, _ = await Jobs(sides["other"], FakeClock(start=50)).submit(secret_job())
    _, held = await Jobs(sides["other"], FakeClock()).claim("w1", 5, 60)
    assert {one.job.id: (one.unreadable, one.input is None) for one in held} == {
        locked.job.id: ("locked", True),
        fine.job.id: ("", False),
    }


async def test_content_that_was_moved_from_another_job_is_damaged(sides) -> None:
    redis = sides["one"]
    jobs, first = await run(redis)
    second, _ = await Jobs(redis, FakeClock(start=70)).submit(secret_job())
    await redis.copy(keys.job_output(first), keys.job_output(second.job.id))
    with pytest.raises(ContentDamaged):
        await jobs.load_output(second.job.id)
    await redis.hset(keys.job(second.job.id), "priv", await redis.hget(keys.job(first), "priv"))
    with pytest.raises(ContentDamaged):
        await jobs.load(second.job.id)


async def test_what_was_written_before_there_were_keys_waits_until_it_is_accepted_and_goes_on(sides) -> None:
    stored, _ = await Jobs(sides["none"], FakeClock()).submit(secret_job())
    strict = Jobs(sides["one"], FakeClock())
    assert (await strict.claim("w1", 5, 60))[1] == [], "it is not run"
    with pytest.raises(RecordUnreadable, match="no_mac"):
        await strict.load(stored.job.id)
    jobs = Jobs(sides["accepting"], FakeClock())
    assert (await jobs.load(stored.job.id)).job == stored.job, "and not failed: it waits for an operator"
    _, (held,) = await jobs.claim("w1", 5, 60)
    assert held.input is not None
    wrote = await jobs.seal_output(held.job.id, {"output_text": SECRET})
    await jobs.change(held.job.id, lambda _: BEGUN, token=held.token, output=wrote)
    assert await jobs.load_output(stored.job.id) == {"output_text": SECRET}
    with pytest.raises(ContentNotSealed):
        await Jobs(sides["same"], FakeClock()).load_output(stored.job.id)


async def test_a_job_that_is_no_longer_remembered_is_read_by_its_own_key(sides) -> None:
    redis = sides["one"]
    jobs, job_id = await run(redis)
    redis.keyring._cached.clear()
    assert (await jobs.load_output(job_id) or {})["output_text"] == SECRET
    redis.keyring._cached.clear()
    assert [p.text for p in await OutputChunks(redis).read(job_id, 1)] == [SECRET]
