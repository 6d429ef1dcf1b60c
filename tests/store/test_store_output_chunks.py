"""The text of running answers: kept in order, fenced by the lease, told to watchers; and codec, answers, depths."""

import json
from datetime import timedelta

import pytest
from builders import CANCELLED, COMPLETED, STARTED, T0, VAULT, FakeClock, began, done, life, new_job, noticed
from hypothesis import given, strategies as st
from lone_node import ON_CLUSTER
from pydantic import ValidationError
from store_inspection import lapse
from waiting import LIMIT

from worker.audit.chain import canonical
from worker.jobs import ids
from worker.store import channels, codec, keys
from worker.store.connection.capacity import check_writable
from worker.store.jobs.batch_reads import message_states, outputs
from worker.store.jobs.output_chunks import OutputChunk, OutputChunks, PendingChunk, parse_message
from worker.store.stats.queue_depth import depths
from worker.store.stats.worker_registry import workers

HELLO = [OutputChunk(3, 0, "Hel"), OutputChunk(5, 3, "lo, "), OutputChunk(-1, 7, "wörld 🎈 \ud800")]


@pytest.fixture
def chunks(redis) -> OutputChunks:
    return OutputChunks(redis)


async def running(jobs, worker="w1"):
    await jobs.submit(new_job())
    _, (held,) = await jobs.claim(worker, 1, 15)
    await jobs.change(held.job.id, lambda _: [(STARTED, None), (began(), 1)], token=held.token)
    return held


async def test_chunks_come_back_as_they_were_and_in_order(jobs, chunks):
    held = await running(jobs)
    assert (await chunks.append([PendingChunk(held.job.id, held.token, 1, p) for p in HELLO[:2]]))[1] == []
    assert (await chunks.append([PendingChunk(held.job.id, held.token, 1, HELLO[2])]))[1] == []
    assert await chunks.read(held.job.id, 1) == HELLO
    assert await chunks.read(held.job.id, 2) == []


async def test_chunks_of_a_lost_lease_are_dropped_and_the_others_stored(redis, jobs, chunks):
    lost = await running(jobs)
    ours = await running(jobs)
    await lapse(redis, lost.job.id)
    await jobs.claim("w2", 1, 15)
    out = [PendingChunk(h.job.id, h.token, 1, HELLO[0]) for h in (lost, ours)]
    assert (await chunks.append([*out, PendingChunk("job_none", "w1:1", 1, HELLO[0])]))[1] == [lost.job.id, "job_none"]
    assert await chunks.read(lost.job.id, 1) == []
    assert await chunks.read(ours.job.id, 1) == [HELLO[0]]


async def test_chunks_that_come_after_the_end_are_dropped(redis, jobs, chunks):
    held = await running(jobs)
    await chunks.append([PendingChunk(held.job.id, held.token, 1, HELLO[0])])
    await jobs.change(held.job.id, lambda _: [(done(), 1), (COMPLETED, 1)], token=held.token)
    assert (await chunks.append([PendingChunk(held.job.id, held.token, 1, HELLO[1])]))[1] == [held.job.id]
    assert not await redis.exists(keys.text(held.job.id, 1))


@pytest.mark.skipif(ON_CLUSTER, reason="redis-py's own reader of messages knows none of a cluster")
@pytest.mark.parametrize("release", ["this", "the one before"])
async def test_watchers_receive_chunks_as_they_are_appended(redis, jobs, chunks, release):
    held, other = await running(jobs), await running(jobs)
    out = [PendingChunk(held.job.id, held.token, 1, p) for p in HELLO]
    unwatched = PendingChunk(other.job.id, other.token, 1, HELLO[0])
    assert (await chunks.append([unwatched]))[0] == set()
    async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(channels.output_chunks_of(held.job.id) if release == "this" else channels.OUTPUT_CHUNKS)
        await pubsub.get_message(timeout=LIMIT)
        watched, _ = await chunks.append([*out, unwatched])
        assert watched == ({held.job.id} if release == "this" else {held.job.id, other.job.id})
        messages = [await pubsub.get_message(timeout=LIMIT) for _ in HELLO]
    assert [parse_message(m["data"], VAULT.cached(held.job.id)) for m in messages] == [
        (held.job.id, 1, p) for p in HELLO
    ]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(_json)
