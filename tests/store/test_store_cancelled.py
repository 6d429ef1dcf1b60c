"""A caller that gives up in the middle of a command: nobody else ever reads the reply that was meant for it."""

from __future__ import annotations

import asyncio
import contextlib
import random  # noqa: TID251  seeded, so that a failure can be repeated

from worker.store.connection.pool import connect

CALLERS, ROUNDS, KEYS = 24, 60, 50


async def test_a_cancelled_command_leaves_no_reply_for_the_next_one(valkey_url: str, redis) -> None:
    await redis.mset({f"key:{n}": f"value:{n}" for n in range(KEYS)})
    client, rng = connect(valkey_url, max_connections=4), random.Random(7)
    given_up = answered = 0

    async def caller() -> None:
        nonlocal given_up, answered
        for _ in range(ROUNDS):
            number = rng.randrange(KEYS)
            try:
                async with asyncio.timeout(rng.choice((0.0002, 0.0005, 0.001, 0.002, 0.005, 1))):
                    got = await client.get(f"key:{number}")
            except TimeoutError:
                given_up += 1
                continue
            answered += 1
            assert got == f"value:{number}".encode()

    try:
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
    finally:
        await client.aclose()
    assert given_up > 50, "the seed made callers give up"
    assert answered > 50


async def test_a_cancellation_that_redis_py_swallows_is_said_again_and_the_connection_is_dropped(
    valkey_url: str, redis
) -> None:
    """asyncio.wait_for of Python 3.11 returns instead of raising when its future is done as the cancellation comes."""
    await redis.mset({"a": "1", "b": "2"})
    client = connect(valkey_url, max_connections=1)
    kind = client.connection_pool.connection_class
    packing = next(place for place, one in enumerate(kind.__mro__) if one.__name__ == "Packing")
    sender = kind.__mro__[packing + 1]
    send = sender.send_packed_command

    async def cancelled_meanwhile(self, *args, **kwargs) -> None:
        await send(self, *args, **kwargs)
        task = asyncio.current_task()
        if task is not None and task.get_name() == "victim":
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):  # swallowed, as wait_for does
                await asyncio.sleep(0)

    sender.send_packed_command = cancelled_meanwhile
    try:
        victim = asyncio.create_task(client.get("a"), name="victim")
        await asyncio.wait([victim])
        assert victim.cancelled()
        assert await client.get("b") == b"2", "the next caller reads its own reply"
    finally:
        sender.send_packed_command = send
        await client.aclose()
