"""An open page of a job costs no reads of Redis until the job changes, and then it shows the change."""

from __future__ import annotations

import re

from console_server import submitted
from waiting import next_week, until

from worker.clock import Clock
from worker.store.jobs.control_requests import JobControl
from worker.store.jobs.repository import Jobs


def version_of(page: str) -> str:
    found = re.search(r'data-version="([^"]+)"', page)
    assert found is not None
    return found[1]


async def test_a_poll_reads_nothing_until_the_job_changes(console, redis, monkeypatch):
    key, text = await console.key()
    visitor = await console.logged_in()
    job_id = await submitted(console, text, not_before=next_week())
    path, live = f"/console/jobs/{job_id}", {"Vigil-Live": "1"}
    assert "scheduled" in (await visitor.get(path)).text
    loads: list[str] = []
    load = Jobs.load

    async def counted(self, job_id, **more):
        loads.append(job_id)
        return await load(self, job_id, **more)

    monkeypatch.setattr(Jobs, "load", counted)
    for _ in range(5):
        assert (await visitor.get(path, **live)).status_code == 200
    assert loads == []
    await JobControl(Jobs(redis, Clock())).request_cancel(job_id, key.id)
    loads.clear()

    async def shown() -> bool:
        return "cancelled" in (await visitor.get(path, **live)).text

    await until("the page to show the change", shown)
    assert len(loads) == 1


async def test_a_settled_job_is_no_longer_live_and_is_not_sent_again(console):
    _, text = await console.key()
    visitor = await console.logged_in()
    job_id = await submitted(console, text, not_before=next_week())
    path = f"/console/jobs/{job_id}"
    assert "data-refresh" in (await visitor.get(path)).text
    answer = await visitor.act(f"{path}/cancel")
    assert answer.headers["location"] == f"{path}?notice=cancelled"
    page = (await visitor.get(path)).text
    assert "The job is cancelled." in (await visitor.get(answer.headers["location"])).text
    assert "data-refresh" not in page
    again = await visitor.get(path, **{"If-None-Match": f'"{version_of(page)}"'})
    assert again.status_code == 304
    assert (await visitor.act(f"{path}/cancel")).headers["location"] == f"{path}?notice=already_settled"


async def test_reloading_shows_a_change_that_has_no_event(console, redis):
    _, text = await console.key()
    visitor = await console.logged_in()
    first = await submitted(console, text)
    second = await submitted(console, text)
    page = (await visitor.get(f"/console/jobs/{second}")).text
    assert re.search(r"place in the queue</dt><dd>2", page)
    await visitor.act(f"/console/jobs/{first}/cancel")

    async def moved() -> bool:
        return (
            re.search(r"place in the queue</dt><dd>1", (await visitor.get(f"/console/jobs/{second}")).text) is not None
        )

    await until("the reloaded page to show the place", moved)
