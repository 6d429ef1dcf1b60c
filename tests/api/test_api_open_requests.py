"""What one app may have open, and what the others notice of it: polls, waits, streams, requests in flight."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from api_server import running, submitted
from raw_client import RawClient, request
from waiting import until

BODY = {"model": "gpt-5.6-sol", "input": "Explain tail latency."}
LIMITS = {"app_max_waits": 2, "app_max_streams": 2, "app_max_requests": 3}

WAITS = {
    "poll": lambda key, job: request(key, "GET", f"/v1/jobs/{job}?wait=60"),
    "head of a poll": lambda key, job: request(key, "HEAD", f"/v1/jobs/{job}?wait=60"),
    "submit that waits": lambda key, _: request(key, "POST", "/v1/jobs", BODY, prefer="wait=60"),
    "response": lambda key, _: request(key, "POST", "/v1/responses", BODY),
}
STREAMS = {
    "events": lambda key, job: request(key, "GET", f"/v1/jobs/{job}/events"),
    "response stream": lambda key, job: request(key, "GET", f"/v1/responses/{job}?stream=true"),
    "new response stream": lambda key, _: request(key, "POST", "/v1/responses", {**BODY, "stream": True}),
}
BEHIND = {"nothing": b"", "a request": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "half": b"GET /healthz HT"}


@pytest.fixture
def settings(settings):
    return settings.model_copy(update=LIMITS)


async def poll_status(client, job_id) -> tuple[int, str]:
    answer = await client.get(f"/v1/jobs/{job_id}?wait=0.01")
    return answer.status_code, answer.json().get("code", "")


async def stream_status(client, job_id) -> tuple[int, str]:
    async with client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        if answer.status_code == 200:
            return 200, ""
        return answer.status_code, json.loads(await answer.aread())["code"]


CASES = [*((name, "waits") for name in WAITS), *((name, "streams") for name in STREAMS)]


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize(("name", "kind"), CASES)
async def test_who_leaves_frees_the_place_at_once_and_never_takes_anothers(api, acme, name, kind, behind):
    other = await api.client("other")
    job, others = await submitted(acme), await submitted(other)
    key = acme.headers["authorization"].removeprefix("Bearer ")
    status = poll_status if kind == "waits" else stream_status
    sent = {**WAITS, **STREAMS}[name](key, job) + BEHIND[behind]
    clients = [await RawClient(api).send(sent) for _ in range(LIMITS[f"app_max_{kind}"])]

    async def full() -> bool:
        if await status(acme, job) == (429, f"too_many_{kind}"):
            return True
        clients.append(await RawClient(api).send(sent))  # the question itself took the last place from one of them
        return False

    await until("the app to be at its limit", full)
    assert await status(other, others) == (200, "")
    assert (await acme.get(f"/v1/jobs/{job}")).status_code == 200, "only this kind is at its limit"
    for one in clients:
        one.close()

    async def freed() -> bool:
        return await status(acme, job) == (200, "")

    await until("the places to be free again", freed, 20)  # the waits would have lasted for a minute


async def test_a_refusal_says_which_limit_and_when_to_come_back(api, acme):
    job_id, key = await submitted(acme), acme.headers["authorization"].removeprefix("Bearer ")
    clients = [await RawClient(api).send(STREAMS["events"](key, job_id)) for _ in range(2)]
    for one in clients:
        await one.until(b"job.queued")
    refused = await acme.get(f"/v1/jobs/{job_id}/events")
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
    assert int(refused.headers["retry-after"]) > 0
    assert re.search(r"\b2 event streams\b.*VIGIL_APP_MAX_STREAMS", refused.json()["detail"])
    openai = await acme.get(f"/v1/responses/{job_id}?stream=true")
    assert (openai.status_code, openai.json()["error"]["code"]) == (429, "too_many_streams")
    before = len((await acme.get("/v1/jobs")).json()["data"])
    refused = await acme.post("/v1/responses", json={**BODY, "stream": True})
    assert refused.status_code == 429
    assert len((await acme.get("/v1/jobs")).json()["data"]) == before, "nothing was accepted"
    for one in clients:
        one.close()


async def test_a_submit_that_may_not_wait_is_accepted_all_the_same(api, acme):
    job_id, key = await submitted(acme), acme.headers["authorization"].removeprefix("Bearer ")
    clients = [await RawClient(api).send(WAITS["poll"](key, job_id)) for _ in range(2)]

    async def full() -> bool:
        if (await poll_status(acme, job_id))[0] == 429:
            return True
        clients.append(await RawClient(api).send(WAITS["poll"](key, job_id)))
        return False

    await until("the app to be at its limit", full)
    answer = await acme.post("/v1/jobs", json=BODY, headers={"Prefer": "wait=60"})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert "preference-applied" not in answer.headers
    for one in clients:
        one.close()


async def test_all_keys_of_an_app_share_its_limits(api, acme):
    job_id = await submitted(acme)
    clients = [await RawClient(api).send(STREAMS["events"](await api.key("acme", ("read",)), job_id)) for _ in range(2)]
    for one in clients:
        await one.until(b"job.queued")
    assert await stream_status(await api.client("acme", ("read",)), job_id) == (429, "too_many_streams")
    for one in clients:
        one.close()


async def test_unfinished_bodies_are_requests_in_flight_of_their_app(api, acme):
    key, other = acme.headers["authorization"].removeprefix("Bearer "), await api.client("other")
    half = request(key, "POST", "/v1/jobs", BODY)[:-5]
    clients = [await RawClient(api).send(half) for _ in range(3)]

    async def full() -> bool:
        answer = await acme.get("/v1/jobs")
        if answer.status_code == 429:
            return bool(answer.json()["code"] == "too_many_requests")
        clients.append(await RawClient(api).send(half))
        return False

    await until("the app to be at its limit", full)
    assert (await other.get("/v1/jobs")).status_code == 200
    await clients[0].send(request(key, "POST", "/v1/jobs", BODY)[-5:])
    assert (await clients[0].until(b"\r\n\r\n")).startswith(b"HTTP/1.1 202")
    for one in clients:
        one.close()

    async def freed() -> bool:
        return (await acme.get("/v1/jobs")).status_code == 200

    await until("the places to be free again", freed, 20)


async def test_a_burst_of_one_app_is_worked_off(settings, redis, clock):
    roomy = settings.model_copy(update={"app_max_requests": 1000, "app_max_waits": 1000})
    async with running(roomy, redis, clock) as api:
        acme, other = await api.client(), await api.client("other")
        job_id, others = await submitted(acme), await submitted(other)
        key = acme.headers["authorization"].removeprefix("Bearer ")
        for _ in range(2):
            clients = [await RawClient(api).send(WAITS["poll"](key, job_id)) for _ in range(100)]
            assert (await other.get(f"/v1/jobs/{others}")).status_code == 200
            for one in clients:
                one.close()
        answers = await asyncio.gather(*(acme.get(f"/v1/jobs/{job_id}") for _ in range(60)))
        assert {answer.status_code for answer in answers} == {200}


async def test_a_server_that_is_full_still_answers_its_probes(settings, redis, clock):
    async with running(settings.model_copy(update={"max_requests": 1}), redis, clock) as api:
        acme = await api.client()
        half = request(acme.headers["authorization"].removeprefix("Bearer "), "POST", "/v1/jobs", BODY)[:-5]
        client = await RawClient(api).send(half)

        async def full() -> bool:
            return (await acme.get("/v1/jobs")).status_code == 503

        await until("the server to be full", full)
        refused = await acme.get("/v1/jobs")
        assert (refused.json()["code"], refused.headers["retry-after"]) == ("too_busy", "1")
        for path in ("/healthz", "/readyz", "/metrics"):
            assert (await acme.get(path)).status_code == 200
            assert (await acme.head(path)).status_code == 200
        client.close()


async def test_waits_of_all_apps_together_leave_room_for_everything_else(settings, redis, clock):
    async with running(settings.model_copy(update={"max_waiting": 1}), redis, clock) as api:
        acme, other = await api.client(), await api.client("other")
        job_id, others = await submitted(acme), await submitted(other)
        key = acme.headers["authorization"].removeprefix("Bearer ")
        client = await RawClient(api).send(STREAMS["events"](key, job_id))
        await client.until(b"job.queued")
        assert await poll_status(other, others) == (503, "too_busy")
        assert (await other.get(f"/v1/jobs/{others}")).status_code == 200
        await submitted(other)
        client.close()


async def test_silent_connections_give_way_to_new_ones(settings, redis, clock):
    few = settings.model_copy(update={"max_connections": 16, "header_seconds": 60})
    async with running(few, redis, clock) as api:
        silent = [await RawClient(api).send(b"GET / HT" if n % 2 else b"G") for n in range(40)]
        acme = await api.client()
        await submitted(acme)
        assert (await acme.get("/healthz")).status_code == 200
        assert b" 503 " in await silent[0].rest()
        for one in silent:
            one.close()


async def test_idle_connections_give_way_without_a_word(settings, redis, clock):
    async with running(settings.model_copy(update={"max_connections": 16}), redis, clock) as api:
        idle = []
        for _ in range(16):
            idle.append(await RawClient(api).send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))
            await idle[-1].until(b'{"status":"ok"}')
        assert (await (await api.client()).get("/healthz")).status_code == 200
        assert await idle[0].rest() == b"", "a response that no request asked for would be taken for the next one's"
        for one in idle:
            one.close()


async def test_when_every_connection_is_busy_probes_are_served_and_the_rest_is_told(settings, redis, clock):
    few = settings.model_copy(update={"max_connections": 16, "app_max_streams": 100})
    async with running(few, redis, clock) as api:
        acme = await api.client()
        job_id, key = await submitted(acme), acme.headers["authorization"].removeprefix("Bearer ")
        await acme.aclose()
        streams = []
        for _ in range(16):
            streams.append(await RawClient(api).send(STREAMS["events"](key, job_id)))
            await streams[-1].until(b"job.queued")
        for _ in range(3):
            probe = await RawClient(api).send(request("", "GET", "/healthz"))
            assert (await probe.rest()).startswith(b"HTTP/1.1 200")
            refused = await RawClient(api).send(request(key, "GET", "/v1/jobs"))
            assert b"too_busy" in await refused.rest()
            probe.close(), refused.close()
        for one in streams:
            one.close()


async def test_requests_sent_far_ahead_end_a_connection_that_waits(api, acme):
    job_id, key = await submitted(acme), acme.headers["authorization"].removeprefix("Bearer ")
    client = await RawClient(api).send(STREAMS["events"](key, job_id))
    await client.until(b"job.queued")
    await client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
    assert b"HTTP/1.1 200" not in await client.rest()
    client.close()


async def test_a_client_that_takes_nothing_is_disconnected(settings, redis, clock, worker):
    async with running(settings.model_copy(update={"send_seconds": 0.4}), redis, clock) as api:
        acme = await api.client()
        job_id, key = await submitted(acme), acme.headers["authorization"].removeprefix("Bearer ")
        await worker.start(job_id)
        await worker.complete(job_id, "x" * 6_000_000)
        client = RawClient(api, buffer=8192)
        await client.send(request(key, "GET", f"/v1/jobs/{job_id}"))
        await client.read(100)
        await asyncio.sleep(1.5)  # it takes nothing
        assert len(await client.rest()) < 11_000_000, "the connection was cut before the end of the body"
        client.close()
        assert len((await acme.get(f"/v1/jobs/{job_id}")).json()["output_text"]) == 6_000_000
