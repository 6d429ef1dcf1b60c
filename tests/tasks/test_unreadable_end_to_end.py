"""One unreadable value stops no other job: each kind of key is spoiled in each way while everything runs.

`pytest -s` on this file prints the table: kind of key, how it was spoiled, its own app, the others.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from appeal_note import write_appeal_note
from arq.connections import ArqRedis
from fleeting_keys import FLEETING
from full_stack import FullStack, full_stack
from in_process import LUNA, SOL, until
from spoiling import GARBAGE, HOWS, spoil
from thorough import THOROUGH
from waiting import next_week

from worker.clock import Clock
from worker.main import WorkerProcess
from worker.safety.notices import SafetyNotice
from worker.store import keys
from worker.store.admission.circuit_breaker import CircuitBreaker
from worker.store.apps import SCOPES, Apps
from worker.store.audit.acts import Actor
from worker.store.audit.content_reads import ContentReads
from worker.store.connection.pool import keyring_of
from worker.store.console_access import ConsoleAccess
from worker.store.jobs.commit_commands import RetentionTimes
from worker.store.jobs.streamed_chunks import StreamedChunks
from worker.store.key_kinds import KINDS, kind_of
from worker.store.lifecycle.legal_holds import LegalHolds
from worker.store.provider.safety_notices import SafetyNotices
from worker.store.stats.worker_registry import record_heartbeat
from worker.tasks.maintenance import sweeper

QUICK = "[[sim: normal tokens=3]] hello"
PARTS = {
    "leases",
    "flusher",
    "notifier",
    "sweeper",
    "access",
    "cron",
    "notices",
    "account-monitor",
    "delivery",
    "sealer",
    "claiming",
}
TOGETHER = 6
"""So many kinds are spoiled at a time; 1 tells which of them did it."""
ALONE = {"idx", "endpoints", "quarantine", "audit", "app", "apikey", "apikeys"}
"""Kinds that an app's own lists stand on: spoiled one at a time, so that a cell tells of nothing but its own."""
LATER = next_week()
WAITING = ("job", "in", "trail", "audited")
"""Kinds of a single job that a waiting one has too."""
_PRIVATE = "unreadable: metadata webhook"
EXPECTED = {
    ("waiting", "job"): {
        "scheduled",  # a newer release wrote it
        f"scheduled, {_PRIVATE}",
        f"failed record_unreadable, {_PRIVATE}",
    },
    ("waiting", "in"): {"scheduled"},
    ("waiting", "trail"): {"scheduled"},
    ("waiting", "audited"): {"scheduled"},
    ("settled", "job"): {"completed", f"completed, {_PRIVATE}", f"completed, {_PRIVATE} output"},
    ("settled", "out"): {"completed, unreadable: output"},
}
"""What the app of a spoiled job is told, by how the job stood and what was spoiled; else it is `completed`."""
RESTORED = {
    *(
        "apikey",
        "apikeys",
        "app",
        "secret",
        "endpoints",
        "hears",
        "holds",
        "holdnotes",
        "quarantine",
        "pauses",
        "pause",
    ),
    *("paused", "circuits", "circuit", "access", "workers", "seals", "audit", "retained", "people", "tally"),
}
NEVER = {
    *("aside", "asides", "probe", "unmoved"),  # what was set aside itself; a key that is only written, or never
    *("deployment", "looks", "accepted", "partition"),  # what says which store this is: a change stops all, on purpose
}


