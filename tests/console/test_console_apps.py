"""What operators see of all apps: counts and rows without content, metadata and end users."""

from __future__ import annotations

from builders import BLOCKED, STARTED, began, done, new_job

from worker.clock import Clock
from worker.jobs.states import Outcome
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import NewJob

REFUSED = [(STARTED, None), (began(), 1), (done(Outcome.BLOCKED), 1), (BLOCKED, 1)]


async def test_operators_see_counts_and_rows_of_every_app_and_nothing_personal(console, redis):
    jobs = Jobs(redis, Clock())
    await console.key("other/team")
    new = new_job(app="other/team", safety_identifier="e" * 64, prompt="secret prompt")
    private = {"metadata": {"ticket": "A-17"}, "end_user": "eve@example.com"}
    job_id = (await jobs.submit(NewJob(new.fact, private, new.input)))[0].job.id
    await jobs.change(job_id, lambda _: REFUSED)
    visitor = await console.logged_in("ops-team", ("ops",))
    counts = (await visitor.get("/console/apps")).text
    assert "other/team" in counts
    page = (await visitor.get("/console/apps/other/team?status=blocked")).text
    assert job_id in page
    assert "cyber_policy" in page
    for personal in ("secret prompt", "A-17", "eve@example.com", "e" * 64):
        assert personal not in page + counts
    assert f'href="/console/jobs/{job_id}"' not in page, "the job itself is its app's"
    assert job_id not in (await visitor.get("/console/apps/other/team?status=queued")).text
    assert (await visitor.get("/console/apps/nobody")).status_code == 404
    assert (await visitor.get("/console/apps/other/team?status=strange")).status_code == 422


async def test_it_needs_the_scope_of_operators(console):
    reader = await console.logged_in("acme", ("read", "audit", "content", "submit"))
    for path in ("/console/apps", "/console/apps/acme"):
        assert (await reader.get(path)).status_code == 403
