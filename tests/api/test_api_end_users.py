"""End users over HTTP: who is listed, what one shows, what operators of all apps see, and who must be named."""

from __future__ import annotations

import json

import openai
import pytest
from builders import BLOCKED, STARTED, began, done, noticed

from worker.jobs import events as ev
from worker.jobs.states import CheckEnd, Outcome
from worker.store.apps import Apps

CHECKED = [(STARTED, None), (began(), 1), (noticed(), 1), (ev.CheckEnded(ended_by=CheckEnd.OUTPUT), 1)]
REFUSED = [(STARTED, None), (began(), 1), (done(Outcome.BLOCKED), 1), (BLOCKED, 1)]
NAME = "ann/1 ü@example.com"


@pytest.fixture
async def ops(api):
    return await api.client("acme", ("ops", "submit", "read", "audit"))


async def lived(client, jobs, name, drafts):
    answer = await client.post("/v1/jobs", json={"model": "gpt-5.6-sol", "input": "x", "end_user": name})
    assert answer.status_code == 202, answer.text
    await jobs.change(answer.json()["id"], lambda _: drafts)
    return answer.json()["id"]


async def listed(client, **query):
    answer = await client.get("/v1/end-users", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_they_are_listed_by_state_kind_and_time_a_page_at_a_time(api, ops, jobs, clock):
    for name, drafts in (("ann", REFUSED), ("bob", CHECKED), ("eve", REFUSED)):
        await lived(ops, jobs, name, drafts)
    assert (await ops.post("/v1/quarantine", json={"end_user": "eve", "reason": "seen"})).status_code == 200
    rows = (await listed(ops))["data"]
    assert [(row["state"], row["blocks_to_quarantine"]) for row in rows] == [
        ("quarantined", None),
        ("free", None),
        ("near_miss", 2),
    ]
    assert (rows[0]["quarantine"]["reason"], rows[0]["counts"]["blocks"], rows[0]["ledger"]["blocks"]) == ("seen", 1, 1)
    assert all("end_user" not in row for row in rows)
    for query, expected in (
        ({"state": "near_miss"}, [rows[2]]),
        ({"kind": "checks"}, [rows[1]]),
        ({"kind": "blocks", "state": "quarantined"}, [rows[0]]),
        ({"since": "2999-01-01T00:00:00Z"}, []),
        ({"since": "2000-01-01T00:00:00Z"}, rows),
    ):
        assert (await listed(ops, **query))["data"] == expected, query
    found, cursor = list[dict](), None
    for _ in range(3):
        page = await listed(ops, limit=1, **({"cursor": cursor} if cursor else {}))
        found, cursor = found + page["data"], page["next_cursor"]
    assert found == rows
    for wrong in ({"state": "x"}, {"kind": "x"}, {"since": "x"}, {"limit": 0}, {"cursor": "x"}, {"other": "x"}):
        assert (await ops.get("/v1/end-users", params=wrong)).status_code == 422
    assert (await listed(await api.client("other", ("ops",))))["data"] == []


async def test_one_shows_all_that_is_known_and_its_name_to_whoever_names_it(api, ops, jobs):
    blocked = await lived(ops, jobs, NAME, REFUSED)
    by_name = (await ops.get("/v1/end-users/ann%2F1%20%C3%BC%40example.com")).json()
    assert (by_name["end_user"], by_name["state"], by_name["limits"], by_name["jobs_kept"]) == (NAME, "near_miss", 0, 1)
    (entry,) = by_name["entries"]
    assert (entry["kind"], entry["job"], entry["url"]) == ("blocks", blocked, f"{ops.base_url}/v1/jobs/{blocked}")
    assert by_name["jobs"][0]["id"] == blocked
    person = by_name["safety_identifier"]
    body = {"end_user": person, "reason": "reported"}  # a person who knows only the identifier
    assert (await ops.post("/v1/quarantine", json=body)).json()["safety_identifier"] == person
    assert (await ops.post("/v1/appeals", json={"end_user": person, "reason": "asks"})).status_code == 201
    await ops.request("DELETE", f"/v1/quarantine/{person}", json={"reason": "heard"})
    answer = await ops.get(f"/v1/end-users/{person}")
    found = answer.json()
    assert found["end_user"] is None
    assert "example.com" not in answer.text
    acts = [(row["act"], row["reason"]) for row in found["quarantine_log"]]
    assert acts == [("lifted", "heard"), ("added", "reported")]
    assert [(one["state"], one["reason"]) for one in found["appeals"]] == [("open", "asks")]
    other = await api.client("other", ("ops",))
    for named in (person, "nobody"):
        assert (await other.get(f"/v1/end-users/{named}")).json()["code"] == "end_user_not_found"


async def test_an_identifier_means_its_end_user_although_the_app_has_sent_it_as_a_name(ops, jobs):
    await lived(ops, jobs, "ann", REFUSED)
    person = (await ops.get("/v1/end-users/ann")).json()["safety_identifier"]
    await lived(ops, jobs, person, REFUSED)  # an app that sends what it read back
    added = (await ops.post("/v1/quarantine", json={"end_user": person, "until": "2999-01-01T00:00:00Z"})).json()
    assert (added["safety_identifier"], added["end_user"]) == (person, "ann")
    earlier = {"end_user": "ann", "until": "2998-01-01T00:00:00Z"}
    refused = await ops.post("/v1/quarantine", json=earlier)
    assert (refused.status_code, refused.json()["code"]) == (409, "would_end_earlier")
    assert (await ops.post("/v1/quarantine", json={**earlier, "shorten": True})).status_code == 200
    assert (await ops.get(f"/v1/quarantine/{person}")).json()["until"] == earlier["until"]
    assert (await ops.get(f"/v1/end-users/{person}")).json()["state"] == "quarantined"
    opened = (await ops.post("/v1/appeals", json={"end_user": person, "reason": "asks"})).json()
    assert opened["safety_identifier"] == person
    lifted = await ops.request("DELETE", f"/v1/quarantine/{person}", json={"reason": "heard"})
    assert lifted.json()["safety_identifier"] == person


async def test_operators_see_those_of_all_apps_by_counts_alone(api, ops, jobs):
    other = await api.client("other", ("submit", "ops"))
    await lived(ops, jobs, NAME, REFUSED)
    await lived(other, jobs, "bob", CHECKED)
    await other.post("/v1/quarantine", json={"end_user": "bob", "reason": "canary of a reason"})
    answer = await ops.get("/v1/ops/end-users")
    rows = answer.json()["data"]
    assert [(row["app"], row["state"]) for row in rows] == [("other", "quarantined"), ("acme", "near_miss")]
    assert (rows[0]["counts"]["checks"], rows[0]["quarantine"]["source"]) == (1, "ops")
    assert not [word for word in ("canary", "example.com") if word in answer.text]
    first = (await ops.get("/v1/ops/end-users?limit=1")).json()
    second = (await ops.get("/v1/ops/end-users", params={"limit": 1, "cursor": first["next_cursor"]})).json()
    assert [*first["data"], *second["data"]] == rows
    assert second["next_cursor"] is None
    assert (await ops.get("/v1/ops/end-users?app=other")).json()["data"] == rows[:1]
    assert (await ops.get("/v1/ops/end-users?app=nobody")).json()["errors"][0]["parameter"] == "app"


async def test_where_an_app_must_name_end_users_nothing_goes_without_one_on_any_api(api, redis, clock, ops):
    kept = (await ops.post("/v1/jobs", json={"model": "gpt-5.6-sol", "input": "x"})).json()["id"]
    await Apps(redis, clock).set_limits("acme", require_end_user=True)
    ops = await api.client("acme")  # one that the cache of keys does not have yet
    job = {"model": "gpt-5.6-sol", "input": "x"}
    refused = await ops.post("/v1/jobs", json=job)
    assert (refused.status_code, refused.json()["code"]) == (422, "end_user_required")
    assert refused.json()["errors"][0]["pointer"] == "/end_user"
    assert "safety_identifier" in refused.json()["detail"]
    assert (await ops.post("/v1/jobs?dry_run=true", json=job)).json()["code"] == "end_user_required"
    assert (await ops.post("/v1/jobs", json={**job, "end_user": "  "})).json()["code"] == "end_user_required"
    rows = (await ops.post("/v1/jobs/batch", json={"jobs": [job, {**job, "end_user": "u"}]})).json()
    assert [row["status"] for row in rows] == [422, 202]
    assert rows[0]["problem"]["code"] == "end_user_required"
    for path, body in (
        ("/v1/responses", {**job, "background": True}),
        ("/v1/chat/completions", {"model": "gpt-5.6-sol", "messages": [{"role": "user", "content": "x"}]}),
        ("/v1/responses/input_tokens", job),
    ):
        error = (await ops.post(path, json=body)).json()["error"]
        assert (error["code"], error["param"]) == ("end_user_required", "safety_identifier"), path
    ops.event_hooks = {}  # a response has members of OpenAI's, which the document leaves open
    named = [{"safety_identifier": "u"}, {"user": "u"}, {"vigil": {"end_user": "u"}}]
    for fields in named:
        answer = await ops.post("/v1/responses", json={**job, "background": True, **fields})
        assert answer.status_code == 200, answer.text
    async with openai.AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key=await api.key(), max_retries=0) as client:
        with pytest.raises(openai.UnprocessableEntityError, match="must name its end user"):
            await client.responses.create(model="gpt-5.6-sol", input="x", background=True)
    assert (await ops.get(f"/v1/jobs/{kept}")).status_code == 200
    await Apps(redis, clock).set_limits("acme", require_end_user=False)
    assert (await (await api.client("acme")).post("/v1/jobs", json=job)).status_code == 202


