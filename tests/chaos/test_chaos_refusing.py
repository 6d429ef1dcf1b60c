"""A Redis that answers and refuses: loading its data, turned into a replica, out of memory. Streams go on meanwhile.

Each case is made on a real server, is seen by its own error name, lasts longer than every single command's patience,
and passes. Afterwards the job that was running is finished, paid once, by the worker that had it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from in_process import Stage, until
from promise_checks import check_books
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError, RedisError

from worker.embedded import EmbeddedValkey
from worker.jobs.errors import StoreUnavailable
from worker.jobs.states import Status
from worker.store.connection.pool import connect

LIVE = "[[sim: normal tokens=400 rate=1]] a stream that goes on until the provider hurries"
LONG_ENOUGH = 1.6  # seconds: longer than the patience of one command
_SAYS_SO = ["--loading-process-events-interval-bytes", "1024"]  # else it answers nothing while it loads so little
Faulty = Callable[["SlowToLoad", ArqRedis], AbstractAsyncContextManager[type[RedisError]]]


class SlowToLoad(EmbeddedValkey):
    """A server that takes its time over each key when it loads them."""

    load_delay = 0

    def _options(self, path: Path) -> list[str]:
        return [*super()._options(path), "--key-load-delay", str(self.load_delay), *_SAYS_SO]


@asynccontextmanager
async def loading(server: SlowToLoad, redis: ArqRedis) -> AsyncIterator[type[RedisError]]:
    await redis.mset({f"filling:{n}": os.urandom(1500) for n in range(200)})
    await redis.bgrewriteaof()

    async def rewritten() -> bool:
        return not (await redis.info("persistence"))["aof_rewrite_in_progress"]

    await until("the keys to be in the base file", rewritten)
    await server.stop()
    server.load_delay = 15_000  # microseconds for each of 200 keys: three seconds
    starting = asyncio.create_task(server.start())
    yield BusyLoadingError
    await starting


@asynccontextmanager
async def read_only(server: SlowToLoad, redis: ArqRedis) -> AsyncIterator[type[RedisError]]:
    await redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    yield ReadOnlyError
    await redis.execute_command("REPLICAOF", "NO", "ONE")


@asynccontextmanager
async def full(server: SlowToLoad, redis: ArqRedis) -> AsyncIterator[type[RedisError]]:
    await redis.config_set("maxmemory", "1")
    yield OutOfMemoryError
    await redis.config_set("maxmemory", "0")


@pytest.mark.parametrize("fault", [loading, read_only, full])
async def test_a_stream_goes_on_while_redis_refuses_and_is_committed_later(tmp_path: Path, fault: Faulty) -> None:
    async with SlowToLoad(tmp_path / "v") as server, contextlib.AsyncExitStack() as closing:
        redis, eye = connect(server.url), connect(server.url, retries=0)
        for client in (redis, eye):
            closing.push_async_callback(client.aclose)
        stage = await closing.enter_async_context(Stage(redis, server.url, speed=1, lease_seconds=300))
        await stage.worker()
        job_id = await stage.submit(LIVE)
        await stage.reaches(job_id, "output", lambda job: job.attempts and job.attempts[0].first_output_at)
        async with fault(server, eye) as error:

            async def refuses() -> bool:
                try:
                    await eye.set("one more", "x")
                except RedisError as seen:
                    return isinstance(seen, error)
                except OSError:
                    return False
                return False

            await until(f"Redis to say {error.__name__}", refuses)
            with pytest.raises(StoreUnavailable):
                await stage.submit("nobody may be told that this was taken")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LONG_ENOUGH):
                    while await refuses():
                        await asyncio.sleep(0.05)
            assert stage.sim.calls()["open_streams"] == 1, "the stream goes on"
        stage.hurry()
        job = await stage.settled(job_id)
        assert (job.status, len(job.attempts), job.attempts[0].resumed) == (Status.COMPLETED, 1, 0)
        answer = await stage.jobs.load_output(job_id)
        assert answer is not None
        assert len(answer["output_text"].split()) == 400
        assert stage.sim.calls()["creates"] == 1
        assert "job.rescued" not in await stage.types(job_id)
        await check_books(redis, [job_id])
