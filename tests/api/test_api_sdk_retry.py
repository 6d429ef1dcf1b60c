"""What an SDK of OpenAI sends again by itself makes no second job: counted in the store, and at the provider."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from api_server import running
from in_process import Stage
from openai import AsyncOpenAI
from openai_sdk import SOL
from raw_client import RawClient, request
from waiting import LIMIT, soon, until

from worker.jobs.states import Status
from worker.store import keys

INPUT = "[[sim: silent_delay hold=600]] Why is the sky blue?"
RESPONSE = {"model": SOL, "input": INPUT}
CHAT = {"model": SOL, "messages": [{"role": "user", "content": INPUT}]}
FIRST, SECOND, THIRD = ({"x_stainless_retry_count": str(n), "x_stainless_read_timeout": "0.4"} for n in range(3))


async def callers(redis):
    """The callers of all jobs: job id -> who waits for its answer."""
    names = [name async for name in redis.scan_iter("vigil:callers:*")]
    return {k.decode(): v.decode() for name in names for k, v in (await redis.hgetall(name)).items()}


async def count(redis):
    return await redis.zcard(keys.index("acme"))


async def left(redis, job_id):
    async def look():
        return (await callers(redis)).get(job_id, "").startswith("left:")

    await until(f"the caller of {job_id} to have left", look)


async def send(api, key, path, body, **fields):
    """A connection on which this create was sent."""
    return await RawClient(api).send(request(key, "POST", path, body, **fields))


async def send_and_leave(api, redis, key, path, body, **fields):
    """The id of the job that a create made whose client then has left."""
    before = set(await callers(redis))
    client = await send(api, key, path, body, **fields)

    async def made():
        return set(await callers(redis)) - before

    (job_id,) = await until("the job", made)
    client.close()
    await left(redis, job_id)
    return job_id


async def answer(api, key, path, body, **fields):
    """The head and the body of the whole answer."""
    client = await send(api, key, path, body, connection="close", **fields)
    head, _, rest = (await client.rest()).partition(b"\r\n\r\n")
    client.close()
    return head.decode().lower(), rest


def job_of(head):
    return next(line.split(": ")[1] for line in head.splitlines() if line.startswith("x-vigil-job:"))


@pytest.fixture(autouse=True)
def slow_machine(monkeypatch):
    """A stream counts as arrived after a second: on a busy machine that is over before a test's client has left."""
    monkeypatch.setattr("api.web.callers._HEAD_ARRIVES_S", 60.0)


@pytest.fixture
async def key(api):
    return await api.key()


@pytest.mark.parametrize("kind", ["responses", "chat"])
async def test_a_request_that_the_sdk_gives_up_and_sends_again_is_one_job_and_one_call(
    settings, redis, clock, valkey_url, kind
):
    async with (
        running(settings, redis, clock) as api,
        Stage(redis, valkey_url, speed=1.0) as stage,
        AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key=await api.key(), timeout=0.5, max_retries=60) as client,
    ):
        await stage.worker()
        if kind == "responses":
            call = client.responses.with_raw_response.create(**RESPONSE)
        else:
            call = client.chat.completions.with_raw_response.create(**CHAT)
        asking = asyncio.create_task(call)
        tries = set()

        async def asked_thrice():
            tries.update(state for state in (await callers(redis)).values() if not state.startswith("left:"))
            assert not asking.done()
            return len(tries) >= 3

        await until("two retries", asked_thrice)
        stage.hurry()
        raw = await soon(asking)
        answered = await asyncio.to_thread(raw.parse)
        assert raw.headers["idempotent-replayed"] == "true"
        text = answered.output_text if kind == "responses" else answered.choices[0].message.content
        assert len(text) > 20
        assert await count(redis) == 1
        assert stage.sim.calls()["creates"] == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", RESPONSE),
        ("/v1/responses", RESPONSE | {"stream": True}),
        ("/v1/responses", RESPONSE | {"background": True, "stream": True}),
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", CHAT | {"stream": True}),
    ],
)
async def test_a_retry_joins_the_job_of_the_caller_that_has_left(api, redis, worker, key, path, body):
    job_id = await send_and_leave(api, redis, key, path, body, **FIRST)
    assert await send_and_leave_again(api, redis, key, path, body, job_id, **SECOND) == job_id
    asking = asyncio.create_task(answer(api, key, path, body, **THIRD))

    async def joined():
        return not (await callers(redis))[job_id].startswith("left:")

    await until("the third try to wait", joined)
    await worker.start(job_id)
    await worker.complete(job_id)
    head, rest = await soon(asking)
    assert (job_of(head), "idempotent-replayed: true" in head) == (job_id, True)
    assert (b"chat.completion" if "chat" in path else b"The answer.") in rest
    if body.get("stream") and path == "/v1/responses":
        numbers = [json.loads(x[6:])["sequence_number"] for x in rest.split(b"\n") if x.startswith(b"data: {")]
        assert numbers == list(range(len(numbers)))
        assert b"response.created" in rest
    assert await count(redis) == 1

    async def forgotten():
        return not await callers(redis)

    await until("the answered caller to be forgotten", forgotten)


