"""Two apps and every route: nothing of one is read, changed or even hinted at with the other's key.

The routes are taken from the OpenAPI document, so one that is added later is walked as well. And keys: two live ones of
an app, and one that is revoked is dead within five seconds in every API process.
"""

from __future__ import annotations

from api_server import AdjustableClock, running, submitted
from waiting import next_week

from worker.store.connection.kept_secrets import IDENTIFIER, KeptSecrets, safety_identifier

SECRET = "quince-marmalade"


async def settle(worker, job_id):
    await worker.start(job_id)
    await worker.complete(job_id, f"The answer: {SECRET}.")


async def resources_of_other(api, worker, redis, clock):
    """Everything that app `other` has: ids by path parameter, and texts that must not be seen."""
    other = await api.client("other")
    hook = {"url": f"https://{SECRET}.example/hook", "events": ["job.completed"], "payload": "thin"}
    endpoint = (await other.post("/v1/webhook-endpoints", json=hook)).json()
    given = {"metadata": {"note": SECRET}, "end_user": f"{SECRET}-user", "webhook": hook}
    job_id = await submitted(other, **given)
    await settle(worker, job_id)
    waits = await submitted(other, **given, not_before=next_week())
    shut = (await other.post("/v1/quarantine", json={"end_user": f"{SECRET}-shut", "reason": SECRET})).json()
    appeal = (await other.post("/v1/appeals", json={"jobs": [job_id], "reason": SECRET})).json()
    sid = safety_identifier(await KeptSecrets(redis, clock).get(IDENTIFIER), "other", f"{SECRET}-user")
    items = [{"role": "user", "content": SECRET}]
    conversation = (await other.post("/v1/conversations", json={"items": items, "metadata": {"note": SECRET}})).json()
    (item,) = (await other.get(f"/v1/conversations/{conversation['id']}/items")).json()["data"]
    group = {"group": "canary-group", "jobs": [{"model": "gpt-5.6-sol", "input": SECRET}]}
    assert (await other.post("/v1/jobs/batch", json=group)).status_code == 200
    names = {
        "group_id": [group["group"]],
        "conversation_id": [conversation["id"]],
        "item_id": [item["id"]],
        "job_id": [job_id, waits, job_id.replace("job_", "resp_")],
        "response_id": [job_id.replace("job_", "resp_"), job_id],
        "endpoint_id": [endpoint["id"]],
        "model_id": ["gpt-0"],  # models are everybody's
        "message": ["msg_01k0000000abcdefghjkmnpqrs"],
        "message_id": ["msg_01k0000000abcdefghjkmnpqrs"],
        "end_user": [f"{SECRET}-shut", shut["safety_identifier"]],
        "appeal_id": [appeal["id"]],
    }
    words = [SECRET, job_id, waits, job_id[4:], endpoint["id"], appeal["id"], conversation["id"]]
    words += [sid, shut["safety_identifier"], group["group"]]
    return other, names, words


def filled(path, names):
    """Every way to fill the path's parameters with the other app's names."""
    paths = [path]
    for name in [part[1:-1] for part in path.split("/") if part.startswith("{")]:
        assert name in names, f"{path}: say what the other app has of {name}"
        paths = [one.replace(f"{{{name}}}", value) for one in paths for value in names[name]]
    return paths


async def test_no_route_shows_or_touches_what_is_another_apps(api, acme, worker, redis, clock):
    other, names, words = await resources_of_other(api, worker, redis, clock)
    before = [(await other.get(f"/v1/jobs/{job_id}")).json() for job_id in names["job_id"][:2]]
    document = (await acme.get("/openapi.json")).json()
    walked = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method not in {"get", "post", "patch", "put", "delete"} or not operation.get("security"):
                continue
            for url in filled(path, names):
                body = {} if method in {"post", "patch", "put"} else None
                body = {"reason": "r"} if (method, path) == ("delete", "/v1/quarantine/{end_user}") else body
                async with acme.stream(method.upper(), url, json=body) as answer:
                    assert answer.status_code != 500, (method, url)
                    if "{" in path:
                        assert answer.status_code in {404, 422}, (method, url, answer.status_code)
                        if method in {"get", "delete"}:
                            assert answer.status_code == 404, (method, url)
                    text = (await answer.aread()).decode()
                walked += 1
                sent = set(url.split("/"))
                if path == "/v1/ops/end-users":  # operators see whom all apps have, by identifier alone
                    sent |= set(words[-2:])
                assert not [word for word in words if word in text and word not in sent], (method, url, text)
    assert walked > 30
    after = [(await other.get(f"/v1/jobs/{job_id}")).json() for job_id in names["job_id"][:2]]
    assert after == before, "nothing of the other's has changed"
    assert len((await other.get("/v1/webhook-endpoints")).json()["data"]) == 1
    (conversation,) = names["conversation_id"]
    assert (await other.get(f"/v1/conversations/{conversation}")).json()["metadata"] == {"note": SECRET}
    assert len((await other.get(f"/v1/conversations/{conversation}/items")).json()["data"]) == 1
    assert len((await other.get("/v1/quarantine")).json()["data"]) == 1
    (appeal,) = (await other.get("/v1/appeals")).json()["data"]
    assert [step["kind"] for step in appeal["steps"]] == ["opened"]