@dataclass
class Living:
    """A Vigil with two apps; `mine` is spoiled, `theirs` is looked at."""

    running: FullStack
    worker: WorkerProcess
    app: httpx2.AsyncClient
    other_app: httpx2.AsyncClient
    table: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    jobs: list[tuple[str, str]] = field(default_factory=list)  # (kind, a key of it) of single jobs
    faults: list[str] = field(default_factory=list)

    @property
    def redis(self) -> ArqRedis:
        return self.running.stage.redis

    async def other_job(self) -> str:
        answer = await self.other_app.post("/v1/jobs", json={"model": SOL, "input": QUICK})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def completes(self, job_id: str, what: str) -> None:
        async def look() -> bool:
            answer = await self.other_app.get(f"/v1/jobs/{job_id}")
            return answer.status_code == 200 and answer.json()["status"] == "completed"

        await until(f"another app's job, {what}", look, 12)

    async def others(self, before: str, what: str) -> str:
        """Everything that belongs to somebody else goes on."""
        after = await self.other_job()
        await self.completes(before, f"submitted before: {what}")
        await self.completes(after, f"submitted after: {what}")
        for path in (
            "/healthz",
            "/readyz",
            "/metrics",
            "/v1/status",
            "/v1/models",
            "/v1/webhook-endpoints",
            "/v1/quarantine",
            "/v1/end-users",
            "/v1/ops/end-users",
            "/v1/appeals",
        ):
            answer = await self.other_app.get(path)
            assert answer.status_code == 200, f"{path} after {what}: {answer.status_code} {answer.text[:300]}"
        listed = (await self.other_app.get("/v1/jobs?limit=5")).json()["data"]
        assert after in [one["id"] for one in listed] or "idx" in what, what
        self.alive(what)
        return "completes"

    async def cells(self, some: dict[str, bytes], how: str) -> None:
        """A few values are spoiled in one way, together, and looked at from both sides."""
        kept = {name: (await self.redis.dump(name), await self.redis.pttl(name)) for name in some.values()}
        before, spoiled = await self.other_job(), dict[str, bytes]()
        for kind, name in some.items():
            if kept[name][0] is not None and await spoil(self.redis, name, how):
                spoiled[kind] = name
        if not spoiled:
            return
        what = f"{', '.join(name.decode() for name in spoiled.values())}: {how}"
        try:
            others = await self.others(before, what)
            for kind, name in spoiled.items():
                self.table[kind, how] = (await self.own(name.decode()), others)
        except AssertionError as fault:
            self.faults.append(f"{what}: {str(fault)[:300]}")
        for kind, name in spoiled.items():
            dump, ttl = kept[name]
            if kind in RESTORED:
                await self.redis.restore(name, max(0, ttl), dump or b"", replace=True)

    async def fresh(self, state: str) -> str:
        """A job that nothing was done to, with all that a job may have in Redis."""
        hook = {"url": "https://hooks.example.com/dead", "events": ["job.completed"], "payload": "full"}
        later = {"not_before": LATER, "policy": {"queue_deadline_seconds": 1e6}} if state == "waiting" else {}
        job_id = await self.running.submit(QUICK, webhook=hook, end_user="anna", metadata={"a": "b"}, **later)
        if state == "settled":

            async def settled() -> bool:
                done = (await self.running.view(job_id))["status"] == "completed"
                return done and bool(await self.redis.exists(keys.messages(job_id)))

            await until("a job to be over", settled)
            await StreamedChunks(self.redis, 1000).grow(job_id, 1, 3)
            await self.redis.rpush(keys.text(job_id, 1), b'1[1,0,"x"]')
        return job_id

    async def job_cells(self, how: str) -> None:
        """Each key that belongs to a single job, spoiled of a job of its own."""
        rows = [("settled", kind, name) for kind, name in self.jobs]
        rows += [("waiting", kind, name) for kind, name in self.jobs if kind in WAITING]
        before = await self.other_job()
        made = await asyncio.gather(*(self.fresh(state) for state, _, _ in rows))
        keyring_of(self.redis)._cached.clear()  # as a process sees it that has not met these jobs
        done: list[tuple[str, str, str]] = []
        for (state, kind, name), job_id in zip(rows, made, strict=True):
            spoiled_key = ":".join(job_id if word.startswith("job_") else word for word in name.split(":"))
            if await spoil(self.redis, spoiled_key.encode(), how):
                done.append((state, kind, spoiled_key))
        what = f"keys of single jobs: {how}"
        others = await self.others(before, what) if done else ""
        for state, kind, spoiled_key in done:
            own = await self.own(spoiled_key)
            self.table[f"{kind} of a {state} job", how] = (own, others)
            if own not in EXPECTED.get((state, kind), {"completed"}):
                self.faults.append(f"{spoiled_key} of a {state} job: {how}: {own}")

    async def made_and_spoiled(self, name: str, kind: str, how: str) -> None:
        """The same for a key that stands in Redis only now and then."""
        before = await self.other_job()
        wrong = {"zset": "zadd", "string": "set", "set": "sadd", "hash": "hset", "list": "rpush"}[kind]
        words: dict[str, tuple[Any, ...]] = {"zadd": ({GARBAGE: 0},), "hset": (GARBAGE, GARBAGE)}
        if how == "wrong type":
            await spoil(self.redis, name.encode(), how)
        else:
            await getattr(self.redis, wrong)(name, *words.get(wrong, (GARBAGE,)))
        try:
            others = await self.others(before, f"{name}: {how}")
            self.table[kind_of(name), how] = (await self.own(""), others)
        except AssertionError as fault:
            self.faults.append(f"{name}: {how}: {str(fault)[:300]}")

    def alive(self, what: str) -> None:
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert names >= PARTS, f"after {what} these parts have ended: {PARTS - names}"

    async def own(self, key: str) -> str:
        """What the app of the spoiled key is told: a status of 2xx, or a named problem; never a fault without name."""
        codes = []
        job_id = next((word for word in key.split(":") if word.startswith("job_")), None)
        paths = ["/v1/jobs?limit=100", "/v1/webhook-endpoints", "/v1/quarantine", "/v1/audit?limit=5"]
        if job_id:
            paths = [f"/v1/jobs/{job_id}{tail}" for tail in ("", "/events", "/deliveries", "/audit")] + paths
        for path in paths:
            answer = await self.app.get(path, headers={"accept": "application/json"})
            body = answer.json()
            code = body.get("code") if answer.status_code >= 400 else ""
            assert code != "internal_error", f"{path} after {key}: {answer.text}"
            assert "Traceback" not in answer.text
            if job_id and path == f"/v1/jobs/{job_id}":
                error = (body.get("error") or {}).get("code") if not code else ""
                codes.append(" ".join(str(word) for word in (body["status"], code or error) if word))
                if body.get("unreadable"):
                    codes.append(f"unreadable: {' '.join(body['unreadable'])}")
            elif code:
                codes.append(f"{path.split('?')[0].rsplit('/', 1)[-1]}: {answer.status_code} {code}")
        return ", ".join(codes) or "goes on"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "INTERVAL", 0.05)
    monkeypatch.setattr(sweeper, "_CHECK_QUEUE_EVERY", 4)