async def send_and_leave_again(api, redis, key, path, body, job_id, **fields):
    """The id of the job that this retry joined, which then has left, too."""
    before = (await callers(redis))[job_id]
    client = await send(api, key, path, body, **fields)

    async def joined():
        return next((name for name, state in (await callers(redis)).items() if state[:5] != "left:"), None)

    found = await until("the retry to wait", joined)
    client.close()
    await left(redis, found)
    assert (await callers(redis))[found] != before
    return found


async def test_a_background_create_whose_answer_is_lost_is_joined(api, redis, key):
    body = RESPONSE | {"background": True, "metadata": {"long": "x" * 500}}
    client = RawClient(api, buffer=1)
    await client.send(request(key, "POST", "/v1/responses", body, **FIRST))

    async def made():
        return await callers(redis)

    (job_id,) = await until("the job", made)
    client.close()  # with the answer unread: it is reset
    state = (await callers(redis)).get(job_id, "")
    head, _ = await answer(api, key, "/v1/responses", body, **SECOND)
    if state:  # the answer was not acknowledged before the client left
        assert (job_of(head), await count(redis)) == (job_id, 1)


async def test_identical_requests_that_are_no_retries_are_jobs_of_their_own(api, redis, key):
    ids = {await send_and_leave(api, redis, key, "/v1/responses", RESPONSE, **FIRST) for _ in range(3)}
    assert len(ids) == await count(redis) == 3
    retries = {await send_and_leave_again_any(api, redis, key) for _ in range(3)}
    assert retries <= ids
    assert await count(redis) == 3


async def send_and_leave_again_any(api, redis, key):
    client = await send(api, key, "/v1/responses", RESPONSE, **SECOND)
    head = await client.until(b"\r\n\r\n")
    client.close()
    job_id = job_of(head.decode().lower())
    await left(redis, job_id)
    return job_id


async def test_each_retry_joins_another_one_of_identical_requests(api, redis, key):
    ids = {await send_and_leave(api, redis, key, "/v1/responses", RESPONSE, **FIRST) for _ in range(3)}
    clients = [await send(api, key, "/v1/responses", RESPONSE, **SECOND) for _ in range(3)]
    heads = await asyncio.gather(*(client.until(b"\r\n\r\n") for client in clients))
    assert {job_of(head.decode().lower()) for head in heads} == ids
    assert await count(redis) == 3
    for client in clients:
        client.close()


async def test_a_retry_of_a_request_that_never_came_is_one_job(api, redis, key):
    body = RESPONSE | {"background": True}
    head, _ = await answer(api, key, "/v1/responses", body, **SECOND)
    assert ("idempotent-replayed" in head, await count(redis)) == (False, 1)


