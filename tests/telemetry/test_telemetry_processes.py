"""Real processes at the loudest log level, one of them killed: one trace, and no content in any byte written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
from in_process import until
from ingest import Ingest, Receiver
from processes import Processes, free_port
from waiting import LIMIT

from worker.clock import Clock
from worker.store.apps import SCOPES, Apps

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SECRETS = ("CANARY", "sk-chaos", "whsec_", "harbour", "patient host", "lighthouse", "librarian")


class ProcessStack:
    """An API and a worker as processes, with a key for the API."""

    def __init__(self, stage: Processes, receiver: Receiver, at: str, key: str) -> None:
        self.stage, self.receiver, self.at, self.key = stage, receiver, at, key

    async def ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.key}", **more.pop("headers", {})}
        async with httpx2.AsyncClient(base_url=self.at, trust_env=False, timeout=LIMIT) as client:
            return await client.request(method, path, headers=headers, **more)

    async def submit(self, prompt: str, **more: Any) -> str:
        body = {
            "model": "gpt-5.6-sol",
            "input": f"{prompt} CANARY-prompt",
            "instructions": "CANARY-instructions",
            "metadata": {"note": "CANARY-metadata"},
            "end_user": "CANARY-person",
            "webhook": {"url": self.receiver.url, "events": ["job.completed", "job.blocked", "job.expired"]},
            **more,
        }
        sent = {"sentry-trace": f"{TRACE}-{CALLER}-1", "X-Unlisted": "CANARY-header"}
        answer = await self.ask("POST", "/v1/jobs", json=body, headers=sent)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def is_(self, job_id: str, *status: str) -> bool:
        return (await self.ask("GET", f"/v1/jobs/{job_id}")).json()["status"] in status

    async def streams(self, job_id: str) -> bool:
        attempts = (await self.ask("GET", f"/v1/jobs/{job_id}")).json()["attempts"]
        return bool(attempts and attempts[-1]["first_output_at"])


async def test_processes_tell_one_trace_and_no_content(tmp_path: Path) -> None:
    loud = {"VIGIL_LOG_LEVEL": "DEBUG", "VIGIL_WEBHOOK_ALLOW_PRIVATE": "1", "SENTRY_RELEASE": "vigil@test"}
    with Ingest() as ingest, Receiver() as receiver:
        async with Processes(tmp_path, lease=1.5, SENTRY_DSN=ingest.dsn, **loud) as stage:
            port = free_port()
            at = f"http://127.0.0.1:{port}"
            first, api = await stage.worker(), await stage.start("api", "--port", str(port))
            _, key, secret = await Apps(stage.redis, Clock()).create_key("acme", SCOPES)
            stack = ProcessStack(stage, receiver, at, key)
            await until("the API", lambda: _answers(at))

            killed = await stack.submit("[[sim: normal tokens=60 rate=15]]")
            await until("its stream", lambda: stack.streams(killed))
            await stage.kill(first)
            second = await stage.worker()
            others = [
                await stack.submit("[[sim: check_then_block hold=1]]"),
                await stack.submit("[[sim: cut times=1 tokens=40]]"),
                await stack.submit("[[sim: queued_forever]]", policy={"run_deadline_seconds": 1}),
            ]
            for job_id, status in zip([killed, *others], ["completed", "blocked", "completed", "expired"], strict=True):
                await until(f"{job_id} to be {status}", lambda j=job_id, s=status: stack.is_(j, s))
            await until("the webhooks", lambda: _true(len(receiver.got) >= 4))
            bad = {"content": b'{"model": "CANARY", "input": CANARY', "headers": {"Content-Type": "application/json"}}
            assert (await stack.ask("POST", "/v1/jobs", **bad)).status_code == 400
            assert (await stack.ask("POST", "/v1/jobs", json={"model": "CANARY", "input": "CANARY"})).status_code == 422
            assert await stage.term(second) == 0
            assert await stage.term(api) == 0
            written = stage.logs()

    spans = ingest.spans
    own = [span for span in spans if span["trace_id"] == TRACE]
    assert {span["op"] for span in own} == {
        "http.server", "queue.publish", "queue.task", "queue.process", "gen_ai.responses", "db", "http.client",
    }  # fmt: skip
    runs = [
        s["attributes"] for s in own if s["op"] == "queue.process" and s["attributes"]["messaging.message.id"] == killed
    ]
    assert [(run["vigil.ended"], run["messaging.message.retry.count"]) for run in runs] == [("completed", 1)]
    assert runs[0]["vigil.rescued"] is True
    parents = {span["parent_span_id"] for span in own} - {span["span_id"] for span in own}
    assert parents == {CALLER}, "what two processes sent is one tree, although one of them was killed"
    assert {got["sentry-trace"][:32] for got in receiver.got} == {TRACE}
    assert [event["tags"]["vigil.cause"] for event in ingest.events] == ["job-expired"], "a kill and a block are none"
    assert len(ingest.items("check_in")) >= 2
    seen = ingest.everything()
    for one in (*SECRETS, key, secret, receiver.url.partition("?")[0]):
        assert one not in seen, one
        assert one not in written, one
    assert f'"trace_id": "{TRACE}"' in written
    assert '"event": "job.settled"' in written
    assert '"event": "attempt.finished"' in written, "every log was on"


async def _answers(at: str) -> bool:
    try:
        async with httpx2.AsyncClient(trust_env=False) as client:
            return (await client.get(f"{at}/readyz")).status_code == 200
    except httpx2.TransportError:
        await asyncio.sleep(0.05)
        return False


async def _true(value: bool) -> bool:
    return value
