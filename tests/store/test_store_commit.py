"""Commits: guarded by version and lease, whole or not at all, written once; and what settling leaves behind."""

import asyncio
import json

import pytest
from builders import (
    BLOCKED,
    CANCELLED,
    COMPLETED,
    FAILED,
    STARTED,
    FakeClock,
    backoff,
    began,
    done,
    new_job,
)
from store_inspection import LostAnswers, audit_chains, places, recomputed, sound
from waiting import LIMIT

from worker.jobs import events as ev
from worker.jobs.errors import AlreadySettled, IllegalEvent, LeaseLost, Refused, StoreUnavailable
from worker.jobs.states import Outcome
from worker.store import channels, codec, keys
from worker.store.audit.stream_records import row_of
from worker.store.jobs.repository import Jobs, RetentionTimes

FLAGGED = (ev.AccountFlagged(), None)
CANCEL_REQUESTED = (ev.CancelRequested(by="key_1"), None)
NORMAL = [(STARTED, None), (began(), 1), (done(), 1), (COMPLETED, 1)]


@pytest.fixture
def other(redis) -> Jobs:
    """Another process that works on the same Redis."""
    return Jobs(redis, FakeClock(start=10**6))


async def submitted(jobs, **given):
    return (await jobs.submit(new_job(**given)))[0].job


async def everything(redis):
    """Every key; hashes by their fields, because a server may reorder them at any time."""
    found = {}
    for name in await redis.keys("*"):
        found[name] = await (redis.hgetall(name) if await redis.type(name) == b"hash" else redis.dump(name))
    return found


async def test_several_facts_are_one_commit(redis, jobs):
    job = await submitted(jobs)
    after = await jobs.change(job.id, lambda _: NORMAL)
    assert (after.status, after.version) == ("completed", 5)
    await sound(redis, jobs, [job.id])


async def test_nothing_to_say_writes_nothing(redis, jobs):
    job = await submitted(jobs)
    before = await everything(redis)
    assert await jobs.change(job.id, lambda _: []) == job
    assert await everything(redis) == before


@pytest.mark.parametrize(
    ("drafts", "error"), [([(done(), 1)], IllegalEvent), ([FLAGGED, (COMPLETED, 1)], IllegalEvent)], ids=str
)
async def test_a_fact_that_does_not_fit_writes_nothing_at_all(redis, jobs, drafts, error):
    job = await submitted(jobs)
    before = await everything(redis)
    with pytest.raises(error):
        await jobs.change(job.id, lambda _: drafts)
    assert await everything(redis) == before


async def test_a_stale_token_writes_nothing_at_all(redis, jobs):
    job = await submitted(jobs)
    before = await everything(redis)
    with pytest.raises(LeaseLost):
        await jobs.change(job.id, lambda _: [(STARTED, None)], token="w9:9")
    assert await everything(redis) == before


async def test_a_settled_job_tells_late_writers_so(redis, jobs, other):
    job = await submitted(jobs)
    await other.change(job.id, lambda _: [(CANCELLED, None)])
    before = await everything(redis)
    for seen in (None, job):  # whoever reads first, and whoever believes what it saw long ago
        with pytest.raises(AlreadySettled):
            await jobs.change(job.id, lambda _: [(FAILED, None)], job=seen)
    assert await everything(redis) == before


async def test_whoever_was_slower_is_asked_again_with_the_record_as_it_is(redis, jobs, other):
    job = await submitted(jobs)
    await other.change(job.id, lambda _: [FLAGGED])
    records_seen = []

    def decide(seen):
        records_seen.append((seen.version, seen.account_flagged))
        return [CANCEL_REQUESTED]

    after = await jobs.change(job.id, decide, job=job)
    assert records_seen == [(1, False), (2, True)]
    assert after.version == 3
    await sound(redis, jobs, [job.id])


async def test_the_audit_chain_stands_when_two_processes_write_in_turns_and_at_once(redis, jobs, other):
    """A remembered chain head must never outlive the commit that it was meant for."""
    job = await submitted(jobs)
    seen = job
    for _ in range(3):
        late = await other.change(job.id, lambda _: [FLAGGED])
        seen = await jobs.change(job.id, lambda _: [CANCEL_REQUESTED], job=seen)  # a conflict first, each time
        assert seen.version == late.version + 1
    asks = [[(ev.CancelRequested(by=f"key_{n}"), None)] for n in range(10)]
    await asyncio.gather(*((jobs, other)[n % 2].change(job.id, lambda _, a=ask: a) for n, ask in enumerate(asks)))
    (after,) = await sound(redis, jobs, [job.id])
    assert after.version == 17


