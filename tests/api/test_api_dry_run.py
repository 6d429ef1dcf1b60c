"""`POST /v1/jobs?dry_run=true`: the price range, access and queue of a job that is not created."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from document_check import document
from httpx2 import AsyncClient

from worker.store import keys
from worker.store.admission.model_access import ModelAccessStore
from worker.store.admission.pauses import Pauses


async def dry(client: AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/v1/jobs?dry_run=true", json={"model": "gpt-5.6-sol", "input": "hello", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    document().check("DryRun", found)
    return found


async def test_it_prices_the_job_and_creates_nothing(acme, redis, job_body):
    for _ in range(2):
        assert (await acme.post("/v1/jobs", json=job_body)).status_code == 202
    before = set(await redis.keys())
    found = await dry(acme, params={"max_output_tokens": 1000})
    assert set(await redis.keys()) <= before
    assert await redis.zcard(keys.READY) == 2
    cost = found["cost"]
    assert 0 < Decimal(cost["lowest"]) < Decimal(cost["highest"]) < Decimal("0.1")
    assert Decimal(cost["highest"]) >= Decimal(1000 * 20) / 1_000_000
    assert (cost["fits_cap"], cost["reason"], cost["price"]["valid_from"]) == (True, None, "2026-08-21T00:00:00Z")
    assert found["queue"] == {"position": 3, "eta": None, "queued": 2, "running": 0}
    assert (await dry(acme, priority="high"))["queue"]["position"] == 1
    assert found["access"]["status"] == "unknown"
    assert found["warnings"] == []


async def test_it_costs_no_rate_limit_slot(acme, job_body):
    first = await acme.post("/v1/jobs?dry_run=true", json=job_body)
    assert "ratelimit" not in first.headers
    before = (await acme.post("/v1/jobs", json=job_body)).headers["ratelimit"]
    for _ in range(5):
        await acme.post("/v1/jobs?dry_run=true", json=job_body)
    after = (await acme.post("/v1/jobs", json=job_body)).headers["ratelimit"]
    left = [int(one.split("r=")[1].split(";")[0]) for one in (before, after)]
    assert left[0] - left[1] <= 1, "only the two submits were charged"


async def test_it_says_what_a_cap_allows(acme):
    found = await dry(acme, policy={"max_cost_usd": 0.01})
    assert found["cost"]["fits_cap"]
    assert Decimal(found["cost"]["highest"]) <= Decimal("0.01")
    assert found["cost"]["max_output_tokens"] < 600
    over = await dry(acme, input="word " * 9000, policy={"max_cost_usd": 0.01})
    assert not over["cost"]["fits_cap"]
    assert [one["code"] for one in over["warnings"]] == ["cost_limit"]


async def test_stand_ins_with_access_and_effort(acme, redis):
    store = ModelAccessStore(redis, "key:test")
    await store.change("gpt-5.6-terra", lambda old: old.evolve(status="not_granted", code="model_not_granted"))
    found = await dry(
        acme,
        params={"reasoning": {"effort": "none"}},
        policy={"on_delay": {"action": "switch", "model": "gpt-6.2-sol"}},
    )
    rows = {(one["purpose"], one["model"]): one for one in found["stand_ins"]}
    assert not rows["faster", "gpt-6.2-sol"]["effort_accepted"]
    assert rows["fallback", "gpt-5.6-terra"]["access"] == "not_granted"
    assert rows["fallback", "gpt-5.5"]["effort_accepted"]
    refused = await dry(acme, model="gpt-6.2-sol", params={"reasoning": {"effort": "none"}})
    assert [one["code"] for one in refused["warnings"]] == ["effort_refused"]
    assert (await dry(acme, policy={"require_model": True}))["stand_ins"] == []


async def test_a_pause_that_would_hold_the_job_is_a_warning(acme, redis, clock):
    await Pauses(redis, clock).pause("model", "gpt-5.6-luna", note="", by="key_1", until=None, app="acme")
    assert (await dry(acme))["warnings"] == []
    assert [one["code"] for one in (await dry(acme, model="gpt-5.6-luna"))["warnings"]] == ["paused"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "gpt-9"}, 422, "unknown_model"),
        ({"input": ""}, 422, "validation_error"),
        ({"webhook": {"url": "http://127.0.0.1/x"}}, 422, None),
        ({"params": {"prompt": {"id": "pmpt_1"}}}, 422, None),
    ],
)
async def test_it_refuses_what_a_submit_refuses(acme, job_body, body, status, code):
    answers = [await acme.post(path, json=job_body | body) for path in ("/v1/jobs?dry_run=true", "/v1/jobs")]
    assert [one.status_code for one in answers] == [status, status]
    assert answers[0].json()["code"] == answers[1].json()["code"]
    assert code in (None, answers[0].json()["code"])


async def test_a_stored_prompt_is_refused_with_its_end_date(acme, job_body):
    for path, body in (
        ("/v1/jobs", job_body | {"params": {"prompt": {"id": "p"}}}),
        ("/v1/responses", job_body | {"prompt": {"id": "p"}}),
    ):
        answer = await acme.post(path, json=body)
        assert answer.status_code in (400, 422)
        assert "2026-11-30" in answer.text


@pytest.mark.parametrize("query", ["dry_run=yes", "dry_run=", "dry_run=true&dry_run=true", "dry=true"])
async def test_a_wrong_parameter_creates_nothing(acme, job_body, redis, query):
    assert (await acme.post(f"/v1/jobs?{query}", json=job_body)).status_code == 422
    assert await redis.zcard(keys.READY) == 0


async def test_a_route_that_would_run_the_job_refuses_a_dry_run(acme, redis):
    body = {"model": "gpt-5.6-sol", "input": "x", "background": True}
    answer = await acme.post("/v1/responses?dry_run=true", json=body)
    assert (answer.status_code // 100, answer.json()["error"]["param"]) == (4, "dry_run")
    assert await redis.zcard(keys.READY) == 0
