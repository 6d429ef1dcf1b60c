"""A store on a cluster of three primaries: its slot moves, its node hands over and dies, and no job is lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from in_process import LIMIT, until
from processes import Processes, free_port
from promise_checks import check_books
from thorough import THOROUGH
from valkey_cluster import ValkeyCluster, ValkeyNode

from worker.clock import Clock
from worker.jobs.states import Status
from worker.store import keys
from worker.store.apps import SCOPES, Apps
from worker.store.connection.pool import connect

JOBS = 24
RUNNING = "[[sim: normal tokens=120 rate=40]]"


@dataclass
class Deployment:
    """An API and two workers as processes, on a cluster of their own."""

    cluster: ValkeyCluster
    stage: Processes
    http: httpx2.AsyncClient
    accepted: list[str] = field(default_factory=list)

    async def submit(self, number: int) -> None:
        """Submit as an app does that repeats what is not answered, with the same key."""
        body, headers = {"model": "gpt-5.6-sol", "input": f"{RUNNING} {number}"}, {"Idempotency-Key": f"key-{number}"}

        async def accepted() -> str | None:
            with contextlib.suppress(httpx2.HTTPError):
                answer = await self.http.post("/v1/jobs", json=body, headers=headers)
                assert answer.status_code in {202, 503}, answer.text
                return str(answer.json()["id"]) if answer.status_code == 202 else None
            return None

        self.accepted.append(await until("a job to be accepted", accepted))

    async def running(self) -> bool:
        return bool(await self.stage.redis.zcard(keys.LEASED) >= JOBS // 4)

    async def all_ended(self) -> bool:
        try:
            answers = [await self.http.get(f"/v1/jobs/{job_id}") for job_id in self.accepted]
        except httpx2.HTTPError:
            return False
        return all(answer.status_code == 200 and answer.json()["status"] == "completed" for answer in answers)

    async def main_job(self, disturb: Callable[[ValkeyNode], Awaitable[object]]) -> None:
        """Submit jobs, disturb the cluster while some run, submit more; all complete and the books are right."""
        first = len(self.accepted)
        submits = [asyncio.create_task(self.submit(first + number)) for number in range(JOBS // 2)]
        await until("jobs to run", self.running)
        disturbing = asyncio.create_task(disturb(await self.cluster.owner()))
        for number in range(JOBS // 2, JOBS):
            await self.submit(first + number)
        await asyncio.gather(*submits, disturbing)
        await until("all to end", self.all_ended)
        found = await check_books(self.stage.redis, self.accepted)
        assert len(found) == len(set(self.accepted)) == first + JOBS
        assert {job.status for job in found} == {Status.COMPLETED}
        assert self.stage.sim.calls()["creates"] == sum(len(job.attempts) for job in found)
        output = (await self.http.get(f"/v1/jobs/{self.accepted[0]}")).json()["output_text"]
        assert output
        verify = await self.stage.start("audit", "verify")
        assert await asyncio.wait_for(verify.wait(), LIMIT) == 0, self.stage.logs()[-2000:]
        owner = await self.cluster.owner()
        for node in (node for node in self.cluster.nodes if node.lives):
            rows = [name for name in await node.client.keys("*") if not name.startswith(f"{{{self.cluster.tag}}}")]
            assert rows == [], "every key has the tag of the store"
            if node is not owner and (await node.client.info("replication"))["role"] == "master":
                assert await node.client.dbsize() == 0


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    port = free_port()
    async with (
        ValkeyCluster(tmp_path / "cluster", "acme-eu") as cluster,
        Processes(tmp_path, speed=2, lease=15, VIGIL_REDIS_URL=cluster.url) as stage,
    ):
        await stage.redis.aclose()
        stage.redis = connect(cluster.url)
        _, key, _ = await Apps(stage.redis, Clock()).create_key("chaos", SCOPES)
        await stage.start("api", "--port", str(port))
        await asyncio.gather(stage.worker(), stage.worker())
        headers = {"Authorization": f"Bearer {key}"}
        at = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=at, headers=headers, trust_env=False, timeout=LIMIT) as http:

            async def ready() -> bool:
                try:
                    return (await http.get("/readyz")).status_code == 200
                except httpx2.TransportError:
                    return False

            await until("the API", ready)
            yield Deployment(cluster, stage, http)


@pytest.mark.skipif(
    not THOROUGH,
    reason="make test-thorough: tests/store has moves of a slot; only this has a death",
)
async def test_a_store_in_a_cluster_moves_is_handed_over_and_loses_its_node_and_no_job_is_lost(
    deployment: Deployment,
) -> None:
    cluster = deployment.cluster

    async def move(owner: ValkeyNode) -> None:
        others = [node for node in cluster.nodes if node is not owner]
        roles = [(await node.client.info("replication"))["role"] for node in others]
        target = next(node for node, role in zip(others, roles, strict=True) if role == "master")
        await cluster.move_slot(owner, target, lambda: asyncio.sleep(1.5))
        assert await cluster.owner() is target

    async def hand_over(owner: ValkeyNode) -> None:
        replica = await cluster.replica_of(owner)
        await replica.client.execute_command("CLUSTER FAILOVER")
        await until("its replica to take over", lambda: cluster.is_owner(replica))

    async def kill(owner: ValkeyNode) -> None:
        assert await owner.client.execute_command("WAIT", 1, int(LIMIT * 1000)) == 1, "the replica has them"
        replica = await cluster.replica_of(owner)
        owner.kill()
        await until("its replica to take over", lambda: cluster.is_owner(replica))

    await deployment.main_job(move)
    await deployment.main_job(hand_over)
    await deployment.main_job(kill)