@asynccontextmanager
async def living(redis: ArqRedis, url: str) -> AsyncIterator[Living]:
    async with full_stack(redis, url, speed=200.0, lease_seconds=2.0, audit_seal_seconds=0.2) as running:
        key = (await Apps(redis, Clock()).create_key("theirs", SCOPES))[1]
        worker = await running.stage.worker(max_jobs=50)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx2.AsyncClient(
            base_url=running.app.base_url, headers=headers, timeout=20, trust_env=False
        ) as other_app:
            yield Living(running, worker, running.app, other_app)


async def fill(vigil: Living) -> None:
    """Something of each kind stands in Redis, all of the app that is spoiled."""
    redis, app, clock = vigil.redis, vigil.app, Clock()
    hook = {"url": "https://hooks.example.com/dead", "events": ["job.completed", "job.failed"], "payload": "full"}
    made = await app.post(
        "/v1/webhook-endpoints", json={"url": "https://hooks.example.com/all", "events": ["job.completed"]}
    )
    assert made.status_code in (200, 201), made.text
    await vigil.running.submit("[[sim: queued_forever]] stays", webhook=hook, end_user="anna")
    done = await vigil.running.submit(QUICK, webhook=hook, end_user="anna", store=False)
    blocked = await vigil.running.submit("[[sim: cyber_block]] x", end_user="eve")
    await vigil.running.submit(QUICK, not_before=next_week(), policy={"queue_deadline_seconds": 1e6})
    answer = await app.post(
        "/v1/jobs",
        json={"model": SOL, "input": "x", "not_before": next_week()},
        headers={"Idempotency-Key": "k"},
    )
    assert answer.status_code == 202, answer.text
    batch = await app.post("/v1/jobs/batch", json={"group": "g", "jobs": [{"model": SOL, "input": QUICK}]})
    assert batch.status_code in (200, 202, 207), batch.text
    assert (await app.post("/v1/pause", json={"scope": "model", "name": LUNA})).status_code == 200
    await vigil.running.submit("held", model=LUNA)
    assert (await app.post("/v1/quarantine", json={"end_user": "mallory"})).status_code in (200, 201)
    await app.post("/v1/quarantine", json={"end_user": "bob"})
    await app.delete("/v1/quarantine/bob?reason=x")
    await app.post("/v1/quarantine", json={"end_user": "eve", "until": next_week()})
    appeal = await app.post("/v1/appeals", json={"jobs": [done], "reason": "wrong"})
    assert appeal.status_code == 201, appeal.text
    closing = {"outcome": "withdrawn", "reason": "never mind"}
    assert (await app.post(f"/v1/appeals/{appeal.json()['id']}/outcome", json=closing)).status_code == 200
    elsewhere = {"running": 0, "draining": False, "circuits": ["key:elsewhere"], "beat_at": next_week()}
    await record_heartbeat(redis, clock, "elsewhere", elsewhere)  # else nobody has the account of that circuit
    await CircuitBreaker(redis, "key:elsewhere").trip("job_x", "quota_exhausted")
    await LegalHolds(redis, clock, RetentionTimes(1000)).place(done, actor=Actor("key"), why="a case")
    for one in (done, blocked):

        async def settled(one: str = one) -> bool:
            return (await vigil.running.view(one))["status"] in ("completed", "blocked", "failed")

        await until("jobs to settle", settled)
    await ContentReads(redis, clock).record("acme", done, "output", Actor("key"), "s")
    await write_appeal_note(redis, clock.now(), "acme", "x", "asks again")
    await StreamedChunks(redis, 1000).grow(done, 1, 3)
    await redis.hset(keys.streamed_chunks(done), 1, 3)
    await redis.rpush(keys.text(done, 1), b'1[1,0,"x"]')
    notice = SafetyNotice.model_validate(
        {"id": "evt_1", "type": "safety_identifier.blocked", "at": clock.now(), "received_at": clock.now()}
    )
    await SafetyNotices(redis, 1000).store_webhook("wh_1", "safety_identifier.blocked", notice)
    await redis.pfadd(keys.checked_end_users(0, SOL), "x")
    await ConsoleAccess(redis, clock).begin_session("key_x")
    await ConsoleAccess(redis, clock).create_link("key_x")

    async def everything() -> bool:
        return KINDS - set(await cells(redis)) - {kind_of(name) for name in FLEETING} <= NEVER

    await until("a key of each kind that the table in ops/design/redis-keys.md names", everything)


