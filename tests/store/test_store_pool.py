"""The connection: what we insist on, what we say of the guarantee, and a Redis that is away, full or read-only."""

import asyncio

import pytest
from builders import FakeClock, new_job
from store_inspection import private_server
from waiting import stopwatch

from worker.embedded import EmbeddedValkey
from worker.jobs.errors import StoreUnavailable, UnsafeStore
from worker.store.apps import Apps
from worker.store.connection.capacity import check_writable
from worker.store.connection.durability import check_durability, describe_durability
from worker.store.connection.pool import connect
from worker.store.jobs.batch_reads import outputs
from worker.store.jobs.list_filters import ListFilters
from worker.store.jobs.listing import list_jobs
from worker.store.jobs.output_chunks import OutputChunk, OutputChunks, PendingChunk
from worker.store.jobs.repository import Jobs


async def test_the_shipped_server_is_safe_and_says_so(tmp_path):
    async with EmbeddedValkey(tmp_path) as server:
        client = connect(server.url)
        durability = await check_durability(client)
        await client.aclose()
    assert durability["maxmemory_policy"] == "noeviction"
    assert (durability["appendonly"], durability["appendfsync"]) == ("yes", "always")
    assert durability["version"].split(".")[0].isdigit()
    assert "power cut: every write is on disk before the answer" in describe_durability(durability)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_evicts_is_refused_unless_that_is_wanted(policy):
    async with private_server(maxmemory="100mb", maxmemory_policy=policy) as (client, _):
        with pytest.raises(UnsafeStore, match=rf"{policy}.*noeviction.*VIGIL_ALLOW_EVICTION=1"):
            await check_durability(client)
        assert (await check_durability(client, allow_eviction=True))["maxmemory_policy"] == policy


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"appendonly": "yes", "appendfsync": "everysec"}, "a power cut may take the last second or two"),
        ({"appendonly": "yes", "appendfsync": "no"}, "a power cut may take the last half minute"),
        ({"appendonly": "no"}, "is lost if Redis stops"),
    ],
)
async def test_the_guarantee_is_told_as_it_is(options, sentence):
    async with private_server(**options) as (client, _):
        assert sentence in describe_durability(await check_durability(client))


async def test_a_server_that_forbids_config_is_taken_at_its_word():
    async with private_server() as (client, _):
        await client.execute_command("ACL", "SETUSER", "default", "-config")
        durability = await check_durability(client)
        assert durability["appendfsync"] == "unknown"
        assert durability["maxmemory_policy"] == "noeviction", "INFO says it too"
    assert "can't be read here" in describe_durability({"appendonly": "yes", "appendfsync": "unknown"})


async def test_a_stopped_server_is_store_unavailable_within_two_seconds_whatever_is_asked():
    async with private_server() as (client, process):
        clock = FakeClock()
        jobs = Jobs(client, clock)
        stored, _ = await jobs.submit(new_job())
        job = stored.job
        process.terminate()
        await asyncio.to_thread(process.wait)
        asks = (
            jobs.submit(new_job()),
            jobs.claim("w1", 1, 15),
            jobs.renew(15, [(job.id, "w1:1")]),
            jobs.load(job.id),
            jobs.load_input(job.id),
            jobs.load_output(job.id),
            jobs.trail(job.id),
            jobs.overdue(),
            list_jobs(client, "shop", ListFilters(), 10, None),
            outputs(client, [job.id]),
            OutputChunks(client).append([PendingChunk(job.id, "w1:1", 1, OutputChunk(0, 0, "x"))]),
            Apps(client, clock).list_keys(),
            check_writable(client),
            check_durability(client),
        )
        async with stopwatch() as watch:
            errors = await asyncio.gather(*asks, return_exceptions=True)
            assert watch.seconds < 2
        assert all(isinstance(error, StoreUnavailable) for error in errors), errors
        assert all("Redis could not" in str(error) for error in errors)


async def test_a_server_that_comes_back_is_used_again_without_ado(tmp_path):
    from worker.embedded import EmbeddedValkey

    async with EmbeddedValkey(tmp_path) as server:
        client = connect(server.url)
        job = (await Jobs(client, FakeClock()).submit(new_job()))[0].job
    with pytest.raises(StoreUnavailable):
        await Jobs(client, FakeClock()).load(job.id)
    async with EmbeddedValkey(tmp_path):
        assert (await Jobs(client, FakeClock()).load(job.id)).job == job
        await client.aclose()


async def test_a_full_server_takes_no_half_of_a_job():
    async with private_server(maxmemory="3mb", maxmemory_policy="noeviction") as (client, _):
        jobs = Jobs(client, FakeClock())
        taken = 0
        with pytest.raises(StoreUnavailable):
            for _ in range(200):
                await jobs.submit(new_job(prompt="x" * 100_000))
                taken += 1
        assert len((await jobs.claim("w1", 500, 15))[1]) == 0 or taken  # claims may be refused too while it is full
        await client.config_set("maxmemory", "0")
        assert await client.xlen("vigil:audit") == await client.zcard("vigil:idx:shop") == taken


async def test_a_read_only_server_is_unavailable_for_writes_only():
    async with private_server() as (client, _):
        job = (await Jobs(client, FakeClock()).submit(new_job()))[0].job
        await client.execute_command("REPLICAOF", "127.0.0.1", "1")
        assert (await Jobs(client, FakeClock()).load(job.id)).job == job
        with pytest.raises(StoreUnavailable):
            await Jobs(client, FakeClock(start=99)).submit(new_job())


@pytest.mark.parametrize("address", ["redis://127.0.0.1:1", "redis+cluster://127.0.0.1:1/acme"])
async def test_a_task_that_is_cancelled_while_it_returns_a_connection_costs_the_pool_none(address):
    redis = connect(address, max_connections=1)
    pool = redis.connection_pool
    connection = pool.get_available_connection()
    assert not pool.can_get_connection()
    async with pool._condition:  # as another task that looks for a connection at this moment
        returning = asyncio.create_task(pool.release(connection))
        await asyncio.sleep(0)
        returning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await returning
    assert pool.can_get_connection()
    assert pool.get_available_connection() is connection
    await redis.aclose()
