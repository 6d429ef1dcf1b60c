"""GET /v1/reports/safety: what safety cost, from counters; as JSON and CSV; an app's own, or all for operators."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from api_server import Running, Worker, submitted
from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs import events as ev
from worker.jobs.record import Usage
from worker.safety.loss_counts import week_of
from worker.store import keys

PATH = "/v1/reports/safety"
SOL = "gpt-5.6-sol"
WEEK = week_of(Clock().now())


@pytest.fixture
async def blocked(acme: httpx2.AsyncClient, worker: Worker) -> httpx2.AsyncClient:
    """An app with one job that was answered after a check, and one of ann's that was blocked and billed."""
    answered, withheld = await submitted(acme), await submitted(acme, end_user="ann")
    await worker.start(answered)
    await worker.check(answered)
    await worker.commit(answered, (ev.CheckEnded(ended_by="output"), 1))
    await worker.complete(answered)
    await worker.start(withheld)
    usage = Usage(input_tokens=100, output_tokens=20, estimated=True)
    await worker.commit(withheld, (ev.AttemptFinished(outcome="blocked", usage=usage, cost="0.0040"), 1))
    error = {"category": "cyber", "code": "cyber_policy", "carrier": "error_event", "after_output": True}
    await worker.commit(withheld, (ev.Blocked(block={**error, "advice": "Stop."}), 1))
    return acme


async def read(client: httpx2.AsyncClient, **params: Any) -> dict[str, Any]:
    answer = await client.get(PATH, params=params)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_report_says_what_was_lost_and_of_how_much(blocked: httpx2.AsyncClient) -> None:
    report = await read(blocked, app="acme")
    [row] = report["data"]
    assert (row["week"], row["model"], report["last_week"], report["app"]) == (WEEK, SOL, WEEK, "acme")
    assert row["jobs"] == {"ended": 2, "checked": 1, "suspected": 0, "blocked": 1, "substituted": 0}
    assert row["rates"] == {"checked": 0.5, "suspected": 0.0, "blocked": 0.5, "substituted": 0.0}
    assert row["spent"]["cost"] == "0.016300"
    assert (row["lost"]["cost"], row["lost"]["tokens"], row["lost"]["estimated_cost"]) == ("0.004000", 120, "0.004000")
    assert row["blocked"]["attempts"] == row["blocked"]["estimated_attempts"] == 1
    assert row["blocked"]["seconds"] > 0
    assert row["checks"]["signalled"]["by_answer"]["count"] == 1
    assert report["totals"] == {name: row[name] for name in report["totals"]}
    assert report["rest"]["jobs"]["ended"] == 0
    assert "audit trail" in report["notes"][-1]


async def test_end_users_stand_by_their_digest_and_can_be_asked_for_by_name(blocked: httpx2.AsyncClient) -> None:
    report = await read(blocked, group_by="end_user", app="acme")
    ann, nobody = report["data"]
    assert (len(ann["end_user"]), ann["lost"]["cost"], nobody["end_user"]) == (64, "0.004000", None)
    assert "ann" not in ann["end_user"]
    for name in ("ann", ann["end_user"]):
        assert (await read(blocked, end_user=name, app="acme"))["totals"]["jobs"]["ended"] == 1
    first = await read(blocked, group_by="end_user", limit=1, app="acme")
    assert first["rest"]["jobs"]["ended"] == 1
    last = await read(blocked, group_by="end_user", limit=1, app="acme", cursor=first["next_cursor"])
    assert (last["data"], last["next_cursor"]) == ([nobody], None)


async def test_an_app_reads_its_own_and_an_operator_all(api: Running, blocked: httpx2.AsyncClient) -> None:
    finance = await api.client("acme", ("audit",))
    assert (await read(finance))["totals"]["jobs"]["ended"] == 2
    other = await api.client("other", ("audit",))
    assert (await read(other))["totals"]["jobs"]["ended"] == 0
    assert (await read(other, end_user="ann"))["data"] == []
    refused = await other.get(PATH, params={"app": "acme"})
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    operator = await api.client("ops", ("ops",))
    report = await read(operator, group_by="app,week")
    assert [(row["app"], row["jobs"]["ended"]) for row in report["data"]] == [("acme", 2)]
    people = await read(operator, group_by="end_user")
    assert (people["group_by"], people["data"][0]["app"]) == (["app", "end_user"], "acme")
    reader = await api.client("acme", ("read", "submit"))
    assert (await reader.get(PATH)).status_code == 403


async def test_csv_is_what_json_is_and_no_cell_is_a_formula(
    blocked: httpx2.AsyncClient, redis: ArqRedis, clock: Clock
) -> None:
    await redis.hincrby(keys.losses(WEEK, "acme"), "=1+1|jobs", 1)
    report = await read(blocked, app="acme")
    answer = await blocked.get(PATH, params={"app": "acme", "limit": 1}, headers={"Accept": "text/csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert f'filename="safety-{report["first_week"]}-{WEEK}.csv"' in answer.headers["content-disposition"]
    [first] = csv.DictReader(io.StringIO(answer.text))
    assert first["model"] == "'=1+1"
    rest = await blocked.get(answer.links["next"]["url"], headers={"Accept": "text/csv"})
    [second] = csv.DictReader(io.StringIO(rest.text))
    assert (second["model"], second["lost_cost"], second["checks_signalled_by_answer_count"]) == (SOL, "0.004000", "1")
    assert Decimal(second["spent_cost"]) == Decimal(report["totals"]["spent"]["cost"])
    by_format = await blocked.get(PATH, params={"app": "acme", "format": "csv", "model": SOL})
    assert by_format.text.splitlines()[1:] == rest.text.splitlines()[1:]


BAD: list[dict[str, str]] = [
    *({"from": text} for text in ("2026-W60", "soon", "9999-12-31")),
    *({"group_by": text} for text in ("week,price", "week,week", "")),
    {"to": "0001-01-01"},
    {"from": "2020-W01", "to": "2026-W01"},
    {"from": "2026-W10", "to": "2026-W09"},
    {"format": "xml"},
    {"limit": "1001"},
    {"limit": "101", "group_by": "end_user"},
    {"cursor": "%%"},
    {"end_user": "ann"},
    {"since": "2026"},
]


async def test_bad_parameters_are_422_and_say_what_is_wrong(acme: httpx2.AsyncClient) -> None:
    for params in BAD:
        answer = await acme.get(PATH, params=params)
        assert (answer.status_code, bool(answer.json()["detail"])) == (422, True), (params, answer.text)
