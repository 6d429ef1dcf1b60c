"""One app can't flood one address, whatever endpoints, URLs and retries it uses; and nothing told is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from builders import new_job
from in_process import until
from webhook_receivers import LIFE, OLD_SECRET, SECRET, Post, Receiver, verified

from worker.jobs import events as ev
from worker.store import keys
from worker.store.jobs.stored_job import NewJob
from worker.store.webhooks.delivery_queue import _APP_ALLOWANCE, _RECEIVER_ALLOWANCE
from worker.webhooks.guard import AddressPolicy, check_url
from worker.webhooks.sender import WebhookSender

EVERY = tuple(ev.FACTS)
STORY = ("job.queued", "job.started", "job.attempt.started", "job.attempt.finished", "job.completed")
AT_FIRST, PER_SECOND, _ = _RECEIVER_ALLOWANCE


async def endpoints(post: Post, url: str, count: int, app: str = "flood") -> None:
    for number in range(count):
        of = {"url": f"{url}/{number}", "events": EVERY, "payload": "thin", "description": ""}
        await post.endpoints.create(app, secret=SECRET, **of)


async def run_job(post: Post, app: str, hook: dict[str, Any] | None = None) -> str:
    new = new_job(app=app, webhook_events=tuple(hook["events"]) if hook else ())
    stored, _ = await post.jobs.submit(NewJob(new.fact, {"metadata": {}, "webhook": hook}, new.input))
    await post.jobs.change(stored.job.id, lambda _: LIFE)
    return stored.job.id


def most(seconds: float) -> float:
    """What a receiver may get in this time that acknowledges nothing."""
    return AT_FIRST + PER_SECOND * seconds + 1


async def test_fifty_endpoints_at_one_address_get_few_posts_until_it_acknowledges_and_then_all(
    post: Post, receiver: Receiver
):
    good, loop = asyncio.Event(), asyncio.get_running_loop()

    async def answer(_: web.Request, count: int) -> web.StreamResponse:
        return web.Response(status=204 if good.is_set() else 500)

    async with Receiver(answer) as victim:
        await endpoints(post, victim.url, 50)
        began = loop.time()
        post.worker(webhook_schedule=(1.0,) * 50)
        await run_job(post, "flood")
        await victim.gets(AT_FIRST)
        jobs = []
        for _ in range(5):
            jobs.append(await post.submit(receiver.url))
            await post.complete(jobs[-1])
        await receiver.gets(5)
        for job_id in jobs:
            await post.message(job_id, "delivered")
        await victim.gets(AT_FIRST + 2)
        assert len(victim.got) <= most(loop.time() - began)
        good.set()
        wanted = {(f"/hooks/{number}", seq) for number in range(50) for seq in range(1, 6)}

        async def all_told() -> bool:
            return {(one.path, one.where[1]) for one in victim.got} == wanted

        await until("every event at every endpoint", all_told)


async def test_urls_of_jobs_count_as_the_same_receiver_and_retries_too(post: Post, redis):
    await post.apps.create_key("flood", ("submit",))
    loop = asyncio.get_running_loop()
    async with Receiver() as victim:
        victim.says(500)
        began = loop.time()
        post.worker(webhook_schedule=(0.01,) * 20)
        hosts = (
            f"http://127.0.0.1:{victim.port}",
            f"http://localhost:{victim.port}",
            f"http://127.0.0.2:{victim.port}",
        )
        for number in range(30):
            hook = {"url": f"{hosts[number % 3]}/{number}", "payload": "thin", "events": list(STORY)}
            await run_job(post, "flood", hook)
        await victim.gets(AT_FIRST + 1)
        assert len(victim.got) <= most(loop.time() - began)


class OneServer:
    """Sends everything to one server, as names that lead to one address would."""

    def __init__(self, post: Post, url: str) -> None:
        async def nobody(_host: str, _app: str) -> list[str]:
            return []

        policy = AddressPolicy(allow_private=True)
        self.real, self.url, self.names = WebhookSender(policy, nobody, post.clock), check_url(url, policy), Counter()

    async def post(self, url, headers, body, app):
        self.names[url.host] += 1
        return await self.real.post(self.url, headers, body, app)


async def test_an_app_with_a_name_for_each_message_is_bounded_too(post: Post):
    at_first, per_second = _APP_ALLOWANCE
    await post.apps.create_key("flood", ("submit",))
    async with Receiver() as victim:
        victim.says(500)
        for number in range(100):
            hook = {"url": f"https://n{number}.d{number}.example/", "payload": "thin", "events": ["job.queued"]}
            await run_job(post, "flood", hook)
        sender, loop = OneServer(post, victim.url), asyncio.get_running_loop()
        began = loop.time()
        post.worker(sender=sender)
        await victim.gets(at_first + 2)
        assert len(victim.got) <= at_first + per_second * (loop.time() - began) + 1
        assert max(sender.names.values()) == 1
        victim.says(200)
        await victim.gets(100)


async def test_no_receiver_gets_more_than_the_rate_of_the_settings(post: Post, receiver: Receiver):
    """It acknowledges everything: five seconds' worth at once, then the rate."""
    loop = asyncio.get_running_loop()
    await endpoints(post, receiver.url, 10, "shop")
    await post.complete(await post.submit())
    began = loop.time()
    post.worker(webhook_rate=2)
    await receiver.gets(12)
    assert len(receiver.got) <= 10 + 2 * (loop.time() - began) + 1


