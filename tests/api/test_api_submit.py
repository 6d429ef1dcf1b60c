"""What an app sees when it submits."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta

import pytest
from api_server import running, submitted

from api.schema.requests import Submit
from worker.jobs.spec import Policy
from worker.store import codec, keys

WEBHOOK = {"url": "https://app.example/hooks", "events": ["job.completed", "job.blocked"], "payload": "full"}


async def test_an_accepted_job_is_in_redis_before_the_answer(acme, job_body, jobs, redis):
    answer = await acme.post("/v1/jobs", json=job_body)
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["vary"] == "Prefer"
    assert (await jobs.load(job["id"])).job.requested_model == "gpt-5.6-sol"
    assert await jobs.load_input(job["id"]) == {"input": job_body["input"], "instructions": None, "params": {}}
    assert await redis.zscore(keys.READY, job["id"]) is not None
    shown = (await acme.get(answer.headers["location"])).json()
    assert shown.pop("queue") == {"position": 1, "eta": None}
    assert job.pop("queue") is None, "it is looked up when it is asked for, not for every submit"
    assert job == shown


async def test_everything_the_contract_allows_is_kept(acme, jobs):
    body = {
        "model": "gpt-5.6-sol",
        "input": [{"role": "user", "content": "hi\u0000 \U0001f600"}],
        "instructions": "Be brief.",
        "params": {"reasoning": {"effort": "high"}, "stream": True, "model": "x", "store": False, "top_p": 0.5},
        "end_user": "person-1",
        "policy": {
            "on_delay": {"action": "race", "after_seconds": 45, "silence_seconds": 0, "model": "gpt-5.6-luna"},
            "fallback": ["gpt-5.6-terra"],
            "require_model": False,
            "max_attempts": 2,
            "queue_deadline_seconds": 60,
            "run_deadline_seconds": 600.5,
            "max_cost_usd": 0.1,
        },
        "webhook": WEBHOOK,
        "not_before": None,
        "priority": "high",
        "metadata": {"ticket": "A-17", "": "x"} | {},
    }
    body["metadata"].pop("")
    job_id = await submitted(acme, **body)
    stored = await jobs.load(job_id)
    assert stored.job.policy == Policy.model_validate(body["policy"])
    assert str(stored.job.policy.max_cost_usd) == "0.1"
    assert stored.job.priority == "high"
    assert stored.job.store is False
    assert stored.job.webhook_events == ("job.completed", "job.blocked")
    assert stored.private == {
        "metadata": {"ticket": "A-17"},
        "end_user": "person-1",
        "base": stored.private["base"],
        "webhook": {"url": WEBHOOK["url"], "payload": "full", "events": WEBHOOK["events"]},
    }
    assert await jobs.load_input(job_id) == {
        "input": body["input"],
        "instructions": "Be brief.",
        "params": {"reasoning": {"effort": "high"}, "top_p": 0.5},
    }
    assert "person-1" not in (codec.dump_job(stored.job)).decode()


async def test_the_end_user_goes_upstream_as_an_hmac_only(acme, api, jobs, redis):
    first = (await jobs.load(await submitted(acme, end_user="ann"))).job
    again = (await jobs.load(await submitted(acme, end_user="ann"))).job
    other = (await jobs.load(await submitted(await api.client("rival"), end_user="ann"))).job
    assert first.safety_identifier == again.safety_identifier != other.safety_identifier
    assert len(first.safety_identifier) == 64
    assert await redis.get(keys.secret("identifier")) is not None
    assert first.input_digest == again.input_digest == other.input_digest


async def test_the_settings_may_give_the_identifier_secret(settings, redis, clock, jobs):
    import hashlib
    import hmac

    given = settings.model_copy(update={"identifier_secret": __import__("pydantic").SecretStr("s3cret")})
    async with running(given, redis, clock) as api:
        job = (await jobs.load(await submitted(await api.client("acme"), end_user="ann"))).job
    assert job.safety_identifier == hmac.new(b"s3cret", b"acme\0ann", hashlib.sha256).hexdigest()
    assert await redis.get(keys.secret("identifier")) is None


async def test_not_before_schedules(acme, redis, clock):
    later = (clock.now() + timedelta(hours=1)).isoformat()
    answer = await acme.post("/v1/jobs", json={"model": "gpt-5.6-sol", "input": "x", "not_before": later})
    job = answer.json()
    assert (job["status"], job["reason"]) == ("scheduled", "not_before")
    assert datetime.fromisoformat(job["next_attempt_at"]) == datetime.fromisoformat(later)
    assert await redis.zscore(keys.LATER, job["id"]) is not None
    past = await acme.post(
        "/v1/jobs", json={"model": "gpt-5.6-sol", "input": "x", "not_before": "2020-01-01T00:00:00+02:00"}
    )
    assert past.json()["status"] == "queued"


async def test_the_trace_continues_without_foreign_entries(acme, job_body, jobs):
    trace = "0123456789abcdef0123456789abcdef-0123456789abcdef-1"
    user = "secret"
    headers = {
        "sentry-trace": trace,
        "baggage": f"sentry-environment=prod,user={user},sentry-user_id={user},sentry-release=1",
    }
    job_id = (await acme.post("/v1/jobs", json=job_body, headers=headers)).json()["id"]
    kept = {"sentry-trace": trace, "baggage": "sentry-environment=prod,sentry-release=1", "caller": "1"}
    assert (await jobs.load(job_id)).job.trace == kept
    job_id = (await acme.post("/v1/jobs", json=job_body, headers={"sentry-trace": "junk"})).json()["id"]
    assert (await jobs.load(job_id)).job.trace == {}


async def test_a_webhook_without_events_gets_the_terminal_events(acme, jobs):
    job_id = await submitted(acme, webhook={"url": "https://app.example/hooks"})
    assert set((await jobs.load(job_id)).job.webhook_events) == {
        "job.completed",
        "job.blocked",
        "job.failed",
        "job.cancelled",
        "job.expired",
    }
    assert (await acme.get(f"/v1/jobs/{job_id}")).json()["webhook"] == {
        "url": "https://app.example/hooks",
        "state": "pending",
    }


@pytest.mark.parametrize("sent", ["k-1", '"k-1"', "~" * 255, '"a\\"b"'])
async def test_the_same_key_and_body_give_the_same_job(acme, job_body, sent):
    first = await acme.post("/v1/jobs", json=job_body, headers={"Idempotency-Key": sent})
    spelt = '{ "input":"Explain tail latency.",\n"metadata":{}, "model":"gpt-5.6-sol" }'
    headers = {"Idempotency-Key": sent, "Content-Type": "application/json; charset=utf-8"}
    again = await acme.post("/v1/jobs", content=spelt, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"


async def test_bare_and_quoted_are_one_key_and_apps_have_their_own(acme, api, job_body):
    headers, quoted = {"Idempotency-Key": "k"}, {"Idempotency-Key": '"k"'}
    first = (await acme.post("/v1/jobs", json=job_body, headers=headers)).json()["id"]
    assert (await acme.post("/v1/jobs", json=job_body, headers=quoted)).json()["id"] == first
    rival = await api.client("rival")
    assert (await rival.post("/v1/jobs", json=job_body, headers=headers)).json()["id"] != first


@pytest.mark.parametrize(
    "change", [{"input": "else"}, {"priority": "low"}, {"params": {"store": False}}, {"params": {"a": 1}}]
)
async def test_the_same_key_with_another_body_is_refused(acme, job_body, change):
    headers = {"Idempotency-Key": "k"}
    await acme.post("/v1/jobs", json=job_body, headers=headers)
    answer = await acme.post("/v1/jobs", json=job_body | change, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, '"', '""', '"open', "tab\there"])
async def test_a_malformed_key_is_refused(acme, job_body, key, redis):
    answer = await acme.post("/v1/jobs", json=job_body, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")
    assert await redis.zcard(keys.READY) == 0


async def test_a_key_sent_twice_is_refused(acme, job_body):
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    assert (await acme.post("/v1/jobs", json=job_body, headers=headers)).status_code == 400


async def test_concurrent_duplicates_give_one_job(acme, job_body, redis):
    sent = (acme.post("/v1/jobs", json=job_body, headers={"Idempotency-Key": "once"}) for _ in range(40))
    answers = await asyncio.gather(*sent)
    assert {a.status_code for a in answers} == {202}
    assert len({a.json()["id"] for a in answers}) == 1
    assert sum("idempotent-replayed" not in a.headers for a in answers) == 1
    assert await redis.zcard(keys.READY) == 1


async def test_a_refused_request_does_not_use_its_key_up(acme, job_body):
    headers = {"Idempotency-Key": "k"}
    assert (await acme.post("/v1/jobs", json=job_body | {"model": "nope"}, headers=headers)).status_code == 422
    assert (await acme.post("/v1/jobs", json=job_body, headers=headers)).status_code == 202


async def test_prefer_wait_gives_the_finished_job(acme, job_body, worker, redis):
    sent = asyncio.create_task(acme.post("/v1/jobs", json=job_body, headers={"Prefer": "respond-async, wait=20"}))
    while not (names := await redis.zrange(keys.READY, 0, -1)):
        await asyncio.sleep(0.005)
    job_id = names[0].decode()
    await worker.start(job_id)
    await worker.complete(job_id)
    answer = await sent
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.headers["x-vigil-served-model"] == "gpt-5.6-sol"
    assert (answer.json()["status"], answer.json()["output_text"]) == ("completed", "The answer.")


async def test_prefer_wait_answers_202_when_it_takes_longer(acme, job_body):
    answer = await acme.post("/v1/jobs", json=job_body, headers={"Prefer": "wait=0.05"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    answer = await acme.post("/v1/jobs", json=job_body, headers={"Prefer": "handling=lenient, foo"})
    assert "preference-applied" not in answer.headers


@pytest.mark.parametrize("prefer", ["wait=61", "wait=x", "wait=-1", "wait"])
async def test_an_impossible_preference_creates_nothing(acme, job_body, prefer, redis):
    assert (await acme.post("/v1/jobs", json=job_body, headers={"Prefer": prefer})).status_code == 422
    assert await redis.zcard(keys.READY) == 0


async def test_unknown_models_pass_where_the_settings_let_them(settings, redis, clock):
    async with running(settings.model_copy(update={"allow_unknown_models": True}), redis, clock) as api:
        client = await api.client()
        answer = await client.post("/v1/jobs", json={"model": "my-own", "input": "x"})
    assert answer.status_code == 202
    assert answer.json()["cost"] == {"currency": "USD", "total": "0.000000", "wasted": "0.000000"}, "it has not run"


async def test_an_alias_is_a_known_model(acme):
    assert (await acme.get(f"/v1/jobs/{await submitted(acme, model='gpt-5.6')}")).json()["requested_model"] == "gpt-5.6"


async def test_a_batch_has_one_outcome_per_job(acme, job_body, redis):
    batch = [
        job_body,
        {**job_body, "model": "nope"},
        5,
        {**job_body, "idempotency_key": "a"},
        {**job_body, "idempotency_key": "a"},
    ]
    batch.append({**job_body, "input": "else", "idempotency_key": "a"})
    answer = await acme.post("/v1/jobs/batch", json={"jobs": batch})
    rows = answer.json()
    assert answer.status_code == 200
    assert [row["index"] for row in rows] == list(range(6))
    assert [row["status"] for row in rows][:5] == [202, 422, 422, 202, 202]
    assert rows[1]["problem"]["code"] == "unknown_model"
    assert rows[2]["problem"]["code"] == "validation_error"
    assert {rows[3].get("idempotent_replayed"), rows[4].get("idempotent_replayed")} == {None, True}
    assert rows[3]["job"]["id"] == rows[4]["job"]["id"]
    assert rows[5]["problem"]["code"] == "idempotency_key_reused"
    assert await redis.zcard(keys.READY) == 2


async def test_a_batch_sent_again_with_its_key_creates_nothing_new(acme, job_body, redis):
    headers = {"Idempotency-Key": "b"}
    first = (await acme.post("/v1/jobs/batch", json={"jobs": [job_body, job_body]}, headers=headers)).json()
    again = (await acme.post("/v1/jobs/batch", json={"jobs": [job_body, job_body]}, headers=headers)).json()
    assert [r["job"]["id"] for r in first] == [r["job"]["id"] for r in again]
    assert await redis.zcard(keys.READY) == 2


async def test_a_thousand_jobs_in_one_batch(settings, redis, clock):
    async with running(settings.model_copy(update={"max_body_bytes": 2**20}), redis, clock) as api:
        client = await api.client()
        rows = (
            await client.post("/v1/jobs/batch", json={"jobs": [{"model": "gpt-5.6-sol", "input": "x"}] * 1000})
        ).json()
        too_many = await client.post("/v1/jobs/batch", json={"jobs": [{"model": "gpt-5.6-sol", "input": "x"}] * 1001})
    assert {row["status"] for row in rows} == {202}
    assert len({row["job"]["id"] for row in rows}) == 1000
    assert too_many.status_code == 422
    assert await redis.zcard(keys.READY) == 1000


def test_the_schema_shows_no_value_in_its_errors():
    from pydantic import ValidationError

    with pytest.raises(ValidationError) as caught:
        Submit.model_validate({"model": 5, "input": "CANARY"} | json.loads('{"CANARY2": 1}'))
    assert "CANARY'" not in str(caught.value)


async def test_a_large_request_has_the_digests_of_a_small_one(settings, redis, clock):
    sent = json.dumps(
        {"model": "gpt-5.6-sol", "input": [{"role": "user", "content": "a"}] * 9, "params": {"x": [1] * 99}}
    )
    headers = {"Idempotency-Key": "large", "Content-Type": "application/json"}
    async with running(settings.model_copy(update={"max_body_bytes": 2**20}), redis, clock) as api:
        acme = await api.client("acme")
        answers = [await acme.post("/v1/jobs", content=sent + " " * spaces, headers=headers) for spaces in (0, 2**17)]
    assert [answer.status_code for answer in answers] == [202, 202], answers[1].text
    assert answers[1].headers["Idempotent-Replayed"] == "true"
