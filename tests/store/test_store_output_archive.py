"""Large outputs in the archive: sealed, found again, never overwritten, moved and deleted, whatever stops half-way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from arq.connections import ArqRedis
from builders import VAULT
from output_archives import END, LARGE, LEAST, Archived, archived
from s3_server import S3Server

from worker.jobs.errors import ArchiveUnavailable, ContentDamaged, KeyMissing, LeaseLost
from worker.store import keys
from worker.store.connection.job_keys import ciphers_of
from worker.store.connection.pool import connect
from worker.store.envelope import MasterKeyring
from worker.store.jobs.archived_output import entry_of, open_reference, place_of
from worker.store.jobs.batch_reads import outputs_or_none
from worker.store.jobs.outputs import read_outputs

pytestmark = pytest.mark.skipif(not VAULT.enabled, reason="nothing leaves Redis without encryption")
KEY, NEW = bytes([7]) * 32, bytes([8]) * 32


@pytest.fixture
async def kept(redis: ArqRedis, s3: S3Server, valkey_url: str) -> AsyncIterator[Archived]:
    async with archived(s3, valkey_url, MasterKeyring([KEY])) as made:
        yield made


async def stated(redis: ArqRedis, job_id: str) -> int:
    """The bytes of content that the job's app is said to hold of it."""
    return int((await redis.hget(keys.content_sizes("shop"), job_id)).split()[0])


async def test_a_large_output_is_in_the_bucket_sealed_and_redis_has_its_place(kept: Archived) -> None:
    job_id = await kept.completed()
    (found,) = await kept.listed()
    assert found.name.startswith(f"outputs/{job_id}/")
    raw = await kept.store.get(found.name, 10**6)
    assert raw is not None
    assert b"canary" not in raw
    stored = await kept.redis.get(keys.job_output(job_id))
    assert len(stored) < 300
    assert place_of(stored) == (found.name.rpartition("/")[2], found.size)
    assert await kept.jobs.load_output(job_id) == LARGE
    assert await kept.jobs.output_bytes(job_id) == found.size
    assert await stated(kept.redis, job_id) < LEAST, "what is in the archive is not counted as memory"


async def test_a_small_output_stays_in_redis(kept: Archived) -> None:
    job_id = await kept.completed({"output_text": "short"})
    assert await kept.listed() == []
    assert await kept.jobs.load_output(job_id) == {"output_text": "short"}


async def test_without_a_key_nothing_leaves_redis(redis: ArqRedis, s3: S3Server, valkey_url: str) -> None:
    async with archived(s3, valkey_url, MasterKeyring()) as kept:
        job_id = await kept.completed()
        assert await kept.listed() == []
        assert await kept.jobs.load_output(job_id) == LARGE
        assert await kept.redis.zcard(keys.UNARCHIVED) == 0


async def test_each_try_has_an_object_of_its_own_and_the_loser_s_is_deleted(kept: Archived) -> None:
    job_id, token = await kept.held()
    lost = await kept.jobs.archive_output(await kept.jobs.seal_output(job_id, {**LARGE, "refusal": "another"}))
    assert lost.sealed is not None
    await kept.settle(job_id, token)
    assert len(await kept.listed()) == 2
    await kept.make_due()
    await kept.objects.sweep()
    (left,) = await kept.listed()
    assert place_of(await kept.redis.get(keys.job_output(job_id))) == (left.name.rpartition("/")[2], left.size)
    assert await kept.jobs.load_output(job_id) == LARGE


async def test_the_object_of_a_job_that_still_runs_stays_until_it_has_ended(kept: Archived) -> None:
    """Its worker may be about to commit, however long it was stopped."""
    job_id, token = await kept.held()
    output = await kept.jobs.archive_output(await kept.jobs.seal_output(job_id, LARGE))
    await kept.make_due()
    await kept.objects.sweep()
    assert len(await kept.listed()) == 1
    await kept.jobs.change(job_id, lambda _: END, token=token, output=output)
    await kept.make_due()
    await kept.objects.sweep()
    assert await kept.jobs.load_output(job_id) == LARGE


