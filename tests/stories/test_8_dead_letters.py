"""Story 8: a person on call finds what ended badly, sees why, and runs it again; blocks stay where they are."""

from __future__ import annotations

from arq.connections import ArqRedis
from story import Story

from worker.audit.keys import Signer, TrustedKeys
from worker.clock import Clock
from worker.store.audit.verification import TrailVerification


async def test_what_failed_is_found_counted_and_run_again(vigil: Story, redis: ArqRedis) -> None:
    app = vigil.app
    ends = ["context_too_long", "context_too_long", "block_before_stream", "normal"]
    made = [
        await app.submit(model="gpt-5.6-sol", input=f"[[sim: {end}]] Hello", metadata={"release": "7"}) for end in ends
    ]
    jobs = [await app.wait(job.id) for job in made]
    assert [job.status for job in jobs] == ["failed", "failed", "blocked", "completed"]
    assert jobs[0].error is not None

    letters = await app.list(status=["failed", "blocked", "expired"], metadata={"release": "7"})
    assert {job.id for job in letters.data} == {job.id for job in jobs[:3]}
    same_cause = await app.list(status="failed", code=jobs[0].error.code, metadata={"release": "7"})
    assert {job.id for job in same_cause.data} == {job.id for job in jobs[:2]}
    request_id = jobs[3].attempts[0].request_id
    assert request_id is not None
    assert [job.id for job in (await app.list(request_id=request_id)).data] == [jobs[3].id]

    wanted = {"action": "rerun", "filter": {"status": ["failed", "blocked"], "metadata": {"release": "7"}}}
    counted = await app.request("POST", "/v1/jobs/actions", {**wanted, "dry_run": True})
    assert counted["matched"] == 3
    done = await app.request("POST", "/v1/jobs/actions", wanted)
    assert (done["done"], done["refused"]) == (2, 1)
    (refused,) = [row for row in done["data"] if row["outcome"] == "refused"]
    assert (refused["id"], refused["status"], refused["problem"]["code"]) == (jobs[2].id, 409, "blocked")
    for row in done["data"]:
        if row["outcome"] == "done":
            again = await app.wait(row["new_job"])
            assert (again.rerun_of, again.status) == (row["id"], "failed")
    report = await TrailVerification(redis, Clock(), TrustedKeys([Signer(bytes(32)).public])).verify()
    assert report.good, "the notes on the old jobs are part of their trails"