async def test_an_appeal_goes_its_way_and_the_packet_of_its_job_names_it(api, ops, jobs):
    blocked = await lived(ops, jobs, NAME, REFUSED)
    further = await lived(ops, jobs, NAME, CHECKED)
    made = await ops.post("/v1/appeals", json={"jobs": [blocked], "reason": "It was\ncoursework."})
    appeal, place = made.json(), made.headers["location"]
    person = (await ops.get("/v1/end-users/ann%2F1%20%C3%BC%40example.com")).json()["safety_identifier"]
    assert (made.status_code, appeal["state"], appeal["safety_identifier"]) == (201, "open", person)
    early = await ops.post(f"{place}/answer", json={"answer": "No."})
    assert (early.status_code, early.json()["code"]) == (409, "invalid_transition")
    for path, body in (
        ("jobs", {"jobs": [further]}),
        ("sent", {"provider_case": "C-1042"}),
        ("notes", {"text": "They are slow."}),
        ("answer", {"answer": "We agree."}),
    ):
        answer = await ops.post(f"{place}/{path}", json=body)
        assert answer.status_code == 200, answer.text
    packet = (await ops.get(f"/v1/jobs/{further}/support-packet", headers={"Accept": "application/json"})).json()
    assert [(one["id"], one["provider_case"]) for one in packet["appeals"]] == [(appeal["id"], "C-1042")]
    assert f"Appeal: {appeal['id']}, case C-1042, answered" in packet["text"]
    assert "coursework" not in json.dumps(packet)
    done_ = (await ops.post(f"{place}/outcome", json={"outcome": "overturned", "reason": "ok"})).json()
    kinds = ["opened", "jobs", "sent", "note", "answered", "closed"]
    assert ([step["kind"] for step in done_["steps"]], done_["outcome"]) == (kinds, "overturned")
    assert (await ops.get(place)).json() == done_
    assert (await ops.post(f"{place}/notes", json={"text": "x"})).json()["code"] == "appeal_closed"
    acts = [row["type"] for row in (await ops.get("/v1/audit?limit=100")).json()["data"] if row["job_id"] is None]
    assert acts == [f"appeal.{kind}" for kind in kinds]
    for query in ({"job": further}, {"provider_case": "C-1042"}, {"end_user": NAME}, {"state": "closed"}):
        assert [one["id"] for one in (await ops.get("/v1/appeals", params=query)).json()["data"]] == [appeal["id"]]
    assert (await ops.get("/v1/appeals?state=open")).json()["data"] == []


