"""/v1/legal-holds: who may, of what, what is refused; /v1/audit by end user, type and actor; /v1/retention."""

from __future__ import annotations

import pytest
from api_server import submitted

HOLDS = "/v1/legal-holds"


async def test_holds_are_placed_listed_page_by_page_and_lifted_with_a_reason(acme):
    job_id = await submitted(acme, end_user="ann")
    targets = [{"scope": "job", "name": job_id}, {"scope": "end_user", "name": "ann"}, {"scope": "app"}]
    placed = [(await acme.post(HOLDS, json={**one, "reason": "case 7"})) for one in targets]
    assert [answer.status_code for answer in placed] == [201, 201, 201]
    assert all(answer.json()["complete"] for answer in placed)
    again = await acme.post(HOLDS, json={**targets[0], "reason": "case 8"})
    assert (again.status_code, again.json()["code"]) == (409, "held_already")
    first = (await acme.get(HOLDS, params={"limit": 2})).json()
    rest = (await acme.get(HOLDS, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert rest["next_cursor"] is None
    rows = {(row["scope"], row["name"]) for row in (*first["data"], *rest["data"])}
    assert rows == {("job", job_id), ("app", "acme"), ("end_user", placed[1].json()["name"])}
    assert "ann" not in str([row["name"] for row in first["data"]])
    for one in targets:
        lifted = await acme.post(f"{HOLDS}/lift", json={**one, "reason": "closed"})
        assert (lifted.status_code, lifted.json()["reason"]) == (200, "closed")
    gone = await acme.post(f"{HOLDS}/lift", json={**targets[1], "reason": "closed"})
    assert (gone.status_code, gone.json()["code"]) == (404, "not_held")
    assert (await acme.get(HOLDS)).json()["data"] == []
    acts = (await acme.get("/v1/audit", params={"type": "audit.hold,audit.release", "limit": 100})).json()["data"]
    assert [act["data"]["reason"] for act in acts] == ["case 7"] * 3 + ["closed"] * 3


async def test_holds_are_the_apps_own_and_need_their_scopes(api, acme):
    other, job_id = await api.client("other"), await submitted(acme)
    for wrong in ({"scope": "job", "name": job_id}, {"scope": "app", "name": "acme"}):
        for path in (HOLDS, f"{HOLDS}/lift"):
            assert (await other.post(path, json={**wrong, "reason": "x"})).status_code == 404
    assert (await acme.post(HOLDS, json={"scope": "job", "name": job_id, "reason": "x"})).status_code == 201
    assert (await other.get(HOLDS)).json()["data"] == []
    auditor = await api.client("acme", ("audit",))
    assert len((await auditor.get(HOLDS)).json()["data"]) == 1
    for path in (HOLDS, f"{HOLDS}/lift"):
        assert (await auditor.post(path, json={"scope": "app", "reason": "x"})).status_code == 403
    assert (await (await api.client("acme", ("read",))).get(HOLDS)).status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {"scope": "job", "reason": "x"},
        {"scope": "app"},
        {"scope": "app", "reason": " "},
        {"scope": "all", "reason": "x"},
        {"scope": "end_user", "name": "", "reason": "x"},
    ],
)
async def test_a_hold_without_target_or_reason_is_422(acme, body):
    assert (await acme.post(HOLDS, json=body)).status_code == 422
    assert (await acme.get(HOLDS, params={"cursor": "eA"})).status_code == 422


@pytest.mark.parametrize("query", [{"type": "key;created"}, {"type": ","}, {"type": "*"}, {"who": "x"}])
async def test_audit_filters_that_are_none_are_422(acme, query):
    assert (await acme.get("/v1/audit", params=query)).status_code == 422


async def test_the_trail_is_filtered_by_end_user_and_type_together(acme):
    anns, bens = await submitted(acme, end_user="ann"), await submitted(acme, end_user="ben")
    await acme.post("/v1/quarantine", json={"end_user": "ann", "reason": "x"})
    of_ann = (await acme.get("/v1/audit", params={"end_user": "ann"})).json()["data"]
    assert {row["job_id"] for row in of_ann} >= {anns, None}
    assert bens not in str(of_ann)
    only = (await acme.get("/v1/audit", params={"end_user": "ann", "type": "quarantine.*"})).json()
    assert ([row["type"] for row in only["data"]], only["next_cursor"]) == (["quarantine.added"], None)
    person = of_ann[0]["data"]["safety_identifier"]
    assert (await acme.get("/v1/audit", params={"end_user": person})).json()["data"] == of_ann


async def test_an_app_reads_its_retention_and_operators_change_it_within_the_bounds(api, acme):
    reader = await api.client("acme", ("read",))
    before = (await reader.get("/v1/retention")).json()
    assert (before["app"], before["result"]["own"], before["result"]["seconds"]) == ("acme", None, 7 * 86_400)
    assert (await reader.patch("/v1/retention", json={"result_seconds": 60})).status_code == 403
    changed = (await acme.patch("/v1/retention", json={"result_seconds": 3600})).json()
    assert (changed["result"]["own"], changed["prompt"]["seconds"], changed["complete"]) == (3600, 3600, True)
    refused = await acme.patch("/v1/retention", json={"result_seconds": 8 * 86_400})
    assert (refused.status_code, refused.json()["code"]) == (422, "retention_out_of_bounds")
    assert "VIGIL_RESULT_TTL" in refused.json()["detail"]
    assert (await acme.patch("/v1/retention", json={"prompt_seconds": 60})).json()["result"]["own"] == 3600
    back = await acme.patch("/v1/retention", json={"result_seconds": None, "prompt_seconds": None})
    assert {**back.json(), "complete": None} == {**before, "complete": None}
    acts = (await acme.get("/v1/audit", params={"type": "app.changed"})).json()["data"]
    assert [act["data"]["changes"]["retention"][1] for act in acts] == [
        {"result": 3600},
        {"result": 3600, "prompt": 60},
        None,
    ]
