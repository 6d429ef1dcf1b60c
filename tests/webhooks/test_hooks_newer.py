"""Endpoints and messages that a newer release wrote, in a worker of this one: nothing of them is lost or misread."""

from __future__ import annotations

import json
from typing import Any

import pytest
from builders import VAULT
from in_process import until
from webhook_receivers import SECRET, Post, Receiver, verified

from worker.store import keys
from worker.store.webhooks import delivery_queue
from worker.store.webhooks.endpoints import endpoint_name
from worker.tasks.delivery import outbox_relay

FIELD, NEW = "of_a_newer_release", {"x": [1]}


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    monkeypatch.setattr(outbox_relay, "_WAITING_RETRY_MS", 200)
    monkeypatch.setattr(delivery_queue, "_NEWER_RETRY_S", 1)


async def rewrite_endpoint(post: Post, name: str, **fields: Any) -> None:
    raw = await post.redis.hget(keys.endpoints("shop"), name)
    body = {**VAULT.unseal_named(endpoint_name("shop", name), raw), **fields}
    await post.redis.hset(keys.endpoints("shop"), name, VAULT.seal_named(endpoint_name("shop", name), body))


async def rewrite_message(post: Post, name: str, **fields: Any) -> None:
    body = json.loads(await post.redis.get(keys.message(name)))
    await post.redis.set(keys.message(name), json.dumps({**body, **fields}), keepttl=True)


async def test_an_endpoint_that_needs_a_newer_release_gets_its_events_from_that(post, receiver):
    """Until then they wait, in order; the other endpoint of the app gets its own at once."""
    async with Receiver() as other:
        newer = await post.endpoint(receiver.url)
        await post.endpoint(other.url)
        await rewrite_endpoint(post, newer.id, schema_number=99)
        post.worker()
        jobs = [await post.submit() for _ in range(3)]
        for job_id in jobs:
            await post.complete(job_id)
        await other.gets(3)
        assert receiver.got == []
        await rewrite_endpoint(post, newer.id, schema_number=1)
        got = await receiver.gets(3)
        assert sorted(verified(one, SECRET)["data"]["id"] for one in got) == sorted(jobs)
        await until("the outbox to be empty", lambda: _is_empty(post))
        assert len(other.got) == len(receiver.got) == 3, "nothing is sent twice"


async def test_an_entry_for_one_endpoint_goes_to_that_alone_and_ends_with_it(post, receiver):
    async with Receiver() as other:
        newer = await post.endpoint(receiver.url)
        await post.endpoint(other.url)
        await rewrite_endpoint(post, newer.id, schema_number=99)
        post.worker()
        await post.complete(await post.submit())
        await other.gets(1)
        await post.redis.hdel(keys.endpoints("shop"), newer.id)
        await until("the outbox to be empty", lambda: _is_empty(post))
        assert (len(other.got), receiver.got) == (1, [])


async def test_a_message_that_needs_a_newer_release_waits_for_it_before_and_after_it_is_routed(post, receiver):
    waiting = await post.submit(receiver.url)
    await post.complete(waiting)
    ((message, _),) = await post.messages(waiting)
    await rewrite_message(post, message.id, schema_number=99)
    post.worker()
    other = await post.submit(receiver.url)
    await post.complete(other)
    assert [one.json["data"]["id"] for one in await receiver.gets(1)] == [other]
    assert await post.redis.zscore(keys.OUTBOX, message.id) is not None
    await rewrite_message(post, message.id, schema_number=1)
    assert (await receiver.gets(2))[1].id == message.id


async def test_a_routed_message_that_needs_a_newer_release_is_put_back(post, receiver):
    receiver.says(500, 200)
    post.worker(webhook_schedule=(1.5, 1.5))
    job_id = await post.submit(receiver.url)
    await post.complete(job_id)
    message, _ = await post.message(job_id, "pending", 1)
    await rewrite_message(post, message.id, schema_number=99, **{FIELD: NEW})
    queue = keys.target_queue(message.target)

    async def later() -> bool:
        return (await post.redis.zscore(queue, message.member) or 0) > now + 300

    seconds, micros = await post.redis.time()
    now = seconds * 1000 + micros / 1000
    await until("the message to be put back", later)
    assert not await post.redis.exists(keys.aside(keys.message(message.id)))
    await rewrite_message(post, message.id, schema_number=1)
    await post.message(job_id, "delivered")
    stored = json.loads(await post.redis.get(keys.message(message.id)))
    assert (stored[FIELD], stored["tries"]) == (NEW, 2), "its fields are kept"


async def _is_empty(post: Post) -> bool:
    return not await post.redis.zcard(keys.OUTBOX)
