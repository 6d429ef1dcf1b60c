"""Story 10: the provider allows so many calls a minute. What is too much waits here, and everybody can see for what."""

from __future__ import annotations

import asyncio

import pytest
from in_process import until
from story import Story

from worker.cli.main import run

SOL = "gpt-5.6-sol"


async def test_jobs_wait_for_the_providers_rate_and_not_in_429s(
    vigil: Story, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app, provider = vigil.app, vigil.provider
    provider.set_rates(rpm=120, used=0.97)  # others of the account have left three calls, and two come back a second
    first = await app.submit(model=SOL, input="[[sim: normal tokens=2]] Hello")
    assert (await app.wait(first.id)).status == "completed"  # from its answer the workers know the limit

    jobs = [await app.submit(model=SOL, input="[[sim: normal tokens=2]] Hello", priority="low") for _ in range(8)]
    last = jobs[-1].id

    async def waits() -> bool:
        return (await app.get(last)).waiting_for is not None

    await until("the last job to wait", waits)
    job = await app.get(last)
    assert job.waiting_for is not None
    assert (job.status, job.attempts) == ("queued", ())
    assert (job.waiting_for.reason, job.waiting_for.model) == ("provider_rate", SOL)
    assert job.waiting_for.until is not None
    assert job.waiting_for.since is not None
    assert job.waiting_for.since < job.waiting_for.until

    status = await app.status()
    (waiting,) = status.pacing.waiting
    assert (waiting.reason, waiting.account, waiting.model) == ("provider_rate", "default", SOL)
    (meter,) = status.pacing.meters
    assert meter.requests_limit == 120
    monkeypatch.setenv("VIGIL_URL", vigil.url)
    monkeypatch.setenv("VIGIL_API_KEY", vigil.key)
    assert await asyncio.to_thread(run, ["status"]) == 0
    assert await asyncio.to_thread(run, ["get", last]) == 0
    assert await asyncio.to_thread(run, ["why", last]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"for provider_rate of {SOL} (account default), the next starts at 20" in shown
    assert f"waiting for provider rate of {SOL}" in shown
    assert f"The job for {SOL} waits for the rate limit of the provider" in shown

    other = await app.submit(model="gpt-5.6-luna", input="[[sim: normal tokens=2]] Hello")
    assert (await app.wait(other.id)).status == "completed", "another model has a limit of its own"
    done = [await app.wait(job.id) for job in jobs]
    assert {(job.status, len(job.attempts), job.waiting_for) for job in done} == {("completed", 1, None)}
    assert provider.calls()["limited"] == 0, "not one call was refused"
    started = [job.attempts[0].started_at for job in done]
    assert started == sorted(started), "in the order in which they came"
