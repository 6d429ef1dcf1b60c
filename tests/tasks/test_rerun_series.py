"""Reruns of one job that wait together: once the provider withholds the content of one, the others are not sent."""

from __future__ import annotations

from full_stack import full_stack
from waiting import next_week

BLOCK = "[[sim: check_then_block hold=1]]"


async def test_a_rerun_that_waits_is_not_sent_after_another_one_was_blocked(redis, valkey_url):
    async with full_stack(redis, valkey_url, speed=20, app_max_running=1) as vigil:
        first = await vigil.submit(BLOCK, not_before=next_week())
        assert (await vigil.app.post(f"/v1/jobs/{first}/cancel")).status_code == 200
        reruns = [(await vigil.app.post(f"/v1/jobs/{first}/rerun")).json()["id"] for _ in range(3)]
        await vigil.stage.worker()
        ends = [await vigil.stage.settled(job_id) for job_id in reruns]
        assert sorted(job.status for job in ends) == ["blocked", "failed", "failed"]
        for job in ends:
            seen = await vigil.view(job.id)
            assert job.status == "blocked" or (seen["error"]["code"], seen["attempts"]) == ("rerun_blocked", [])
            assert (await vigil.app.post(f"/v1/jobs/{job.id}/rerun")).json()["code"] == "blocked"
        assert vigil.stage.sim.calls()["creates"] == 1
