"""The commands and processes of a deployment with two stores, as operators run them; one worker is killed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import forked_vigil
import httpx2
import pytest
from in_process import LIMIT, SOL, until
from processes import Processes, free_port
from thorough import THOROUGH

from worker.embedded import EmbeddedValkey
from worker.jobs.ids import partition_code_of
from worker.partitions import code_of


class TwoStores(Processes):
    """Processes whose Redis are two: `valkey` is home, `other` the partition b."""

    def __init__(self, folder: Path, **settings: str) -> None:
        super().__init__(folder, **settings)
        self.other = EmbeddedValkey(folder / "b")

    def env(self) -> dict[str, str]:
        return super().env() | {"VIGIL_REDIS_URL": f"{self.valkey.url} b={self.other.url}"}

    async def say(self, *words: str, code: int | None = 0, **more: str) -> str:
        """Run a command and return what it prints."""
        env = self.env() | more
        done = await asyncio.to_thread(forked_vigil.run, [*words], cwd=self.folder, env=env, text=None, timeout=LIMIT)
        assert code in (None, done.returncode), done.stdout + done.stderr
        return done.stdout + ("" if code in (None, 0) else done.stderr)


@pytest.mark.skipif(not THOROUGH, reason="make test-thorough: tests/partitions has the parts")
@pytest.mark.timeout(600)
async def test_a_killed_worker_loses_nothing_in_either_store(tmp_path: Path) -> None:
    port = free_port()
    shared = {"VIGIL_AUDIT_KEY": "A" * 43, "VIGIL_PORT": str(port), "VIGIL_AUDIT_SEAL_SECONDS": "0.3"}
    stores = TwoStores(tmp_path, speed=20.0, **shared)
    await stores.other.start()
    try:
        async with stores:
            await _killed(stores, f"http://127.0.0.1:{port}")
    finally:
        await stores.other.stop()


async def _killed(stores: TwoStores, url: str) -> None:
    made = {
        app: json.loads(await stores.say("keys", "create", "--app", app, "--partition", where, "--json"))
        for app, where in (("alpha", "home"), ("beta", "b"))
    }
    assert {app: one["partition"] for app, one in made.items()} == {"alpha": "home", "beta": "b"}
    assert "stays there" in await stores.say("keys", "create", "--app", "alpha", "--partition", "b", code=2)
    listed = json.loads(await stores.say("keys", "list", "--json"))["data"]
    assert {(row["app"], row["partition"]) for row in listed} == {("alpha", "home"), ("beta", "b")}
    await stores.start("api")
    victim = await stores.worker()
    clients = {
        app: httpx2.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {one['key']}"}, timeout=LIMIT, trust_env=False
        )
        for app, one in made.items()
    }

    async def answers() -> bool:
        try:
            return (await clients["alpha"].get("/readyz")).status_code == 200
        except httpx2.TransportError:
            return False

    await until("the API to be ready", answers)
    body = {"model": SOL, "input": "[[sim: check_then_clear hold=40]] Why is the sky blue?"}
    jobs = {
        app: [(await client.post("/v1/jobs", json=body)).json()["id"] for _ in range(3)]
        for app, client in clients.items()
    }
    assert {partition_code_of(one) for one in jobs["beta"]} == {code_of("b")}

    async def view(app: str, job_id: str) -> dict[str, Any]:
        return dict((await clients[app].get(f"/v1/jobs/{job_id}")).json())

    async def are_all(*statuses: str) -> bool:
        found = [await view(app, one) for app, some in jobs.items() for one in some]
        return all(one["status"] in statuses for one in found)

    await until("all jobs to run", lambda: are_all("running", "checking", "streaming", "completed"))
    await stores.kill(victim)
    await stores.start("worker")
    stores.hurry()
    await until("all jobs to end", lambda: are_all("completed"))
    for app, some in jobs.items():
        assert {row["id"] for row in (await clients[app].get("/v1/jobs")).json()["data"]} == set(some)
        await clients[app].aclose()

    async def is_sealed() -> bool:
        report = json.loads(await stores.say("audit", "verify", "--allow-unsealed", "--json"))
        assert [one["partition"] for one in report["partitions"]] == ["home", "b"]
        return bool(report["good"])

    await until("both trails to verify", is_sealed)
    assert "every hash follows" in await stores.say("audit", "show", jobs["beta"][0])
    assert "own trail" in await stores.say("audit", "list", code=2)
    assert "job.queued" in await stores.say("audit", "list", "--app", "beta")
    assert "Apps are pinned to b" in await stores.say("worker", code=2, VIGIL_REDIS_URL=stores.valkey.url)
    revoked = await stores.say("keys", "revoke", made["beta"]["id"])
    assert made["beta"]["id"] in revoked
