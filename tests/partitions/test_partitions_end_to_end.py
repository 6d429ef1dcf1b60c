"""Apps in several stores: each has its own jobs, one API and one worker serve all, and none is in another's way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from in_process import until
from partitioned import deployment
from waiting import next_week

from worker.jobs.ids import is_job_id, partition_code_of
from worker.partitions import code_of
from worker.store import keys


async def test_each_app_works_in_its_partition_and_sees_only_its_own(tmp_path: Path) -> None:
    names = ("home", "b", "c")
    async with deployment(tmp_path, *names) as running, running.api(names) as api, running.worker(names):
        for app, partition in (("alpha", "home"), ("beta", "b"), ("gamma", "c")):
            assert await running.key(api, names, app, partition) == partition
        made = {app: await api.submit(app, f"hello from {app}") for app in ("alpha", "beta", "gamma")}
        for app, job_id in made.items():
            assert (await api.settled(app, job_id))["status"] == "completed"
            assert [row["id"] for row in (await api.get(app, "/v1/jobs"))["data"]] == [job_id]
            for other in set(made) - {app}:
                await api.get(other, f"/v1/jobs/{job_id}", 404)
        assert [partition_code_of(made[app]) for app in ("alpha", "beta", "gamma")] == ["", code_of("b"), code_of("c")]
        assert all(is_job_id(job_id) for job_id in made.values())
        async with running.stores(names) as stores:
            where = [await store.redis.exists(keys.job(job_id)) for job_id in made.values() for store in stores]
        assert where == [1, 0, 0, 0, 1, 0, 0, 0, 1]
        async with api.of("alpha") as client:
            denied = await client.get("/v1/jobs", headers={"Authorization": "Bearer vgl_unknown"})
        assert denied.status_code == 401


async def test_a_store_that_is_down_stops_only_its_own_apps_until_it_is_back(tmp_path: Path) -> None:
    names = ("home", "b")
    async with deployment(tmp_path, *names) as running, running.api(names) as api, running.worker(names) as worker:
        await running.key(api, names, "alpha", "home")
        await running.key(api, names, "beta", "b")
        await running.servers["b"].stop()

        async def named() -> bool:
            ready = await api.get("alpha", "/readyz")
            return set(ready.get("partitions", {})) == {"b"}

        await until("/readyz to name the store that is down", named)
        assert (await api.settled("alpha", await api.submit("alpha", "still here")))["status"] == "completed"
        status = await api.get("alpha", "/v1/status")
        assert [(row["name"], row["away"] is None) for row in status["partitions"]] == [("home", True), ("b", False)]
        assert (await api.get("alpha", "/v1/ops/scale"))["partitions_away"] == ["b"]
        async with api.of("beta") as client:
            assert (await client.get("/v1/jobs")).status_code == 503
        assert await worker._why_not_ready() == ""
        assert "not of b: " in worker._not_served()

        await running.servers["b"].start()

        async def back() -> bool:
            async with api.of("beta") as client:
                return (await client.get("/v1/jobs")).status_code == 200

        await until("the store to serve again", back)
        assert (await api.settled("beta", await api.submit("beta", "back")))["status"] == "completed"


async def test_home_may_be_down_while_the_others_go_on(tmp_path: Path) -> None:
    names = ("home", "b")
    async with deployment(tmp_path, *names) as running, running.api(names) as api:
        await running.key(api, names, "beta", "b")
        async with running.worker(names):
            await running.servers["home"].stop()
            assert (await api.settled("beta", await api.submit("beta", "without home")))["status"] == "completed"
            await running.servers["home"].start()


async def test_adding_a_store_moves_nothing_and_takes_new_apps(tmp_path: Path) -> None:
    async with deployment(tmp_path, "home") as running:
        async with running.api(["home"]) as api, running.worker(["home"]):
            await running.key(api, ["home"], "old")
            before = await api.submit("old", "made before there were two")
            waiting = await api.submit("old", "later", not_before=next_week())
            assert (await api.settled("old", before))["status"] == "completed"
            keys_of = dict(api.keys)
        await running.add_store("b")
        names = ("home", "b")
        async with running.api(names) as api, running.worker(names):
            api.keys |= keys_of
            assert (await api.get("old", f"/v1/jobs/{waiting}"))["status"] == "scheduled"
            after = await api.submit("old", "made after")
            assert partition_code_of(after) == ""
            assert (await api.settled("old", after))["status"] == "completed"
            assert [row["id"] for row in (await api.get("old", "/v1/jobs"))["data"]] == [after, waiting, before]
            placed = [await running.key(api, names, f"new-{number}") for number in range(12)]
            assert set(placed) == {"home", "b"}, "new apps spread"
            assert await running.key(api, names, "old") == "home", "an app stays where its record is"
            for number in range(12):
                assert await running.key(api, names, f"new-{number}") == placed[number], "a pin never changes"


async def test_pauses_reach_every_store_and_are_shown_once(tmp_path: Path) -> None:
    names = ("home", "b")
    async with deployment(tmp_path, *names) as running, running.api(names) as api, running.worker(names):
        await running.key(api, names, "alpha", "home")
        await running.key(api, names, "beta", "b")
        await api.post("beta", "/v1/pause", {"scope": "all", "note": "maintenance"})
        held = [await api.submit("alpha", "waits"), await api.submit("beta", "waits too")]
        shown = (await api.get("alpha", "/v1/status"))["pauses"]
        assert [(row["scope"], row["note"]) for row in shown] == [("all", "maintenance")]

        async def are_held() -> bool:
            found = [await api.get(app, f"/v1/jobs/{one}") for app, one in zip(("alpha", "beta"), held, strict=True)]
            return all(row["status"] == "scheduled" for row in found)

        await until("both jobs to be held", are_held)
        ended = await api.post("alpha", "/v1/resume", {"scope": "all"})
        assert (ended["resumed"], ended["released"]) == (True, 2)
        for app, job_id in zip(("alpha", "beta"), held, strict=True):
            assert (await api.settled(app, job_id))["status"] == "completed"


async def test_queue_workers_and_metrics_are_sums_over_all_stores(tmp_path: Path) -> None:
    names = ("home", "b")
    async with deployment(tmp_path, *names) as running, running.api(names) as api:
        await running.key(api, names, "alpha", "home")
        await running.key(api, names, "beta", "b")
        for app in ("alpha", "beta", "beta"):
            await api.submit(app, "waits for a worker")
        assert (await api.get("alpha", "/v1/status"))["queue"]["queued"] == 3
        demand = await api.get("beta", "/v1/ops/scale")
        assert (demand["wanted"], demand["ready"]) == (3, 3)
        async with api.of("alpha") as client:
            text = (await client.get("/metrics")).text
        assert 'vigil_redis_up{partition="home"} 1' in text
        assert 'vigil_redis_up{partition="b"} 1' in text
        assert 'vigil_queue_depth{state="queued"} 3' in text
        async with running.worker(names) as worker:

            async def listed() -> Any:
                return (await api.get("alpha", "/v1/status"))["workers"]

            shown = await until("the worker to be listed", listed)
            assert [(row["id"], row["slots"]) for row in shown] == [(worker.id, 200)]
