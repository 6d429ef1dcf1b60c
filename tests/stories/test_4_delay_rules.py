"""Story 4: a check delays an answer and the app's rule acts. A faster model may answer; the job discloses it."""

from __future__ import annotations

from story import Story

SOL, LUNA = "gpt-5.6-sol", "gpt-5.6-luna"
SLOW = "[[sim: check_then_clear hold=6000]] Why is the sky blue?"


async def test_switch_stops_the_original_and_discloses_the_other_model(vigil: Story) -> None:
    policy = {"on_delay": {"action": "switch", "after_seconds": 1}}
    job = await vigil.app.wait((await vigil.app.submit(model=SOL, input=SLOW, policy=policy)).id)
    assert (job.status, job.requested_model, job.served_model) == ("completed", SOL, LUNA)
    assert job.disclosure is not None
    assert (job.disclosure.requested_model, job.disclosure.served_model) == (SOL, LUNA)
    assert job.disclosure.decided_by == "policy"
    assert [attempt.outcome for attempt in job.attempts] == ["substituted", "completed"]


async def test_offer_lets_the_app_decide(vigil: Story) -> None:
    policy = {"on_delay": {"action": "offer", "after_seconds": 1}}
    job = await vigil.app.submit(model=SOL, input=SLOW, policy=policy)
    async for event in vigil.app.events(job.id):
        if event.type == "job.offer.made":
            job = await vigil.app.retry(job.id)  # accept
            break
    job = await vigil.app.wait(job.id)
    assert (job.status, job.served_model) == ("completed", LUNA)
    assert job.disclosure is not None
    assert job.disclosure.decided_by == "app"
