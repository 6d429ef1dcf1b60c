"""A store that comes back empty, older or as another's is no store; the right one, or an accepted one, is at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis
from builders import VAULT, FakeClock, new_job
from hypothesis import given, strategies as st
from in_process import until
from lone_node import ON_CLUSTER
from sealed_trail import SIGNER, SealedTrail

from worker.clock import Clock
from worker.jobs.errors import RecordUnreadable, StoreChanged
from worker.store import keys, values
from worker.store.connection.pool import connect
from worker.store.connection.store_guard import StoreGuard, accept, guard_of
from worker.store.connection.store_mark import (
    StoreAnswer,
    StoreMark,
    accepted_deployment,
    describe,
    judge,
    load,
    save,
)
from worker.store.jobs.commit_commands import RetentionTimes
from worker.store.jobs.repository import Jobs
from worker.store.lifecycle.queue_repair import QueueRepair
from worker.store.lifecycle.retention import Retention

ACL = Path(__file__).parents[2] / "ops" / "users.acl"
TelemetryEvents = list[tuple[str, dict[str, object]]]


@pytest.fixture
async def guarded(valkey_url: str, redis: ArqRedis, tmp_path: Path) -> AsyncIterator[ArqRedis]:
    """A guarded client on the emptied Valkey, as a process has it."""
    client = connect(valkey_url, keyring=VAULT, guard=StoreGuard(tmp_path / "store.json", FakeClock().random_bytes))
    yield client
    await client.aclose()


async def looked(client: ArqRedis) -> StoreMark:
    guard = guard_of(client)
    assert guard is not None
    await guard.check(client)
    assert guard.mark is not None
    return guard.mark


async def again(valkey_url: str, mark: StoreMark | None, path: Path) -> ArqRedis:
    """A client of a process that starts with this mark."""
    if mark is not None:
        save(path, mark)
    return connect(valkey_url, keyring=VAULT, guard=StoreGuard(path, FakeClock(start=7).random_bytes))


async def test_a_fresh_store_gets_an_id_and_the_mark_follows_what_is_committed(
    guarded: ArqRedis, redis: ArqRedis
) -> None:
    first = await looked(guarded)
    assert (await redis.get(keys.DEPLOYMENT)).decode() == first.deployment
    await Jobs(guarded, FakeClock()).submit(new_job())
    second = await looked(guarded)
    newest = (await redis.xrevrange(keys.AUDIT, count=1))[0][0].decode()
    assert (second.deployment, second.record) == (first.deployment, newest)


async def test_several_processes_that_start_at_once_agree(valkey_url: str, redis: ArqRedis, tmp_path: Path) -> None:
    clients = [
        connect(valkey_url, guard=StoreGuard(tmp_path / f"{n}.json", FakeClock(start=n * 10).random_bytes))
        for n in range(5)
    ]
    await asyncio.gather(*(client.ping() for client in clients))
    assert len({(await looked(client)).deployment for client in clients}) == 1
    for client in clients:
        await client.aclose()


@pytest.mark.parametrize("reason", ["empty", "older", "other"])
async def test_what_is_not_the_known_store_is_not_spoken_to(
    reason: str, valkey_url: str, guarded: ArqRedis, redis: ArqRedis, telemetry_events: TelemetryEvents, tmp_path: Path
) -> None:
    jobs = Jobs(guarded, FakeClock())
    await jobs.submit(new_job())
    old = {name: await redis.dump(name) for name in await redis.keys("*")}
    await jobs.submit(new_job(prompt="lost"))
    mark = await looked(guarded)
    await redis.flushall()
    if reason == "older":
        for name, value in old.items():
            await redis.restore(name, 0, value)
    if reason == "other":
        await redis.set(keys.DEPLOYMENT, "another")
    with pytest.raises(StoreChanged):  # it was changed under a living connection: seen by the next look
        await looked(guarded)
    client = await again(valkey_url, mark, tmp_path / "again.json")
    for refused in (guarded, client):  # and nothing passes from now on, nor after a new start
        with pytest.raises(StoreChanged, match=r"vigil store accept"):
            await Jobs(refused, FakeClock()).submit(new_job())
    assert {fields["reason"] for name, fields in telemetry_events if name == "store.changed"} == {reason}
    assert await redis.exists("vigil:ready") == (reason == "older")

    await accept(redis, "meant")
    for accepted in (guarded, client):
        assert (await Jobs(accepted, FakeClock()).submit(new_job()))[0].job.status == "queued"
        assert (await looked(accepted)).deployment == "meant"
    assert [name for name, _ in telemetry_events if name.startswith("store.")].count("store.known") == 2
    # accepted once is not accepted for ever
    await redis.flushall()
    for refused in (guarded, client):
        with pytest.raises(StoreChanged):
            await looked(refused)
    await client.aclose()


async def test_an_older_store_that_others_went_on_with_is_noticed_too(
    valkey_url: str, guarded: ArqRedis, redis: ArqRedis, tmp_path: Path
) -> None:
    jobs = Jobs(guarded, FakeClock())
    await jobs.submit(new_job())
    mark = await looked(guarded)
    await redis.xdel(keys.AUDIT, mark.record)
    await Jobs(redis, FakeClock()).submit(new_job())  # newer than the mark
    client = await again(valkey_url, mark, tmp_path / "again.json")
    with pytest.raises(StoreChanged, match="older"):
        await Jobs(client, FakeClock()).submit(new_job())
    await client.aclose()


async def test_connections_that_meet_an_accepted_store_at_once_agree(
    valkey_url: str, guarded: ArqRedis, redis: ArqRedis, telemetry_events: TelemetryEvents, tmp_path: Path
) -> None:
    await Jobs(guarded, FakeClock()).submit(new_job())
    client = await again(valkey_url, await looked(guarded), tmp_path / "again.json")
    await accept(redis, "meant")
    await asyncio.gather(*(client.incr(f"vigil:x{n}") for n in range(12)))
    assert [name for name, _ in telemetry_events if name.startswith("store.")] == []
    assert (await looked(client)).deployment == "meant"
    await client.aclose()


async def test_the_known_store_is_accepted_at_once_when_it_is_back(
    guarded: ArqRedis, redis: ArqRedis, telemetry_events: TelemetryEvents
) -> None:
    await Jobs(guarded, FakeClock()).submit(new_job())
    await looked(guarded)
    held = {name: await redis.dump(name) for name in await redis.keys("*")}
    await redis.flushall()
    with pytest.raises(StoreChanged):
        await looked(guarded)
    for name, value in held.items():
        await redis.restore(name, 0, value)
    await looked(guarded)
    assert [name for name, _ in telemetry_events if name.startswith("store.")] == ["store.changed", "store.known"]


@pytest.mark.parametrize("spoil", ["gone", "list"])
@pytest.mark.parametrize("key", [keys.DEPLOYMENT, keys.AUDIT, keys.CHECK_COUNT, keys.RETENTION_SEAL, keys.ACCEPTED])
async def test_one_spoiled_key_is_no_other_store(key: str, spoil: str, guarded: ArqRedis, redis: ArqRedis) -> None:
    await Jobs(guarded, FakeClock()).submit(new_job())
    await looked(guarded)
    await redis.delete(key)
    if spoil == "list":
        await redis.rpush(key, "x")
    await guarded.connection_pool.disconnect()
    mark = await looked(guarded)
    if key == keys.DEPLOYMENT:
        assert (await redis.get(key)).decode() == mark.deployment


async def test_what_retention_removed_is_not_missed(
    valkey_url: str, guarded: ArqRedis, redis: ArqRedis, tmp_path: Path
) -> None:
    await Jobs(guarded, FakeClock()).submit(new_job())
    mark = await looked(guarded)
    sealed = SealedTrail(redis, FakeClock(), Jobs(redis, FakeClock()))
    await sealed.seal()
    clock = FakeClock()
    clock.step(10**8)
    assert await Retention(redis, clock, RetentionTimes(60, audit=60)).trim(SIGNER) > 0
    await redis.delete(keys.CHECK_COUNT)
    client = await again(valkey_url, mark, tmp_path / "again.json")
    await client.ping()
    await client.aclose()


async def test_the_file_is_kept_while_it_runs_and_a_full_disk_is_told_once(
    valkey_url: str, guarded: ArqRedis, telemetry_events: TelemetryEvents, tmp_path: Path
) -> None:
    guard = guard_of(guarded)
    assert guard is not None
    running = asyncio.create_task(guard.run(guarded))

    async def kept() -> Any:
        return load(tmp_path / "store.json")

    await until("the file", kept)
    await Jobs(guarded, FakeClock()).submit(new_job())
    mark = await looked(guarded)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await kept()).record == mark.record
    blocked = tmp_path / "file"
    blocked.write_text("")
    client = connect(valkey_url, guard=StoreGuard(blocked / "store.json", FakeClock().random_bytes))
    other = guard_of(client)
    assert other is not None
    running = asyncio.create_task(other.run(client))

    async def complained() -> bool:
        return any(name == "store.unmarked" for name, _ in telemetry_events)

    await until("the complaint", complained)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [name for name, _ in telemetry_events].count("store.unmarked") == 1
    await client.aclose()


async def spoil_trail(redis: ArqRedis) -> None:
    await redis.rename(keys.AUDIT, "saved")
    await redis.set(keys.AUDIT, "x")


@pytest.mark.parametrize("by", ["a commit", "the guard", "a repair"])
async def test_a_trail_that_vigil_set_aside_is_no_older_store(
    by: str, valkey_url: str, guarded: ArqRedis, redis: ArqRedis, telemetry_events: TelemetryEvents, tmp_path: Path
) -> None:
    jobs = Jobs(guarded, Clock())
    await jobs.submit(new_job())
    mark = await looked(guarded)
    await spoil_trail(redis)
    values._reported.clear()
    repairing = QueueRepair(redis, Clock())
    if by == "the guard":
        await looked(guarded)
    if by != "a repair":
        await jobs.submit(new_job(prompt="next"))
    await repairing.repair(jobs.current)
    await jobs.submit(new_job(prompt="another"))
    assert await redis.type(keys.AUDIT) == b"stream"
    assert await redis.get(keys.aside(keys.AUDIT)) == b"x"
    lost = {"what": "audit", "code": "wrong_type"}
    assert [fields for name, fields in telemetry_events if name == "record.unreadable"] == [lost]
    assert (await looked(guarded)).record > mark.record
    client = await again(valkey_url, mark, tmp_path / "again.json")  # as a process that was stopped meanwhile
    await client.ping()
    await client.aclose()


async def test_an_older_store_is_noticed_although_its_trail_was_once_set_aside(
    valkey_url: str, guarded: ArqRedis, redis: ArqRedis, tmp_path: Path
) -> None:
    jobs = Jobs(guarded, Clock())
    await jobs.submit(new_job())
    await looked(guarded)
    await spoil_trail(redis)
    await looked(guarded)
    await jobs.submit(new_job(prompt="next"))
    held = {name: await redis.dump(name) for name in await redis.keys("*")}
    await asyncio.sleep(0.01)
    await jobs.submit(new_job(prompt="lost"))
    mark = await looked(guarded)
    await redis.flushall()
    for name, value in held.items():
        await redis.restore(name, 0, value)
    client = await again(valkey_url, mark, tmp_path / "again.json")
    with pytest.raises(StoreChanged, match="older"):
        await looked(client)
    await client.aclose()


async def test_that_the_trail_was_set_aside_is_never_forgotten(redis: ArqRedis) -> None:
    await redis.zadd(keys.ASIDES, {keys.AUDIT: 1, "vigil:ready": 1})
    await QueueRepair(redis, Clock()).repair(Jobs(redis, Clock()).current)
    assert await redis.zrange(keys.ASIDES, 0, -1) == [keys.AUDIT.encode()]


@pytest.fixture
async def api_user(valkey_url: str, redis: ArqRedis, tmp_path: Path) -> AsyncIterator[ArqRedis]:
    """A guarded client that may do what ops/users.acl lets the API do: not rename the trail."""
    rules = next(line for line in ACL.read_text().splitlines() if line.startswith("user api "))
    await redis.execute_command("ACL", "SETUSER", "api", *_rules(rules.removeprefix("user api ")))
    url = valkey_url.replace("://", "://api:none@")
    client = connect(url, keyring=VAULT, guard=StoreGuard(tmp_path / "api.json", FakeClock(start=9).random_bytes))
    yield client
    await client.aclose()
    await redis.execute_command("ACL", "DELUSER", "api")


def _rules(text: str) -> list[str]:
    plain, _, selector = text.replace("#{api}", "nopass").partition("(")
    return [*plain.split(), f"({selector}"]


@pytest.mark.skipif(ON_CLUSTER, reason="its rules are those of a server by itself")
async def test_what_the_api_may_not_set_aside_is_reported_and_a_worker_does_it_at_once(
    api_user: ArqRedis, guarded: ArqRedis, redis: ArqRedis, telemetry_events: TelemetryEvents
) -> None:
    jobs = Jobs(api_user, Clock())
    await jobs.submit(new_job())
    await looked(api_user)
    await looked(guarded)
    await spoil_trail(redis)
    values._reported.clear()
    wanted = new_job(prompt="next", key="once")
    with pytest.raises(RecordUnreadable):
        await jobs.submit(wanted)
    await looked(api_user)
    assert [fields["what"] for name, fields in telemetry_events if name == "record.unreadable"] == ["audit"]
    assert await redis.get(keys.AUDIT) == b"x"
    await looked(guarded)
    stored, replayed = await jobs.submit(wanted)
    assert (stored.job.status, replayed) == ("queued", False)
    await looked(api_user)


# ---- pure


@pytest.mark.parametrize(
    ("held", "known", "compact"),
    [
        ("a-z", "a-z", True),  # a copy that was put back
        ("b-z", None, True),  # another machine
        (None, "a-z", True),  # came back empty
        ("a", "a", False),
        (None, "a", False),
        ("a", "b-z", False),  # a copy from before
        ("b-z", "a", False),  # emptied, and made anew by one process: older ones that knew it may still run
        (None, None, False),
    ],
)
def test_an_accepted_store_stays_compressed_or_plain(held: str | None, known: str | None, compact: bool) -> None:
    assert accepted_deployment("00ff", held, StoreMark(known) if known else None) == "00ff" + "-z" * compact


ids = st.sampled_from(["a", "b", "c"])


@given(st.builds(StoreMark, ids), st.builds(StoreAnswer, st.none() | ids, st.booleans(), st.none() | ids))
def test_only_the_known_or_an_accepted_store_passes(mark: StoreMark, seen: StoreAnswer) -> None:
    reason = judge(mark, seen)
    if seen.deployment == mark.deployment:
        assert reason == (None if seen.has_all else "older")
    elif seen.deployment is None:
        assert reason == (None if seen.has_all else "empty")
    else:
        assert reason == (None if seen.accepted == seen.deployment else "other")
    assert judge(None, seen) is None
    if reason:
        assert "vigil store accept" in describe(reason, mark, seen)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "nonsense", '{"deployment": "a"}', '{"deployment": 1, "record": null, "looks": "x"}']
)
def test_a_file_that_holds_no_mark_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "m").write_text(text)
    assert load(tmp_path / "m") is None
    assert load(tmp_path / "none") is None
    save(tmp_path / "m", StoreMark("a", "1-1", 3))
    assert load(tmp_path / "m") == StoreMark("a", "1-1", 3)
