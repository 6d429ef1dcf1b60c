"""Calls that go to Redis together: each gets its own reply, and one caller's end is nobody else's."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ResponseError

from worker.store.connection.script_batch import ScriptBatch

ECHO = "if ARGV[1] == 'bad' then return redis.error_reply('ERR no') end redis.call('INCR', KEYS[1]) return ARGV[1]"


@pytest.fixture
def echo(redis):
    return ScriptBatch(redis, redis.register_script(ECHO))


async def test_each_caller_gets_its_own_reply(redis, echo):
    words = [str(n) for n in range(500)]
    assert await asyncio.gather(*(echo(keys=["n"], args=[word]) for word in words)) == [word.encode() for word in words]
    assert await redis.get("n") == b"500"


async def test_a_refused_call_fails_alone(redis, echo):
    good, bad, other = await asyncio.gather(
        *(echo(keys=["n"], args=[word]) for word in ("a", "bad", "b")), return_exceptions=True
    )
    assert (good, other) == (b"a", b"b")
    assert isinstance(bad, ResponseError)


async def test_a_redis_that_forgot_the_script_is_told_it_again(redis, echo):
    await redis.script_flush()
    assert await asyncio.gather(*(echo(keys=["n"], args=[word]) for word in "ab")) == [b"a", b"b"]
    assert await redis.get("n") == b"2", "each ran once"


async def test_a_caller_that_leaves_takes_nobody_along(redis, echo):
    first = asyncio.create_task(echo(keys=["n"], args=["1"]))
    leaving = asyncio.create_task(echo(keys=["n"], args=["2"]))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await echo(keys=["n"], args=["3"]) == b"3"
    assert await first == b"1"
    assert await redis.get("n") == b"2", "who left before the packet did was never there"


async def test_a_redis_that_is_away_fails_every_caller_and_the_next_ones_work(redis, echo):
    await echo(keys=["n"], args=["0"])
    await redis.client_pause(1500)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await echo(keys=["n"], args=["1"])
    assert await echo(keys=["n"], args=["2"]) == b"2"