async def test_endpoints_of_one_app_with_one_url_get_one_message_that_each_secret_verifies(
    post: Post, receiver: Receiver, redis
):
    one = await post.endpoint(receiver.url)
    two = await post.endpoint(receiver.url, secret=OLD_SECRET)
    await post.endpoint(receiver.url, payload="openai")
    post.worker()
    job_id = await post.submit()
    await post.complete(job_id)
    got = await receiver.gets(2)
    (ours,) = [each for each in got if "object" not in each.json]
    assert verified(ours, SECRET) == verified(ours, OLD_SECRET)

    async def delivered() -> bool:
        return [message.state for message, _ in await post.messages(job_id)] == ["delivered"] * 2

    await until("both payloads, each once", delivered)
    assert len(receiver.got) == 2
    assert two.id in {name for message, _ in await post.messages(job_id) for name in message.shared_with}
    assert one.id in {message.endpoint for message, _ in await post.messages(job_id)}


@pytest.mark.parametrize("change", ["deleted", "gone", "moved", "second moved"])
async def test_what_happens_to_one_of_them_takes_no_message_from_the_other(post: Post, receiver: Receiver, change):
    one = await post.endpoint(receiver.url)
    two = await post.endpoint(receiver.url, secret=OLD_SECRET)
    job_id = await post.submit()
    await post.complete(job_id)
    post.worker()
    await receiver.gets(1)
    receiver.says(500, 200)
    receiver.got.clear()
    await post.stop()
    job_id = await post.submit()
    await post.complete(job_id)
    async with Receiver() as other:
        post.worker(webhook_schedule=(2.0, 0.1))
        await receiver.gets(1)
        match change:
            case "deleted":
                await post.endpoints.change("shop", one.id, lambda _: None)
            case "gone":
                await post.endpoints.change("shop", one.id, lambda each: replace(each, state="gone"))
            case "moved":
                await post.endpoints.change("shop", one.id, lambda each: replace(each, url=other.url))
            case _:
                await post.endpoints.change("shop", two.id, lambda each: replace(each, url=other.url))
        await receiver.gets(2)
        if "moved" in change:
            await other.gets(1)
            verified(other.got[0], SECRET if change == "moved" else OLD_SECRET)
        verified(receiver.got[1], SECRET if change == "second moved" else OLD_SECRET)
        await post.message(job_id, "delivered")


async def test_an_endpoint_that_changes_its_url_is_counted_at_the_new_one(post: Post, receiver: Receiver, redis):
    """An app collects messages for a receiver that acknowledges, then points them at another address."""
    async with Receiver() as victim:
        victim.says(500)
        await post.endpoints.create(
            "flood", url=receiver.url, events=("job.queued",), payload="thin", description="", secret=SECRET
        )
        for _ in range(20):
            await run_job(post, "flood")
        post.worker(webhook_schedule=(0.01,) * 20)
        await receiver.gets(20)
        (endpoint,) = await post.endpoints.of_app("flood")
        await post.endpoints.change("flood", endpoint.id, lambda one: replace(one, state="paused"))
        for _ in range(30):
            await run_job(post, "flood")

        async def routed() -> bool:
            return await redis.zcard(keys.target_queue(endpoint.id)) >= 30

        await until("the messages wait", routed)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await post.endpoints.change("flood", endpoint.id, lambda one: replace(one, url=victim.url, state="active"))
        await victim.gets(AT_FIRST + 1)
        assert len(victim.got) <= most(loop.time() - began)