async def test_a_commit_whose_answer_was_lost_is_written_once(redis, jobs):
    """redis-py sends the same script again: the second run finds its own id and does nothing."""
    script = jobs._scripts._commit

    async def twice(**given):
        await script(**given)
        return await script(**given)

    job = await submitted(jobs, webhook_events=("job.account.flagged",))
    jobs._scripts._commit = twice
    after = await jobs.change(job.id, lambda _: [FLAGGED])
    assert after.version == 2
    assert await redis.zcard(keys.OUTBOX) == 1
    assert await sound(redis, jobs, [job.id]) == [after]


async def test_a_caller_who_tries_again_after_an_outage_writes_once(redis, jobs, clock):
    """The retries of the connection are used up, but the commit had come through: the shell says the same again."""
    job = await submitted(jobs)
    (_, (held,)) = await jobs.claim("w1", 1, 15)
    jobs._scripts._commit = LostAnswers(jobs._scripts._commit)
    drafts = [(STARTED, None), (began(), 1)]
    with pytest.raises(StoreUnavailable):
        await jobs.change(job.id, lambda _: drafts, job=held.job, token=held.token)
    clock.step(3)
    after = await jobs.change(job.id, lambda _: drafts, job=held.job, token=held.token)
    assert (after.version, len(after.attempts)) == (3, 1)
    assert await sound(redis, jobs, [job.id]) == [after], "what the caller holds is what is stored"
    await jobs.change(job.id, lambda _: [(done(), 1)], job=after, token=held.token)
    await sound(redis, jobs, [job.id])


async def test_a_lost_answer_is_found_again_behind_someone_elses_commit(redis, jobs, other):
    job = await submitted(jobs)
    (_, (held,)) = await jobs.claim("w1", 1, 15)
    jobs._scripts._commit = LostAnswers(jobs._scripts._commit)
    drafts = [(STARTED, None), (began(), 1)]
    with pytest.raises(StoreUnavailable):
        await jobs.change(job.id, lambda _: drafts, job=held.job, token=held.token)
    await other.change(job.id, lambda _: [CANCEL_REQUESTED])
    after = await jobs.change(job.id, lambda _: drafts, job=held.job, token=held.token)
    assert (after.version, len(after.attempts)) == (4, 1)
    await sound(redis, jobs, [job.id])


async def test_a_last_word_whose_answer_was_lost_stands(redis, jobs):
    job = await submitted(jobs)
    (_, (held,)) = await jobs.claim("w1", 1, 15)
    jobs._scripts._commit = LostAnswers(jobs._scripts._commit)
    with pytest.raises(StoreUnavailable):
        await jobs.change(job.id, lambda _: NORMAL, job=held.job, token=held.token)
    after = await jobs.change(job.id, lambda _: NORMAL, job=held.job, token=held.token)
    assert after.status == "completed"
    await sound(redis, jobs, [job.id])


async def test_the_same_facts_again_are_a_change_of_their_own(redis, jobs):
    job = await submitted(jobs)
    for version in (2, 3, 4):
        assert (await jobs.change(job.id, lambda _: [FLAGGED])).version == version
    await sound(redis, jobs, [job.id])


async def test_a_job_that_is_not_there_cannot_change(jobs):
    with pytest.raises(Refused) as caught:
        await jobs.change("job_00000000000000000000000000", lambda _: [FLAGGED])
    assert (caught.value.code, caught.value.status) == ("job_not_found", 404)


async def test_the_answer_is_in_the_commit_that_completes(redis, jobs):
    job = await submitted(jobs)
    answer = {"output_text": "hello", "output": [], "refusal": None}
    output = await jobs.seal_output(job.id, answer)
    with pytest.raises(LeaseLost):
        await jobs.change(job.id, lambda _: NORMAL, token="w9:9", output=output)
    assert await jobs.load_output(job.id) is None
    await jobs.change(job.id, lambda _: NORMAL, output=output)
    assert await jobs.load_output(job.id) == answer


async def test_settled_jobs_are_kept_for_their_time_and_unsettled_ones_without_end(redis, clock):
    jobs = Jobs(redis, clock, RetentionTimes(result=3600))
    job = await submitted(jobs)
    await redis.rpush(keys.text(job.id, 1), "piece")
    kept = [keys.job(job.id), keys.trail(job.id), keys.job_input(job.id)]
    assert [await redis.ttl(name) for name in kept] == [-1, -1, -1]
    answer = keys.job_output(job.id)
    await jobs.change(job.id, lambda _: NORMAL, writes=lambda _: [("SET", answer, codec.seal({}))])
    for name in [*kept, answer]:
        assert 3590 <= await redis.ttl(name) <= 3600, name
    assert not await redis.exists(keys.text(job.id, 1)), "the pieces are in the answer now"
    assert await redis.ttl(keys.AUDIT) == -1


