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
    sending = asyncio.create_task(requests.send(REQUEST, 30.0))
    name = await name_of(redis)
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
    assert await RelayedRequests(redis, Clock()).send(REQUEST, 0.2) is None

    async def gone():
        return not [name async for name in redis.scan_iter(keys.relayed("", "*"))]

    await until("the request to expire", gone)
