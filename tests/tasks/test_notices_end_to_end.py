"""The provider's safety webhooks, from the request to the job that shows them: simulator, API and worker, no mocks."""

from __future__ import annotations

import pytest
from full_stack import full_stack
from in_process import until

from worker.clock import Clock
from worker.safety.notices import SafetyNotice
from worker.store import keys
from worker.store.provider.safety_notices import SafetyNotices
from worker.tasks.maintenance.notice_processor import NoticeProcessor
from worker.upstream.client import Provider


@pytest.fixture
async def all_of_it(redis, valkey_url):
    async with full_stack(redis, valkey_url, speed=20) as running:
        yield running


async def test_a_blocked_end_user_is_shown_on_the_job_whose_request_it_was(all_of_it):
    await all_of_it.stage.worker()
    job_id = await all_of_it.submit("[[sim: check_then_block hold=1 notify=identifier_blocked]]", end_user="mallory")
    notice = await all_of_it.notice(job_id)
    job = await all_of_it.view(job_id)
    assert (notice["type"], notice["about"], notice["category"]) == ("safety_identifier.blocked", "request", "cyber")
    assert notice["request_id"] == job["attempts"][0]["request_id"]
    assert job["safety"]["account_flagged"] is True
    assert "mallory" not in str(notice)
    assert notice["advice"]
    trail = (await all_of_it.app.get(f"/v1/jobs/{job_id}/audit")).json()["data"]
    (record,) = [record for record in trail if record["type"] == "provider.notice"]
    assert (record["data"]["reason"], record["data"]["by"]) == ("safety_identifier.blocked", "provider")


async def test_a_warning_reaches_the_end_users_jobs_by_the_case_it_names(all_of_it):
    await all_of_it.stage.worker()
    other = await all_of_it.submit("someone else's", end_user="bob")
    first = await all_of_it.submit("before", end_user="mallory")
    job_id = await all_of_it.submit("[[sim: normal notify=warning use_case=bio]]", end_user="mallory")
    for one in (first, job_id):
        notice = await all_of_it.notice(one, lambda n: n["category"])
        assert (notice["about"], notice["category"]) == ("end_user", "bio_abuse")
        assert notice["subject"].startswith("C-")
    assert (await all_of_it.view(other))["safety"]["notices"] == []
    given = {"end_user": "mallory", "provider_case": notice["subject"], "reason": "asks why"}
    place = (await all_of_it.app.post("/v1/appeals", json=given)).headers["location"]
    await all_of_it.stage.sim.world.webhooks.emit("safety.warning_issued", {"id": notice["subject"]})

    async def linked():
        return [step for step in (await all_of_it.app.get(place)).json()["steps"] if step["kind"] == "notice"]

    (step,) = await until("the next notice of the case to be linked to its appeal", linked)
    assert (step["by"], step["provider_case"], step["text"]) == ("provider", notice["subject"], "")


async def test_an_alert_finds_its_job_by_the_request_it_names(all_of_it):
    await all_of_it.stage.worker()
    job_id = await all_of_it.submit("[[sim: normal notify=alert]]")
    notice = await all_of_it.notice(job_id, lambda n: n["request_paused"] is not None)
    assert (notice["about"], notice["request_paused"]) == ("request", True)
    assert notice["category"] == "potentially_unintended_data_access"


async def test_a_page_that_the_key_may_not_read_leaves_the_fact(all_of_it, redis):
    await all_of_it.stage.worker()
    job_id = await all_of_it.submit("hello", end_user="mallory")
    await all_of_it.stage.settled(job_id)
    await all_of_it.stage.sim.world.webhooks.emit("safety.warning_issued", {"id": "C-nobody-knows"})
    board = SafetyNotices(redis, 1000)

    async def refused():
        return [notice for notice in await board.since(0) if notice.lookup == "refused"]

    (notice,) = await until("the refusal is known", refused)
    assert (notice.subject, notice.about, notice.wait) == ("C-nobody-knows", "account", None)


async def test_a_notice_that_comes_before_our_own_record_is_joined_later(all_of_it, redis):
    job_id = await all_of_it.submit("hello", end_user="mallory")
    await all_of_it.stage.sim.world.webhooks.emit(
        "safety_identifier.blocked",
        {"safety_identifier": "unknown", "safety_category": "cyber", "request_id": "req_later"},
    )
    await all_of_it.stage.worker()
    board = SafetyNotices(redis, 1000)

    async def looked_at():
        return [notice for notice in await board.since(0) if notice.tries]

    (notice,) = await until("a first look", looked_at)
    assert notice.jobs == ()
    await redis.set("vigil:ref:request:req_later", job_id)
    assert (await all_of_it.notice(job_id))["request_id"] == "req_later"


async def test_the_etag_changes_with_a_notice_though_the_record_does_not(all_of_it):
    await all_of_it.stage.worker()
    job_id = await all_of_it.submit("[[sim: normal]]", end_user="mallory")
    job = await all_of_it.stage.settled(job_id)
    before = (await all_of_it.app.get(f"/v1/jobs/{job_id}")).headers["etag"]
    data = {"safety_identifier": job.safety_identifier, "safety_category": "cyber"}
    await all_of_it.stage.sim.world.webhooks.emit("safety_identifier.blocked", data)
    await all_of_it.notice(job_id)
    after = await all_of_it.app.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": before})
    assert after.status_code == 200
    again = await all_of_it.app.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": after.headers["etag"]})
    assert again.status_code == 304
    listed = (await all_of_it.app.get("/v1/jobs")).json()["data"]
    assert [len(one["safety"]["notices"]) for one in listed] == [1]


async def test_the_end_user_of_a_block_is_shut_out_once(redis, valkey_url):
    async with full_stack(redis, valkey_url, speed=20) as running:
        job_id = await running.submit("hello", end_user="mallory")
        job = await running.stage.job(job_id)
        shut: list[tuple[str, str | None]] = []

        async def shut_out(app: str, notice: SafetyNotice) -> None:
            shut.append((app, notice.safety_identifier))

        provider = Provider("sk-x", running.stage.sim.url)
        board = NoticeProcessor(redis, SafetyNotices(redis, 1000), lambda _: provider, Clock(), shut_out)
        webhooks = running.stage.sim.world.webhooks
        data = {"safety_identifier": job.safety_identifier, "safety_category": "cyber", "request_id": "req_unknown"}
        await webhooks.emit("safety_identifier.blocked", data, "duplicate")
        await webhooks.emit("safety.warning_issued", {"id": "C-1"})
        for _ in range(3):  # its request is not ours yet, so it is looked at again
            await board.process_due()
            for name in await redis.zrange(keys.NOTICES_DUE, 0, -1):
                await redis.zadd(keys.NOTICES_DUE, {name: 0})
        assert shut == [("acme", job.safety_identifier)]
        await provider.aclose()


async def test_a_stream_that_died_unseen_is_given_up_when_the_provider_says_that_it_is_over(all_of_it):
    """Nothing more comes on the open socket; without the webhook only the idle limit, 300 s, would notice."""
    await all_of_it.stage.worker()
    job_id = await all_of_it.submit("[[sim: cut how=hang after=6 tokens=20 rate=40]]")
    job = await all_of_it.stage.settled(job_id)  # within a limit that is far below 300 s
    assert (job.status, len(job.attempts), job.attempts[0].resumed) == ("completed", 1, 1)
    assert all_of_it.stage.sim.calls()["creates"] == 1
    assert len((await all_of_it.view(job_id))["output_text"]) > 20
