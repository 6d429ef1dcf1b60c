"""Story 1: an app submits a prompt, gets a job at once, and reads the answer when it is there."""

from __future__ import annotations

from story import Story

SOL = "gpt-5.6-sol"


async def test_a_prompt_becomes_a_job_and_the_job_an_answer(vigil: Story) -> None:
    job = await vigil.app.submit(model=SOL, input="Why is the sky blue?", metadata={"ticket": "A-17"})
    assert not job.settled  # accepted and on disk; nobody waits for the model

    job = await vigil.app.wait(job.id)
    assert job.status == "completed"
    assert job.output_text
    assert (job.requested_model, job.served_model, job.disclosure) == (SOL, SOL, None)
    assert job.metadata == {"ticket": "A-17"}
    assert job.cost is not None
    assert job.cost.total is not None

    (attempt,) = job.attempts  # every call to the model is on record
    assert attempt.outcome == "completed"
    assert attempt.response_id is not None
    assert attempt.request_id is not None


async def test_a_request_that_is_sent_twice_is_one_job(vigil: Story) -> None:
    first = await vigil.app.submit(model=SOL, input="Hello", idempotency_key="order-4711")
    again = await vigil.app.submit(model=SOL, input="Hello", idempotency_key="order-4711")
    assert again.id == first.id
    await vigil.app.wait(first.id)
    assert vigil.provider.calls()["creates"] == 1


async def test_the_text_can_be_read_while_it_is_written(vigil: Story) -> None:
    job = await vigil.app.submit(model=SOL, input="Tell me a story.")
    text, types = "", []
    async for event in vigil.app.events(job.id):
        types.append(event.type)
        text += event.delta or ""
    assert types[0] == "job.queued"
    assert types[-1] == "job.completed"
    assert text == (await vigil.app.get(job.id)).output_text
