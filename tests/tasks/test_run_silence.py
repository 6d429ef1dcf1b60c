"""Silence counts from the sending of the request, and ends no response that outlives its connection."""

from __future__ import annotations

import asyncio

import pytest
from arq.connections import ArqRedis
from stage import LUNA, Stage

from tests.upstream.rawserver import CHUNKED, LAST, Connection, RawServer, as_json, chunk, completed, created, frame
from worker.jobs.states import Evidence, Outcome, Status


@pytest.mark.parametrize("mode", ["stream", "chat", "background"])
async def test_the_delay_rule_acts_before_headers_came(redis: ArqRedis, valkey_url: str, mode: str) -> None:
    """A gateway that holds even the headers back while the model is silent."""

    async def provider(connection: Connection) -> None:
        if connection.request.json["model"] == LUNA:
            if mode == "chat":
                answer = {"id": "c1", "model": LUNA, "choices": [{"index": 0, "message": {"content": "Hello."}}]}
                answer["choices"][0]["finish_reason"] = "stop"  # type: ignore[index]
                await connection.send(as_json(200, answer))
            else:
                await connection.send(CHUNKED, chunk(frame(completed(0, model=LUNA))), LAST)
        else:
            await connection.gone()

    async with RawServer(provider) as server, Stage(redis, valkey_url, OPENAI_BASE_URL=server.url) as stage:
        await stage.worker(upstream=mode)
        rule = {"action": "switch", "silence_seconds": 0.5}
        job = await stage.settled(await stage.submit("hello", policy={"on_delay": rule}))
    assert (job.status, job.served_model) == (Status.COMPLETED, LUNA)
    assert [a.outcome for a in job.attempts] == [Outcome.SUBSTITUTED, Outcome.COMPLETED]
    assert job.disclosure is not None
    assert job.disclosure.reason == "silence"
    assert job.checks[0].evidence is Evidence.SUSPECTED


async def test_a_silent_background_stream_is_read_over_another_connection(redis: ArqRedis, valkey_url: str) -> None:
    posts = 0

    async def provider(connection: Connection) -> None:
        nonlocal posts
        if connection.request.method == "POST":
            posts += 1
            await connection.send(CHUNKED, chunk(frame(created(background=True))))
            await connection.gone()
        else:
            await connection.send(CHUNKED, chunk(frame(completed(5))), LAST)

    async with RawServer(provider) as server, Stage(redis, valkey_url, OPENAI_BASE_URL=server.url) as stage:
        await stage.worker(idle_seconds=0.5)
        job = await stage.settled(await stage.submit("hello", policy={"on_delay": {"action": "wait"}}))
    assert job.status is Status.COMPLETED
    assert posts == 1
    await asyncio.sleep(0)
