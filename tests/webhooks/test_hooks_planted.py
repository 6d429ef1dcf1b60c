"""An endpoint that somebody wrote into Redis gets no event, whatever it asks for; the app's own webhook does."""

from __future__ import annotations

import pytest
from arq.connections import ArqRedis
from builders import PLAIN, queued
from full_stack import full_stack
from in_process import until
from webhook_receivers import Receiver

from worker.audit.report import Report
from worker.clock import Clock
from worker.store import codec, keys
from worker.store.jobs.stored_job import NewJob
from worker.store.lifecycle.record_verification import RecordVerification
from worker.store.webhooks.endpoints import Endpoint, Secret, endpoint_content

QUICK = "[[sim: normal tokens=3]] hello"


@pytest.mark.skipif(PLAIN, reason="without master keys whoever writes to Redis is believed")
async def test_a_planted_endpoint_gets_nothing(redis: ArqRedis, valkey_url: str) -> None:
    settings = {"speed": 200.0, "webhook_allow_private": True}
    async with Receiver() as receiver, Receiver() as own, full_stack(redis, valkey_url, **settings) as running:
        hook = {"url": own.url, "events": ["job.completed"], "payload": "thin"}
        planted = Endpoint(
            "we_planted", "acme", receiver.url, ("job.completed",), "full", "", "active", 1, (Secret("whsec_x"),)
        )
        await redis.hset(keys.endpoints("acme"), planted.id, codec.seal(endpoint_content(planted)))
        await redis.sadd(keys.endpoint_events("acme"), "job.completed")
        await running.stage.worker(webhook_allow_private=True)
        fact = queued(app="acme", webhook_events=("job.completed",))
        stored, _ = await running.stage.jobs.submit(NewJob(fact, {"metadata": {}, "webhook": hook}, {"input": QUICK}))
        job_id = stored.job.id
        assert (await own.gets(1))[0] is not None
        await until("the outbox to be empty", lambda: _is_empty(redis))
        assert receiver.got == []
        assert [one["id"] for one in (await running.app.get("/v1/webhook-endpoints")).json()["data"]] == []
        sent = (await running.app.get(f"/v1/jobs/{job_id}/deliveries")).json()["data"]
        assert [one["url"] for one in sent] == [own.url]
    report = Report()
    await RecordVerification(redis, Clock()).verify(report)
    assert [fault.detail for fault in report.faults if "we_planted" in fault.detail]


async def _is_empty(redis: ArqRedis) -> bool:
    return not await redis.zcard(keys.OUTBOX)
