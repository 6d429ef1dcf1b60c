"""An answer that is not to be stored: its last minute begins when the app has received it, and not before."""

from __future__ import annotations

import asyncio

import pytest
from api_server import submitted
from raw_client import RawClient, request
from waiting import until

from worker.store import keys

LONG = "x" * 3_000_000
SOON_MS = 3000 * 1000


@pytest.fixture
def key(acme) -> str:
    return acme.headers["authorization"].removeprefix("Bearer ")


@pytest.fixture
async def due(redis):
    """(the job's due time as it was at its end, a function that waits until it is sooner)."""

    async def score(job_id):
        return await redis.zscore(keys.ERASURE_DUE, job_id)

    return score


async def done(acme, worker, text="The answer.") -> str:
    job_id = await submitted(acme, store=False)
    await worker.start(job_id)
    await worker.complete(job_id, text)
    return job_id


READS = {
    "job": lambda job: f"/v1/jobs/{job}",
    "poll": lambda job: f"/v1/jobs/{job}?wait=5",
    "list": lambda _: "/v1/jobs",
    "events": lambda job: f"/v1/jobs/{job}/events",
    "response": lambda job: f"/v1/responses/{job}",
    "response stream": lambda job: f"/v1/responses/{job}?stream=true",
}


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("name", READS)
async def test_a_whole_answer_starts_the_minute(api, acme, worker, key, due, name, version):
    job_id = await done(acme, worker)
    unread = await due(job_id)
    client = await RawClient(api).send(request(key, "GET", READS[name](job_id), version=version, connection="close"))
    assert b"The answer." in await client.rest()
    client.close()

    async def sooner() -> bool:
        return unread - await due(job_id) > SOON_MS

    await until("the minute to begin", sooner)


async def test_what_shows_no_answer_starts_nothing(acme, worker, due):
    job_id = await done(acme, worker)
    unread, etag = await due(job_id), (await acme.head(f"/v1/jobs/{job_id}")).headers["etag"]
    for path in (make(job_id) for make in READS.values()):
        assert (await acme.head(path)).status_code == 200
    assert (await acme.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": etag})).status_code == 304
    assert (await acme.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "application/json"})).status_code == 200
    assert (await acme.get(f"/v1/jobs/{job_id}/events?after=4&offset=5")).status_code == 200, "a part of the text"
    assert (await acme.get(f"/v1/responses/{job_id}?stream=true&starting_after=999")).status_code == 200
    assert (await acme.get(f"/v1/jobs/{job_id}/audit")).status_code == 200
    assert (await acme.get("/v1/jobs?limit=0")).status_code == 422
    assert await due(job_id) == unread


@pytest.mark.parametrize("name", [name for name in READS if name != "poll"])
async def test_who_leaves_in_the_middle_has_not_read_it(api, acme, worker, key, due, redis, name):
    job_id = await done(acme, worker, LONG)
    unread = await due(job_id)
    client = await RawClient(api, buffer=8192).send(request(key, "GET", READS[name](job_id)))
    await client.read(1000)
    await asyncio.sleep(0.3)  # the server has written all that the system takes
    client.close()
    assert (await acme.get("/healthz")).status_code == 200
    await asyncio.sleep(0.3)
    assert await due(job_id) == unread


async def test_who_left_before_the_end_has_not_read_it(api, acme, worker, key, due):
    job_id = await submitted(acme, store=False)
    await worker.start(job_id)
    paths = (f"/v1/jobs/{job_id}?wait=60", f"/v1/jobs/{job_id}/events")
    clients = [await RawClient(api).send(request(key, "GET", path)) for path in paths]
    await clients[1].until(b"job.started")
    await asyncio.sleep(0.1)
    for client in clients:
        client.close()
    await worker.complete(job_id)
    unread = await due(job_id)
    await asyncio.sleep(0.3)
    assert await due(job_id) == unread


async def test_another_app_starts_nothing(api, acme, worker, due):
    job_id = await done(acme, worker)
    unread, other = await due(job_id), await api.client("other")
    for path in (make(job_id) for make in READS.values()):
        await other.get(path)
    assert await due(job_id) == unread


async def test_a_live_stream_that_showed_all_starts_the_minute(api, acme, worker, key, due):
    job_id = await submitted(acme, store=False)
    await worker.start(job_id)
    client = await RawClient(api).send(request(key, "GET", f"/v1/jobs/{job_id}/events"))
    await worker.text(job_id, 1, 0, "The ans")
    await client.until(b"The ans")
    await worker.complete(job_id)
    unread = await due(job_id)
    await client.until(b"job.completed")

    async def sooner() -> bool:
        return unread - await due(job_id) > SOON_MS

    await until("the minute to begin", sooner)
    client.close()


@pytest.mark.parametrize("close", ["keep-alive", "close"])
@pytest.mark.parametrize("name", [name for name in READS if name != "poll"])
async def test_who_resets_the_connection_with_most_of_it_unread_has_not_read_it(
    api, acme, worker, key, due, name, close
):
    """The client's system had acknowledged it all: the answer is small."""
    job_id = await done(acme, worker, "The answer. " * 200)
    unread = await due(job_id)
    client = await RawClient(api).send(request(key, "GET", READS[name](job_id), connection=close))
    assert len(await client.read(100)) == 100
    await asyncio.sleep(0.3)
    client.close()  # what is unread makes the system send a reset
    await asyncio.sleep(2.5)
    assert await due(job_id) == unread


async def test_who_keeps_the_connection_has_read_it_though_nothing_more_is_heard(api, acme, worker, key, due):
    job_id = await done(acme, worker)
    unread = await due(job_id)
    client = await RawClient(api).send(request(key, "GET", f"/v1/jobs/{job_id}"))
    await client.until(b"The answer.")

    async def sooner() -> bool:
        return unread - await due(job_id) > SOON_MS

    await until("the minute to begin", sooner)
    client.close()