def test_content_comes_back_as_it_was(value):
    assert codec.unseal(codec.seal(value)) == value


def test_what_is_gone_is_none_and_what_is_from_the_future_is_refused():
    assert codec.unseal(None) is None
    assert codec.unseal(b"") is None
    with pytest.raises(ValueError, match="newer release"):
        codec.unseal(b"9{}")


@given(st.dictionaries(st.text(), st.integers() | st.text(), max_size=4))
def test_canonical_json_is_sorted_and_without_spaces(body):
    text = canonical(body).decode()
    assert json.loads(text) == body
    assert list(json.loads(text)) == sorted(body)
    assert canonical(dict(reversed(body.items()))).decode() == text


def test_a_record_comes_back_as_it_was_and_one_of_another_schema_is_refused():
    job, trail = life(STARTED, (began(), 1), (noticed(), 1))
    assert codec.load_job(codec.dump_job(job)) == job
    assert codec.load_event(codec.dump_event(trail[2].dump())) == trail[2].dump()
    with pytest.raises(ValidationError):
        codec.load_job(codec.dump_job(job).replace(b'"schema_number":1', b'"schema_number":99'))


async def test_answers_are_read_in_one_trip_and_missing_ones_are_missing(redis, jobs):
    job, _ = await jobs.submit(new_job())
    for command in (await jobs.seal_output(job.job.id, {"output_text": "x"})).commands():
        await redis.execute_command(*command)
    assert await outputs(redis, [job.job.id, "job_2"]) == {job.job.id: {"output_text": "x"}}
    assert await outputs(redis, []) == {}


async def test_the_newest_message_of_each_job_tells_the_webhooks_state(redis, jobs):
    notified, _ = await jobs.submit(new_job(webhook_events=("job.queued", "job.cancelled")))
    quiet, _ = await jobs.submit(new_job())
    await jobs.change(notified.job.id, lambda _: [(CANCELLED, None)])
    newest = (await redis.lindex(keys.messages(notified.job.id), -1)).decode()
    message = json.loads(await redis.get(keys.message(newest)))
    await redis.set(keys.message(newest), json.dumps({**message, "state": "delivered"}))
    assert await message_states(redis, [notified.job.id, quiet.job.id]) == {notified.job.id: "delivered"}
    assert await message_states(redis, []) == {}
    assert await message_states(redis, [quiet.job.id]) == {}


async def test_the_depths_count_each_job_once(redis, jobs, clock):
    from worker.store.apps import Apps

    await Apps(redis, clock).create_key("shop", ("submit",))
    empty = await depths(redis, clock)
    assert (empty.queued, empty.scheduled, empty.running, empty.checking) == (0, 0, 0, 0)
    assert empty.oldest_queued_seconds is None
    held = await running(jobs)
    await running(jobs)
    await jobs.change(held.job.id, lambda _: [(noticed(), 1)], token=held.token)
    await jobs.submit(new_job(not_before=T0 + timedelta(hours=1)))
    clock.step(10)
    await jobs.submit(new_job(priority="low"))
    clock.step(10)
    await jobs.submit(new_job(priority="high"))
    clock.step(1)
    found = await depths(redis, clock)
    assert (found.queued, found.scheduled, found.running, found.checking) == (2, 1, 1, 1)
    assert found.oldest_queued_seconds == 11, "the oldest of all priorities"


async def test_only_workers_that_beat_lately_are_alive(redis, clock):
    beats = {"w2": 5, "w1": 59, "w3": 61}
    for name, age in beats.items():
        at = (clock.now() - timedelta(seconds=age)).isoformat()
        await redis.hset(keys.WORKERS, name, json.dumps({"id": name, "beat_at": at}))
    assert [w["id"] for w in await workers(redis, clock)] == ["w1", "w2"]


async def test_a_redis_that_takes_writes_says_nothing(redis):
    await check_writable(redis)


def test_the_test_clock_makes_ids_of_ours():
    clock = FakeClock()
    assert ids.is_job_id(ids.new_id("job", 1, clock.random_bytes(ids.RANDOM_BYTES)))