async def test_the_same_person_of_two_apps_is_two_people_and_no_filter_finds_the_others(
    api, acme, worker, redis, clock
):
    other = await api.client("other")
    own_job, other_job = await submitted(acme, end_user="ann"), await submitted(other, end_user="ann")
    for client, own in ((acme, own_job), (other, other_job)):
        for query in ("", "?end_user=ann", "?status=queued", "?model=gpt-5.6-sol"):
            rows = (await client.get(f"/v1/jobs{query}")).json()["data"]
            assert [row["id"] for row in rows] == [own], query
    secret = await KeptSecrets(redis, clock).get(IDENTIFIER)
    assert safety_identifier(secret, "acme", "ann") != safety_identifier(secret, "other", "ann")


async def test_a_quarantined_end_user_is_refused_on_every_route_until_the_lift(api, acme):
    other = await api.client("other")
    shut = await acme.post("/v1/quarantine", json={"end_user": "ann/1 ü", "reason": "reported"})
    assert shut.status_code == 200, shut.text
    assert shut.json()["source"] == "ops"
    job = {"model": "gpt-5.6-sol", "input": "hello", "end_user": "ann/1 ü"}
    answer = await acme.post("/v1/jobs", json=job)
    assert (answer.status_code, answer.json()["code"]) == (403, "end_user_quarantined")
    rows = (await acme.post("/v1/jobs/batch", json={"jobs": [job, {**job, "end_user": "bob"}]})).json()
    assert [row["status"] for row in rows] == [403, 202]
    assert rows[0]["problem"]["code"] == "end_user_quarantined"
    face = {"model": "gpt-5.6-sol", "input": "hello", "background": True, "safety_identifier": "ann/1 ü"}
    answer = await acme.post("/v1/responses", json=face)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "end_user_quarantined")
    assert (await other.post("/v1/jobs", json=job)).status_code == 202, "another app's person of that name"
    (row,) = (await acme.get("/v1/quarantine")).json()["data"]
    assert (row["end_user"], row["reason"], row["until"]) == ("ann/1 ü", "reported", None)
    assert (await acme.get(f"/v1/quarantine/{row['safety_identifier']}")).json() == row
    assert (await acme.get("/v1/quarantine/nobody")).json()["code"] == "not_quarantined"
    place = f"/v1/quarantine/{row['safety_identifier']}"
    for unsaid in ({}, {"json": {}}, {"json": {"reason": " "}}, {"params": {"reason": ""}}):
        answer = await acme.request("DELETE", place, **unsaid)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/reason")
    both = await acme.request("DELETE", f"{place}?reason=x", json={"reason": "y"})
    assert both.status_code == 422
    lifted = await acme.request("DELETE", place, json={"reason": "Appeal 7."})
    assert (await acme.get(f"/v1/quarantine/{row['safety_identifier']}")).status_code == 404
    assert lifted.status_code == 200, lifted.text
    assert (await acme.delete("/v1/quarantine/nobody?reason=x")).status_code == 404
    assert (await acme.post("/v1/jobs", json=job)).status_code == 202
    acts = [r for r in (await acme.get("/v1/audit?limit=100")).json()["data"] if r["job_id"] is None]
    assert [act["type"] for act in acts] == ["quarantine.added", "quarantine.lifted"]
    assert acts[1]["data"]["reason"] == "Appeal 7."


async def test_one_end_user_can_be_read_by_name_and_only_by_the_own_app(api, acme):
    shut = (await acme.post("/v1/quarantine", json={"end_user": "carl", "reason": "reported"})).json()
    assert (await acme.get("/v1/quarantine/carl")).json() == shut
    assert (await (await api.client("other")).get("/v1/quarantine/carl")).status_code == 404


async def test_quarantine_takes_the_scope_ops(api):
    client = await api.client("acme", ("submit", "read", "audit"))
    for method, path in (("GET", ""), ("GET", "/ann"), ("POST", ""), ("DELETE", "/ann")):
        answer = await client.request(method, f"/v1/quarantine{path}", json={"end_user": "ann"})
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


async def test_of_two_live_keys_the_revoked_one_is_dead_within_five_seconds_everywhere(settings, redis):
    clock = AdjustableClock()
    async with running(settings, redis, clock) as api, running(settings, redis, clock) as second:
        old, new = await api.key("acme"), await api.key("acme")
        clients = [(await one.client(key=old), await one.client(key=new)) for one in (api, second)]
        for first, other in clients:  # both processes remember both keys
            assert [(await c.get("/v1/jobs")).status_code for c in (first, other)] == [200, 200]
        (record,) = [key for key in await api.apps.list_keys() if key.last4 == old[-4:]][:1]
        await api.apps.revoke(record.id)
        clock.ahead = 4.9
        assert {(await first.get("/v1/jobs")).status_code for first, _ in clients} == {401}
        assert {(await other.get("/v1/jobs")).status_code for _, other in clients} == {200}