async def test_a_request_that_was_answered_is_not_joined(api, redis, key):
    body = RESPONSE | {"background": True}
    first, _ = await answer(api, key, "/v1/responses", body, **FIRST)

    async def forgotten():
        return not await callers(redis)

    await until("the answered caller to be forgotten", forgotten)
    second, _ = await answer(api, key, "/v1/responses", body, **SECOND)
    assert job_of(first) != job_of(second)
    assert await count(redis) == 2


async def test_a_retry_while_the_first_caller_waits_is_a_job_of_its_own_after_a_while(api, redis, key):
    client = await send(api, key, "/v1/responses", RESPONSE, **FIRST)
    await until("the job", lambda: callers(redis))
    body = RESPONSE
    second = await send(api, key, "/v1/responses", body, **SECOND)
    head = await second.until(b"\r\n\r\n")
    assert b"Idempotent-Replayed" not in head
    assert await count(redis) == 2
    client.close()
    second.close()


async def test_a_retry_that_waits_joins_as_soon_as_the_first_caller_leaves(api, redis, key):
    client = await send(api, key, "/v1/responses", RESPONSE, **FIRST)
    (job_id,) = await until("the job", lambda: callers(redis))
    second = await send(api, key, "/v1/responses", RESPONSE, **SECOND)
    client.close()
    assert job_of((await second.until(b"\r\n\r\n")).decode().lower()) == job_id
    assert await count(redis) == 1
    second.close()


@pytest.mark.parametrize("difference", ["key", "app", "path", "body", "no count"])
async def test_what_differs_is_not_joined(api, redis, key, difference):
    await send_and_leave(api, redis, key, "/v1/responses", RESPONSE, **FIRST)
    path, body, fields = "/v1/responses", RESPONSE | {"background": True}, dict(SECOND)
    if difference == "key":
        key = await api.key()
    elif difference == "app":
        key = await api.key("rival")
    elif difference == "path":
        path, body = "/v1/chat/completions", CHAT | {"stream": True}
    elif difference == "no count":
        fields = {}
    client = await send(api, key, path, body, **fields)
    head = await client.until(b"\r\n\r\n")
    client.close()
    assert b"Idempotent-Replayed" not in head
    total = await count(redis) + await redis.zcard(keys.index("rival"))
    assert total == 2


async def test_a_retry_after_a_refusal_is_an_ordinary_create(settings, redis, clock):
    settings = settings.model_copy(update={"rate_per_minute": 60, "rate_burst": 1})
    async with running(settings, redis, clock) as api:
        given = {"base_url": f"{api.base_url}/v1", "api_key": await api.key(), "timeout": LIMIT}
        async with AsyncOpenAI(**given, max_retries=20) as client:
            made = [await client.responses.create(**RESPONSE, background=True) for _ in range(2)]
        assert made[0].id != made[1].id
        assert await count(redis) == 2
        async with AsyncOpenAI(**given, max_retries=1) as client:
            with pytest.raises(openai.NotFoundError):
                await client.responses.create(model="unknown", input="x")


async def test_a_retry_at_another_process_joins(settings, redis, clock):
    async with running(settings, redis, clock) as one, running(settings, redis, clock) as two:
        key = await one.key()
        job_id = await send_and_leave(one, redis, key, "/v1/responses", RESPONSE, **FIRST)
        again = await send(two, key, "/v1/responses", RESPONSE, **SECOND)
        assert job_of((await again.until(b"\r\n\r\n")).decode().lower()) == job_id
        again.close()
        await left(redis, job_id)
    assert await redis.zcard(keys.API_PROCESSES) == 0
    assert await count(redis) == 1


async def test_the_head_comes_before_the_answer_with_the_id_of_the_job(api, redis, worker, key):
    client = await send(api, key, "/v1/responses", RESPONSE, **FIRST)
    head = await client.until(b"\r\n\r\n")
    job_id = job_of(head.decode().lower())
    assert head.startswith(b"HTTP/1.1 200")
    await worker.start(job_id)
    await worker.block(job_id)
    body = await client.until(b"0\r\n\r\n")
    assert b'"status":"failed"' in body.replace(b" ", b"")
    assert b"cyber_policy" in body
    client.close()


