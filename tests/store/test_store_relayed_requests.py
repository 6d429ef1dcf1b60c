"""Requests that a worker sends for the API: each is taken out once, sealed, and forgotten when nobody waits for it."""

from __future__ import annotations

import asyncio

import pytest
from waiting import until

from worker.clock import Clock
from worker.jobs.errors import ContentDamaged
from worker.store import keys
from worker.store.connection.pool import connect
from worker.store.envelope import MasterKeyring
from worker.store.provider.relay_places import MAX_RUNNING, MAX_WAITING, PlacesTaken, RelayPlaces
from worker.store.provider.relayed_requests import RelayedRequests

REQUEST = {"path": "/responses/compact", "body": {"input": "the-secret"}}


async def name_of(redis):
    async def look():
        return [name async for name in redis.scan_iter(keys.relayed("request", "*"))]

    (key,) = await until("the request to be stored", look)
    return key.decode().removeprefix(keys.relayed("request", ""))


async def test_a_request_is_taken_out_once_and_is_sealed(redis, valkey_url):
    sealed = connect(valkey_url, keyring=MasterKeyring([bytes([7]) * 32]))
    requests = RelayedRequests(sealed, Clock())
    sending = asyncio.create_task(requests.send("one", REQUEST, 30.0))
    name = await name_of(redis)
    assert name == "one"
    assert b"the-secret" not in await redis.get(keys.relayed("request", name))
    async for key in redis.scan_iter("arq:job:*"):
        assert b"the-secret" not in await redis.get(key)
    found = await asyncio.gather(*(requests.take(name) for _ in range(3)))
    assert sorted(found, key=repr) == sorted([REQUEST, None, None], key=repr)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await redis.set(keys.relayed("reply", "x"), b"1{}")
    with pytest.raises(ContentDamaged):
        await requests._take("reply", "x")
    await sealed.aclose(close_connection_pool=True)


async def test_nobody_is_kept_waiting_and_nothing_is_left(redis):
    assert await RelayedRequests(redis, Clock()).send("one", REQUEST, 0.2) is None

    async def gone():
        return not [name async for name in redis.scan_iter("vigil:relayed:*")]

    await until("the request to expire", gone)


async def waiting_ones(redis, number):
    async def enough():
        return await redis.zcard(keys.relayed("waiting", "acme")) == number

    await until(f"{number} to wait", enough)


async def test_places_are_given_in_order_and_one_too_many_is_refused(redis):
    places = [RelayPlaces(redis, Clock()) for _ in range(3)]  # of several processes
    first = [places[0].new_name() for _ in range(MAX_RUNNING)]
    for name in first:
        await places[0].take("acme", name, 30.0)
    await places[0].take("acme", first[0], 30.0)  # its reply was lost
    later = [f"{number:040d}x" for number in range(MAX_WAITING)]  # they came before
    waiting = list[asyncio.Task[None]]()
    for number in reversed(range(MAX_WAITING)):
        waiting.insert(0, asyncio.create_task(places[number % 3].take("acme", later[number], 30.0)))
        await waiting_ones(redis, MAX_WAITING - number)
    with pytest.raises(PlacesTaken):
        await places[1].take("acme", "z", 30.0)
    await places[2].take("other", "z", 30.0)
    for number in range(MAX_WAITING):
        await places[1].give_back("acme", first[number] if number < MAX_RUNNING else later[number - MAX_RUNNING])
        async with asyncio.timeout(10):
            await waiting[number]
        assert not any(one.done() for one in waiting[number + 1 :]), number


async def test_who_leaves_or_dies_gives_its_place_to_another(redis):
    places = RelayPlaces(redis, Clock())
    for number in range(MAX_RUNNING):
        await places.take("acme", f"b{number}", 30.0)
    leaving = asyncio.create_task(places.take("acme", "a", 30.0))
    await waiting_ones(redis, 1)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await waiting_ones(redis, 0)
    with pytest.raises(PlacesTaken):
        await places.take("acme", "c", 0.3)
    await waiting_ones(redis, 0)
    await places.keep("acme", "from a process that takes no places", 30.0)
    assert await redis.zcard(keys.relayed("running", "acme")) == MAX_RUNNING + 1
    now = int((await redis.time())[0]) * 1000
    await redis.zadd(keys.relayed("running", "acme"), {f"b{number}": now - 1 for number in range(2)})  # nobody ended it
    await places.take("acme", "c", 5.0)
    for kind in ("running", "waiting"):
        assert await redis.ttl(keys.relayed(kind, "acme")) != -1
