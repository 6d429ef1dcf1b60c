"""An app whose receiver never answers can't fill Redis with messages: they count, are bounded, and none is lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from aiohttp import web
from builders import new_job
from in_process import until
from webhook_receivers import SECRET, Post, Receiver

from worker.clock import Clock
from worker.embedded import EmbeddedValkey
from worker.jobs.errors import QueueFull
from worker.store import keys
from worker.store.admission.app_quota import AppQuota
from worker.store.connection.pool import connect
from worker.store.lifecycle.content_recount import ContentRecount
from worker.store.lifecycle.erasure import erase

ANSWER = "The secret answer. " * 1_000
MIB = 2**20


async def held(post: Post, app: str = "shop") -> int:
    return (await post.apps.quota_use(app)).bytes


async def bodies(redis) -> int:
    """All that the bodies of messages take, by looking at every one."""
    return sum([await redis.strlen(name) async for name in redis.scan_iter(match=keys.BODY + "*")])


async def routed(post: Post) -> None:
    async def empty() -> bool:
        return await post.redis.zcard(keys.OUTBOX) == 0

    await until("the outbox to be empty", empty)


async def test_a_message_counts_until_it_is_delivered_and_a_full_app_is_told_of_it(post: Post, receiver: Receiver):
    receiver.says(500)
    await post.endpoint(receiver.url, payload="full")
    job_ids = [await post.submit() for _ in range(3)]
    for job_id in job_ids:
        await post.complete(job_id, ANSWER)
    before = await held(post)
    post.worker(webhook_schedule=(0.2,) * 50)
    await routed(post)
    await receiver.gets(6)
    waiting = await bodies(post.redis)
    assert waiting > 3 * len(ANSWER)
    assert await held(post) == before + waiting, "three times, however often they were tried"
    recount = ContentRecount(post.redis)
    await recount.proceed(["shop"])
    assert await held(post) == before + waiting
    new = replace(new_job(app="shop"), quota=AppQuota(bytes=before + waiting))
    with pytest.raises(QueueFull) as full:
        await post.jobs.submit(new)
    assert full.value.limit == "bytes_held"
    receiver.says(204)
    for job_id in job_ids:
        await post.message(job_id, "delivered")
    assert await held(post) == before
    stored, _ = await post.jobs.submit(new)
    assert stored.job.app == "shop"
    assert await post.redis.hget(keys.content_sizes("shop"), "messages") == b"m0"


async def test_a_message_that_is_given_up_erased_or_lost_counts_no_longer(post: Post, receiver: Receiver):
    receiver.says(500)
    await post.endpoint(receiver.url, payload="full")
    given_up = await post.submit()
    await post.complete(given_up, ANSWER)
    before = await held(post)
    post.worker(webhook_schedule=(0.05,))
    await post.message(given_up, "exhausted")
    assert await held(post) == before
    await post.stop()
    post.worker(webhook_schedule=(600.0,))
    lost, erased = await post.submit(), await post.submit()
    for job_id in (lost, erased):
        await post.complete(job_id, ANSWER)
    await routed(post)
    assert await held(post) > before + 4 * len(ANSWER)
    ((message, _),) = await post.messages(lost)
    await post.redis.delete(keys.body(message.id))
    stored = await post.jobs.load(erased)
    assert stored is not None
    await erase(post.redis, post.jobs, stored, "deleted", "key_1")
    recount, ((waits, _),) = ContentRecount(post.redis), await post.messages(erased)
    left = await post.redis.strlen(keys.body(waits.id))
    assert 0 < left < len(ANSWER), "without the answer"

    async def exact() -> bool:
        await recount.proceed(["shop"])
        rows = await post.redis.hgetall(keys.content_sizes("shop"))
        found = {name: value for name, value in rows.items() if name.startswith(b"msg_")}
        return found == {waits.id.encode(): b"%d 0" % left} and rows[b"messages"] == b"m%d" % (left + 3_072)

    await until("the recount to notice", exact)


async def test_what_is_beyond_an_app_s_share_is_made_later_and_others_see_nothing_of_it(tmp_path, receiver: Receiver):
    good = asyncio.Event()

    async def answer(_: web.Request, __: int) -> web.StreamResponse:
        return web.Response(status=204 if good.is_set() else 500)

    async with EmbeddedValkey(tmp_path / "v") as server:
        redis = connect(server.url)
        await redis.config_set("maxmemory", str(200 * MIB))
        async with Post(redis, server.url, Clock()) as post, Receiver(answer) as dead:
            for number in range(20):
                of = {"url": f"{dead.url}/{number}", "events": ("job.completed",), "payload": "full", "description": ""}
                await post.endpoints.create("flood", secret=SECRET, **of)
            await post.apps.create_key("flood", ("submit",))
            await post.endpoint(receiver.url)
            job_ids = [await post.submit(app="flood") for _ in range(20)]
            for job_id in job_ids:
                await post.complete(job_id, ANSWER)
            own_hook = await post.submit(dead.url, app="flood", payload="full")
            await post.complete(own_hook, ANSWER)
            post.worker(app_memory_percent=3, webhook_schedule=(1.0,) * 50)  # 6 MiB, and 2 of them for messages
            await routed(post)
            of_one_job = 20 * (len(ANSWER) + 3_500)
            taken = await bodies(redis)
            assert 2 * MIB - 400 * 3_072 < taken < 2 * MIB + of_one_job, "without a bound it is about 8 MiB"
            assert await redis.zcard(keys.HELD_BACK + "flood") > 10
            of_another = await post.submit()
            await post.complete(of_another)
            await receiver.gets(1)
            assert await bodies(redis) < 2 * MIB + of_one_job
            good.set()

            async def all_delivered() -> bool:
                rows = [row for job_id in [*job_ids, own_hook] for row in await post.messages(job_id)]
                return len(rows) == 21 * 20 + 1 and all(message.state == "delivered" for message, _ in rows)

            await until("every message to be delivered, those that were held back too", all_delivered, 60.0)
            assert not await redis.exists(keys.HOLDING_BACK, keys.HELD_BACK + "flood")
            assert await redis.hget(keys.content_sizes("flood"), "messages") == b"m0"
        await redis.aclose(close_connection_pool=True)
