"""A token lets a browser read one job for a while, and nothing else."""

from __future__ import annotations

import asyncio
import logging

import pytest
from api_server import running, submitted
from waiting import until

from worker.store import keys


@pytest.fixture
async def job(acme):
    return await submitted(acme)


@pytest.fixture
async def page(api):
    """A client without a key."""
    client = await api.client()
    del client.headers["Authorization"]
    return client


async def token_of(client, job_id, **body):
    answer = await client.post(f"/v1/jobs/{job_id}/token", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["token"]


async def test_a_token_reads_its_job_by_header_and_by_parameter(acme, page, worker, job):
    made = (await acme.post(f"/v1/jobs/{job}/token", json={"seconds": 60})).json()
    assert set(made) == {"token", "expires_at"}
    token, bearer = made["token"], {"Authorization": f"Bearer {made['token']}"}
    await worker.start(job)
    await worker.complete(job)
    own = (await acme.get(f"/v1/jobs/{job}")).json()
    for given in ({"params": {"token": token}}, {"headers": bearer}, {"params": {"token": token, "wait": "5"}}):
        answer = await page.get(f"/v1/jobs/{job}", **given)
        assert (answer.status_code, answer.json()) == (200, own)
    for given in ({"params": {"token": token}}, {"headers": bearer}):
        streamed = await page.get(f"/v1/jobs/{job}/events", **given)
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert "job.completed" in streamed.text
    rest = await page.get(f"/v1/jobs/{job}/events", params={"token": token}, headers={"Last-Event-ID": "9999"})
    assert rest.status_code == 204


async def test_a_token_does_nothing_else(api, acme, page, job):
    other, token = await submitted(acme), await token_of(acme, job)
    bearer = {"Authorization": f"Bearer {token}"}
    for path in (f"/v1/jobs/{other}", f"/v1/jobs/{other}/events", "/v1/jobs/job_0", f"/v1/jobs/{job}x"):
        for given in ({"params": {"token": token}}, {"headers": bearer}):
            assert (await page.get(path, **given)).status_code == 401, path
    document = (await page.get("/openapi.json")).json()
    tried = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if not operation.get("security") or {"job_token": []} in operation["security"]:
                continue
            tried += 1
            url = path.replace("{job_id}", job)
            sent = await page.request(method.upper(), url, headers=bearer, json=None if method == "get" else {})
            by_url = await page.request(method.upper(), url, params={"token": token})
            assert {sent.status_code, by_url.status_code} == {401}, (method, path)
    assert tried > 20
    assert (await acme.get(f"/v1/jobs/{job}")).json()["status"] == "queued"


async def test_who_may_make_one(api, job):
    for scope, status in (("read", 200), ("submit", 200), ("audit", 403), ("ops", 403)):
        client = await api.client("acme", (scope,))
        assert (await client.post(f"/v1/jobs/{job}/token")).status_code == status
    stranger = await api.client("umbra")
    assert (await stranger.post(f"/v1/jobs/{job}/token")).status_code == 404


async def test_how_long_it_may_last(settings, redis, clock):
    async with running(settings.model_copy(update={"job_token_seconds": 30}), redis, clock) as api:
        acme = await api.client()
        job = await submitted(acme)
        for seconds in (0, -1, 31, 3601, 1.5, "10", True):
            answer = await acme.post(f"/v1/jobs/{job}/token", json={"seconds": seconds})
            assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/seconds"), seconds
        assert await token_of(acme, job, seconds=30)
        assert (await acme.post(f"/v1/jobs/{job}/token", json={"other": 1})).status_code == 422


async def test_it_ends_by_itself_and_takes_its_streams_along(acme, page, job):
    token = await token_of(acme, job, seconds=1)
    async with page.stream("GET", f"/v1/jobs/{job}/events", params={"token": token}) as stream:
        assert stream.status_code == 200
        text = "".join([piece async for piece in stream.aiter_text()])  # it ends
    assert "job.queued" in text
    late = await page.get(f"/v1/jobs/{job}", params={"token": token})
    assert (late.status_code, late.json()["code"]) == (401, "unauthorized")


async def test_it_ends_with_its_key(api, acme, page, job):
    record, key, _ = await api.apps.create_key("acme", ("read",))
    token = await token_of(await api.client(key=key), job)
    assert (await page.get(f"/v1/jobs/{job}", params={"token": token})).status_code == 200
    await api.apps.revoke(record.id)

    async def refused():
        return (await page.get(f"/v1/jobs/{job}", params={"token": token})).status_code == 401

    await until("the token to be refused", refused)


async def test_it_ends_when_the_record_of_its_key_is_changed(api, acme, page, job, redis):
    record, key, _ = await api.apps.create_key("acme", ("read",))
    token = await token_of(await api.client(key=key), job)
    digest = (await redis.hget(keys.API_KEYS, record.id)).decode()
    stored = await redis.get(keys.api_key(digest))
    await redis.set(keys.api_key(digest), stored.replace(b'["read"]', b'["read","submit"]'))

    async def refused():
        answer = await page.get(f"/v1/jobs/{job}", params={"token": token})
        return answer.status_code == 401 and answer.json()["code"] == "key_not_authentic"

    await until("the token to be refused", refused)


async def test_altered_tokens_are_refused(acme, page, job):
    token = await token_of(acme, job)
    expires, key, signature = token.removeprefix("vgt_").split(".")
    later = f"{int(expires, 16) + 1000:012x}"
    swapped = signature[:-2] + ("A" if signature[-2] != "A" else "B") + signature[-1]
    for wrong in (
        f"vgt_{later}.{key}.{signature}", f"vgt_{expires}.{key[::-1]}.{signature}", f"vgt_{expires}.{key}.{swapped}",
        token + "x", token[:-1], "vgt_", "", "vgt_\u00e9", "a b", "vgt_" + "0" * 5000,
    ):  # fmt: skip
        answer = await page.get(f"/v1/jobs/{job}", params={"token": wrong})
        assert answer.status_code == 401, wrong[:80]
        assert wrong == "" or wrong not in answer.text


async def test_the_id_of_a_key_which_the_token_shows_is_no_key(acme, page, job):
    token = await token_of(acme, job)
    assert (await page.get(f"/v1/jobs/{job}", params={"token": token})).status_code == 200
    for text in (f"key_{token.split('.')[1]}", token.split(".")[1], token):
        answer = await page.get("/v1/jobs", headers={"Authorization": f"Bearer {text}"})
        assert answer.status_code == 401


async def test_a_key_in_the_address_and_two_credentials_are_refused(acme, page, job):
    key = acme.headers["Authorization"].removeprefix("Bearer ")
    answer = await page.get(f"/v1/jobs/{job}", params={"token": key})
    assert (answer.status_code, "does not belong in an address" in answer.json()["detail"]) == (401, True)
    both = await acme.get(f"/v1/jobs/{job}", params={"token": await token_of(acme, job)})
    assert (both.status_code, both.json()["errors"][0]["parameter"]) == (422, "token")


async def test_all_processes_check_alike_and_the_secret_is_kept(settings, redis, clock, acme, job):
    token = await token_of(acme, job)
    async with running(settings, redis, clock) as second:
        client = await second.client()
        del client.headers["Authorization"]
        assert (await client.get(f"/v1/jobs/{job}", params={"token": token})).status_code == 200
    assert await redis.exists(keys.secret("job-token"))
    assert token.encode() not in b"".join([await redis.dump(key) or b"" async for key in redis.scan_iter()])


async def test_it_is_in_no_log_and_no_answer(acme, page, job, caplog, capfd):
    token = await token_of(acme, job)
    with caplog.at_level(logging.DEBUG):
        for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/events?after=x", "/v1/jobs", "/nowhere", "/v1/responses/x"):
            answer = await page.get(path + ("&" if "?" in path else "?") + f"token={token}")
            assert token not in answer.text
            assert token not in str(answer.headers)
    await asyncio.sleep(0)
    logged = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    assert token not in logged + "".join(capfd.readouterr())


async def test_a_browser_that_reads_is_not_the_app_that_has_received(acme, page, worker, redis):
    job = await submitted(acme, store=False)
    token = await token_of(acme, job)
    await worker.start(job)
    await worker.complete(job)
    unread = await redis.zscore(keys.ERASURE_DUE, job)
    for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/events"):
        assert "The answer." in (await page.get(path, params={"token": token})).text
    assert await redis.zscore(keys.ERASURE_DUE, job) == unread, "the app has still to read it"
    await acme.get(f"/v1/jobs/{job}")

    async def sooner():
        return await redis.zscore(keys.ERASURE_DUE, job) < unread

    await until("the minute of the app's own read to begin", sooner)
