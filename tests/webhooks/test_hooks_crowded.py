"""What others do delays nobody: a long backlog, an app full of tarpits, a mute domain, a host with a deaf address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from aiohttp import web
from builders import new_job
from thorough import cases
from waiting import LIMIT
from webhook_receivers import LIFE, SECRET, Post, Receiver

from worker.clock import Clock
from worker.store.jobs.stored_job import NewJob
from worker.tasks.delivery.dispatcher import MAX_CONCURRENT
from worker.webhooks.guard import AddressPolicy, check_url
from worker.webhooks.resolver import SystemResolver
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


async def test_an_app_full_of_tarpits_leaves_room_for_the_next(post: Post, receiver: Receiver):
    free = asyncio.Event()

    async def tarpit(_: web.Request, count: int) -> web.StreamResponse:
        await free.wait()
        return web.Response(status=200)

    async with Receiver(tarpit) as pit:
        for number in range(50):
            of = {"url": f"{pit.url}/{number}", "events": ("job.queued",), "payload": "thin", "description": ""}
            await post.endpoints.create("tarpits", secret=SECRET, **of)
        for _ in range(1 + MAX_CONCURRENT // 50):
            new = new_job(app="tarpits")
            await post.jobs.submit(NewJob(new.fact, {"metadata": {}}, new.input))
        post.worker("w")
        await pit.gets(MAX_CONCURRENT // 2)
        job_id = await post.submit(receiver.url, ("job.queued",))
        await receiver.gets(1)
        await post.message(job_id, "delivered")
        assert len(pit.got) == MAX_CONCURRENT // 2, "no more than it leaves free"
        free.set()
        await pit.gets(300)


async def test_a_domain_whose_names_never_answer_takes_nobody_elses_time():
    gate, hosts = threading.Event(), [f"n{number}.tarpit.example" for number in range(200)]

    def lookup(host: str) -> list[str]:
        if host.endswith("tarpit.example"):
            gate.wait(LIMIT)
        return ["127.0.0.1"]

    resolver = SystemResolver(lookup, seconds=3)
    stuck = [asyncio.create_task(resolver(host)) for host in hosts]
    await asyncio.sleep(0)
    assert await resolver("good.example") == ["127.0.0.1"]
    for task in stuck:
        with pytest.raises(OSError, match="no answer"):
            await task
    gate.set()
    assert await resolver(hosts[-1]) == ["127.0.0.1"], "once it answers, it is heard"
    resolver.close()


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

    async def names(_: str) -> list[str]:
        return [deaf[0], "127.0.0.1"]

    policy = AddressPolicy(allow_private=True)
    async with await asyncio.start_server(answer, "127.0.0.1", deaf[1]):
        way = WebhookSender(policy, names, Clock(), total=6)
        got = await way.post(check_url(f"http://two.example:{deaf[1]}/", policy), {}, b"{}")
    assert (got.status, got.error) == (200, None)
