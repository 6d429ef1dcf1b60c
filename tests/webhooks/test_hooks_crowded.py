"""What others do delays nobody: a long backlog, an app full of tarpits, a mute domain, a host with a deaf address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from aiohttp import web
from builders import new_job
from thorough import cases
from webhook_receivers import LIFE, SECRET, Post, Receiver

from worker.clock import Clock
from worker.store import keys
from worker.store.jobs.stored_job import NewJob
from worker.store.webhooks.delivery_queue import _RECEIVER_ALLOWANCE
from worker.store.webhooks.outbox import load_message
from worker.tasks.delivery.dispatcher import Dispatcher
from worker.tasks.delivery.outbox_relay import receiver_name
from worker.webhooks.guard import AddressPolicy, check_url
from worker.webhooks.sender import WebhookSender

STORY = ("job.queued", "job.started", "job.attempt.started", "job.attempt.finished", "job.completed")


@pytest.mark.parametrize("whose", ["the job's own", "standing"])
async def test_a_backlog_longer_than_one_turn_is_told_in_order(post: Post, receiver: Receiver, whose):
    """Events of one commit have one time: where a turn ends among them, the rest still comes after the first ones."""
    own = whose == "the job's own"
    if not own:
        await post.endpoint(receiver.url, STORY)
    url = receiver.url if own else ""
    for _ in range(3):  # so that turns of 100 don't end between jobs
        await post.submit(url, ("job.queued",))
    wanted = [await post.submit(url, STORY) for _ in range(cases(45, 150))]  # two turns and more
    for job_id in wanted:
        await post.complete(job_id)
    post.worker("w")
    got = await receiver.gets(3 + len(STORY) * len(wanted))
    by_job: dict[str, list[int]] = {}
    for one in got:
        by_job.setdefault(one.where[0], []).append(one.where[1])
    assert {job_id: by_job[job_id] for job_id in wanted} == {job_id: [1, 2, 3, 4, 5] for job_id in wanted}


async def test_events_of_one_commit_stand_in_the_outbox_by_their_number(post: Post, redis):
    """The tenth event comes after the ninth, though its name sorts before it."""
    await post.endpoint("http://127.0.0.1:1/", ("job.attempt.started", "job.attempt.finished"))
    job_id = await post.submit()
    begin, attempt = LIFE[0], LIFE[1:3]
    again = [(fact, number) for number in range(1, 6) for fact, _ in attempt]
    await post.jobs.change(job_id, lambda _: [begin, *again])
    rows = [row.decode().split(":")[1] for row in await redis.zrange("vigil:outbox", 0, -1)]
    assert rows == [str(number) for number in range(3, 13)]


async def test_an_app_that_adds_many_stands_behind_one_that_adds_few(post: Post, redis):
    """A hundred entries of one app at once: the next of another app is among the first, and order is kept."""
    hook = {"url": "http://127.0.0.1:1/", "payload": "thin", "events": list(STORY)}
    for app, count in (("crowd", 20), ("shop", 1)):
        for _ in range(count):
            new = new_job(app=app, webhook_events=STORY)
            stored, _ = await post.jobs.submit(NewJob(new.fact, {"metadata": {}, "webhook": hook}, new.input))
            await post.jobs.change(stored.job.id, lambda _: LIFE)
    rows = [row.decode() for row in await redis.zrange(keys.OUTBOX, 0, -1)]
    messages = [load_message(await redis.get(keys.message(row))) for row in rows]
    places = [place for place, message in enumerate(messages) if message.app == "shop"]
    assert [messages[place].seq for place in places] == [1, 2, 3, 4, 5]
    assert places[-1] < len(rows) // 2, "it came last"
    by_job: dict[str, list[int]] = {}
    for message in messages:
        by_job.setdefault(message.job_id, []).append(message.seq)
    assert set(map(tuple, by_job.values())) == {(1, 2, 3, 4, 5)}


async def test_an_app_full_of_tarpits_leaves_room_for_the_next(post: Post, receiver: Receiver):
    free = asyncio.Event()

    async def tarpit(_: web.Request, count: int) -> web.StreamResponse:
        await free.wait()
        return web.Response(status=200)

    async with Receiver(tarpit) as pit:
        for number in range(50):
            of = {"url": f"{pit.url}/{number}", "events": ("job.queued",), "payload": "thin", "description": ""}
            await post.endpoints.create("tarpits", secret=SECRET, **of)
        for _ in range(2):
            new = new_job(app="tarpits")
            await post.jobs.submit(NewJob(new.fact, {"metadata": {}}, new.input))
        post.worker("w")
        await pit.gets(_RECEIVER_ALLOWANCE[0])
        job_id = await post.submit(receiver.url, ("job.queued",))
        await receiver.gets(1)
        await post.message(job_id, "delivered")
        assert len(pit.got) < 50, "a receiver that has acknowledged nothing gets few"
        free.set()
        await pit.gets(100)


async def test_an_app_gets_no_more_places_than_it_leaves_free(post: Post, redis):
    """Its receivers have acknowledged, so nothing else bounds it; however many it has, the next app is served."""
    for app, count in (("crowd", 60), ("shop", 1)):
        for number in range(count):
            url = f"http://10.0.{app == 'shop':d}.{number}/"
            hook = {"url": url, "payload": "thin", "events": ["job.queued"]}
            new = new_job(app=app, webhook_events=("job.queued",))
            await post.jobs.submit(NewJob(new.fact, {"metadata": {}, "webhook": hook}, new.input))
            await redis.hset(keys.ALLOWANCE + receiver_name(app, url), mapping={"good": 1})
    dispatcher = Dispatcher(redis, post.clock, post.settings(), "w")
    while await dispatcher._relay.relay():
        pass
    claim = dispatcher._deliveries.claim_due
    _, taken = await claim(16, 60, 5, {})
    assert Counter(one.message.app for one in taken) == {"crowd": 8, "shop": 1}
    _, more = await claim(16 - len(taken), 60, 5, Counter(one.message.app for one in taken))
    assert more == [], "what is left is looked at later, all at once"
    assert await redis.zcard(keys.TARGETS) == 1
    for one in taken:
        await dispatcher._deliveries.record_try(one, replace(one.message, state="delivered"), result="ok")
    _, again = await claim(16, 60, 5, {})
    assert len(again) == 8, "the end of a try makes the others due"


@pytest.fixture
def deaf() -> Iterator[tuple[str, int]]:
    """An address and a port where packets vanish: a queue of connections that is full."""
    with contextlib.ExitStack() as stack:
        hole = stack.enter_context(socket.socket())
        hole.bind(("127.0.0.2", 0))
        hole.listen(0)
        where: tuple[str, int] = hole.getsockname()
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(where)
        yield where


async def test_an_address_where_packets_vanish_leaves_time_for_the_next(deaf):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def names(_: str, app: str) -> list[str]:
        return [deaf[0], "127.0.0.1"]

    policy = AddressPolicy(allow_private=True)
    async with await asyncio.start_server(answer, "127.0.0.1", deaf[1]):
        way = WebhookSender(policy, names, Clock(), total=6)
        got = await way.post(check_url(f"http://two.example:{deaf[1]}/", policy), {}, b"{}")
    assert (got.status, got.error) == (200, None)


async def test_a_claim_looks_at_a_few_targets_at_a_time_and_comes_to_all(post: Post):
    """Redis does nothing else meanwhile: with 5,000 receivers due it would let every submit wait."""
    of = {"events": ("job.completed",), "payload": "thin", "description": ""}
    for number in range(50):
        url = f"https://hooks.shop{number}.example/x"
        await post.endpoints.create("shop", url=url, secret=SECRET, **of)  # type: ignore[arg-type]
    for _ in range(4):
        await post.complete(await post.submit())
    for number in range(120):
        await post.complete(await post.submit(f"https://hooks.alone{number}.example/x", app="crowd"))
    dispatcher = Dispatcher(post.redis, post.clock, post.settings(webhook_allow_private=False), "w1")
    while await dispatcher._relay.relay():
        pass
    targets, pause = await post.redis.zcard(keys.TARGETS), 0.0
    assert targets == 170
    calls, seen = 0, 0
    while pause == 0:
        known = (await post.redis.info("commandstats"))["cmdstat_zrange"]["calls"]
        pause, claimed = await dispatcher._deliveries.claim_due(256, 60.0, 5, {})
        looked = (await post.redis.info("commandstats"))["cmdstat_zrange"]["calls"] - known
        assert looked <= 64 + 4
        assert len(claimed) <= 64
        calls, seen = calls + 1, seen + len(claimed)
    assert calls >= 3
    assert seen >= 32 + 32, "what the allowances of two apps admit"
