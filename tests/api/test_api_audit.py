"""GET /v1/audit: an app's own records, oldest first, by time and page by page."""

import hashlib
import json

import pytest
from api_server import submitted

from worker.audit.chain import canonical


async def test_pages_give_every_record_of_the_app_once_and_in_order(api, acme, worker):
    other = await api.client("other")
    job_ids = []
    for _ in range(3):
        job_ids.append(await submitted(acme))
        await submitted(other)
    await worker.start(job_ids[0])
    await worker.complete(job_ids[0], "SECRET")
    rows, cursor = [], None
    while True:
        page = (await acme.get("/v1/audit", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        assert page["object"] == "list"
        rows += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [r["job_id"] for r in rows if r["type"] == "job.queued"] == job_ids
    assert {r["app"] for r in rows} == {"acme"}
    assert len(rows) == 7
    assert "SECRET" not in json.dumps(rows)


async def test_a_row_without_its_hash_is_what_was_hashed(acme):
    await submitted(acme)
    (row,) = (await acme.get("/v1/audit")).json()["data"]
    stored_hash = row.pop("hash")
    assert hashlib.sha256(b"0" * 64 + canonical(row)).hexdigest() == stored_hash


async def test_times_narrow_the_trail(acme):
    await submitted(acme)
    at = (await acme.get("/v1/audit")).json()["data"][0]["at"]
    year = str(int(at[:4]) + 1)
    later = {"after": at.replace(at[:4], year, 1)}
    assert (await acme.get("/v1/audit", params=later)).json()["data"] == []
    assert len((await acme.get("/v1/audit", params={"before": later["after"]})).json()["data"]) == 1
    assert (await acme.get("/v1/audit", params={"before": "2020-01-01T00:00:00Z"})).json()["data"] == []
    assert len((await acme.get("/v1/audit", params={"after": "2020-01-01T00:00:00Z"})).json()["data"]) == 1


@pytest.mark.parametrize(
    "params", [{"cursor": "%%%"}, {"cursor": "eA"}, {"limit": "101"}, {"after": "soon"}, {"before": "x"}, {"job": "1"}]
)
async def test_bad_parameters_are_422(acme, params):
    answer = await acme.get("/v1/audit", params=params)
    assert answer.status_code == 422, answer.text


async def test_the_trail_names_who_cancelled_a_job(acme):
    job_id = await submitted(acme)
    await acme.post(f"/v1/jobs/{job_id}/cancel")
    last = (await acme.get(f"/v1/jobs/{job_id}/audit")).json()["data"][-1]
    assert last["decision"] == {"by": "app", "key_id": last["key_id"], "policy_version": None}
