"""Limits as an app sees them through OpenAI's SDK, on responses and chat: its own exceptions, and retries that help."""

from __future__ import annotations

import asyncio

import openai
import pytest
from api_server import running
from openai import AsyncOpenAI
from waiting import LIMIT, soon, until

from worker.store import keys

SOL = "gpt-5.6-sol"
KINDS = pytest.mark.parametrize("kind", ["responses", "chat"])


def create(client, kind, text="hello", **more):
    if kind == "responses":
        return client.responses.create(model=SOL, input=text, **more)
    return client.chat.completions.create(model=SOL, messages=[{"role": "user", "content": text}], **more)


async def client_of(api, retries=0):
    return AsyncOpenAI(base_url=f"{api.base_url}/v1", api_key=await api.key(), max_retries=retries, timeout=LIMIT)


async def refusal(client, kind, kind_of_error, text="hello"):
    with pytest.raises(kind_of_error) as raised:
        await create(client, kind, text)
    return raised.value


async def open_waits(redis, number):
    async def look():
        return await redis.zcard(keys.index("acme")) == number

    await until(f"{number} jobs", look)


@KINDS
async def test_a_rate_limit_is_the_sdks_and_its_retry_gets_through(settings, redis, clock, worker, kind):
    settings = settings.model_copy(update={"rate_per_minute": 60, "rate_burst": 1})
    async with (
        running(settings, redis, clock) as api,
        await client_of(api) as strict,
        await client_of(api, 9) as patient,
    ):
        first = asyncio.create_task(create(strict, kind))
        await open_waits(redis, 1)
        refused = await refusal(strict, kind, openai.RateLimitError)
        assert (refused.code, int(refused.response.headers["retry-after"])) == ("rate_limit_exceeded", 1)
        second = asyncio.create_task(create(patient, kind))
        await open_waits(redis, 2)
        for job_id in await redis.zrange(keys.index("acme"), 0, -1):
            await worker.start(job_id.decode())
            await worker.complete(job_id.decode())
        assert (await soon(first)).id != (await soon(second)).id


@KINDS
async def test_too_many_waits_are_a_rate_limit_with_a_way_out(settings, redis, clock, worker, kind):
    async with (
        running(settings.model_copy(update={"app_max_waits": 1}), redis, clock) as api,
        await client_of(api) as client,
    ):
        first = asyncio.create_task(create(client, kind))
        await open_waits(redis, 1)
        refused = await refusal(client, kind, openai.RateLimitError)
        assert refused.body["vigil"]["code"] == "too_many_waits"
        assert int(refused.response.headers["retry-after"]) >= 1
        (job_id,) = await redis.zrange(keys.index("acme"), 0, -1)
        await worker.start(job_id.decode())
        await worker.complete(job_id.decode())
        await soon(first)
    assert await redis.zcard(keys.index("acme")) == 1


@KINDS
async def test_a_body_that_is_too_long_names_the_setting_and_is_sent_once(api, redis, kind):
    async with await client_of(api, 3) as client:
        refused = await refusal(client, kind, openai.APIStatusError, "x" * 70_000)
    assert refused.status_code == 413
    assert "VIGIL_MAX_BODY_BYTES" in refused.message
    assert refused.body["vigil"]["code"] == "body_too_large"
    assert await redis.zcard(keys.index("acme")) == 0


@KINDS
async def test_a_busy_process_is_an_internal_server_error_that_is_tried_again(settings, redis, clock, worker, kind):
    async with (
        running(settings.model_copy(update={"max_waiting": 1}), redis, clock) as api,
        await client_of(api) as strict,
        await client_of(api, 9) as patient,
    ):
        first = asyncio.create_task(create(strict, kind))
        await open_waits(redis, 1)
        refused = await refusal(strict, kind, openai.InternalServerError)
        assert (refused.status_code, refused.body["vigil"]["code"]) == (503, "too_busy")
        assert int(refused.response.headers["retry-after"]) >= 1
        second = asyncio.create_task(create(patient, kind)) if kind == "chat" else None  # its retry takes five seconds
        (job_id,) = await redis.zrange(keys.index("acme"), 0, -1)
        await worker.start(job_id.decode())
        await worker.complete(job_id.decode())
        await soon(first)
        if second is None:
            return
        await open_waits(redis, 2)
        other = next(j for j in await redis.zrange(keys.index("acme"), 0, -1) if j != job_id).decode()
        await worker.start(other)
        await worker.complete(other)
        await soon(second)
