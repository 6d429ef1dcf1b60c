"""The page of what safety cost: by week and model, by end user; an app's own, for operators all; the same as CSV."""

from __future__ import annotations

import csv
import io
import re
from decimal import Decimal

import pytest
from arq.connections import ArqRedis
from builders import BLOCKED, COMPLETED, SOL, STARTED, began, done, new_job
from console_server import Console

from worker.clock import Clock
from worker.jobs.record import Usage
from worker.jobs.states import Outcome
from worker.safety.loss_counts import week_of
from worker.store.jobs.repository import Jobs

ANN = "a" * 64
COST = {"usage": Usage(input_tokens=10, output_tokens=5), "cost": Decimal("0.002")}
NORMAL = [(STARTED, None), (began(), 1), (done(**COST), 1), (COMPLETED, 1)]
WITHHELD = [(STARTED, None), (began(), 1), (done(Outcome.BLOCKED, **COST), 1), (BLOCKED, None)]


@pytest.fixture
async def ended(redis: ArqRedis) -> None:
    """One job of acme that was answered, one of ann's that was blocked, and one of another app."""
    jobs = Jobs(redis, Clock())
    for facts, app, person in ((NORMAL, "acme", None), (WITHHELD, "acme", ANN), (NORMAL, "other", None)):
        stored, _ = await jobs.submit(new_job(app=app, safety_identifier=person))
        await jobs.change(stored.job.id, lambda _, facts=facts: facts)


def cells(text: str, name: str) -> list[str]:
    """The texts of the row that begins with this name."""
    row = re.search(rf"<tr><td[^>]*>(?:<[^>]*>)*{re.escape(name)}.*?</tr>", text)
    assert row is not None, text
    return [re.sub(r"\s+", " ", re.sub("<[^>]+>", "", cell)).strip() for cell in row[0].split("</td>")[:-1]]


async def test_the_page_shows_what_was_lost_by_week_model_and_end_user(console: Console, ended: None) -> None:
    visitor = await console.logged_in()
    text = (await visitor.get("/console/cost")).text
    assert cells(text, week_of(Clock().now()))[1:6] == [SOL, "2", "0 0 %", "1 50 %", "0"]
    assert cells(text, ANN[:16])[5] == "$0.002000"
    assert f"/console/end-users/{ANN}" in text
    table = await visitor.get("/console/cost/report.csv?weeks=12")
    [row] = csv.DictReader(io.StringIO(table.text))
    assert (row["model"], row["lost_cost"], table.headers["content-type"][:8]) == (SOL, "0.002000", "text/csv")


async def test_an_app_sees_its_own_and_operators_all(console: Console, ended: None) -> None:
    operator = await console.logged_in()
    text = (await operator.get("/console/cost?all=1")).text
    assert [cells(text, app)[1] for app in ("acme", "other")] == ["2", "1"]
    finance = await console.logged_in("other", ("audit",))
    text = (await finance.get("/console/cost?all=1")).text
    assert "acme" not in text
    assert "/console/end-users/" not in text
    assert (await (await console.logged_in("acme", ("read",))).get("/console/cost")).status_code == 403
