"""Which models may be called: the list, and a probe that a real worker does with its own key."""

from __future__ import annotations

import json

import pytest
from api_server import Running
from arq.connections import ArqRedis
from httpx2 import AsyncClient
from in_process import LUNA, SOL, TERRA, Stage

import api.routes.status
from worker.clock import Clock
from worker.store import keys


async def by_name(client: AsyncClient, method: str, path: str):
    answer = await client.request(method, path)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"object", "data", "next_cursor"}
    return {model["id"]: model["access"] for model in answer.json()["data"]}


async def test_a_probe_shows_at_once_and_stays(acme: AsyncClient, redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, probe_seconds=0) as stage:
        stage.sim.deny(LUNA)
        worker = await stage.worker()
        await worker.components.sweeper.beat()
        before = await by_name(acme, "GET", "/v1/models")
        assert {access["status"] for access in before.values()} == {"unknown"}
        assert "vigil probe" in before[SOL]["advice"]
        found = await by_name(acme, "POST", "/v1/models/probe")
        statuses = {name: access["status"] for name, access in found.items()}
        assert [name for name, status in statuses.items() if status != "ok"] == [LUNA]
        assert {SOL, TERRA} < statuses.keys()
        pages = {model["id"]: model["shutdown_date"] for model in (await acme.get("/v1/models")).json()["data"]}
        assert (pages["gpt-5.4-mini"], pages[SOL]) == ("2027-04-01", None), "as the provider's page says"
        assert found[LUNA]["request_id"].startswith("req_")
        assert found[LUNA]["since"] == found[LUNA]["probed_at"]
        assert "granted" in found[LUNA]["advice"]
        assert found[LUNA]["skipped"] is False, "no real attempt was denied"
        assert await by_name(acme, "GET", "/v1/models") == found
        again = await by_name(acme, "POST", "/v1/models/probe")
        assert again[LUNA]["since"] == found[LUNA]["since"]
        assert again[LUNA]["probed_at"] > found[LUNA]["probed_at"]
        assert stage.sim.calls()["models"] == 2 * len(statuses)


async def test_without_a_worker_a_probe_fails_at_once(acme: AsyncClient, redis: ArqRedis) -> None:
    answer = await acme.post("/v1/models/probe")
    assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")
    assert "vigil worker" in answer.json()["detail"]
    assert answer.headers["retry-after"]
    assert await redis.zcard("arq:queue") == 0


async def test_a_worker_that_does_not_answer_is_not_waited_for_long(
    acme: AsyncClient, redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.routes.status, "_PROBE_TIMEOUT_S", 0.2)
    beat = Clock().now().isoformat().replace("+00:00", "Z")
    await redis.hset(keys.WORKERS, "w1", json.dumps({"id": "w1", "running": 0, "beat_at": beat, "draining": False}))
    answer = await acme.post("/v1/models/probe")
    assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")


async def test_a_probe_takes_no_body_and_no_parameters(acme: AsyncClient, api: Running) -> None:
    assert (await acme.post("/v1/models/probe", json={"models": [SOL]})).status_code == 422
    assert (await acme.post("/v1/models/probe?model=x")).status_code == 422
    assert (await acme.post("/v1/models/probe", content=b"{")).status_code == 415