async def test_a_worker_that_dies_before_its_commit_leaves_an_object_that_is_deleted_later(kept: Archived) -> None:
    job_id, token = await kept.held()
    await kept.jobs.archive_output(await kept.jobs.seal_output(job_id, LARGE))
    await kept.redis.zadd(keys.LEASED, {job_id: 0})
    _, (again,) = await kept.jobs.claim("w2", 5, 60)
    with pytest.raises(LeaseLost):
        await kept.settle(job_id, token)
    await kept.settle(job_id, again.token, {"output_text": "short"})
    assert len(await kept.listed()) == 2
    await kept.make_due()
    await kept.objects.sweep()
    assert await kept.listed() == []
    assert await kept.redis.zcard(keys.OUTPUT_OBJECTS) == 0


async def test_a_sweep_that_stopped_before_the_deletion_goes_on(kept: Archived, monkeypatch: Any) -> None:
    job_id, token = await kept.held()
    await kept.jobs.archive_output(await kept.jobs.seal_output(job_id, LARGE))
    await kept.settle(job_id, token, {"output_text": "short"})
    await kept.make_due()

    async def dies(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as stopped, pytest.raises(ZeroDivisionError):
        stopped.setattr(kept.archive, "delete", dies)
        await kept.objects.sweep()
    assert len(await kept.listed()) == 1
    (line,) = await kept.redis.zrange(keys.OUTPUT_OBJECTS, 0, -1)
    assert (entry_of(line.decode()) or pytest.fail("no line")).gone
    await kept.objects.sweep()
    assert (await kept.listed(), await kept.redis.zcard(keys.OUTPUT_OBJECTS)) == ([], 0)


async def test_an_outage_when_the_job_ends_keeps_the_output_in_redis_until_it_is_moved(kept: Archived) -> None:
    with kept.outage():
        job_id = await kept.completed()
        assert await kept.jobs.load_output(job_id) == LARGE
        assert await stated(kept.redis, job_id) > 1024, "it takes memory meanwhile"
        with pytest.raises(ArchiveUnavailable):
            await kept.objects.move()
    await kept.redis.expire(keys.job_output(job_id), 1000)
    assert await kept.objects.move() == 1
    assert await kept.objects.move() == 0
    assert await kept.jobs.load_output(job_id) == LARGE
    assert 0 < await kept.redis.ttl(keys.job_output(job_id)) <= 1000
    assert await stated(kept.redis, job_id) < LEAST
    await kept.make_due()
    await kept.objects.sweep()
    assert len(await kept.listed()) == 1, "what the outage left half-written is gone"


@pytest.mark.parametrize("becomes", [None, b"another value"], ids=["deleted", "another"])
async def test_an_output_that_changes_while_it_is_moved_stays_as_it_is(
    kept: Archived, monkeypatch: Any, becomes: bytes | None
) -> None:
    job_id = await kept.completed({"output_text": "short"})
    await kept.redis.zadd(keys.UNARCHIVED, {job_id: 0})
    write = kept.archive.write

    async def write_and_delete(*args: Any, **more: Any) -> Any:
        done = await write(*args, **more)
        await kept.redis.delete(keys.job_output(job_id))
        if becomes is not None:
            await kept.redis.set(keys.job_output(job_id), becomes)
        return done

    monkeypatch.setattr(kept.archive, "write", write_and_delete)
    assert await kept.objects.move() == 0
    assert await kept.redis.get(keys.job_output(job_id)) == becomes


async def test_nobody_refers_to_an_object_that_was_released(kept: Archived, monkeypatch: Any) -> None:
    """A process that stood still for long between writing and moving finds its line gone."""
    job_id = await kept.completed({"output_text": "short"})
    await kept.redis.zadd(keys.UNARCHIVED, {job_id: 0})
    write = kept.archive.write

    async def write_and_sweep(*args: Any, **more: Any) -> Any:
        done = await write(*args, **more)
        await kept.make_due()
        await kept.objects.sweep()
        return done

    monkeypatch.setattr(kept.archive, "write", write_and_sweep)
    assert await kept.objects.move() == 0
    assert await kept.listed() == []
    assert await kept.jobs.load_output(job_id) == {"output_text": "short"}


async def test_an_archive_that_is_away_or_not_set_up_is_no_damage(
    kept: Archived, s3: S3Server, valkey_url: str
) -> None:
    large, small = await kept.completed(), await kept.completed({"output_text": "short"})
    bare = connect(valkey_url, keyring=MasterKeyring([KEY]))
    found = await read_outputs(bare, [large, small])
    assert isinstance(found[large], ArchiveUnavailable)
    assert found[small] == {"output_text": "short"}
    await bare.aclose()
    with kept.outage():
        with pytest.raises(ArchiveUnavailable):
            await kept.jobs.load_output(large)
        assert await outputs_or_none(kept.redis, [large, small]) == {large: None, small: {"output_text": "short"}}
        with pytest.raises(ArchiveUnavailable):
            await outputs_or_none(kept.redis, [large, small], strict=True)


@pytest.mark.parametrize("how", ["missing", "cut", "one byte", "longer", "another job's", "an earlier one"])
async def test_an_object_that_is_not_the_one_written_is_named_as_damage(kept: Archived, how: str) -> None:
    job_id, token = await kept.held()
    await kept.jobs.archive_output(
        await kept.jobs.seal_output(job_id, {**LARGE, "output_text": LARGE["output_text"].replace("7", "8")})
    )
    (earlier,) = await kept.listed()
    await kept.settle(job_id, token)
    other = await kept.completed({**LARGE, "draft": "not yours"})
    place = place_of(await kept.redis.get(keys.job_output(job_id)))
    place_of_other = place_of(await kept.redis.get(keys.job_output(other)))
    assert place is not None
    assert place_of_other is not None
    name = f"outputs/{job_id}/{place[0]}"
    raw = await kept.store.get(name, 10**6) or b""
    match how:
        case "missing":
            await kept.store.delete(name)
        case "cut":
            await kept.store.put(name, raw[:-1])
        case "one byte":
            await kept.store.put(name, raw[:500] + bytes([raw[500] ^ 1]) + raw[501:])
        case "longer":
            await kept.store.put(name, raw + bytes(10**6))
        case "another job's":
            await kept.store.put(name, await kept.store.get(f"outputs/{other}/{place_of_other[0]}", 10**6) or b"")
        case _:
            await kept.store.put(name, await kept.store.get(earlier.name, 10**6) or b"")
    with pytest.raises(ContentDamaged):
        await kept.jobs.load_output(job_id)
    assert await outputs_or_none(kept.redis, [job_id, other]) == {job_id: None, other: {**LARGE, "draft": "not yours"}}


async def test_a_place_that_was_copied_from_another_job_or_changed_opens_nothing(kept: Archived) -> None:
    job_id, other = await kept.completed(), await kept.completed({**LARGE, "draft": "not yours"})
    raw = await kept.redis.get(keys.job_output(job_id))
    for planted in (
        await kept.redis.get(keys.job_output(other)),
        raw[:5] + bytes([raw[5] ^ 1]) + raw[6:],  # the name
        raw[:24] + bytes([raw[24] ^ 1]) + raw[25:],  # the size
        raw[:20],
        b"6",
    ):
        with pytest.raises(ContentDamaged):  # before anything is asked of the archive
            open_reference((await ciphers_of(kept.redis, [job_id]))[job_id], job_id, planted)
        await kept.redis.set(keys.job_output(job_id), planted)
        with pytest.raises(ContentDamaged):
            await kept.jobs.load_output(job_id)
        assert await outputs_or_none(kept.redis, [job_id]) == {job_id: None}


async def test_a_missing_key_is_told_apart_from_an_archive_that_is_away(kept: Archived, valkey_url: str) -> None:
    job_id = await kept.completed()
    blind = connect(valkey_url, keyring=MasterKeyring([NEW]), archive=kept.archive)
    with pytest.raises(KeyMissing):
        await outputs_or_none(blind, [job_id], strict=True)
    await blind.aclose()


async def test_a_put_whose_answer_was_lost_is_sent_again_to_the_same_name(
    kept: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, names = kept.store.put_if_absent, list[str]()

    async def loses_its_first_answer(name: str, content: bytes) -> bool:
        done = await put(name, content)
        names.append(name)
        if len(names) == 1:
            await asyncio.get_running_loop().create_future()
        return done

    monkeypatch.setattr(kept.store, "put_if_absent", loses_its_first_answer)
    kept.archive.write_seconds = 5.0
    job_id = await kept.completed()
    assert len(names) == 2
    assert len(set(names)) == 1
    assert [one.name for one in await kept.listed()] == names[:1]
    assert await kept.redis.zcard(keys.UNARCHIVED) == 0
    assert await kept.jobs.load_output(job_id) == LARGE
