"""Several accounts at the provider: each job goes through its own, and what is wrong with one stops no other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from in_process import LUNA, SOL, Stage, until
from two_accounts import RESEARCH_KEY, SECRETS, TwoAccounts, accounts_file, two_accounts

from worker.clock import Clock
from worker.jobs.errors import SettingsError
from worker.jobs.record import Job
from worker.jobs.states import Outcome, Purpose, Status
from worker.store import keys
from worker.store.stats.worker_registry import workers as alive_workers

HELD = "[[sim: check_then_clear hold=600 latency=0 queue=0 tokens=3]] go"  # until the provider hurries
QUOTA = "[[sim: quota]] go"
NORMAL = "[[sim: normal tokens=3]] go"


@pytest.fixture
async def both(tmp_path: Path, redis: ArqRedis, valkey_url: str) -> AsyncIterator[TwoAccounts]:
    async with two_accounts(tmp_path, redis, valkey_url, probe_seconds=0) as both:
        yield both


async def lab_job(both: TwoAccounts, text: str, **more: object) -> str:
    answer = await both.lab.post("/v1/jobs", json={"model": SOL, "input": text, **more})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def test_each_job_goes_through_its_own_account_and_its_record_names_it(both: TwoAccounts) -> None:
    await both.running.stage.worker()
    ids = [
        await both.running.submit(NORMAL),
        await both.running.submit(NORMAL, model=LUNA),
        await lab_job(both, NORMAL),
    ]
    jobs = [await both.running.stage.settled(job_id) for job_id in ids]
    assert [job.status for job in jobs] == [Status.COMPLETED] * 3
    assert [job.attempts[0].account for job in jobs] == ["default", "research", "research"]
    assert [job.schema_number for job in jobs] == [1, 2, 2], "an older worker leaves the others alone"
    assert (both.running.stage.sim.calls()["creates"], both.research.calls()["creates"]) == (1, 2)
    view = (await both.lab.get(f"/v1/jobs/{ids[2]}")).json()
    assert view["attempts"][0]["account"] == "research"
    (ended,) = [
        row
        for row in (await both.lab.get(f"/v1/jobs/{ids[2]}/audit")).json()["data"]
        if row["type"] == "job.attempt.finished"
    ]
    assert ended["call"]["account"] == "research"


async def test_an_account_without_quota_holds_its_own_jobs_and_no_others(both: TwoAccounts, redis: ArqRedis) -> None:
    stage = both.running.stage
    await stage.worker()
    first = await lab_job(both, QUOTA)
    held = await stage.reaches(first, "the job to be held", lambda job: job.hold)
    assert held.hold is not None
    assert (held.hold.reason, held.hold.account) == ("quota_exhausted", "research")
    second = await lab_job(both, NORMAL)
    waiting = await stage.reaches(second, "the next one to be held without a call", lambda job: job.hold)
    assert waiting.attempts == ()
    fine = await stage.settled(await both.running.submit(NORMAL))
    assert (fine.status, fine.attempts[0].account) == (Status.COMPLETED, "default")
    status = (await both.running.app.get("/v1/status")).json()
    assert [(one["name"], one["circuit_reason"]) for one in status["accounts"]] == [
        ("default", None),
        ("research", "quota_exhausted"),
    ]
    assert [one["account"] for one in status["circuits"]] == ["research"]
    dry = (await both.lab.post("/v1/jobs?dry_run=true", json={"model": SOL, "input": "x"})).json()
    assert (dry["account"], [one["code"] for one in dry["warnings"]]) == ("research", ["circuit_open"])
    other = (await both.running.app.post("/v1/jobs?dry_run=true", json={"model": SOL, "input": "x"})).json()
    assert (other["account"], other["warnings"]) == ("default", [])


async def test_a_switch_goes_through_the_account_of_the_faster_model(both: TwoAccounts) -> None:
    stage = both.running.stage
    await stage.worker()
    policy = {"on_delay": {"action": "switch", "after_seconds": 1, "model": LUNA}}
    job = await stage.settled(await both.running.submit(HELD, policy=policy))
    assert [(a.model, a.account) for a in job.attempts] == [(SOL, "default"), (LUNA, "research")]
    assert job.attempts[1].purpose is Purpose.FASTER
    assert job.disclosure is not None


async def test_nothing_is_switched_to_an_account_that_is_at_fault(both: TwoAccounts) -> None:
    stage = both.running.stage
    worker = await stage.worker()
    await stage.reaches(await lab_job(both, QUOTA), "the circuit of research to open", lambda job: job.hold)
    await worker.components.accounts.refresh()
    assert LUNA in worker.components.accounts.unusable("acme", "default")
    assert LUNA not in worker.components.accounts.unusable("acme", "research")
    assert worker.components.accounts.denied("acme") == frozenset(), "a fallback is held there, and not lost"
    policy = {"on_delay": {"action": "switch", "after_seconds": 1, "model": LUNA}}
    job_id = await both.running.submit(HELD, policy=policy)
    await stage.reaches(job_id, "the check", lambda job: job.open_checks)
    stage.hurry()
    job = await stage.settled(job_id)
    assert [(a.model, a.account) for a in job.attempts] == [(SOL, "default")]


async def test_a_request_that_names_state_stays_with_the_account_that_has_it(
    tmp_path: Path, redis: ArqRedis, valkey_url: str
) -> None:
    more = 'shared_provider_state = ["file-research"]'
    shared = {"shared_provider_state": ("file-default",), "probe_seconds": 0}
    async with two_accounts(tmp_path, redis, valkey_url, more=more, **shared) as both:
        await both.running.stage.worker()

        def question(file_id: str) -> list[dict[str, object]]:
            content = [{"type": "input_text", "text": HELD}, {"type": "input_file", "file_id": file_id}]
            return [{"role": "user", "content": content}]

        for model, file_id in ((SOL, "file-research"), (LUNA, "file-default")):
            refused = await both.running.app.post("/v1/jobs", json={"model": model, "input": question(file_id)})
            assert (refused.status_code, refused.json()["code"]) == (422, "unsupported_parameter")
        policy = {"on_delay": {"action": "switch", "after_seconds": 1, "model": LUNA}}
        sent = {"model": SOL, "input": question("file-default"), "policy": policy}
        answer = await both.running.app.post("/v1/jobs", json=sent)
        assert answer.status_code == 202, answer.text
        job = await both.running.stage.settled(answer.json()["id"])
        assert [(a.model, a.account) for a in job.attempts] == [(SOL, "default"), (LUNA, "default")]


async def running_response(both: TwoAccounts) -> Job:
    job_id = await lab_job(both, HELD)
    return await both.running.stage.reaches(
        job_id, "a response under check", lambda job: job.open_checks and job.attempts[0].response_id
    )


async def test_a_response_is_resumed_with_its_account_after_the_binding_has_changed(
    both: TwoAccounts, tmp_path: Path
) -> None:
    stage = both.running.stage
    first = await stage.worker()
    job = await running_response(both)
    await stage.crash(first)
    await stage.lapse(job.id)
    both.file.write_text(both.file.read_text().replace('lab = "research"', 'lab = "default"'))
    await stage.worker()
    await stage.reaches(job.id, "the response to be read on", lambda now: now.attempts[0].resumed)
    both.research.set_speed(1e6)
    done = await stage.settled(job.id)
    assert [(a.account, a.outcome) for a in done.attempts] == [("research", Outcome.COMPLETED)]
    assert (both.research.calls()["creates"], stage.sim.calls()["creates"]) == (1, 0)
    after = await stage.settled(await lab_job(both, NORMAL))
    assert after.attempts[0].account == "default", "the new binding holds for new calls"


async def test_a_response_whose_account_is_gone_waits_and_goes_on_when_it_is_back(
    both: TwoAccounts, redis: ArqRedis
) -> None:
    stage = both.running.stage
    first = await stage.worker()
    job, other = await running_response(both), await running_response(both)
    await stage.crash(first)
    without = await stage.worker(accounts_file=None, account_secrets={})
    for one in (job, other):
        await stage.lapse(one.id)
    held = await stage.reaches(job.id, "the job to be held", lambda now: now.hold)
    assert held.hold is not None
    assert (held.status, held.hold.scope, held.hold.reason) == (Status.SCHEDULED, "account:research", "account_missing")
    assert held.next_attempt_at is not None
    assert [a.outcome for a in held.attempts] == [None], "its response is neither lost nor paid again"
    await stage.reaches(other.id, "the other one to be held", lambda now: now.hold)
    cancelled = (await both.lab.post(f"/v1/jobs/{other.id}/cancel")).json()
    assert (cancelled["status"], cancelled["attempts"][0]["outcome"]) == ("cancelled", "cancelled")
    await stage.stop(without)
    await stage.worker()
    await redis.zadd(keys.LATER, {job.id: 0})  # the minute is over
    await stage.reaches(job.id, "the response to be read on", lambda now: now.attempts[0].resumed)
    both.research.set_speed(1e6)
    done = await stage.settled(job.id)
    assert (done.status, len(done.attempts), both.research.calls()["creates"]) == (Status.COMPLETED, 1, 2)


async def test_jobs_that_the_circuit_of_a_removed_account_holds_are_let_go(both: TwoAccounts, redis: ArqRedis) -> None:
    stage = both.running.stage
    first = await stage.worker()
    job_id = await lab_job(both, QUOTA)
    await stage.reaches(job_id, "the job to be held", lambda job: job.hold)
    second = await lab_job(both, NORMAL)
    await stage.reaches(second, "the next one to be held", lambda job: job.hold)
    both.file.write_text(both.file.read_text().replace("research", "renamed"))
    await stage.stop(first)
    renamed = {name.replace("RESEARCH", "RENAMED"): value for name, value in SECRETS.items()}
    await stage.worker(account_secrets=renamed)
    done = await stage.settled(second)
    assert (done.status, done.attempts[0].account) == (Status.COMPLETED, "renamed")
    assert [one["accounts"] for one in await alive_workers(redis, Clock())] == [["default", "renamed"]]


async def test_what_is_known_of_a_models_access_is_known_for_one_account(both: TwoAccounts) -> None:
    stage = both.running.stage
    worker = await stage.worker()
    both.research.world.denied = frozenset({SOL})
    await worker.components.accounts.probe_all()
    found = {}
    for name, app in (("acme", both.running.app), ("lab", both.lab)):
        rows = {row["id"]: row["access"]["status"] for row in (await app.get("/v1/models")).json()["data"]}
        found[name] = rows[SOL], rows[LUNA]
    assert found == {"acme": ("ok", "ok"), "lab": ("not_granted", "ok")}


async def test_tokens_are_counted_by_the_account_of_the_app(both: TwoAccounts) -> None:
    worker = await both.running.stage.worker()
    await worker.components.sweeper.beat()  # the API asks nobody before
    for app in (both.lab, both.running.app):
        answer = await app.post("/v1/responses/input_tokens", json={"model": SOL, "input": "hello"})
        assert answer.status_code == 200, answer.text
    assert [sim.calls()["counts"] for sim in (both.running.stage.sim, both.research)] == [1, 1]


async def test_a_notice_belongs_to_the_account_whose_secret_signed_it(both: TwoAccounts) -> None:
    both.research.world.webhooks.url = f"{both.running.app.base_url}/hooks/openai".replace("//hooks", "/hooks")
    both.research.world.webhooks.secret = SECRETS["VIGIL_ACCOUNT_RESEARCH_WEBHOOK_SECRET"].get_secret_value()
    await both.running.stage.worker()
    await both.research.world.webhooks.emit("safety.org_alert.created", {"id": "alert_1"})

    async def elevated() -> list[tuple[str, str]] | None:
        rows = (await both.running.app.get("/v1/status")).json()["accounts"]
        states = [(row["name"], row["state"]) for row in rows]
        return states if ("research", "elevated") in states else None

    assert await until("the alert to count for its account", elevated) == [
        ("default", "normal"),
        ("research", "elevated"),
    ]


async def test_no_key_is_in_records_or_answers(both: TwoAccounts, redis: ArqRedis) -> None:
    stage = both.running.stage
    worker = await stage.worker()
    await stage.settled(await lab_job(both, NORMAL))
    listed = await both.running.app.get("/v1/accounts")
    assert [row["name"] for row in listed.json()["data"]] == ["default", "research"]
    assert listed.json()["data"][1]["apps"] == ["lab"]
    texts = [listed.text, (await both.lab.get("/v1/status")).text, repr(worker.components.accounts.all)]
    texts += [repr(stage.settings()), repr(await redis.xrange(keys.AUDIT))]
    assert not any(RESEARCH_KEY in text or "whsec_" in text for text in texts)


async def test_a_worker_without_the_key_of_an_account_does_not_start(
    tmp_path: Path, redis: ArqRedis, valkey_url: str
) -> None:
    async with Stage(redis, valkey_url, accounts_file=accounts_file(tmp_path, "http://127.0.0.1:1/v1")) as stage:
        with pytest.raises(SettingsError, match="VIGIL_ACCOUNT_RESEARCH_API_KEY"):
            await stage.worker()
