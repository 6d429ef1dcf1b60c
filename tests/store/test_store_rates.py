"""The bucket: exact by the server's clock, charged for what is created and for nothing else, shared by all."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from builders import FakeClock, new_job
from hypothesis import given, strategies as st

from worker.jobs.errors import RateExceeded, Refused
from worker.store import keys
from worker.store.admission import rate_limit
from worker.store.admission.rate_limit import RateLimit, RateMeter
from worker.store.apps import Apps
from worker.store.connection.pool import connect
from worker.store.jobs.repository import Jobs

SLOW = RateLimit(1, 5)
"""Five at once, and then none for a minute."""


async def take(jobs: Jobs, rate: RateLimit, **given) -> RateMeter:
    meter = RateMeter(rate)
    await jobs.submit(replace(new_job(**given), meter=meter))
    return meter


async def test_a_full_bucket_holds_its_burst_and_no_more(jobs, redis):
    assert [(await take(jobs, SLOW)).left for _ in range(5)] == [4, 3, 2, 1, 0]
    with pytest.raises(RateExceeded) as no:
        await take(jobs, SLOW)
    assert (no.value.limit, no.value.window) == (5, 300)
    assert 58 <= no.value.wait <= 60
    assert await redis.zcard(keys.READY) == 5


async def test_what_is_refused_leaves_nothing_behind(jobs, redis):
    for _ in range(5):
        await take(jobs, SLOW)
    before = set(await redis.keys("*"))
    bucket = await redis.get(keys.rate("shop"))
    with pytest.raises(RateExceeded):
        await take(jobs, SLOW, key="k")
    assert set(await redis.keys("*")) == before
    assert await redis.get(keys.rate("shop")) == bucket


async def test_a_token_comes_back_after_its_interval(jobs):
    rate = RateLimit(600, 2)  # one in 100 ms
    began, took, got = time.monotonic(), 0.0, 0
    while took < 1.0:
        try:
            await take(jobs, rate)
            got += 1
        except RateExceeded:
            await asyncio.sleep(0.005)
        took = time.monotonic() - began
    assert 2 < got <= 2 + took / 0.1 + 1, "never more than came back, however long a turn took"


async def test_apps_have_buckets_of_their_own(jobs):
    for _ in range(5):
        await take(jobs, SLOW)
    assert (await take(jobs, SLOW, app="bakery")).left == 4


async def test_a_repeated_request_is_free_even_when_the_bucket_is_empty(jobs):
    first = await take(jobs, SLOW, key="k")
    for _ in range(4):
        await take(jobs, SLOW)
    again = await take(jobs, SLOW, key="k")
    assert (first.left, again.left) == (4, None)
    with pytest.raises(Refused):
        await take(jobs, SLOW, key="k", fingerprint="f2")


async def test_without_a_limit_nothing_is_kept(jobs, redis):
    assert (await take(jobs, RateLimit(0))).left is None
    assert not await redis.exists(keys.rate("shop"))


async def test_many_doors_share_one_bucket(valkey_url, redis, clock):
    clients = [connect(valkey_url) for _ in range(4)]
    doors = [Jobs(client, clock) for client in clients]
    sent = [take(doors[n % 4], RateLimit(1, 20)) for n in range(60)]
    answers = await asyncio.gather(*sent, return_exceptions=True)
    assert sorted(m.left for m in answers if isinstance(m, RateMeter)) == list(range(20))
    assert sum(isinstance(m, RateExceeded) for m in answers) == 40
    for client in clients:
        await client.aclose()


async def test_our_own_clock_does_not_count(redis):
    early, late = (Jobs(redis, FakeClock(start=start)) for start in (0, 10**6))
    for jobs in (early, late, early, late, early):
        await take(jobs, SLOW)
    for jobs in (early, late):
        with pytest.raises(RateExceeded):
            await take(jobs, SLOW)


async def test_a_bucket_that_was_changed_is_at_worst_empty(jobs):
    for _ in range(100):
        await take(jobs, RateLimit(1, 100))
    with pytest.raises(RateExceeded) as no:
        await take(jobs, RateLimit(6000, 10))
    assert no.value.wait == 1
    with pytest.raises(RateExceeded) as no:
        await take(jobs, RateLimit(60, 3))
    assert no.value.wait <= 2


async def test_a_full_bucket_is_forgotten(jobs, redis):
    await take(jobs, RateLimit(60_000, 5))
    assert 0 <= await redis.pttl(keys.rate("shop")) <= 2 or not await redis.exists(keys.rate("shop"))


async def test_an_apps_own_rate_comes_with_its_keys(redis, clock):
    apps = Apps(redis, clock)
    _, first, secret = await apps.create_key("shop", ("submit",), RateLimit(60, 5))
    _, second, _ = await apps.create_key("shop", ("read",))
    _, other, _ = await apps.create_key("bakery", ("read",))
    assert [(await apps.find(key)).rate for key in (first, second, other)] == [RateLimit(60, 5), RateLimit(60, 5), None]
    await apps.set_rate("shop", None)
    assert (await apps.find(first)).rate is None
    assert await apps.webhook_secret("shop") == secret
    assert [key.rate for key in await apps.list_keys()] == [None] * 3
    with pytest.raises(Refused):
        await apps.set_rate("nobody", None)


@given(st.integers(1, rate_limit.MAX_RATE), st.integers(0, rate_limit.MAX_RATE))
def test_a_rate_is_what_it_says(per_minute, burst):
    rate = RateLimit(per_minute, burst)
    assert rate.interval_us >= 1
    assert abs(rate.interval_us * per_minute - 60_000_000) <= per_minute / 2 + 1
    assert rate.window_seconds * 1e6 >= rate.capacity * rate.interval_us
    assert rate_limit.load(b'{"rate": [%d, %d]}' % (per_minute, burst)) == rate
