"""Migrations: in one worker, after the last older process has gone, in steps that another worker takes up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from arq.connections import ArqRedis
from builders import FAILED, FakeClock, new_job

from worker.jobs.errors import StoreUnavailable
from worker.store import keys
from worker.store.apps import Apps
from worker.store.end_users.quarantine import Quarantine
from worker.store.jobs.list_filters import ListFilters
from worker.store.jobs.listing import list_jobs
from worker.store.lifecycle.migration_runner import MigrationRunner
from worker.store.lifecycle.migrations import MigrationStep, migrations_of
from worker.store.stats.live_processes import ApiHeartbeat, live_processes
from worker.store.stats.migration_progress import MigrationStatus, begin_again, read_migrations
from worker.store.stats.worker_registry import record_heartbeat, remove_heartbeat
from worker.store.store_schema import STORE_SCHEMA

ANN = "a" * 64


class Counting:
    """A migration of five steps; each says that it was done, and `fault` may be raised in it."""

    number, what = 1, "five are counted"

    def __init__(self) -> None:
        self.done, self.fault = list[str](), "-"

    async def step(self, cursor: str) -> MigrationStep:
        if cursor == self.fault:
            self.fault = "-"
            raise StoreUnavailable("away", "away")
        self.done.append(cursor)
        after = int(cursor or 0) + 1
        return MigrationStep(str(after) if after < 5 else None, 10)


class Second(Counting):
    """The one after it."""

    number, what = 2, "five more are counted"


async def heartbeat(redis: ArqRedis, clock: FakeClock, name: str, *, older: bool = False) -> None:
    await record_heartbeat(redis, clock, name, {"running": 0, "draining": False})
    if older:
        body = json.loads(await redis.hget(keys.WORKERS, name))
        del body["store_schema"]
        await redis.hset(keys.WORKERS, name, json.dumps(body))


def runner(redis: ArqRedis, clock: FakeClock, name: str, *migrations: Any) -> MigrationRunner:
    return MigrationRunner(redis, clock, name, migrations or migrations_of(redis, clock))


async def finish(one: MigrationRunner) -> None:
    for _ in range(100):
        if not await one.step():
            return
    raise AssertionError("it does not end")


async def states(redis: ArqRedis, clock: FakeClock, *migrations: Any) -> list[tuple[str, int, list[str]]]:
    def row(one: MigrationStatus) -> tuple[str, int, list[str]]:
        return one.progress.state, one.progress.count, [process.id for process in one.waits_for]

    numbers = [one.number for one in migrations or migrations_of(redis, clock)]
    found = await read_migrations(redis, clock, numbers)
    return [row(one) for one in found]


def test_each_migration_has_a_number_of_its_own_up_to_the_schema_of_the_store(
    redis: ArqRedis, clock: FakeClock
) -> None:
    assert [one.number for one in migrations_of(redis, clock)] == list(range(1, STORE_SCHEMA + 1))


async def test_jobs_that_an_older_worker_ends_are_found_once_it_has_gone(redis, jobs, clock):
    """Also where the search was filled before that: the older worker does not keep its indexes."""
    await Apps(redis, clock).create_key("shop", ("read",))
    job_id = (await jobs.submit(new_job()))[0].job.id
    await jobs.change(job_id, lambda _: [(FAILED, None)])
    assert await found_failed(redis) == [job_id]
    await redis.delete(keys.terms("shop"), *await redis.keys(keys.index("shop", "code", "*")))
    await redis.hset(keys.terms("shop"), keys.COMPLETE, 1)
    await heartbeat(redis, clock, "w1")
    await heartbeat(redis, clock, "old", older=True)
    one = runner(redis, clock, "w1")
    assert await one.step() is False
    assert await states(redis, clock) == [("to_do", 0, ["old"]), ("to_do", 0, ["old"])]
    await remove_heartbeat(redis, "old")
    await finish(one)
    assert await states(redis, clock) == [("done", 1, []), ("done", 0, [])]
    assert await found_failed(redis) == [job_id]


async def found_failed(redis: ArqRedis) -> list[str]:
    """Return the jobs that a search by their code finds."""
    return [one.job.id for one in (await list_jobs(redis, "shop", ListFilters(code="overloaded"), 10, None))[0]]


async def test_quarantines_that_an_older_worker_began_are_ended_by_the_sweep(redis, clock):
    quarantine = Quarantine(redis, clock)
    await quarantine.add_by_provider("shop", ANN, clock.now(), "why", 1)
    await redis.delete(keys.QUARANTINE_ENDS)
    await heartbeat(redis, clock, "w1")
    await finish(runner(redis, clock, "w1"))
    clock.step(2 * 86_400)
    await quarantine.end_due()
    assert await redis.hlen(keys.QUARANTINE) == 0


async def test_an_api_of_an_older_release_is_waited_for_as_far_as_it_is_seen(redis, clock):
    await heartbeat(redis, clock, "w1")
    await redis.zadd(keys.API_PROCESSES, {"old": 9e15, "dead": 1})
    new = ApiHeartbeat(redis, "new")
    beating = asyncio.create_task(new.run())
    counting = Counting()
    one = runner(redis, clock, "w1", counting)
    while not await redis.zcard(keys.API_HEARTBEATS):
        await asyncio.sleep(0.01)
    await redis.zadd(keys.API_PROCESSES, {"new": 9e15})
    assert await one.step() is False
    assert await states(redis, clock, counting) == [("to_do", 0, ["old"])]
    await redis.zrem(keys.API_PROCESSES, "old")
    await finish(one)
    assert await states(redis, clock, counting) == [("done", 50, [])]
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)
    assert await redis.zcard(keys.API_HEARTBEATS) == 0, "it says that it ends"


async def test_another_worker_goes_on_where_one_has_died(redis, clock):
    counting = Counting()
    for name in ("w1", "w2"):
        await heartbeat(redis, clock, name)
    first, second = (runner(redis, clock, name, counting) for name in ("w1", "w2"))
    assert [await first.step() for _ in range(2)] == [True, True]
    assert await second.step() is False, "one at a time"
    assert 0 < await redis.pttl(keys.MIGRATION_LOCK) <= 15_000
    await redis.delete(keys.MIGRATION_LOCK)  # its time is over
    await finish(second)
    assert counting.done == ["", "1", "2", "3", "4"], "no step twice, none left out"
    assert await states(redis, clock, counting) == [("done", 50, [])]
    assert not await redis.exists(keys.MIGRATION_LOCK)


async def test_a_worker_that_was_away_for_too_long_changes_nothing_of_what_another_has_done(redis, clock):
    for name in ("w1", "w2"):
        await heartbeat(redis, clock, name)
    second = runner(redis, clock, "w2", other := Counting())

    class Slow(Counting):
        async def step(self, cursor: str) -> MigrationStep:
            await redis.delete(keys.MIGRATION_LOCK)
            await finish(second)
            return await super().step(cursor)

    slow = Slow()
    await runner(redis, clock, "w1", slow).step()
    assert await states(redis, clock, slow) == [("done", 50, [])]
    assert len(other.done) == 5


async def test_a_step_that_fails_is_done_again_by_whoever_comes_first(redis, clock):
    counting = Counting()
    counting.fault = "2"
    for name in ("w1", "w2"):
        await heartbeat(redis, clock, name)
    with pytest.raises(StoreUnavailable):
        await finish(runner(redis, clock, "w1", counting))
    assert await states(redis, clock, counting) == [("running", 20, [])]
    await finish(runner(redis, clock, "w2", counting))
    assert counting.done == ["", "1", "2", "3", "4"]


@pytest.mark.parametrize("steps", [2, 5])
async def test_an_older_process_that_comes_back_has_it_done_once_more(redis, clock, steps):
    counting = Counting()
    await heartbeat(redis, clock, "w1")
    one = runner(redis, clock, "w1", counting)
    for _ in range(steps):
        await one.step()
    await heartbeat(redis, clock, "old", older=True)
    assert await one.step() is False
    assert await states(redis, clock, counting) == [("to_do", 0, ["old"])]
    await remove_heartbeat(redis, "old")
    await finish(one)
    assert counting.done[steps:] == ["", "1", "2", "3", "4"]


async def test_the_second_begins_after_the_first_and_one_of_a_newer_release_is_no_matter(redis, clock):
    first, second = Counting(), Second()
    await heartbeat(redis, clock, "w1")
    await redis.hset(keys.MIGRATIONS, "9", '{"state": "of a newer release", "schema_number": 99}')
    one = runner(redis, clock, "w1", first, second)
    for _ in range(5):
        assert await one.step()
        assert not second.done
    await finish(one)
    assert len(second.done) == 5
    assert await redis.hget(keys.MIGRATIONS, "9")


@pytest.mark.parametrize("spoiled", [b"\xff", "[]", '{"state": "x"}', '{"state": "done", "count": "1"}'])
async def test_progress_that_can_not_be_read_begins_again(redis, clock, spoiled):
    counting = Counting()
    await heartbeat(redis, clock, "w1")
    await redis.hset(keys.MIGRATIONS, "1", spoiled)
    await finish(runner(redis, clock, "w1", counting))
    assert await states(redis, clock, counting) == [("done", 50, [])]


async def test_without_its_own_heartbeat_a_worker_does_not_know_who_lives(redis, clock):
    counting = Counting()
    assert await runner(redis, clock, "w1", counting).step() is False
    await heartbeat(redis, clock, "w2")
    assert await runner(redis, clock, "w1", counting).step() is False
    assert counting.done == []


async def test_the_processes_say_which_schema_they_know(redis, clock):
    await heartbeat(redis, clock, "w1")
    await heartbeat(redis, clock, "old", older=True)
    await redis.zadd(keys.API_HEARTBEATS, {f"a {STORE_SCHEMA + 1}": 9e15, "b x": 9e15, "c": 9e15, "gone 1": 1})
    found = [tuple(one) for one in await live_processes(redis, clock)]
    assert found == [
        ("worker", "old", 0),
        ("worker", "w1", STORE_SCHEMA),
        ("API", "a", STORE_SCHEMA + 1),
        ("API", "b", 0),
        ("API", "c", 0),
    ]


async def test_an_operator_may_have_them_done_once_more(redis, clock):
    """A step that runs at that moment stores nothing of what was before."""
    await heartbeat(redis, clock, "w1")

    class Interrupted(Counting):
        async def step(self, cursor: str) -> MigrationStep:
            if cursor == "2" and cursor not in self.done:
                await begin_again(redis, [1])
            return await super().step(cursor)

    counting = Interrupted()
    one = runner(redis, clock, "w1", counting)
    await finish(one)
    assert await states(redis, clock, counting) == [("done", 50, [])]
    assert counting.done == ["", "1", "2", "", "1", "2", "3", "4"]
    await begin_again(redis, [1])
    await finish(one)
    assert counting.done[8:] == ["", "1", "2", "3", "4"]
