"""Settled jobs are compressed a minute after their end: less than half the memory, and every reader sees the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from arq.connections import ArqRedis
from builders import COMPLETED, PLAIN, STARTED, VAULT, FakeClock, began, done, new_job
from sealed_trail import SIGNER
from store_inspection import audit_chains, sound

from worker.audit.keys import TrustedKeys
from worker.audit.report import Report
from worker.jobs.errors import RecordUnreadable
from worker.jobs.record import Job
from worker.store import codec, compression, keys
from worker.store.audit.acts import Actor
from worker.store.audit.trail import Trail
from worker.store.audit.verification import TrailVerification
from worker.store.connection.pool import connect
from worker.store.envelope import MasterKeyring
from worker.store.jobs.list_filters import ListFilters
from worker.store.jobs.listing import list_jobs
from worker.store.jobs.outbox_jobs import load_event_ranges
from worker.store.jobs.repository import Jobs, RetentionTimes
from worker.store.lifecycle.compaction import Compaction
from worker.store.lifecycle.erasure import erase
from worker.store.lifecycle.key_rotation import KeyRotation
from worker.store.lifecycle.legal_holds import LegalHolds
from worker.store.lifecycle.record_verification import RecordVerification
from worker.store.record_mac import split

LIFE = [(STARTED, None), (began(), 1), (done(), 1), (COMPLETED, 1)]
encrypted = pytest.mark.skipif(PLAIN, reason="without master keys there are no MACs")


@pytest.fixture
async def compact(valkey_url: str, redis: ArqRedis) -> AsyncIterator[ArqRedis]:
    """A client that writes the compressed form, beside `redis`, which reads it and writes the plain one."""
    client = connect(valkey_url, keyring=VAULT, compact=True)
    yield client
    await client.aclose()


@pytest.fixture
def jobs(compact: ArqRedis, clock: FakeClock) -> Jobs:
    return Jobs(compact, clock)


async def ended(jobs: Jobs) -> Job:
    job = (await jobs.submit(new_job(safety_identifier="a" * 64)))[0].job
    return await jobs.change(job.id, lambda _: LIFE)


async def cold(compact: ArqRedis, clock: FakeClock, count: int = 1) -> None:
    """Let a minute pass, and sweep."""
    clock.step(61)
    assert await Compaction(compact, clock).sweep() == count


async def is_compact(redis: ArqRedis, job_id: str) -> bool:
    rows = await redis.lrange(keys.trail(job_id), 0, -1)
    record = await redis.hget(keys.job(job_id), "rec")
    return len(rows) == 1 and compression.is_compressed(rows[0]) and compression.is_compressed(record)


async def verify(redis: ArqRedis, clock: FakeClock) -> Report:
    report = await TrailVerification(redis, clock, TrustedKeys([SIGNER.public])).verify()
    await RecordVerification(redis, clock).verify(report)
    return report


async def test_a_compressed_job_takes_less_than_half_and_reads_the_same(redis, compact, jobs, clock) -> None:
    plain = Jobs(redis, clock)
    before, job = await ended(plain), await ended(jobs)
    names = [keys.job(job.id), keys.trail(job.id)]
    taken = sum([await redis.memory_usage(name, samples=0) for name in names])
    clock.step(59)
    assert await Compaction(compact, clock).sweep() == 0, "not within the minute in which it is read most"
    await cold(compact, clock)
    assert await is_compact(redis, job.id)
    assert not await is_compact(redis, before.id), "who writes plain leaves no job to compress"
    assert sum([await redis.memory_usage(name, samples=0) for name in names]) < taken * 0.5
    for reader in (plain, jobs):
        assert (await sound(redis, reader, [before.id, job.id]))[1] == job
        whole = await reader.trail(job.id)
        assert [await reader.trail(job.id, after) for after in range(7)] == [whole[after:] for after in range(7)]
    ranges = [(job.id, 1, 1), (job.id, 2, 3), (job.id, 5, 5), (before.id, 2, 3)]
    found = await load_event_ranges(redis, ranges)
    assert [[one["seq"] for one in rows] for rows in found] == [[1], [2, 3], [5], [2, 3]]
    listed, _ = await list_jobs(redis, job.app, ListFilters(), 5, None)
    assert {one.job.id for one in listed} == {before.id, job.id}
    assert (await verify(redis, clock)).faults == []


async def test_it_expires_when_it_would_have_and_a_held_one_never(redis, compact, jobs, clock) -> None:
    job, held = await ended(jobs), await ended(jobs)
    await LegalHolds(redis, clock, RetentionTimes()).place(held.id, actor=Actor("ops"), why="a case")
    left = {name: await redis.pexpiretime(name) for name in (keys.job(job.id), keys.trail(job.id))}
    await cold(compact, clock, 2)
    assert {name: await redis.pexpiretime(name) for name in left} == pytest.approx(left, abs=2000)
    assert await is_compact(redis, held.id)
    assert [await redis.ttl(name) for name in (keys.job(held.id), keys.trail(held.id))] == [-1, -1]


async def test_jobs_under_way_and_gone_ones_are_left_alone(redis, compact, jobs, clock) -> None:
    running, gone = (await jobs.submit(new_job()))[0].job, await ended(jobs)
    await redis.zadd(keys.COMPACTION_DUE, {running.id: 1, "nonsense": 1})
    await redis.delete(keys.job(gone.id), keys.trail(gone.id))
    before = await redis.hgetall(keys.job(running.id))
    await cold(compact, clock, 0)
    assert await redis.hgetall(keys.job(running.id)) == before
    assert await redis.zcard(keys.COMPACTION_DUE) == 0
    assert not await redis.exists(keys.job(gone.id), keys.trail(gone.id))


async def test_what_comes_after_the_end_is_added_and_compressed_later(redis, compact, jobs, clock) -> None:
    job = await ended(jobs)
    await cold(compact, clock)
    stored = await jobs.load(job.id)
    erased = await erase(redis, Jobs(redis, clock), stored, "deleted", "key_1")
    assert erased.version == job.version + 1
    assert [one["seq"] for one in await jobs.trail(job.id, job.version - 1)] == [job.version, job.version + 1]
    await Trail(compact, clock).note("content.read", app=job.app, job_id=job.id, by="key_1", why="looked")
    await redis.zadd(keys.COMPACTION_DUE, {job.id: 1})  # this client writes plain, others do not
    await cold(compact, clock)
    assert await is_compact(redis, job.id)
    assert (await jobs.load(job.id)).job == erased
    assert [one["seq"] for one in await jobs.trail(job.id)] == list(range(1, erased.version + 1))
    assert (await verify(redis, clock)).faults == []


async def test_a_change_at_the_same_moment_wins_and_the_job_is_compressed_later(
    redis, compact, jobs, clock, monkeypatch
) -> None:
    job = await ended(jobs)
    clock.step(61)
    sweep = Compaction(compact, clock)
    arguments = sweep._arguments

    def late(job_id, fields, rows):
        return [b"4", *arguments(job_id, fields, rows)[1:]]  # of the version before

    monkeypatch.setattr(sweep, "_arguments", late)
    assert await sweep.sweep() == 0
    assert not await is_compact(redis, job.id)
    monkeypatch.undo()
    await cold(compact, clock)
    assert await is_compact(redis, job.id)


async def test_two_sweepers_share_the_work(redis, compact, jobs, clock) -> None:
    made = [await ended(jobs) for _ in range(5)]
    clock.step(61)
    one, two = Compaction(compact, clock), Compaction(compact, clock)
    taken = [*await one._take(), *await two._take()]
    assert sorted(taken) == sorted(job.id for job in made)


@encrypted
async def test_a_record_that_vigil_did_not_write_gets_no_tag_that_vouches_for_it(
    redis, valkey_url, jobs, clock
) -> None:
    """Not even from a process that reads what has no tag."""
    forged, untagged, event = await ended(jobs), await ended(jobs), await ended(jobs)
    record = json.loads(await redis.hget(keys.job(forged.id), "rec"))
    await redis.hset(keys.job(forged.id), "rec", json.dumps({**record, "refused": True}))
    await redis.hdel(keys.job(untagged.id), "mac")
    await redis.lset(keys.trail(event.id), 1, (await redis.lindex(keys.trail(event.id), 1)).replace(b"w1", b"w2"))
    before = {job.id: await redis.hgetall(keys.job(job.id)) for job in (forged, untagged, event)}
    accepting = connect(valkey_url, keyring=MasterKeyring([bytes(range(32))], accept_plain=True), compact=True)
    await cold(accepting, clock, 0)
    assert {job_id: await redis.hgetall(keys.job(job_id)) for job_id in before} == before
    await accepting.aclose()


@encrypted
async def test_a_changed_compressed_record_is_not_believed(redis, compact, jobs, clock) -> None:
    job = await ended(jobs)
    await cold(compact, clock)
    record = json.loads(compression.expand(await redis.hget(keys.job(job.id), "rec")))
    forged = compression.compress(json.dumps({**record, "app": "other"}).encode())
    await redis.hset(keys.job(job.id), "rec", forged)
    assert "its record" in (await verify(redis, clock)).faults[0].detail
    assert (await jobs.load(job.id)).job == job, "written anew from its events"


@pytest.mark.parametrize("damage", [b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfd" + b"\xff" * 40, b"nonsense"])
async def test_a_damaged_record_is_written_anew_from_its_compressed_events(redis, compact, jobs, clock, damage) -> None:
    job = await ended(jobs)
    await cold(compact, clock)
    await redis.hset(keys.job(job.id), "rec", damage)
    assert (await jobs.load(job.id)).job == job
    assert await redis.get(keys.aside(keys.job(job.id))) == damage


async def test_damaged_events_come_from_the_audit_trail(redis, compact, jobs, clock) -> None:
    job = await ended(jobs)
    whole = await jobs.trail(job.id)
    await cold(compact, clock)
    await redis.lset(keys.trail(job.id), 0, (await redis.lindex(keys.trail(job.id), 0))[:-9])
    assert await jobs.trail(job.id) == whole
    assert await jobs.trail(job.id, 3) == whole[3:]


def _of_newer_dictionary(raw: bytes) -> bytes:
    place = raw.index(b"\x28\xb5\x2f\xfd")
    place = raw.index((40_001).to_bytes(2, "little"), place)
    return raw[:place] + (40_002).to_bytes(2, "little") + raw[place + 2 :]


async def test_what_a_newer_dictionary_compressed_is_left_to_newer_releases(redis, compact, jobs, clock) -> None:
    job = await ended(jobs)
    await cold(compact, clock)
    for raw, put in (
        (await redis.hget(keys.job(job.id), "rec"), lambda new: redis.hset(keys.job(job.id), "rec", new)),
        (await redis.lindex(keys.trail(job.id), 0), lambda new: redis.lset(keys.trail(job.id), 0, new)),
    ):
        await put(_of_newer_dictionary(raw))
    entries = await redis.xrange(keys.AUDIT)
    await redis.delete(keys.AUDIT)
    for place, fields in entries:
        await redis.xadd(keys.AUDIT, {b"z": _of_newer_dictionary(fields[b"z"])}, id=place)
    if VAULT.enabled:
        raw, version = await redis.hmget(keys.job(job.id), "rec", "v")
        await redis.hset(keys.job(job.id), "mac", b"%b %b" % (version, VAULT.macs.tag(keys.job(job.id), raw)))
    before = await redis.hgetall(keys.job(job.id))
    with pytest.raises(RecordUnreadable) as caught:
        await jobs.load(job.id)
    assert caught.value.why == "newer"
    assert await redis.hgetall(keys.job(job.id)) == before


async def test_both_forms_are_one_trail(redis, compact, jobs, clock) -> None:
    """While the setting comes to one process after the other, records of both forms follow one another."""
    plain = Jobs(redis, clock)
    job = (await plain.submit(new_job()))[0].job
    for number, draft in enumerate(LIFE):
        await (jobs, plain)[number % 2].change(job.id, lambda _, draft=draft: [draft])
    for number in range(4):
        client = (redis, compact)[number % 2]
        await Trail(client, clock).note("checked", app=job.app, job_id=job.id, by="ops", why=f"{number}")
        await Trail(client, clock).note("checked", app=job.app, job_id=None, by="ops", why=f"{number}")
    forms = {tuple(fields) for _, fields in await redis.xrange(keys.AUDIT)}
    assert forms == {(b"hash", b"record"), (b"z",)}
    chains = await audit_chains(redis)
    assert [one["seq"] for one in chains[job.id]] == [1, 2, 3, 4, 5, None, None, None, None]
    assert (await verify(redis, clock)).faults == []
    entries = await redis.xrange(keys.AUDIT)
    place, fields = next(entry for entry in entries if b"z" in entry[1])
    altered = compression.expand(fields[b"z"][32:]).replace(b'"attempt":null', b'"attempt":7')
    await redis.delete(keys.AUDIT)
    for one, kept in entries:
        new = {b"z": fields[b"z"][:32] + compression.compress(altered)} if one == place else kept
        await redis.xadd(keys.AUDIT, new, id=one)
    assert (await verify(redis, clock)).faults[0].kind == "altered"


async def test_after_a_rewrap_compressed_jobs_have_tags_of_the_new_key(redis, valkey_url, clock) -> None:
    old, new = bytes([3]) * 32, bytes([4]) * 32
    clients = [connect(valkey_url, keyring=MasterKeyring(these), compact=True) for these in ([old], [new, old], [new])]
    before = Jobs(clients[0], clock)
    job = await ended(before)
    await cold(clients[0], clock)
    counts = await KeyRotation(clients[1]).run()
    assert (counts["unreadable"], counts["changed_meanwhile"]) == (0, 0)
    after = Jobs(clients[2], clock)
    assert (await after.load(job.id)).job == job
    rows = compression.expand(await redis.lindex(keys.trail(job.id), 0)).split(b"\n")
    assert not any(clients[2].keyring.macs.needs_tag(split(row)[1]) for row in rows)
    assert len(await after.trail(job.id)) == job.version
    assert await is_compact(redis, job.id)
    for client in clients:
        await client.aclose()


async def test_the_record_is_the_same_bytes(redis, compact, jobs, clock) -> None:
    """Fields of a newer release too: what is compressed is the stored JSON, not what this release understands of it."""
    job = await ended(jobs)
    record = json.loads(await redis.hget(keys.job(job.id), "rec"))
    raw = json.dumps({**record, "of_a_newer_release": {"a": [1]}}).encode()
    await redis.hset(keys.job(job.id), "rec", raw)
    if VAULT.enabled:
        tag = VAULT.macs.tag(keys.job(job.id), raw)
        await redis.hset(keys.job(job.id), "mac", b"%d %b" % (job.version, tag))
    await cold(compact, clock)
    stored = await redis.hget(keys.job(job.id), "rec")
    assert compression.expand(stored) == raw
    assert codec.load_job(stored).all_fields["of_a_newer_release"] == {"a": [1]}