async def test_a_chat_job_that_fails_has_its_status_because_its_head_waits(api, redis, worker, key):
    client = await send(api, key, "/v1/chat/completions", CHAT, connection="close", **FIRST)
    (job_id,) = await until("the job", lambda: callers(redis))
    await worker.start(job_id)
    await asyncio.sleep(0.4)  # the timeout that the SDK announces: a response would have its head by now
    await worker.fail(job_id)
    head = await client.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 50")
    assert b"x-should-retry: false" in head
    client.close()
    assert Status.FAILED.value in str(await redis.hget(keys.job(job_id), "rec"))


async def test_a_retry_in_a_conversation_joins_its_turn_also_once_that_has_ended(settings, redis, clock, valkey_url):
    async with Stage(redis, valkey_url, speed=200.0) as stage, running(settings, redis, clock) as api:
        await stage.worker()
        key = await api.key()
        async with AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key=key, max_retries=0) as client:
            made = await client.conversations.create()
            body = {"model": SOL, "input": "[[sim: silent_delay hold=50000]] Hi", "conversation": made.id}
            job_id = await send_and_leave(api, redis, key, "/v1/responses", body, **FIRST)
            second = await send(api, key, "/v1/responses", body, **SECOND)

            async def joined():
                return not (await callers(redis))[job_id].startswith("left:")

            await until("the second try to join the turn that runs", joined)
            second.close()
            await left(redis, job_id)
            stage.hurry()
            await stage.settled(job_id)
            ended, _ = await answer(api, key, "/v1/responses", body, **THIRD)
            assert job_of(ended) == job_id
            assert await count(redis) == 1
            assert stage.sim.calls()["creates"] == 1
            assert len((await client.conversations.items.list(made.id)).data) == 2


@pytest.mark.parametrize(("path", "body"), [("/v1/responses", RESPONSE), ("/v1/chat/completions", CHAT)])
async def test_a_process_that_stops_gives_no_answer_and_the_retry_joins_at_another(
    settings, redis, clock, monkeypatch, path, body
):
    def head_after(seconds):
        monkeypatch.setattr("api.openai_compat.routes._HEAD_AFTER_S", seconds)
        monkeypatch.setattr("api.openai_compat.chat.routes._KEEP_ALIVE_S", seconds)

    patient = {**FIRST, "x_stainless_read_timeout": "200"}
    async with running(settings, redis, clock) as other:
        async with running(settings, redis, clock) as api:
            key = await api.key()
            head_after(0.3)
            late = await send(api, key, path, body, **patient)
            head = await late.until(b"\r\n\r\n1\r\n ")
            stream = await send(api, key, path, {**body, "stream": True}, **patient)
            await stream.until(b"data: ")
            head_after(60.0)
            early = await send(api, key, path, {**body, "user": "ann"}, **patient)
            await until("three jobs", lambda: jobs_are(redis, 3))
            api.stop.set()
            refused, cut, streamed = [await client.rest() for client in (early, late, stream)]
            for client in (early, late, stream):
                client.close()
        assert refused.startswith(b"HTTP/1.1 503"), refused
        assert b"shutting_down" in refused
        assert cut in (b"", b"\r\n"), "the answer has no end, so no client takes it for one"
        if path == "/v1/chat/completions":
            assert b"stream_interrupted" in streamed
        else:
            assert not streamed.endswith(b"0\r\n\r\n"), "so no client takes the text for the whole answer"
        head_after(0.3)
        sent = await send(other, key, path, body, **SECOND)
        again = await sent.until(b"\r\n\r\n")
        sent.close()
        assert job_of(again.decode().lower()) == job_of(head.decode().lower())
        assert await count(redis) == 3


async def jobs_are(redis, number):
    return await count(redis) == number
