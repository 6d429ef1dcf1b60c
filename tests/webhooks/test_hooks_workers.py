"""Whole workers: one in this loop beside the simulator, and processes that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from aiohttp import web
from builders import ENCRYPTION_KEYS
from in_process import Stage
from openai import OpenAI
from webhook_receivers import ENDS, SECRET, Post, verified

from worker.jobs import events as ev
from worker.store.jobs.stored_job import NewJob


@contextlib.contextmanager
def process(url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real `vigil worker`, killed at the end if it lives still."""
    env = {
        "PATH": os.environ["PATH"],  # noqa: TID251
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),  # noqa: TID251  this very code
        "VIGIL_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
        "HOME": str(folder),
        "VIGIL_REDIS_URL": url,
        "VIGIL_WEBHOOK_ALLOW_PRIVATE": "1",
        "VIGIL_LEASE_SECONDS": "1",
        "OPENAI_API_KEY": "sk-x",
        "OPENAI_BASE_URL": "http://127.0.0.1:1/v1",
    }
    vigil = Path(sys.executable).parent / "vigil"
    running = subprocess.Popen(
        [vigil, "worker"], cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


async def test_kill_minus_9_between_post_and_receipt_loses_nothing(post: Post, receiver, valkey_url, tmp_path):
    held = asyncio.Event()

    async def first_never_answers(_: web.Request, count: int) -> web.StreamResponse:
        if count == 1:
            await held.wait()
        return web.Response(status=200)

    receiver.answer = first_never_answers
    job_id = await post.submit(receiver.url)
    await post.complete(job_id)
    with process(valkey_url, tmp_path) as doomed:
        await receiver.gets(1)
        doomed.kill()
        doomed.wait()
    post.worker("heir")
    one, two = await receiver.gets(2)
    assert (one.id, one.body) == (two.id, two.body)
    assert verified(two, post.secret)["data"]["id"] == job_id
    await post.message(job_id, "delivered", tries=1)
    held.set()


async def test_a_whole_worker_tells_of_a_job_from_the_simulator(post: Post, receiver, redis, valkey_url):
    """The job runs for real; its own webhook speaks OpenAI's words, the app's endpoint ours."""
    await post.endpoint(receiver.url, ("job.started", *ENDS), "full")
    async with Stage(redis, valkey_url, webhook_allow_private=True) as stage:
        await stage.worker()
        hook = {"url": receiver.url, "payload": "openai", "events": list(ENDS)}
        fact = ev.Queued(app="shop", key_id="key_1", requested_model="gpt-5.6-sol", webhook_events=ENDS)
        stored, _ = await stage.jobs.submit(NewJob(fact, {"metadata": {}, "webhook": hook}, {"input": "hello"}))
        job = await stage.settled(stored.job.id)
        got = await receiver.gets(3)
    assert job.status == "completed"
    own = [one for one in got if "object" in one.json]
    with OpenAI(api_key="x", webhook_secret=post.secret) as client:
        event = client.webhooks.unwrap(own[0].body, own[0].headers)
    assert (event.type, event.data.id) == ("response.completed", "resp_" + job.id.removeprefix("job_"))
    ours = [verified(one, SECRET) for one in got if "object" not in one.json]
    assert [body["type"] for body in ours] == ["job.started", "job.completed"]
    assert ours[0]["data"]["status"] == "running"
    assert ours[1]["data"]["output_text"]
