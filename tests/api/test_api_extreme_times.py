"""Times at the ends of what RFC 3339 can say are taken or refused, and whatever is stored of them can be read again."""

from __future__ import annotations

import base64

import pytest

TIMES = [
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "1969-12-31T23:59:59Z",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.999999999Z",
    "9999-12-31T23:59:59-23:59",
]


@pytest.mark.parametrize("time", TIMES)
async def test_a_time_at_the_end_of_all_times_breaks_no_route(acme, time):
    async def send(method, path, **more):
        answer = await acme.request(method, path, **more)
        assert answer.status_code < 500, (method, path, answer.text)
        return answer

    taken = await send("POST", "/v1/quarantine", json={"end_user": "u", "until": time})
    for path in ("/v1/quarantine", "/v1/quarantine/u"):
        found = await send("GET", path)
        assert (found.status_code == 200) == (taken.status_code == 200 or path == "/v1/quarantine")
    await send("POST", "/v1/pause", json={"scope": "end_user", "name": "other", "until": time})
    await send("GET", "/v1/status")
    job = await send("POST", "/v1/jobs", json={"model": "gpt-5.6-sol", "input": "x", "not_before": time})
    if job.status_code == 202:
        for rest in ("", "/events", "/audit", "/support-packet", "/deliveries"):
            path = f"/v1/jobs/{job.json()['id']}{rest}"
            assert (await send("GET", path, headers={"Accept": "application/json"})).status_code == 200
    for name in ("created_after", "created_before"):
        await send("GET", "/v1/jobs", params={name: time})
    for name in ("after", "before"):
        await send("GET", "/v1/audit", params={name: time})


@pytest.mark.parametrize("place", ["\u0661-\u0661", "1-1-1", "-", "é"])
async def test_a_cursor_of_other_digits_is_no_cursor(acme, place):
    cursor = base64.urlsafe_b64encode(place.encode()).decode()
    answer = await acme.get("/v1/audit", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")