async def test_another_apps_jobs_end_users_and_appeals_do_not_exist(api, ops, jobs):
    blocked = await lived(ops, jobs, "ann", REFUSED)
    place = (await ops.post("/v1/appeals", json={"end_user": "ann", "reason": "asks"})).json()["urls"]["self"]
    other = await api.client("other", ("ops",))
    assert (await other.get(place)).json()["code"] == "appeal_not_found"
    assert (await other.get("/v1/appeals")).json()["data"] == []
    for path, body in (("notes", {"text": "x"}), ("sent", {"provider_case": "C"}), ("answer", {"answer": "x"})):
        assert (await other.post(f"{place}/{path}", json=body)).status_code == 404
    unknown = await other.post("/v1/appeals", json={"end_user": "ann", "reason": "asks"})
    assert (unknown.status_code, unknown.json()["code"]) == (422, "end_user_not_found")
    foreign = await other.post("/v1/appeals", json={"jobs": [blocked], "reason": "asks"})
    assert (foreign.status_code, foreign.json()["errors"][0]["pointer"]) == (422, "/jobs/0")
    for wrong in ({"reason": "asks"}, {"end_user": "ann", "reason": " "}, {"end_user": "ann"}):
        assert (await ops.post("/v1/appeals", json=wrong)).status_code == 422
    twice = {"end_user": "ann", "job": "job_x"}
    assert (await ops.get("/v1/appeals", params=twice)).status_code == 422
