"""Following a job: over cuts, an API that stops and comes back, several attempts and a block."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from arq.connections import ArqRedis
from breaking_proxy import MODEL, Both, Proxy, answer, both, numbers, text
from in_process import until
from waiting import soon

from worker.client import ConnectionFailed, Event, Retries, Unauthorized
from worker.jobs import events as ev


async def played(worker: Any, job_id: str, words: str = "The answer.") -> None:
    await worker.start(job_id)
    for at in range(0, len(words), 3):
        await worker.text(job_id, 1, at, words[at : at + 3])
    await worker.complete(job_id, words)


@pytest.mark.parametrize("size", [0, 1, 150, 400, 650, 900, 1400])
async def test_a_stream_cut_anywhere_is_complete(vigil: Both, proxy: Proxy, worker, size: int):
    job = await vigil.submit(model=MODEL, input="x")
    await played(worker, job.id)
    whole = await vigil.all_events(job.id)
    await proxy.drop()
    proxy.plan = [size, size + 200, size + 500, b""]
    broken = await vigil.all_events(job.id)
    assert len(proxy.plan) < 4 - (size < 900)  # some of it was really cut
    assert numbers(broken) == numbers(whole) == list(range(1, len(numbers(whole)) + 1))
    assert text(broken, 1) == text(whole, 1) == "The answer."
    assert broken[-1].type == "job.completed"


async def test_the_api_restarts_and_nothing_is_lost_or_doubled(
    settings, redis: ArqRedis, clock, proxy: Proxy, worker, vigil: Both
):
    from api_server import running

    job = await vigil.submit(model=MODEL, input="x")
    await worker.start(job.id)
    received: list[Event] = []

    async def follow() -> None:
        received.extend([event async for event in seen(vigil.follow(job.id), received_now)])

    received_now: list[Event] = []
    following = asyncio.create_task(follow())
    await worker.text(job.id, 1, 0, "Hel")
    await until("the first text", lambda: _has_text(received_now, "Hel"))
    for round_ in range(2):
        async with running(settings, redis, clock) as other:
            proxy.to = (other.host, other.port)
            await worker.commit(job.id, (ev.CheckStarted(evidence="signalled"), 1))  # while nobody may be listening
            await worker.commit(job.id, (ev.CheckEnded(ended_by="output"), 1))
            await worker.text(job.id, 1, 3 + round_, "lo"[round_])
            await vigil.get(job.id)
    async with running(settings, redis, clock) as last:
        proxy.to = (last.host, last.port)
        await worker.complete(job.id, "Hello!")
        await soon(following)
    assert numbers(received) == list(range(1, len(numbers(received)) + 1))
    assert (text(received, 1), received[-1].type) == ("Hello!", "job.completed")


async def seen(events: Any, into: list[Event]) -> Any:
    async for event in events:
        into.append(event)
        yield event


async def _has_text(events: list[Event], words: str) -> bool:
    return text(events, 1) == words


async def test_text_of_another_attempt_starts_at_its_beginning_after_a_cut(vigil: Both, proxy: Proxy, worker):
    job = await vigil.submit(model=MODEL, input="x")
    await worker.start(job.id)
    await worker.text(job.id, 1, 0, "A long first answer")
    received: list[Event] = []
    stream = vigil.follow(job.id)
    async for event in stream:
        received.append(event)
        if event.delta:
            break
    await proxy.drop()  # the connection breaks; while it is away the first attempt fails and a second one answers
    await worker.commit(job.id, (ev.AttemptFinished(outcome="stream_cut"), 1))
    await worker.attempt(job.id, 2, purpose="retry")
    await worker.complete(job.id, "Short.", attempt=2)
    received += [event async for event in stream]
    assert numbers(received) == list(range(1, len(numbers(received)) + 1))
    assert (text(received, 1), text(received, 2)) == ("A long first answer", "Short.")


async def test_events_after_a_number_and_text_after_a_character(vigil: Both, worker):
    job = await vigil.submit(model=MODEL, input="x")
    await played(worker, job.id)
    received = await vigil.all_events(job.id, after=2, offset=4)
    assert numbers(received) == [3, 4, 5]
    assert [(e.offset, e.delta) for e in received if e.delta] == [(4, "answer.")]
    assert await vigil.all_events(job.id, after=5) == []


async def test_a_stream_that_is_refused_is_reported(vigil: Both, proxy: Proxy, worker):
    job = await vigil.submit(model=MODEL, input="x")
    await proxy.drop()
    proxy.plan = [150, answer(401, '{"code": "unknown_key", "detail": "No such key."}')]
    with pytest.raises(Unauthorized, match=r"No such key \(unknown_key\)"):
        await vigil.all_events(job.id)


@pytest.mark.parametrize("kind", ["blocking", "awaiting"])
async def test_an_api_that_never_comes_back_is_given_up(kind: str, api, proxy: Proxy):
    async with both(kind, proxy.url, await api.key(), Retries(times=2, first=0.01, patience=0.5)) as vigil:
        job = await vigil.submit(model=MODEL, input="x")
        proxy.plan = [600] + [b""] * 1000
        await proxy.drop()
        with pytest.raises(ConnectionFailed):
            await vigil.all_events(job.id)
        met = len(proxy.heads)
        proxy.plan = [b""] * 1000
        with pytest.raises(ConnectionFailed):
            await vigil.all_events(job.id)
        assert len(proxy.heads) - met == 3  # never met: `times` counts, not patience
