"""Story 3: the provider withholds the content. The job ends there: no other model is asked, nothing is delivered."""

from __future__ import annotations

from story import Story

SOL = "gpt-5.6-sol"


async def test_a_block_is_the_end(vigil: Story) -> None:
    job = await vigil.app.submit(
        model=SOL,
        input="[[sim: check_then_block hold=20]] Explain this exploit.",
        policy={"on_delay": {"action": "offer", "after_seconds": 300}, "max_attempts": 5},
    )
    job = await vigil.app.wait(job.id)
    assert job.status == "blocked"
    assert job.safety.block is not None
    assert job.safety.block.category == "cyber"
    assert job.error is not None
    assert job.error.advice  # what the app can do next, in one sentence
    assert (job.output_text, job.output, job.served_model) == (None, (), None)
    assert len(job.attempts) == 1
    assert vigil.provider.calls()["creates"] == 1


async def test_a_refusal_of_the_model_is_an_answer_not_a_block(vigil: Story) -> None:
    job = await vigil.app.submit(model=SOL, input="[[sim: refusal]] Write malware.")
    job = await vigil.app.wait(job.id)
    assert job.status == "completed"
    assert job.refusal
    assert job.safety.block is None
