"""A large answer in the archive, as apps meet it: real workers, API, simulator, Valkey and S3 server over sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from arq.connections import ArqRedis
from builders import VAULT
from full_stack import FullStack, full_stack
from in_process import LIMIT, until
from output_archives import Archived, archived
from s3_server import S3Server

from tests.webhooks.webhook_receivers import Receiver
from worker.clock import Clock, to_ms
from worker.jobs.errors import ArchiveUnavailable
from worker.store import keys
from worker.store.connection.pool import keyring_of
from worker.tasks.maintenance.output_archiver import OutputArchiver

pytestmark = pytest.mark.skipif(not VAULT.enabled, reason="nothing leaves Redis without encryption")
LONG = "[[sim: normal tokens=400]] hello"
AWAY = (503, "archive_unavailable", "15")


@pytest.fixture
async def kept(redis: ArqRedis, s3: S3Server, valkey_url: str) -> AsyncIterator[Archived]:
    async with archived(s3, valkey_url, keyring_of(redis)) as made:
        yield made


@asynccontextmanager
async def served(kept: Archived, url: str, **settings: Any) -> AsyncIterator[FullStack]:
    async with full_stack(kept.redis, url, speed=500.0, **settings) as running:
        await running.stage.worker()
        yield running


def hooks_to(receiver: Receiver) -> dict[str, Any]:
    """The settings with which a receiver on this machine gets webhooks."""
    return {"webhook_allow_private": True, "webhook_ports": (receiver.port,)}


async def completed(running: FullStack, **more: Any) -> str:
    job_id = await running.submit(LONG, **more)
    assert (await running.stage.settled(job_id)).status == "completed"
    return job_id


async def deltas(running: FullStack, path: str, kind: str) -> str:
    """The text of the deltas of an event stream, read to its end."""
    text = ""
    async with running.app.stream("GET", path) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: {"):
                body = json.loads(line.removeprefix("data: "))
                if body["type"] == kind:
                    text += body["delta"] if "delta" in body else body["data"]["delta"]
    return text


async def test_apps_read_a_large_answer_wherever_they_read_answers(kept: Archived, valkey_url: str) -> None:
    async with Receiver() as receiver:
        hooks = hooks_to(receiver)
        async with served(kept, valkey_url, **hooks) as running:
            hook = {"url": receiver.url, "payload": "full", "events": ["job.completed"]}
            job_id = await completed(running, webhook=hook)
            (found,) = await kept.listed()
            assert await kept.redis.strlen(keys.job_output(job_id)) < 300 < found.size
            seen = await running.view(job_id)
            answer = seen["output_text"]
            assert (seen["content"], seen["unreadable"], len(answer) > 1024) == ("kept", [], True)
            (row,) = (await running.app.get("/v1/jobs")).json()["data"]
            assert row["output_text"] == answer
            response = job_id.replace("job_", "resp_", 1)
            whole = (await running.app.get(f"/v1/responses/{response}")).json()
            assert whole["output"][-1]["content"][0]["text"] == answer
            assert await deltas(running, f"/v1/jobs/{job_id}/events", "job.output.delta") == answer
            replay = f"/v1/responses/{response}?stream=true"
            assert await deltas(running, replay, "response.output_text.delta") == answer
            (got,) = await receiver.gets(1)
            assert got.json["data"]["output_text"] == answer
            follow = {"model": "gpt-5.6-sol", "input": "[[sim: normal tokens=3]] on", "previous_response_id": response}
            assert (await running.app.post("/v1/responses", json=follow)).status_code == 200


async def test_deleted_content_takes_its_object_along(kept: Archived, valkey_url: str) -> None:
    async with served(kept, valkey_url) as running:
        job_id = await completed(running)
        assert len(await kept.listed()) == 1
        assert (await running.app.delete(f"/v1/jobs/{job_id}")).status_code in {200, 204}
        await kept.objects.sweep()
        assert await kept.listed() == []
        seen = await running.view(job_id)
        assert (seen["output_text"], seen["content"]) == (None, "deleted")


async def test_while_the_archive_is_away_jobs_end_promptly_and_are_read_from_redis(
    kept: Archived, valkey_url: str
) -> None:
    async with served(kept, valkey_url) as running:
        with kept.outage():
            first = await completed(running)
            others = await asyncio.gather(*(completed(running) for _ in range(5)))
            answers = {one: (await running.view(one))["output_text"] for one in (first, *others)}
            assert all(answers.values())
            assert await kept.redis.zcard(keys.UNARCHIVED) == 6

        async def all_moved() -> bool:
            return not await kept.redis.zcard(keys.UNARCHIVED)

        await kept.redis.delete(keys.OBJECTS_LOCK)  # the worker's own turn, in which the archive was away
        moving = asyncio.create_task(OutputArchiver(kept.redis, kept.clock, interval=0.05).run())
        await until("the outputs to be in the archive", all_moved)
        moving.cancel()
        for job_id, answer in answers.items():
            assert await kept.redis.strlen(keys.job_output(job_id)) < 300
            assert (await running.view(job_id))["output_text"] == answer


async def test_a_read_while_the_archive_is_away_says_so_for_that_answer_alone(kept: Archived, valkey_url: str) -> None:
    async with served(kept, valkey_url) as running:
        job_id, small = await completed(running), await running.submit("[[sim: normal tokens=3]] hello")
        await running.stage.settled(small)
        with kept.outage():
            for path in (f"/v1/jobs/{job_id}", "/v1/responses/" + job_id.replace("job_", "resp_", 1)):
                got = await running.app.get(path)
                code = got.json().get("code") or got.json()["error"]["code"]
                assert (got.status_code, code, got.headers["retry-after"]) == AWAY, got.text
            rows = {row["id"]: row for row in (await running.app.get("/v1/jobs")).json()["data"]}
            large = rows[job_id]
            assert (large["status"], large["output_text"], large["unreadable"]) == ("completed", None, ["output"])
            assert large["usage"]["output_tokens"]
            assert rows[small]["output_text"]
            assert (await running.view(small))["output_text"]
            watching = asyncio.create_task(deltas(running, f"/v1/jobs/{job_id}/events", "job.output.delta"))
            await asyncio.wait([watching], timeout=1)
            assert not watching.done(), "a stream waits for the archive as for Redis"
        assert (await running.view(job_id))["output_text"] == await watching


async def test_a_full_webhook_waits_for_the_archive_and_is_never_sent_empty(
    kept: Archived, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Receiver() as receiver:
        hooks = hooks_to(receiver)
        async with served(kept, valkey_url, **hooks) as running:
            read_tried = asyncio.Event()

            async def away(*_: object, **__: object) -> bytes:
                read_tried.set()
                raise ArchiveUnavailable("the archive is away")

            with monkeypatch.context() as outage:
                outage.setattr(kept.archive, "read", away)
                hook = {"url": receiver.url, "payload": "full", "events": ["job.completed"]}
                await completed(running, webhook=hook)
                await asyncio.wait_for(read_tried.wait(), LIMIT)

                async def postponed() -> bool:
                    rows = await kept.redis.zrange(keys.OUTBOX, 0, -1, withscores=True)
                    return any(score > to_ms(Clock().now()) + 5000 for _, score in rows)

                await until("the message to wait", postponed)
                assert receiver.got == []
            for member in await kept.redis.zrange(keys.OUTBOX, 0, -1):
                await kept.redis.zadd(keys.OUTBOX, {member: 0})
            (got,) = await receiver.gets(1)
            assert len(got.json["data"]["output_text"]) > 1024


async def test_an_object_that_is_gone_or_changed_is_damage_by_name(kept: Archived, valkey_url: str) -> None:
    async with served(kept, valkey_url) as running:
        job_id = await completed(running)
        (found,) = await kept.listed()
        await kept.store.put(found.name, bytes(found.size))
        got = await running.app.get(f"/v1/jobs/{job_id}")
        assert (got.status_code, got.json()["unreadable"], got.json()["output_text"]) == (200, ["output"], None)
        got = await running.app.get("/v1/responses/" + job_id.replace("job_", "resp_", 1))
        assert (got.status_code, got.json()["error"]["code"]) == (410, "content_damaged")
        await kept.store.delete(found.name)
        assert (await running.view(job_id))["unreadable"] == ["output"]


async def test_a_worker_killed_between_object_and_commit_costs_nothing_but_an_object(
    kept: Archived, valkey_url: str
) -> None:
    async with full_stack(kept.redis, valkey_url, speed=500.0) as running:
        first = await running.stage.worker()
        jobs, written = first.components.context.jobs, asyncio.Event()
        archive = jobs.archive_output

        async def write_and_stop(output: Any) -> Any:
            await archive(output)
            written.set()
            await asyncio.get_running_loop().create_future()

        jobs.archive_output = write_and_stop  # type: ignore[method-assign]
        job_id = await running.submit(LONG)
        await asyncio.wait_for(written.wait(), LIMIT)
        await running.stage.crash(first)
        (orphan,) = await kept.listed()
        await kept.make_due()
        await kept.objects.sweep()
        assert await kept.listed() == [orphan], "whoever wrote it may still be about to commit"
        await running.stage.lapse(job_id)
        await running.stage.worker()
        await running.stage.settled(job_id)
        assert (await running.view(job_id))["output_text"]
        await kept.make_due()
        await kept.objects.sweep()
        (left,) = await kept.listed()
        assert left.name != orphan.name
        assert (await running.view(job_id))["output_text"]
