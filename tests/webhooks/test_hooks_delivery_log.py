"""Messages are listed by their last try, with each try; those that failed are sent again together, a bounded number."""

from __future__ import annotations

import pytest
from in_process import until

from worker.store import keys
from worker.store.webhooks import delivery_log
from worker.store.webhooks.delivery_log import DeliveryLog
from worker.store.webhooks.outbox import Outbox

APP = "shop"


@pytest.fixture
def log(redis, clock) -> DeliveryLog:
    return DeliveryLog(redis, clock, Outbox(redis, clock))


async def completed(post, url, count=1):
    ids = []
    for _ in range(count):
        ids.append(await post.submit(url))
        await post.complete(ids[-1])
    return ids


async def failed(log, app, count):
    async def enough() -> bool:
        return await log.count_failed(app) == count

    await until(f"{count} failed messages", enough)


async def test_delivered_and_failed_messages_are_listed_and_only_failed_ones_are_sent_again(post, receiver, log):
    post.worker(webhook_schedule=(600.0,))
    (good,) = await completed(post, receiver.url)
    await receiver.gets(1)
    receiver.says(500)
    bad = await completed(post, receiver.url, 3)
    await failed(log, APP, 3)
    page, more = await log.page(APP, 10)
    assert ({one.message.job_id for one in page}, more) == ({good, *bad}, None)
    assert [one.tried_ms for one in page] == sorted((one.tried_ms for one in page), reverse=True)
    assert {one.receipts[-1]["status_code"] for one in page} == {204, 500}
    only_failed, _ = await log.page(APP, 10, failed=True)
    assert {one.message.job_id for one in only_failed} == set(bad)
    assert await log.count_failed("other") == 0

    receiver.says(204)
    done = await log.redeliver_failed(APP, 0)
    assert (done.sent, done.skipped, done.left) == (3, 0, 0)
    await failed(log, APP, 0)
    again = (await log.page(APP, 10))[0]
    tries = {one.message.job_id: [receipt["trigger"] for receipt in one.receipts] for one in again}
    assert all(tries[job_id] == ["scheduled", "manual"] for job_id in bad)
    assert tries[good] == ["scheduled"], "what was delivered is not sent again"


async def test_pages_follow_each_other_and_miss_nothing(post, receiver, log):
    post.worker()
    await completed(post, receiver.url, 5)
    await receiver.gets(5)
    seen, before = [], None

    async def all_listed() -> bool:
        return len((await log.page(APP, 10))[0]) == 5

    await until("five listed messages", all_listed)
    while True:
        page, before = await log.page(APP, 2, before=before)
        seen += [one.message.id for one in page]
        if before is None:
            break
    assert len(seen) == len(set(seen)) == 5


async def test_many_are_sent_again_in_several_calls_and_only_those_since_the_time(post, receiver, log, monkeypatch):
    monkeypatch.setattr(delivery_log, "MAX_REDELIVERED", 2)
    post.worker(webhook_schedule=(600.0,))
    receiver.says(500)
    await completed(post, receiver.url, 3)
    await failed(log, APP, 3)
    newest = (await log.page(APP, 1, failed=True))[0][0].tried_ms
    assert await log.count_failed(APP, newest + 1) == 0
    assert (await log.redeliver_failed(APP, newest + 1)).sent == 0
    first = await log.redeliver_failed(APP, 0)
    assert (first.sent, first.left) == (2, 1)


async def test_messages_that_are_gone_and_indexes_of_another_type_do_no_harm(post, receiver, redis, log):
    post.worker()
    await completed(post, receiver.url)
    await receiver.gets(1)

    async def listed() -> bool:
        return len((await log.page(APP, 10))[0]) == 1

    await until("a listed message", listed)
    await redis.zadd(keys.tried_messages(APP), {"msg_gone": 1})
    assert len((await log.page(APP, 10))[0]) == 1
    assert await redis.zscore(keys.tried_messages(APP), "msg_gone") is None
    for index in (keys.tried_messages(APP), keys.undelivered_messages(APP)):
        await redis.set(index, "spoiled")
    assert await log.page(APP, 10) == ([], None)
    receiver.says(500)
    await completed(post, receiver.url)
    await failed(log, APP, 1)
