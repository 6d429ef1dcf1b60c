"""A whole deployment that stores compressed: jobs, events, webhook bodies, lists, the trail and its proof go on."""

from __future__ import annotations

import json

from arq.connections import ArqRedis
from full_stack import full_stack
from in_process import until

from worker.audit.keyfile import load_or_create
from worker.audit.keys import TrustedKeys
from worker.clock import Clock
from worker.jobs.states import Status
from worker.store import compression, keys
from worker.store.audit.seals import Seals
from worker.store.audit.verification import TrailVerification
from worker.store.lifecycle.record_verification import RecordVerification

QUICK = "[[sim: normal tokens=3]] hello"
CHECKED = "[[sim: check_then_clear hold=2 tokens=3]] hello"


async def test_a_deployment_that_stores_compressed(valkey_url: str, redis: ArqRedis) -> None:
    redis.compact = True  # type: ignore[attr-defined]
    async with full_stack(redis, valkey_url, speed=400.0, audit_seal_seconds=0.2) as running:
        await running.stage.worker()
        ids = [await running.submit(text, metadata={"n": "1"}) for text in (QUICK, CHECKED, QUICK)]
        for job_id in ids:
            assert (await running.stage.settled(job_id)).status is Status.COMPLETED
        fresh = [await running.view(job_id) for job_id in ids]

        assert await redis.zadd(keys.COMPACTION_DUE, dict.fromkeys(ids, 1), xx=True, ch=True) == len(ids)  # a minute on

        async def cold() -> bool:
            records = [await redis.hget(keys.job(job_id), "rec") for job_id in ids]
            return all(map(compression.is_compressed, records))

        await until("the sweep to compress", cold)
        assert [await running.view(job_id) for job_id in ids] == fresh
        assert {one["id"] for one in (await running.app.get("/v1/jobs?metadata=n%3D1")).json()["data"]} == set(ids)
        shown = [line for line in (await running.app.get(f"/v1/jobs/{ids[1]}/events")).text.splitlines() if line]
        events = [json.loads(line[5:]) for line in shown if line.startswith("data:")]
        assert [one["seq"] for one in events if "seq" in one][:2] == [1, 2]
        assert events[-1]["type"] == "job.completed"
        audit = (await running.app.get(f"/v1/jobs/{ids[1]}/audit")).json()["data"]
        assert audit[-1]["type"] == "job.completed"
        assert (await running.app.delete(f"/v1/jobs/{ids[0]}")).status_code in (200, 204)
        assert (await running.view(ids[0]))["content"] != fresh[0]["content"]

        async def sealed() -> bool:
            last, newest = await Seals(redis).last(), await redis.xrevrange(keys.AUDIT, count=1)
            return last is not None and last.last == newest[0][0].decode()

        await until("the trail to be sealed", sealed)
        signer = load_or_create("A" * 43, None, Clock().random_bytes)  # type: ignore[arg-type]
        assert signer is not None
        report = await TrailVerification(redis, Clock(), TrustedKeys([signer.public])).verify()
        await RecordVerification(redis, Clock()).verify(report)
        assert report.faults == []
        assert all(set(fields) == {b"z"} for _, fields in await redis.xrange(keys.AUDIT))
