"""Story 2: the provider holds an answer for an additional safety check. The job says so, and how sure Vigil is."""

from __future__ import annotations

from story import Story

SOL = "gpt-5.6-sol"


async def test_a_check_that_the_provider_announces_is_a_state_of_its_own(vigil: Story) -> None:
    job = await vigil.app.submit(model=SOL, input="[[sim: check_then_clear hold=60]] Explain this exploit.")
    during, checks = None, []
    async for event in vigil.app.events(job.id):
        if event.type == "job.check.started":
            checks.append(event.data["evidence"])
            during = await vigil.app.get(job.id)
    assert checks == ["signalled"]  # the provider said it; silence alone would be "suspected"
    assert during is not None
    assert during.status == "checking"

    job = await vigil.app.get(job.id)
    assert job.status == "completed"  # the check found nothing, so the answer came
    (check,) = job.safety.checks
    assert check.ended_by == "output"
