"""The lab's page: what the delay rules would have done to the app's real jobs, with today's rule marked."""

from __future__ import annotations

import re

import pytest
from builders import COMPLETED, SOL, STARTED, FakeClock, began, done, new_job, noticed
from in_process import until

from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.record import Usage
from worker.jobs.spec import OnDelay, Policy
from worker.jobs.states import CheckEnd
from worker.store.jobs.repository import Jobs

USAGE = Usage(input_tokens=2_000, output_tokens=900, total_tokens=2_900)


@pytest.fixture
async def past(redis):
    """Jobs that were checked for a while and then answered."""
    clock = FakeClock(Clock().now())
    jobs = Jobs(redis, clock)
    for number in range(12):
        policy = Policy(on_delay=OnDelay(action="switch", after_seconds=37.0)) if number % 3 else Policy()
        job_id = (await jobs.submit(new_job(app="acme", requested_model=SOL, policy=policy)))[0].job.id
        await jobs.change(job_id, lambda _: [(STARTED, None), (began(), 1), (noticed(), 1)])
        clock.step(20 + 10 * number)
        ends = [(ev.CheckEnded(ended_by=CheckEnd.OUTPUT), 1)]
        await jobs.change(job_id, lambda _, ends=ends: ends)
        clock.step(8)
        finished = [(done(served_model=SOL, usage=USAGE), 1), (COMPLETED, 1)]
        await jobs.change(job_id, lambda _, finished=finished: finished)


async def shown(visitor) -> str:
    async def over() -> bool:
        return "replaying" not in (await visitor.get("/console/lab")).text

    await until("the end of the replay", over)
    return (await visitor.get("/console/lab")).text


def cells(text: str, action: str) -> list[str]:
    """The cells of an action's first row."""
    row = re.search(rf"<tr><td>{action}</td>.*?</tr>", text, re.DOTALL)
    assert row is not None
    return re.findall(r"<td[^>]*>(.*?)</td>", row[0], re.DOTALL)


async def test_without_jobs_it_says_what_it_needs(console):
    text = await shown(await console.logged_in("acme"))
    assert "None of the jobs" in text


async def test_the_chart_marks_todays_rule_and_every_point_is_a_row(console, past):
    visitor = await console.logged_in("acme")
    text = await shown(visitor)
    assert re.search(r"12 jobs", text)
    assert "switch after 37" in text
    assert text.count('class="ring"') == 2, "one in each chart"
    for action in ("wait", "offer", "switch", "race", "draft"):
        assert f"<td>{action}</td>" in text
    assert "style=" not in text
    assert cells(text, "wait")[5] == "0 %"
    assert cells(text, "switch")[5] == "100 %", "another model answers all of them"


async def test_another_app_sees_its_own_jobs_alone(console, past):
    assert "None of the jobs" in await shown(await console.logged_in("other"))


async def test_it_is_replayed_again_on_request(console, past):
    visitor = await console.logged_in("acme")
    await shown(visitor)
    assert (await visitor.act("/console/lab/run")).headers["location"] == "/console/lab"
    assert "switch after 37" in await shown(visitor)
    reader = await console.logged_in("acme", ("read",))
    assert (await reader.get("/console/lab")).status_code == 403
