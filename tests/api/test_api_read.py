"""What an app sees of its jobs: the job, waiting for it, lists."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest
from api_server import submitted
from document_check import document
from waiting import LIMIT

from api.schema.views import dumps, job_view
from worker.jobs import events as ev
from worker.jobs.record import Usage
from worker.safety.hold_times import bucket_of
from worker.store import codec, keys
from worker.store.jobs.stored_job import NewJob


async def get(client, job_id):
    return (await client.get(f"/v1/jobs/{job_id}")).json()


async def test_a_completed_job_shows_everything(acme, worker):
    job_id = await submitted(acme, metadata={"ticket": "A-17"}, webhook={"url": "https://app.example/h"})
    await worker.start(job_id)
    await worker.check(job_id)
    await worker.commit(job_id, (ev.CheckEnded(ended_by="output"), 1))
    await worker.complete(job_id)
    answer = await acme.get(f"/v1/jobs/{job_id}")
    job = answer.json()
    assert (job["status"], job["output_text"], job["refusal"]) == ("completed", "The answer.", None)
    assert job["output"] == [{"type": "message", "text": "The answer."}]
    assert job["usage"]["total_tokens"] == 15
    assert job["cost"] == {"currency": "USD", "total": "0.012300", "wasted": "0.000000"}
    assert job["safety"]["state"] == "cleared"
    assert job["safety"]["checks"][0]["seconds"] >= 0
    assert job["safety"]["checks"][0]["use_cases"] == ["cyber"]
    assert job["attempts"][0]["outcome"] == "completed"
    assert job["attempts"][0]["cost"] == "0.012300"
    assert job["metadata"] == {"ticket": "A-17"}
    assert job["created_at"].endswith("Z")
    assert job["urls"]["events"] == f"{str(acme.base_url).rstrip('/')}/v1/jobs/{job_id}/events"
    assert answer.headers["x-vigil-served-model"] == "gpt-5.6-sol"
    assert "x-vigil-substituted" not in answer.headers
    assert "retry-after" not in answer.headers


async def test_a_substitution_is_disclosed_in_body_and_headers(acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    await worker.substitute(job_id)
    answer = await acme.get(f"/v1/jobs/{job_id}")
    job = answer.json()
    assert (job["requested_model"], job["served_model"]) == ("gpt-5.6-sol", "gpt-5.6-luna")
    assert job["disclosure"]["reason"] == "safety_check_delay"
    assert job["disclosure"]["message"] == "Answered by gpt-5.6-luna."
    assert answer.headers["x-vigil-served-model"] == "gpt-5.6-luna"
    assert answer.headers["x-vigil-substituted"] == "safety_check_delay"
    assert job["cost"] == {"currency": "USD", "total": "0.012300", "wasted": "0.004000"}
    unchanged = await acme.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": answer.headers["etag"]})
    assert unchanged.headers["x-vigil-substituted"] == "safety_check_delay"


async def test_a_blocked_job_shows_no_output_whatever_is_stored(acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    provider_messages = {"1": "SECRET words"}
    await worker.block(
        job_id,
        output_text="SECRET",
        output=[{"text": "SECRET"}],
        refusal="SECRET",
        draft="SECRET",
        provider_messages=provider_messages,
    )
    answer = await acme.get(f"/v1/jobs/{job_id}")
    job = answer.json()
    assert (job["status"], job["safety"]["state"]) == ("blocked", "blocked")
    assert job["safety"]["block"]["code"] == "cyber_policy"
    assert "SECRET" not in answer.text
    assert (job["output_text"], job["output"], job["draft"], job["refusal"]) == (None, [], None, None)
    assert "x-vigil-served-model" not in answer.headers


async def test_a_draft_is_shown_with_its_model_until_it_is_withdrawn(acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    await worker.attempt(job_id, 2, "gpt-5.6-luna", "draft")
    finished = ev.AttemptFinished(outcome="completed", served_model="gpt-5.6-luna")
    await worker.commit(
        job_id, (finished, 2), (ev.DraftReady(model="gpt-5.6-luna"), 2), answer={"draft": "Luna's draft."}
    )
    job = await get(acme, job_id)
    assert (job["draft"], job["draft_model"], job["output_text"]) == ("Luna's draft.", "gpt-5.6-luna", None)
    await worker.commit(job_id, (ev.DraftWithdrawn(because="blocked"), 2))
    job = await get(acme, job_id)
    assert (job["draft"], job["draft_model"]) == (None, None)


async def test_a_failed_job_says_why_and_shows_the_providers_words(acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    await worker.commit(
        job_id,
        (ev.AttemptFinished(outcome="server_error", usage=Usage(input_tokens=3, total_tokens=3)), 1),
        answer={"provider_messages": {"1": "upstream said no"}},
    )
    await worker.attempt(job_id, 2, purpose="retry")
    await worker.commit(
        job_id, (ev.AttemptFinished(outcome="server_error", usage=Usage(input_tokens=4, total_tokens=4)), 2)
    )
    error = {"type": "provider", "code": "server_error", "message": "It broke.", "advice": "Try again later."}
    await worker.commit(job_id, (ev.Failed(error=error), None))
    job = await get(acme, job_id)
    assert job["error"] == error | {"provider": None}
    assert job["usage"]["input_tokens"] == 7
    assert job["cost"] is None
    assert job["attempts"][0]["provider_message"] == "upstream said no"


async def test_half_a_surrogate_from_the_provider_does_not_break_the_answer(acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    await worker.complete(job_id, "a\ud800b")
    answer = await acme.get(f"/v1/jobs/{job_id}")
    assert json.loads(answer.content)["output_text"] == "a\ud800b"
    assert answer.json()["created_at"].endswith("Z")


async def test_a_served_model_cant_split_a_header(acme, jobs, worker):
    from api.web.responses import job_headers

    job_id = await submitted(acme)
    await worker.start(job_id)
    await worker.complete(job_id)
    job = (await jobs.load(job_id)).job.model_copy(update={"served_model": "a\r\nX-Evil: 1\u00e9"})
    assert job_headers(job)["X-Vigil-Served-Model"] == "a%0D%0AX-Evil: 1%C3%A9"


async def test_an_etag_gives_304_until_something_changes(acme, worker):
    job_id = await submitted(acme)
    first = await acme.get(f"/v1/jobs/{job_id}")
    tag = first.headers["etag"]
    for sent in (tag, f'"x", {tag}', "*", f"W/{tag}"):
        same = await acme.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": sent})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    await worker.start(job_id)
    changed = await acme.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()["status"]) == (200, "running")
    assert not changed.headers["etag"].startswith("W/")


async def test_the_webhooks_state_is_part_of_the_job_and_its_etag(acme, redis):
    job_id = await submitted(acme, webhook={"url": "https://app.example/h", "events": ["job.cancelled"]})
    await acme.post(f"/v1/jobs/{job_id}/cancel")
    before = await acme.get(f"/v1/jobs/{job_id}")
    message = (await redis.lindex(keys.messages(job_id), -1)).decode()
    kept = json.loads(await redis.get(keys.message(message)))
    await redis.set(keys.message(message), json.dumps(kept | {"state": "delivered"}))
    after = await acme.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": before.headers["etag"]})
    assert before.json()["webhook"]["state"] == "pending"
    assert (after.status_code, after.json()["webhook"]["state"]) == (200, "delivered")


async def test_wait_returns_at_the_next_change_of_status(acme, worker):
    job_id = await submitted(acme)
    for act, status in ((worker.start, "running"), (worker.check, "checking")):
        waiting = asyncio.create_task(acme.get(f"/v1/jobs/{job_id}?wait=20"))
        await watched(acme, job_id, waiting)
        await act(job_id)
        answer = await waiting
        assert answer.json()["status"] == status
    assert answer.headers["retry-after"] == "15"
    await worker.commit(job_id, (ev.CheckEnded(ended_by="output"), 1))
    await worker.complete(job_id)
    assert (await acme.get(f"/v1/jobs/{job_id}?wait=60")).json()["status"] == "completed"


async def watched(acme, job_id, waiting):
    """Returns when the request has read the job (another one made after it has been answered)."""
    for _ in range(3):
        await acme.get(f"/v1/jobs/{job_id}")
    assert not waiting.done()


async def test_a_change_that_keeps_the_status_does_not_end_the_wait(acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    waiting = asyncio.create_task(acme.get(f"/v1/jobs/{job_id}?wait=20"))
    await watched(acme, job_id, waiting)
    await worker.commit(job_id, (ev.AttemptUpdated(request_id="req_1"), 1))
    await watched(acme, job_id, waiting)
    await worker.fail(job_id)
    assert (await waiting).json()["status"] == "failed"


async def test_wait_ends_after_its_seconds(acme):
    job_id = await submitted(acme)
    answer = await acme.get(f"/v1/jobs/{job_id}?wait=0.05")
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    tag = {"If-None-Match": answer.headers["etag"]}
    assert (await acme.get(f"/v1/jobs/{job_id}?wait=0.05", headers=tag)).status_code == 304


async def test_a_caller_that_is_behind_does_not_wait(acme, worker):
    job_id = await submitted(acme)
    tag = (await acme.get(f"/v1/jobs/{job_id}")).headers["etag"]
    await worker.start(job_id)
    async with asyncio.timeout(LIMIT / 2):  # below both its 60 s and the client's own limit
        answer = await acme.get(f"/v1/jobs/{job_id}?wait=60", headers={"If-None-Match": tag})
    assert (answer.status_code, answer.json()["status"]) == (200, "running")


async def test_lists_are_newest_first_and_paged(acme, job_body):
    made = [await submitted(acme) for _ in range(7)]
    seen, cursor = [], None
    while True:
        page = (await acme.get("/v1/jobs", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))).json()
        assert page["object"] == "list"
        seen += [job["id"] for job in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert len(page["data"]) == 3
        await submitted(acme)  # a job made meanwhile does not disturb the pages
    assert seen == sorted(made, reverse=True)


async def test_lists_are_filtered(acme, jobs, clock):
    person = await submitted(acme, end_user="ann")
    luna = await submitted(acme, model="gpt-5.6-luna")
    gone = await submitted(acme)
    await acme.post(f"/v1/jobs/{gone}/cancel")

    async def ids(**params):
        return [job["id"] for job in (await acme.get("/v1/jobs", params=params)).json()["data"]]

    assert await ids(end_user="ann") == [person]
    assert await ids(model="gpt-5.6-luna") == [luna]
    assert await ids(status="cancelled") == [gone]
    assert await ids(status="queued", model="gpt-5.6-sol") == [person]
    assert await ids(end_user="nobody") == []
    hour = timedelta(hours=1)
    assert await ids(created_after=(clock.now() + hour).isoformat()) == []
    assert len(await ids(created_before=(clock.now() + hour).isoformat())) == 3
    assert len(await ids(created_after=(clock.now() - hour).isoformat())) == 3


async def test_a_list_shows_jobs_as_get_does(acme, worker):
    job_id = await submitted(acme, webhook={"url": "https://app.example/h"})
    await worker.start(job_id)
    await worker.complete(job_id)
    await submitted(acme)
    listed = {job["id"]: job for job in (await acme.get("/v1/jobs")).json()["data"]}
    assert listed[job_id] == await get(acme, job_id)
    assert listed[job_id]["output_text"] == "The answer."


async def test_jobs_that_do_not_exist_are_404(acme):
    for name in ("job_01m829w8eyaxxxx7e35gmv7t73", "job_x", "x", "resp_01m829w8eyaxxxx7e35gmv7t73", "job_" + "0" * 500):
        for tail in ("", "/events", "/audit"):
            answer = await acme.get(f"/v1/jobs/{name}{tail}")
            assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
        for tail in ("/cancel", "/retry"):
            assert (await acme.post(f"/v1/jobs/{name}{tail}")).status_code == 404


async def test_models_and_status(acme, worker, redis, clock):
    models = {m["id"]: m for m in (await acme.get("/v1/models")).json()["data"]}
    assert {"gpt-5.6-sol", "gpt-5.6-terra", "gpt-5.6-luna", "gpt-6.2-sol", "gpt-5.5"} < set(models)
    sol = models["gpt-5.6-sol"]
    assert (sol["input_per_million"], sol["price_from"], sol["tier"]) == (
        "4.000000",
        "2026-08-21T00:00:00Z",
        "flagship",
    )
    assert models["gpt-6.2-sol"]["efforts_refused"] == ["none", "minimal"]
    assert models["gpt-5.6-luna"]["access"]["status"] == "unknown"
    checked = await submitted(acme)
    await worker.start(checked)
    await worker.check(checked)
    running = await submitted(acme)
    await worker.start(running)
    await submitted(acme, priority="low")
    await submitted(acme, not_before=(clock.now() + timedelta(hours=1)).isoformat())
    beat = clock.now().isoformat().replace("+00:00", "Z")
    await redis.hset(keys.WORKERS, "w1", json.dumps({"id": "w1", "running": 2, "beat_at": beat, "draining": False}))
    old = (clock.now() - timedelta(seconds=61)).isoformat().replace("+00:00", "Z")
    await redis.hset(keys.WORKERS, "w0", json.dumps({"id": "w0", "running": 0, "beat_at": old, "draining": False}))
    status = (await acme.get("/v1/status")).json()
    assert 0 <= status["queue"].pop("oldest_queued_seconds") < 60
    assert status["queue"] == {"queued": 1, "scheduled": 1, "running": 1, "checking": 1}
    assert [w["id"] for w in status["workers"]] == ["w1"]
    members = {"queue", "workers", "account", "accounts", "rates", "circuits", "pauses", "pacing", "silences"}
    assert set(status) == members


async def test_the_status_says_when_silence_suggests_a_check(acme, redis, clock):
    assert (await acme.get("/v1/status")).json()["silences"] == []
    day = keys.durations(int(clock.now().timestamp()) // 86_400)
    counts = {f"gpt-5.6-sol|silent|{bucket_of(40)}": 300, f"gpt-5.6-terra|silent|{bucket_of(40)}": 3}
    await redis.hset(day, mapping={**counts, f"gpt-5.6-terra|suspected|{bucket_of(150)}": 1})
    sol, terra = sorted((await acme.get("/v1/status")).json()["silences"], key=lambda row: row["model"])
    assert (sol["model"], sol["samples"], sol["suspected"]) == ("gpt-5.6-sol", 300, 0)
    assert 40 <= sol["usual_seconds"] < 44
    assert sol["after_seconds"] == pytest.approx(1.5 * sol["usual_seconds"], abs=0.2)
    assert (terra["after_seconds"], terra["usual_seconds"], terra["suspected"]) == (120.0, None, 1)


async def test_an_empty_queue_has_no_oldest_job(acme):
    assert (await acme.get("/v1/status")).json()["queue"]["oldest_queued_seconds"] is None


async def test_the_view_of_a_job_whose_output_expired_is_complete(jobs, clock):
    new = NewJob(ev.Queued(app="a", key_id="k", requested_model="m"), {}, {})
    stored, _ = await jobs.submit(new)
    view = job_view(codec.load_job(codec.dump_job(stored.job)), {}, None, None, "")
    document().check("Job", json.loads(dumps(view)))
    assert view["metadata"] == {}


@pytest.mark.parametrize("accept", ["*/*", "text/html", ""])
async def test_what_is_accepted_does_not_matter_for_json(acme, accept):
    job_id = await submitted(acme)
    answer = await acme.get(f"/v1/jobs/{job_id}", headers={"Accept": accept})
    assert answer.headers["content-type"] == "application/json"