async def test_the_status_index_follows_the_job(redis, jobs):
    job = await submitted(jobs)
    for drafts, status in (
        ([(STARTED, None)], "running"),
        ([(backoff(), None)], "scheduled"),
        ([(CANCELLED, None)], "cancelled"),
    ):
        await jobs.change(job.id, lambda _, s=drafts: s)
        rows = await redis.keys(keys.index("shop", "status", "*"))
        assert [row.decode() for row in rows] == [keys.index("shop", "status", status)]


async def test_only_wanted_events_make_messages_and_they_name_no_content(redis, jobs):
    job = await submitted(jobs, webhook_events=("job.completed", "job.blocked"))
    await jobs.change(job.id, lambda _: NORMAL[:-1])
    assert await redis.zcard(keys.OUTBOX) == 0
    await jobs.change(job.id, lambda _: NORMAL[-1:])
    ((message_id, due),) = await redis.zrange(keys.OUTBOX, 0, -1, withscores=True)
    message = json.loads(await redis.get(keys.message(message_id.decode())))
    assert (message["type"], message["seq"], message["job_id"], message["app"]) == ("job.completed", 5, job.id, "shop")
    assert (message["state"], message["deliveries"], message["id"]) == ("pending", [], message_id.decode())
    assert int(due) == job.created_at.timestamp() * 1000  # behind the point: its seq, for its turn among the others
    assert await redis.lrange(keys.messages(job.id), 0, -1) == [message_id]


async def test_a_message_is_born_with_its_event_or_not_at_all(redis, jobs):
    job = await submitted(jobs, webhook_events=("job.started",))
    with pytest.raises(LeaseLost):
        await jobs.change(job.id, lambda _: [(STARTED, None)], token="w9:9")
    assert await redis.zcard(keys.OUTBOX) == 0


async def test_watchers_are_told_after_each_change(redis, jobs):
    job = await submitted(jobs)
    async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(channels.CHANGED)
        await pubsub.get_message(timeout=LIMIT)
        await jobs.change(job.id, lambda _: [(STARTED, None), (began(), 1)])
        message = await pubsub.get_message(timeout=LIMIT)
    assert message["data"].decode() == f"{job.id} 3 running"


async def test_the_trail_is_read_from_anywhere(jobs):
    job = await submitted(jobs)
    await jobs.change(job.id, lambda _: NORMAL)
    assert [e["seq"] for e in await jobs.trail(job.id)] == [1, 2, 3, 4, 5]
    assert [e["seq"] for e in await jobs.trail(job.id, after=3)] == [4, 5]
    assert await jobs.trail(job.id, after=5) == []


async def test_every_record_of_the_audit_is_linked_to_the_one_before(redis, jobs):
    first, second = await submitted(jobs), await submitted(jobs)
    await jobs.change(first.id, lambda _: NORMAL)
    blocked = [*NORMAL[:2], (done(Outcome.BLOCKED), 1), (BLOCKED, 1)]
    await jobs.change(second.id, lambda _: blocked)
    chains = await audit_chains(redis)
    assert {name: len(chain) for name, chain in chains.items()} == {first.id: 5, second.id: 5}
    rows = [row_of(*entry) for entry in await redis.xrange(keys.AUDIT)]
    forged = rows[0].record.replace(b'"shop"', b'"shed"')
    assert recomputed("0" * 64, forged) != rows[0].hash, "an altered record does not fit its hash"


async def test_the_script_takes_a_commit_once_by_its_id(redis, jobs):
    job = await submitted(jobs)
    commit = jobs._scripts.commit
    words = [("RPUSH", "seen", "x"), ("HSET", keys.job(job.id), "v", "2")]
    assert await commit(job.id, 1, "", "a" * 32, words) == "OK"
    assert await commit(job.id, 1, "", "a" * 32, words) == "DONE"
    assert await commit(job.id, 1, "", "b" * 32, words) == "CONFLICT"
    assert await commit(job.id, 2, "w:1", "b" * 32, words) == "LOST"
    assert await redis.llen("seen") == 1


async def test_a_settled_job_stands_in_no_place_and_has_no_holder(redis, jobs):
    job = await submitted(jobs)
    await jobs.claim("w1", 1, 15)
    await jobs.change(job.id, lambda _: [(CANCELLED, None)])
    assert await places(redis, job.id) == []
    assert await redis.hget(keys.job(job.id), "tok") is None
    assert (await jobs.claim("w2", 10, 15))[1] == []