def _mine_first(name: bytes) -> tuple[bool, bytes]:
    return b"theirs" in name, name


async def _of_theirs(redis: ArqRedis, name: bytes) -> bool:
    return name.startswith(b"vigil:apikey:") and json.loads(await redis.get(name))["app"] == "theirs"


async def cells(redis: ArqRedis) -> dict[str, bytes]:
    """One key of each kind that stands in Redis now, the spoiled app's where there is a choice."""
    found: dict[str, bytes] = {}
    for name in sorted(await redis.keys("vigil:*"), key=_mine_first):
        kind = kind_of(name.decode())
        assert kind != "other", f"{name!r} is no key of the table in ops/design/redis-keys.md"
        if kind not in NEVER and not await _of_theirs(redis, name):
            found.setdefault(kind, name)
    return found


@pytest.mark.parametrize("how", HOWS if THOROUGH else ("newer schema", "cut", "wrong type"))
async def test_table_each_key_spoiled_stops_nobody_else(
    valkey_url: str, redis: ArqRedis, telemetry_events: list[tuple[str, dict[str, object]]], how: str
) -> None:
    async with living(redis, valkey_url) as vigil:
        await fill(vigil)
        found = dict(sorted((await cells(redis)).items()))
        vigil.jobs = [(kind, name.decode()) for kind, name in found.items() if b":job_" in name]
        await vigil.job_cells(how)
        shared = [(kind, name) for kind, name in found.items() if b":job_" not in name]
        together = [row for row in shared if row[0] not in ALONE]
        for start in range(0, len(together), TOGETHER):
            await vigil.cells(dict(together[start : start + TOGETHER]), how)
        for row in shared:
            if row[0] in ALONE:
                await vigil.cells(dict([row]), how)
        if how in ("not JSON", "wrong type"):
            for name, kind in FLEETING.items():
                await vigil.made_and_spoiled(name, kind, how)
        broke = [
            (e, f.get("what"), f.get("error"), f.get("at"))
            for e, f in telemetry_events
            if e.endswith(("broke", "unmade", "fault"))
        ]
        for (kind, way), (own, others) in sorted(vigil.table.items()):
            print(f"| {kind} | {way} | {own} | {others} |")
        assert not vigil.faults, "\n".join(vigil.faults)
        assert not broke, broke
        assert len(vigil.table) > (8 if how in ("unknown field", "newer schema") else 20)
