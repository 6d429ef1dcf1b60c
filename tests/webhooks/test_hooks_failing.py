"""An endpoint that acknowledges nothing for days: operators are warned first, then it is disabled; nothing is lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from waiting import until

from worker.clock import to_ms
from worker.store import keys
from worker.store.webhooks.failing_endpoints import FailingEndpoint, FailurePatience, read_failing

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


def test_the_warning_comes_a_fifth_before_the_end():
    patience = FailurePatience(5)
    assert patience.as_ms() == (4 * _DAY_MS, 5 * _DAY_MS, _DAY_MS)
    assert patience.disabled_at(FailingEndpoint(1000, 3)) == 1000 + 5 * _DAY_MS
    assert patience.disabled_at(FailingEndpoint(0, 3, 9 * _DAY_MS)) == 10 * _DAY_MS, "a day after a late warning"
    assert FailurePatience(0).disabled_at(FailingEndpoint(0, 3)) is None


async def failing(redis, endpoint):
    return (await read_failing(redis, [endpoint.id])).get(endpoint.id)


async def set_failing(redis, post, endpoint, since: timedelta, warned: timedelta | None = None):
    now = to_ms(post.clock.now())
    at = [now - round(one.total_seconds() * 1000) if one is not None else 0 for one in (since, warned)]
    await redis.hset(keys.FAILING_ENDPOINTS, endpoint.id, f"{at[0]} 40 {at[1]}")


async def tries(redis, endpoint, number):
    async def tried():
        found = await failing(redis, endpoint)
        return found is not None and found.tries >= number

    await until(f"{number} failed tries", tried)


async def emitted(events, name):
    async def look():
        return [fields for event, fields in events if event == name]

    return await until(name, look)


async def test_an_endpoint_is_warned_of_then_disabled_and_gets_what_it_missed(post, receiver, redis, telemetry_events):
    receiver.says(500)
    endpoint = await post.endpoint(receiver.url)
    post.worker(webhook_schedule=(0.05,) * 40)
    await set_failing(redis, post, endpoint, timedelta(days=9))
    first = await post.submit()
    await post.complete(first)
    warned = await emitted(telemetry_events, "webhook.endpoint_failing")
    assert warned[0] == {"app": "shop", "what": endpoint.id}
    await tries(redis, endpoint, 43)
    assert (await post.endpoints.find("shop", endpoint.id)).state == "active", "a day after the warning at the earliest"
    assert len(await emitted(telemetry_events, "webhook.endpoint_failing")) == 1

    await set_failing(redis, post, endpoint, timedelta(days=9), timedelta(hours=25))
    disabled = await emitted(telemetry_events, "webhook.endpoint_disabled")
    assert disabled == [{"app": "shop", "what": endpoint.id}]
    assert (await post.endpoints.find("shop", endpoint.id)).state == "disabled"
    got, second = len(receiver.got), await post.submit()
    await post.complete(second)
    receiver.says(204)
    await post.endpoints.change("shop", endpoint.id, lambda one: replace(one, state="active"))
    assert await failing(redis, endpoint) is None
    for job_id in (first, second):
        await post.message(job_id, "delivered")
    assert len(receiver.got) > got
    assert await failing(redis, endpoint) is None


async def test_one_acknowledged_message_ends_it(post, receiver, redis):
    receiver.says(500, 500, 204)
    endpoint = await post.endpoint(receiver.url)
    post.worker(webhook_schedule=(0.01,) * 5)
    job_id = await post.submit()
    await post.complete(job_id)
    await post.message(job_id, "delivered")
    assert await failing(redis, endpoint) is None


@pytest.mark.parametrize("days", [0, 365])
async def test_the_setting_says_when_and_zero_never(post, receiver, redis, days):
    receiver.says(500)
    endpoint = await post.endpoint(receiver.url)
    post.worker(webhook_schedule=(0.01,) * 5, webhook_disable_days=days)
    await set_failing(redis, post, endpoint, timedelta(days=100), timedelta(days=90))
    job_id = await post.submit()
    await post.complete(job_id)
    await post.message(job_id, "exhausted")
    assert (await post.endpoints.find("shop", endpoint.id)).state == "active"
    assert (await failing(redis, endpoint)).tries == 46


async def test_another_url_starts_afresh(post, receiver, redis):
    endpoint = await post.endpoint(receiver.url)
    await set_failing(redis, post, endpoint, timedelta(days=4))
    await post.endpoints.change("shop", endpoint.id, lambda one: replace(one, description="the same"))
    assert await failing(redis, endpoint) is not None
    await post.endpoints.change("shop", endpoint.id, lambda one: replace(one, url=receiver.url + "/new"))
    assert await failing(redis, endpoint) is None
