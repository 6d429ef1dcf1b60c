"""What reaches a deployment from outside finds the partition that it is about, and no store is taken for another."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from in_process import LIMIT, until
from partitioned import SECRET, Api, Deployment, deployment
from standardwebhooks.webhooks import Webhook

from worker.clock import Clock
from worker.jobs.errors import UnsafeStore

NAMES = ("home", "b")


async def two_apps(running: Deployment, api: Api) -> None:
    await running.key(api, NAMES, "alpha", "home")
    await running.key(api, NAMES, "beta", "b")


async def test_a_deep_queue_in_one_store_leaves_slots_to_the_other(tmp_path: Path) -> None:
    async with (
        deployment(tmp_path, *NAMES, speed=1.0) as running,
        running.api(NAMES) as api,
        running.worker(NAMES, max_jobs=4, app_slot_share=1.0) as worker,
    ):
        await two_apps(running, api)
        slow = "[[sim: check_then_clear hold=600]] long"
        deep = [await api.submit("alpha", slow) for _ in range(8)]
        home, b = worker.partitions

        async def home_is_full() -> bool:
            return home.running == 3

        await until("all slots but the one that is kept to be taken", home_is_full)
        late = await api.submit("beta", "quick")
        assert (await api.settled("beta", late))["status"] == "completed"
        more = [await api.submit("beta", slow) for _ in range(3)]

        async def takes_turns() -> bool:
            return b.running == 1

        await until("the other store's job to run", takes_turns)
        await api.post("alpha", f"/v1/jobs/{await running_job(api, deep)}/cancel")
        await until("the freed slot to go to who runs fewest", lambda: _is(lambda: (home.running, b.running) == (2, 2)))
        for app, job_id in [*(("alpha", one) for one in deep), *(("beta", one) for one in more)]:
            async with api.of(app) as client:
                await client.post(f"/v1/jobs/{job_id}/cancel")


async def running_job(api: Api, jobs: list[str]) -> str:
    for job_id in jobs:
        if (await api.get("alpha", f"/v1/jobs/{job_id}"))["started_at"] is not None:
            return job_id
    raise AssertionError("none runs")


async def _is(condition: Any) -> bool:
    return bool(condition())


async def test_a_notice_of_the_provider_finds_the_end_user_in_its_partition(tmp_path: Path) -> None:
    async with deployment(tmp_path, *NAMES) as running, running.api(NAMES) as api, running.worker(NAMES):
        await two_apps(running, api)
        job_id = await api.submit("beta", "hello", end_user="user-17")
        await api.settled("beta", job_id)
        person = (await api.get("beta", "/v1/end-users/user-17"))["safety_identifier"]
        body = {
            "object": "event",
            "id": "evt_1",
            "type": "safety_identifier.blocked",
            "created_at": int(Clock().now().timestamp()),
            "data": {"safety_category": "cyber", "safety_identifier": person},
        }
        raw, at = json.dumps(body), Clock().now()
        headers = {
            "webhook-id": "wh_1",
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(SECRET).sign(msg_id="wh_1", timestamp=at, data=raw),
            "content-type": "application/json",
        }
        async with httpx2.AsyncClient(base_url=api.url, timeout=LIMIT, trust_env=False) as provider:
            first = (await provider.post("/hooks/openai", content=raw, headers=headers)).json()
            again = (await provider.post("/hooks/openai", content=raw, headers=headers)).json()
        assert (first, again) == ({"received": True, "duplicate": False}, {"received": True, "duplicate": True})

        async def is_shut_out() -> bool:
            return bool((await api.get("beta", "/v1/quarantine"))["data"])

        await until("the end user to be in quarantine", is_shut_out)
        assert (await api.get("alpha", "/v1/quarantine"))["data"] == []
        status = await api.get("alpha", "/v1/status")
        assert status["accounts"][0]["notices"] == {"safety_identifier.blocked": 1}, (
            "it is one for the account, not two"
        )
        everybody = (await api.get("alpha", "/v1/ops/end-users"))["data"]
        assert [(row["app"], row["safety_identifier"]) for row in everybody] == [("beta", person)]


async def test_a_token_for_a_job_and_the_console_find_their_partition(tmp_path: Path) -> None:
    async with deployment(tmp_path, *NAMES) as running, running.api(NAMES) as api, running.worker(NAMES):
        await two_apps(running, api)
        job_id = await api.submit("beta", "hello")
        await api.settled("beta", job_id)
        token = (await api.post("beta", f"/v1/jobs/{job_id}/token"))["token"]
        async with httpx2.AsyncClient(base_url=api.url, timeout=LIMIT, trust_env=False) as browser:
            stream = await browser.get(f"/v1/jobs/{job_id}/events?token={token}")
            assert stream.status_code == 200
            assert "job.completed" in stream.text
            origin = {"origin": api.url, "sec-fetch-site": "same-origin"}
            login = await browser.post("/console/login", data={"secret": api.keys["beta"]}, headers=origin)
            assert login.status_code == 303, login.text
            for path in ("/console/now", "/console/jobs", f"/console/jobs/{job_id}"):
                page = await browser.get(path)
                assert page.status_code == 200, (path, page.text)
            apps = (await browser.get("/console/apps")).text
            assert "alpha" in apps
            assert "beta" in apps
            other = await api.submit("alpha", "shown to operators")
            assert other in (await browser.get("/console/apps/alpha")).text


async def test_no_store_is_taken_for_another(tmp_path: Path) -> None:
    async with deployment(tmp_path, *NAMES) as running:
        async with running.api(NAMES) as api:
            await two_apps(running, api)
        swapped = f"{running.servers['b'].url} b={running.servers['home'].url}"
        elsewhere = {"data_dir": tmp_path / "elsewhere"}
        with pytest.raises(UnsafeStore, match="home first"):
            async with running.api(NAMES, redis_url=swapped, **elsewhere):
                pass
        with pytest.raises(UnsafeStore, match="pinned to b"):
            async with running.api(["home"], **elsewhere):
                pass
        with pytest.raises(UnsafeStore, match="the partition b"):
            async with running.api(NAMES, redis_url=running.servers["b"].url, **elsewhere):
                pass


async def test_many_at_once_find_their_key_while_a_store_is_down(tmp_path: Path) -> None:
    async with deployment(tmp_path, *NAMES) as running, running.api(NAMES) as api:
        await two_apps(running, api)
        await running.servers["b"].stop()
        found = await asyncio.gather(*(api.get("alpha", "/v1/jobs") for _ in range(20)))
        assert all(row["data"] == [] for row in found)
        await running.servers["b"].start()
