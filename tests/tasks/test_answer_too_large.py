"""An answer larger than Redis accepts: the job fails promptly with its own code, and no other job is delayed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from builders import VAULT
from in_process import Stage, until

from tests.upstream.rawserver import (
    CHUNKED,
    LAST,
    MESSAGE,
    Connection,
    RawServer,
    as_json,
    chunk,
    completed,
    created,
    delta,
    frame,
)
from worker.embedded import EmbeddedValkey
from worker.jobs.record import Job
from worker.jobs.states import Outcome, Status
from worker.store.connection.pool import connect
from worker.store.jobs.output_chunks import OutputChunk, PendingChunk
from worker.tasks.execution.output_buffer import MAX_CHUNK_CHARACTERS, split_chunk

LARGE, SMALL = "a large answer", "a small answer"
PART = "0123456789abcdef" * 2**13
TelemetryEvents = list[tuple[str, dict[str, object]]]


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[tuple[EmbeddedValkey, ArqRedis]]:
    async with EmbeddedValkey(tmp_path / "v") as server, contextlib.AsyncExitStack() as closing:
        redis = connect(server.url, keyring=VAULT)
        closing.push_async_callback(redis.aclose)
        yield server, redis


async def answers(connection: Connection, go: asyncio.Event) -> None:
    """A provider whose answer is as large as the prompt asks for: in pieces of 128 KiB, or one word."""
    request = connection.request
    if request.method != "POST":
        await connection.send(as_json(404, {"error": {"message": "no", "code": "not_found"}}))
        return
    parts = [PART] * 12 if LARGE in str(request.json["input"]) else ["word"]
    message = {**MESSAGE, "content": [{"type": "output_text", "text": "".join(parts), "annotations": []}]}
    events = [created(), *(delta(n, part) for n, part in enumerate(parts, 1)), completed(99, output=[message])]
    await go.wait()
    await connection.send(CHUNKED, *(chunk(frame(event)) for event in events), LAST)


@contextlib.asynccontextmanager
async def staged(redis: ArqRedis, url: str) -> AsyncIterator[tuple[Stage, RawServer, asyncio.Event]]:
    """A stage whose provider answers once the event is set."""
    go = asyncio.Event()
    async with RawServer(lambda connection: answers(connection, go)) as provider, Stage(redis, url) as stage:
        await stage.worker(OPENAI_BASE_URL=provider.url, upstream="stream", probe_seconds=0)
        yield stage, provider, go


def fails_by_size(job: Job) -> None:
    assert (job.status, job.error.code if job.error else None) == (Status.FAILED, "answer_too_large")
    assert job.attempts[0].outcome is Outcome.COMPLETED
    assert job.attempts[0].cost, "what was paid is on record"
    assert len(job.attempts) == 1


@pytest.mark.parametrize("may_ask", [True, False])
async def test_above_the_largest_value_the_job_fails_by_name(
    own, telemetry_events: TelemetryEvents, may_ask: bool
) -> None:
    server, redis = own
    await redis.config_set("proto-max-bulk-len", str(2**20))
    url = server.url
    if not may_ask:
        await redis.execute_command("ACL", "SETUSER", "vig", "on", ">pw", "~*", "&*", "+@all", "-config")
        url = server.url.replace("unix://", "unix://vig:pw@")
    client = connect(url, keyring=VAULT)
    try:
        async with staged(client, url) as (stage, provider, let_go):
            let_go.set()
            large, small = await stage.submit(LARGE), await stage.submit(SMALL)
            assert (await stage.settled(small)).status is Status.COMPLETED
            fails_by_size(await stage.settled(large))
            assert await stage.output(large) is None
            assert len([one for one in provider.requests if one.method == "POST"]) == 2
    finally:
        await client.aclose()
    [(_, fields)] = [row for row in telemetry_events if row[0] == "answer.too_large"]
    assert int(str(fields["size_bytes"])) > 2**20


async def test_more_than_redis_could_ever_hold_fails_at_once(own, telemetry_events: TelemetryEvents) -> None:
    server, redis = own
    async with staged(redis, server.url) as (stage, _, let_go):
        large = await stage.submit(LARGE)
        await stage.reaches(large, "a call", lambda job: job.attempts)
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory", str(used + 400_000))
        let_go.set()
        fails_by_size(await stage.settled(large))


async def test_a_full_redis_is_waited_for_and_said_and_the_answer_kept(own, telemetry_events: TelemetryEvents) -> None:
    server, redis = own
    async with staged(redis, server.url) as (stage, _, let_go):
        large = await stage.submit(LARGE)
        await stage.reaches(large, "a call", lambda job: job.attempts)
        await redis.set("filling", b"x" * 40_000_000)
        await redis.config_set("maxmemory", "30000000")
        let_go.set()

        async def waits() -> bool:
            return any(name == "commit.waiting" for name, _ in telemetry_events)

        await until("the wait to be told", waits)
        await redis.delete("filling")
        job = await stage.settled(large)
        assert (job.status, [a.outcome for a in job.attempts]) == (Status.COMPLETED, [Outcome.COMPLETED])
        assert "maxmemory" in str(
            next(fields for name, fields in telemetry_events if name == "commit.waiting")["reason"]
        )


async def test_deadlines_are_kept_while_redis_is_full(own) -> None:
    server, redis = own
    async with Stage(redis, server.url, speed=1) as stage:
        await stage.worker()
        policy = {"run_deadline_seconds": 4}
        slow = await stage.submit("[[sim: normal tokens=100000 rate=20]] on and on", policy=policy)
        quick = await stage.submit("[[sim: normal tokens=40 rate=20]] two seconds", policy=policy)
        for job_id in (slow, quick):
            await stage.reaches(job_id, "output", lambda job: job.attempts and job.attempts[0].first_output_at)
        await redis.config_set("maxmemory", "1")
        expired = await stage.settled(slow)
        assert (expired.status, expired.reason) == (Status.EXPIRED, "run_deadline")
        assert expired.started_at
        assert expired.finished_at
        assert (expired.finished_at - expired.started_at).total_seconds() < 8
        assert (await stage.settled(quick)).status is Status.COMPLETED, "a small answer is kept: its end frees more"
        types = await stage.types(slow)
        assert types.count("job.expired") == 1
        await redis.config_set("maxmemory", "0")


def test_a_long_piece_is_kept_in_parts_that_every_redis_takes() -> None:
    text = "\x01" * (MAX_CHUNK_CHARACTERS * 2 + 5)
    parts = split_chunk(PendingChunk("job_1", "t", 1, OutputChunk(7, 100, text)))
    assert "".join(part.chunk.text for part in parts) == text
    assert [part.chunk.offset for part in parts] == [100, 100 + MAX_CHUNK_CHARACTERS, 100 + 2 * MAX_CHUNK_CHARACTERS]
    assert {part.chunk.sequence for part in parts} == {7}
