"""The page of the audit trail: verify now, holds, exports that prove themselves, who read what."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from html import unescape
from pathlib import Path

import pytest
from builders import new_job
from console_server import serving
from in_process import until

from api.runtime.audit_access import AuditAccess, ExportRange
from api.runtime.background_work import BackgroundWork
from worker.audit.export import FileProof, lines_of, read_manifest
from worker.audit.keytext import as_text
from worker.clock import Clock, to_ms
from worker.settings import Settings
from worker.store import keys
from worker.store.apps import Apps
from worker.store.audit.acts import Actor
from worker.store.audit.content_reads import ContentReads
from worker.store.audit.trail import Trail
from worker.store.jobs.repository import Jobs

sys.path.append(str(Path(__file__).parents[1] / "store"))
from sealed_trail import SIGNER, SealedTrail, altered

APP = "shop"
CANARY = "<script>alert('x')</script>"


@pytest.fixture
def settings(valkey_url: str, tmp_path: Path) -> Settings:
    keys_given = (as_text(SIGNER.public),)
    return Settings(_env_file=None, redis_url=valkey_url, data_dir=tmp_path, audit_public_keys=keys_given)


@pytest.fixture
async def sealed(redis) -> SealedTrail:
    sealed = SealedTrail(redis, Clock(), Jobs(redis, Clock()))
    await sealed.fill(20)
    await sealed.seal()
    return sealed


async def verified(visitor) -> str:
    """The page once a verification that was started is over."""
    answer = await visitor.act("/console/audit/verify")
    assert answer.headers["location"].startswith("/console/audit?notice=verification")

    async def over() -> bool:
        return "being verified" not in (await visitor.get("/console/audit")).text

    await until("the end of the verification", over)
    return (await visitor.get("/console/audit")).text


async def test_an_empty_page_says_how_to_begin(console):
    text = (await (await console.logged_in(APP)).get("/console/audit")).text
    assert "vigil worker" in text
    assert "--scope read,content" in text
    assert "Not verified since" in text


async def test_a_good_trail_is_verified_and_its_checkpoints_are_listed(console, sealed):
    visitor = await console.logged_in(APP)
    text = await verified(visitor)
    assert "nothing was altered, removed, inserted, reordered or truncated" in text
    assert SIGNER.key_id in text
    assert "records of" in text, "operators see how much there is"
    auditor = await console.logged_in(APP, ("audit",))
    page = (await auditor.get("/console/audit")).text
    assert "nothing was altered" in page
    assert not re.search(r"\d+ records of \d+ jobs", page)


async def test_a_changed_record_is_named_to_its_app_and_to_operators_alone(console, sealed):
    rows = await sealed.rows()
    rows[7] = altered(rows[7])
    await sealed.rebuild(rows)
    job_id = json.loads(rows[7].record)["job_id"]
    text = await verified(await console.logged_in("ops-team", ("audit", "ops")))
    assert "the trail is not what was written" in text
    assert job_id in text or rows[7].id in text
    other = (await (await console.logged_in("other", ("audit",))).get("/console/audit")).text
    assert "the trail is not what was written" in other
    assert job_id not in other
    assert "which operators see" in other


async def test_holds_are_placed_listed_and_released_with_reasons(console, sealed, redis):
    visitor = await console.logged_in(APP)
    job_id = sealed.ids[0]
    answer = await visitor.act("/console/audit/holds/place", job=job_id, reason=f"Case 9 {CANARY}")
    assert answer.headers["location"] == "/console/audit?notice=hold_placed"
    assert await redis.ttl(keys.job(job_id)) == -1
    text = (await visitor.get("/console/audit")).text
    assert job_id in text
    assert CANARY in unescape(text)
    assert CANARY not in text
    assert (await visitor.act("/console/audit/holds/place", job=job_id, reason="again")).status_code == 409
    await visitor.act("/console/audit/holds/place", job="all", reason="A subpoena.")
    assert await redis.smembers(keys.LEGAL_HOLDS) == {job_id.encode(), b"app:shop"}
    for name in (job_id, "all"):
        done = await visitor.act("/console/audit/holds/release", job=name, reason="Over.")
        assert done.headers["location"].endswith("hold_released")
    assert await redis.smembers(keys.LEGAL_HOLDS) == set()
    await visitor.act("/console/audit/holds/place", end_user="user-17", job="", reason="Case 10")
    (held,) = await redis.smembers(keys.LEGAL_HOLDS)
    person = held.decode().removeprefix("end_user:shop:")
    assert person in (await visitor.get("/console/audit")).text
    await visitor.act("/console/audit/holds/release", end_user=person, reason="Over.")
    assert await redis.smembers(keys.LEGAL_HOLDS) == set()
    notes = [json.loads(row.record) for row in await Trail(redis, Clock()).of_chain(job_id)]
    assert [note["data"]["reason"] for note in notes if note["type"] == "audit.release"] == ["Over."]


async def test_another_apps_jobs_can_not_be_held_and_its_holds_are_not_seen(console, sealed):
    visitor = await console.logged_in(APP)
    await visitor.act("/console/audit/holds/place", job=sealed.ids[0], reason="Case 9")
    other = await console.logged_in("other")
    assert "Case 9" not in (await other.get("/console/audit")).text
    for act in ("place", "release"):
        for job in (sealed.ids[0], sealed.ids[1], "", "app:shop"):
            answer = await other.act(f"/console/audit/holds/{act}", job=job, reason="mine")
            assert answer.status_code == 404, (act, job)
    auditor = await console.logged_in(APP, ("audit", "read"))
    assert (await auditor.act("/console/audit/holds/release", job=sealed.ids[0], reason="x")).status_code == 403


async def test_an_export_proves_itself_with_its_manifest_and_has_no_other_apps_records(console, sealed):
    await sealed.jobs.submit(new_job(app="other"))
    visitor = await console.logged_in(APP)
    page = unescape((await visitor.get("/console/audit")).text)
    lines, manifest = re.findall(r'href="(/console/audit/trail[^"]+)"', page)
    body, stated = await visitor.get(lines), await visitor.get(manifest)
    assert body.headers["content-disposition"] == 'attachment; filename="trail.ndjson"'
    assert body.headers["content-type"].startswith("application/x-ndjson")
    rows = body.content.splitlines()
    assert {json.loads(line)["record"]["app"] for line in rows} == {APP}

    proof = FileProof(lambda: lines_of(io.BytesIO(body.content)), read_manifest(stated.content), None)
    report = proof.prove()
    assert report.good, report.faults
    assert report.records == len(rows) > 50
    assert (await visitor.get("/console/audit/trail.ndjson?before=yesterday")).status_code == 422
    reader = await console.logged_in(APP, ("read",))
    assert (await reader.get("/console/audit/trail.ndjson")).status_code == 403


async def test_an_export_that_its_client_does_not_read_keeps_no_other_app_waiting(redis, settings, sealed):
    await sealed.jobs.submit(new_job(app="other"))
    background = BackgroundWork()
    access = AuditAccess(redis, Clock(), settings, background)
    now = to_ms(Clock().now()) + 1_000
    slow = access.export_lines(ExportRange(APP, None, now))
    assert await anext(slow)
    again = asyncio.create_task(anext(access.export_lines(ExportRange(APP, None, now))))
    others = [lines async for lines in access.export_lines(ExportRange("other", None, now))]
    assert b'"other"' in b"".join(others)
    assert not again.done(), "one export of an app at a time"
    await slow.aclose()
    assert await again


async def test_who_read_what_is_listed(console, sealed, redis):
    key, _, _ = await Apps(redis, Clock()).create_key(APP, ("content",))
    await ContentReads(redis, Clock()).record(APP, sealed.ids[0], "output", Actor(key.id), "ab12")
    text = (await (await console.logged_in(APP)).get("/console/audit")).text
    assert key.id in text
    assert "ab12" in text
    assert key.id not in (await (await console.logged_in("other")).get("/console/audit")).text


async def test_without_a_public_key_it_says_what_to_set(redis, valkey_url, tmp_path, clock):
    settings = Settings(_env_file=None, redis_url=valkey_url, data_dir=tmp_path)
    async with serving(settings, redis, clock) as console:
        text = await verified(await console.logged_in(APP))
        assert "VIGIL_AUDIT_PUBLIC_KEYS" in text
