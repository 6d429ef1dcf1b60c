"""P2 in both APIs at once: checks, blocks, races and drafts of all lengths run while all that an app can see is read.

Each job has a watcher of its events, a watcher of its OpenAI-shaped stream, a webhook that carries the whole job, and
is polled on both faces and in the list until it ends, and once more afterwards.
"""

from __future__ import annotations

import asyncio
import json
import random  # noqa: TID251  seeded, so that a failure can be repeated
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from aiohttp import web
from api_server import running, submitted, watching
from in_process import SOL, Stage, until
from thorough import cases

ACTIONS = ("wait", "offer", "switch", "race", "draft")
SCENARIOS = (
    "check_then_block partial=4", "check_then_block", "check_again carrier=error_event code=cyber_policy partial=20",
    "check_again", "silent_block", "check_then_clear", "check_block_after_output partial=6",
)  # fmt: skip
JOBS = 50
ENDS = ["job.completed", "job.blocked", "job.failed", "job.draft.ready", "job.draft.withdrawn"]


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[str, dict[str, list[dict[str, Any]]]]]:
    """(its address, job id -> the webhook bodies that came)."""
    got: dict[str, list[dict[str, Any]]] = defaultdict(list)

    async def take(request: web.Request) -> web.Response:
        body = await request.json()
        got[body["data"]["id"]].append(body)
        return web.Response(status=204)

    app = web.Application(client_max_size=2**22)
    app.router.add_post("/", take)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=512).start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/", got
    finally:
        await runner.cleanup()


def job_body(rng: random.Random, url: str) -> dict[str, Any]:
    anywhere = " any=1" if rng.random() < 0.4 else ""  # the faster model is checked and blocked as well
    options = f"hold={rng.uniform(0.05, 1):.2f} latency=0.1 queue=0.05{anywhere}"
    scenario = rng.choice(SCENARIOS)
    if scenario.startswith("check_again"):
        options += f" again={rng.uniform(0.1, 1):.2f} tokens=40"
    delay = {"action": rng.choice(ACTIONS), "after_seconds": rng.uniform(0.05, 0.8), "silence_seconds": 0.5}
    return {
        "input": f"[[sim: {scenario} {options}]] go {rng.random()}",
        "policy": {"on_delay": delay},
        "webhook": {"url": url, "payload": "full", "events": ENDS},
    }


def shown(job: dict[str, Any]) -> list[Any]:
    return [job[name] for name in ("output_text", "output", "refusal", "draft") if job.get(name)]


async def events_of(client: httpx2.AsyncClient, job_id: str) -> list[dict[str, Any]]:
    async with watching(client, job_id) as stream:
        return list(await stream.remaining())


async def openai_events(client: httpx2.AsyncClient, job_id: str) -> list[dict[str, Any]]:
    path = f"/v1/responses/{job_id}?stream=true"
    while (answer := await client.get(path)).status_code != 200:
        assert answer.status_code == 503, answer.text  # a machine too busy to say more; nothing was shown
    frames = [one for one in answer.text.split("\n\n") if "data: {" in one]
    return [json.loads(one.partition("data: ")[2]) for one in frames]


async def read(client: httpx2.AsyncClient, path: str) -> dict[str, Any]:
    while (answer := await client.get(path)).status_code == 503:
        await asyncio.sleep(0.1)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def polled(client: httpx2.AsyncClient, job_id: str) -> None:
    """Reads both APIs until the job has ended: none shows output before it is completed, nor when it is blocked."""
    while True:
        job = await read(client, f"/v1/jobs/{job_id}")
        face = await read(client, f"/v1/responses/{job_id}")
        if job["status"] == "blocked":
            assert not shown(job)
        if face["status"] == "failed":
            assert face["output"] == []
        if job["status"] in {"completed", "blocked", "failed"}:
            return
        assert not job["output_text"]
        await asyncio.sleep(0.25)


def after(events: list[dict[str, Any]], end: str) -> list[str]:
    types = [event["type"] for event in events]
    return types[types.index(end) :] if end in types else []


@pytest.mark.parametrize("seed", range(11, 11 + cases(1, 2)))
async def test_nothing_of_a_blocked_job_is_ever_delivered(settings, redis, clock, valkey_url, seed: int) -> None:
    rng = random.Random(seed)
    allowed = settings.model_copy(update={"webhook_allow_private": True})
    async with (
        receiver() as (url, received),
        Stage(redis, valkey_url, speed=1, webhook_allow_private=True) as stage,
        running(allowed, redis, clock) as api,
    ):
        await asyncio.gather(stage.worker(), stage.worker())
        client = await api.client()
        ids = [await submitted(client, **job_body(rng, url)) for _ in range(JOBS)]
        live, faces, _ = await asyncio.gather(
            asyncio.gather(*(events_of(client, one) for one in ids)),
            asyncio.gather(*(openai_events(client, one) for one in ids)),
            asyncio.gather(*(polled(client, one) for one in ids)),
        )
        listed = {job["id"]: job for job in (await client.get("/v1/jobs?limit=100")).json()["data"]}
        blocked = 0
        for number, job_id in enumerate(ids):
            job = (await client.get(f"/v1/jobs/{job_id}")).json()
            stored = await stage.job(job_id)
            if job["status"] != "blocked":
                assert job["status"] == "completed"
                assert job["output_text"]
                assert (job["served_model"] != SOL) == (job["disclosure"] is not None)
                continue
            blocked += 1
            for seen in (job, listed[job_id]):
                assert not shown(seen)
            again = await events_of(client, job_id)
            assert not any(event["type"] == "job.output.delta" for event in again), "a later watcher gets no text"
            assert "job.output.delta" not in after(live[number], "job.blocked")
            response = (await client.get(f"/v1/responses/{job_id}")).json()
            assert (response["status"], response["output"]) == ("failed", [])
            replay = await openai_events(client, job_id)
            assert not any(event.get("delta") or event.get("text") for event in replay), "a replay tells no text"
            for events in (faces[number], replay):
                assert events[-1]["type"] == "response.failed"
                assert events[-1]["response"]["output"] == []

            async def its_end(job_id: str = job_id) -> list[dict[str, Any]]:
                return [body for body in received[job_id] if body["type"] == "job.blocked"]

            (end,) = await until(f"the webhook of {job_id}", its_end)
            assert not shown(end["data"])
            assert not any(body["type"] == "job.completed" for body in received[job_id])
            finish = next(a.finished_at for a in stored.attempts if a.outcome == "blocked")
            assert all(a.started_at <= finish for a in stored.attempts), "no call after the block"
        assert blocked > 10, "the seed made blocks"
        rows = [await stage.job(job_id) for job_id in ids]
        assert stage.sim.calls()["creates"] == sum(len(row.attempts) for row in rows)
