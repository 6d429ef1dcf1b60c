"""Story 9: a provider fails for a while. The person on call sees one issue, not one per job, and reruns the jobs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from story import Story

sys.path.append(str(Path(__file__).resolve().parent.parent / "telemetry"))
import sentry_sdk
from in_process import until
from ingest import Ingest

from worker.telemetry import sentry


async def test_an_outage_is_one_issue_and_its_jobs_are_run_again(vigil: Story) -> None:
    app = vigil.app
    with Ingest() as sentry_server:
        sentry.start(vigil.stage.settings(SENTRY_DSN=sentry_server.dsn))
        try:
            made = [
                await app.submit(
                    model="gpt-5.6-sol", input=f"[[sim: server_error]] secret {n}", policy={"max_attempts": 1}
                )
                for n in range(12)
            ]
            blocked = await app.submit(model="gpt-5.6-sol", input="[[sim: block_before_stream]] secret")
            jobs = [await app.wait(job.id) for job in made]
            assert {job.status for job in jobs} == {"failed"}
            assert (await app.wait(blocked.id)).status == "blocked"

            async def arrived() -> bool:
                await asyncio.to_thread(sentry_sdk.flush, 1)
                return bool(sentry_server.events)

            await until("the issue", arrived)
        finally:
            sentry.stop()
        (event,) = sentry_server.events
        everything = sentry_server.everything()
    assert event["logentry"]["message"] == "Jobs fail after their last attempt: server_error (gpt-5.6)"
    assert event["contexts"]["incident"]["runbook"] == "ops/runbook/UpstreamErrors.md"
    assert event["tags"]["job_id"] in {job.id for job in jobs}
    assert "secret" not in everything

    wanted = {"action": "rerun", "filter": {"status": ["failed"], "code": event["tags"]["code"]}}
    done = await app.request("POST", "/v1/jobs/actions", wanted)
    assert done["done"] == 12
