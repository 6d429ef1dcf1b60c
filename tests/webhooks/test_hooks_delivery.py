"""Delivery over real sockets: signed, in order, retried, stopped, sent again by hand, and lost by no crash."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from aiohttp import web
from builders import BLOCKED, STARTED, began, done
from in_process import until
from thorough import cases
from waiting import stopwatch
from webhook_receivers import ENDS, LIFE, OLD_SECRET, SECRET, Receiver, verified

from worker.jobs import events as ev
from worker.store import codec, keys
from worker.webhooks.sender import UNREACHABLE

STEPS = ("job.queued", "job.started", "job.attempt.started", "job.attempt.finished", "job.completed")


async def test_a_jobs_own_webhook_is_told_once_signed_with_the_apps_secret(post, receiver):
    post.worker()
    job_id = await post.submit(receiver.url)
    await post.complete(job_id)
    (got,) = await receiver.gets(1)
    body = verified(got, post.secret)
    assert (body["type"], body["data"]["id"], body["data"]["seq"]) == ("job.completed", job_id, 5)
    message, (receipt,) = await post.message(job_id, "delivered")
    assert message.id == got.id
    assert (receipt["trigger"], receipt["status_code"], receipt["error"]) == ("scheduled", 204, None)
    assert got.headers["accept-encoding"] == "identity"
    assert got.headers["content-type"] == "application/json"
    assert "cookie" not in got.headers


async def test_a_message_is_picked_up_at_once(post, receiver, redis):
    post.worker()
    await post.complete(await post.submit(receiver.url))
    await receiver.gets(1)  # warm
    waits = []
    for _ in range(5):
        job_id = await post.submit(receiver.url)
        async with stopwatch(redis) as watch:
            await post.complete(job_id)
            count = len(receiver.got)
            got = await receiver.gets(count + (0 if receiver.got[-1].json["data"]["id"] == job_id else 1))
            waits.append(got[-1].at - watch.began - watch.lost)
    assert min(waits) < 0.1, waits


async def test_events_of_a_job_arrive_in_order_from_the_first_to_the_last(post, receiver):
    post.worker()
    job_id = await post.submit(receiver.url, STEPS)
    for draft in LIFE:
        await post.jobs.change(job_id, lambda _, one=draft: [one])
    got = await receiver.gets(5)
    assert [one.json["type"] for one in got] == list(STEPS)
    assert [one.where for one in got] == [(job_id, seq) for seq in range(1, 6)]
    statuses = [one.json["data"]["status"] for one in got]
    assert statuses == ["queued", "running", "running", "running", "completed"], "each tells the job as of its event"


async def test_one_commit_with_many_events_keeps_their_order_too(post, receiver):
    job_id = await post.submit(receiver.url, STEPS)
    await post.jobs.change(job_id, lambda _: LIFE)
    post.worker()
    got = await receiver.gets(5)
    assert [one.where[1] for one in got] == [1, 2, 3, 4, 5]
    assert [one.json["data"]["status"] for one in got] == ["queued", "running", "running", "running", "completed"]


async def test_failures_are_tried_again_on_schedule_with_the_same_bytes_and_the_same_id(post, receiver, redis):
    receiver.says(500, 302, 200, headers={"Location": "http://127.0.0.1:1/"}, text="not\x1b[2J now")
    post.worker(webhook_schedule=(0.2, 0.2))
    job_id = await post.submit(receiver.url)
    async with stopwatch(redis) as watch:
        await post.complete(job_id)
        got = await receiver.gets(3)
    assert len({one.id for one in got}) == 1
    assert len({one.body for one in got}) == 1, "rendered once"
    assert 0.15 < got[1].at - got[0].at < 2.0 + watch.lost
    message, receipts = await post.message(job_id, "delivered")
    assert [one["status_code"] for one in receipts] == [500, 302, 200]
    assert receipts[0]["error"] == "Answered 500."
    assert "redirects are not followed" in receipts[1]["error"]
    assert receipts[0]["response_excerpt"] == "not[2J now"
    assert (message.tries, message.next_try_at) == (3, None)


async def test_after_the_last_try_it_is_exhausted_and_ops_are_told(post, receiver, telemetry_events):
    receiver.says(500)
    post.worker(webhook_schedule=(0.01, 0.01))
    job_id = await post.submit(receiver.url)
    await post.complete(job_id)
    message, receipts = await post.message(job_id, "exhausted")
    assert (message.tries, len(receipts), message.next_try_at) == (3, 3, None)
    (fields,) = [fields for event, fields in telemetry_events if event == "webhook.exhausted"]
    assert fields == {"job_id": job_id, "app": "shop", "host": "127.0.0.1", "attempts": 3, "status": 500}


async def test_retry_after_is_honoured(post, receiver):
    receiver.says(429, 200, headers={"Retry-After": "1"})
    post.worker(webhook_schedule=(0.01,))
    await post.complete(await post.submit(receiver.url))
    first, second = await receiver.gets(2)
    assert second.at - first.at >= 0.95


async def test_a_far_retry_after_is_shown_as_the_next_try(post, receiver):
    later = post.clock.now() + timedelta(hours=2)
    receiver.says(503, headers={"Retry-After": later.strftime("%a, %d %b %Y %H:%M:%S GMT")})
    post.worker()
    job_id = await post.submit(receiver.url)
    await post.complete(job_id)
    message, _ = await post.message(job_id, "pending", tries=1)
    assert abs((datetime.fromisoformat(message.next_try_at) - later).total_seconds()) < 2


async def test_410_stops_a_standing_endpoint_and_what_waits_for_it(post, receiver, redis):
    receiver.says(410)
    endpoint = await post.endpoint(receiver.url)
    post.worker()
    first = await post.submit()
    await post.complete(first)
    await post.message(first, "gone", tries=1)
    assert (await post.endpoints.find("shop", endpoint.id)).state == "gone"
    await post.complete(await post.submit())
    assert await redis.zcard(keys.OUTBOX) == 0, "nobody listens any more"
    assert len(receiver.got) == 1


async def test_410_at_an_address_that_was_just_changed_loses_nothing(post, receiver):
    """The app moves its endpoint while the old address is about to say that it is gone."""
    async with Receiver() as moved:
        endpoint = await post.endpoint(receiver.url)

        async def old(_: web.Request, count: int) -> web.StreamResponse:
            await post.endpoints.change("shop", endpoint.id, lambda one: replace(one, url=moved.url))
            return web.Response(status=410)

        receiver.answer = old
        post.worker(webhook_schedule=(0.1,))
        job_id = await post.submit()
        await post.complete(job_id)
        await moved.gets(1)
        await post.message(job_id, "delivered", tries=2)
    assert (await post.endpoints.find("shop", endpoint.id)).state == "active"


async def test_410_ends_a_jobs_own_webhook(post, receiver):
    receiver.says(410)
    post.worker()
    job_id = await post.submit(receiver.url, STEPS)
    await post.complete(job_id)

    async def all_gone():
        rows = await post.messages(job_id)
        return len(rows) == 5 and all(message.state == "gone" for message, _ in rows)

    await until("five messages that are gone", all_gone)
    assert len(receiver.got) == 1


async def test_standing_endpoints_hear_what_they_asked_for_in_their_own_words(post, receiver):
    async with Receiver() as other:
        await post.endpoint(receiver.url, ("job.queued", "job.completed"))
        await post.endpoint(other.url, ("job.completed",), "full", secret=OLD_SECRET)
        post.worker()
        job_id = await post.submit()
        await post.complete(job_id, "The answer.")
        one, two = await receiver.gets(2)
        (full,) = await other.gets(1)
    assert [verified(got, SECRET)["type"] for got in (one, two)] == ["job.queued", "job.completed"]
    data = verified(full, OLD_SECRET)["data"]
    assert (data["id"], data["output_text"], data["draft"]) == (job_id, "The answer.", None)
    assert "The answer." not in two.body
    assert one.id != full.id


async def test_an_app_hears_nothing_of_another_apps_jobs(post, receiver, redis):
    await post.endpoints.create("rival", url=receiver.url, events=ENDS, payload="full", description="", secret=SECRET)
    await post.complete(await post.submit())
    assert await redis.zcard(keys.OUTBOX) == 0


async def test_an_app_without_endpoints_writes_nothing_extra(post, redis):
    before = set(await redis.keys("*"))
    job_id = await post.submit()
    await post.complete(job_id)
    assert not [name for name in set(await redis.keys("*")) - before if b"outbox" in name or b"msg" in name]


async def test_a_paused_endpoint_gets_all_it_missed_in_order(post, receiver):
    endpoint = await post.endpoint(receiver.url)
    await post.endpoints.change("shop", endpoint.id, lambda one: replace(one, state="paused"))
    post.worker()
    named = []
    for _ in range(3):
        named.append(await post.submit())
        await post.complete(named[-1])
    job_id = await post.submit(receiver.url)
    await post.complete(job_id)
    assert (await receiver.gets(1))[0].json["data"]["id"] == job_id, "only the job's own webhook is sent"
    await post.endpoints.change("shop", endpoint.id, lambda one: replace(one, state="active"))
    got = await receiver.gets(5)
    assert sorted(one.json["data"]["id"] for one in got[1:]) == sorted([*named, job_id])


async def test_while_a_secret_is_rotated_both_sign(post, receiver):
    endpoint = await post.endpoint(receiver.url, secret=OLD_SECRET)
    await post.endpoints.rotate("shop", endpoint.id, SECRET)
    post.worker()
    await post.complete(await post.submit())
    (got,) = await receiver.gets(1)
    assert len(got.headers["webhook-signature"].split()) == 2
    assert verified(got, SECRET) == verified(got, OLD_SECRET)


async def test_redelivery_sends_a_delivered_message_again_under_its_id(post, receiver):
    post.worker()
    job_id = await post.submit(receiver.url)
    await post.complete(job_id)
    message, _ = await post.message(job_id, "delivered")
    redelivered = await post.outbox.redeliver(job_id, message.id)
    assert (redelivered.state, redelivered.before) == ("pending", "delivered")
    one, two = await receiver.gets(2)
    assert (one.id, one.body) == (two.id, two.body)
    _, receipts = await post.message(job_id, "delivered", tries=2)
    assert [row["trigger"] for row in receipts] == ["scheduled", "manual"]


async def test_a_failed_redelivery_changes_nothing_of_the_plan(post, receiver):
    receiver.says(500)
    post.worker()
    job_id = await post.submit(receiver.url)
    await post.complete(job_id)
    before, _ = await post.message(job_id, "pending", tries=1)
    await post.outbox.redeliver(job_id, before.id)
    await receiver.gets(2)
    after, receipts = await post.message(job_id, "pending", tries=2)
    assert after == before
    assert receipts[1]["trigger"] == "manual"


async def test_a_refused_target_is_an_ordinary_failure_with_the_one_text(post, receiver):
    job_id = await post.submit(receiver.url)
    await post.complete(job_id)
    post.worker(webhook_allow_private=False, webhook_schedule=(1000,))
    message, (receipt,) = await post.message(job_id, "pending", tries=1)
    assert (receipt["status_code"], receipt["error"], receipt["response_excerpt"]) == (None, UNREACHABLE, None)
    assert receiver.got == []
    assert message.next_try_at > message.created_at


async def test_what_was_committed_without_any_worker_is_sent_by_the_first_one(post, receiver):
    endpoint = await post.endpoint(receiver.url)
    job_id = await post.submit(receiver.url)
    await post.complete(job_id)
    post.worker()
    got = await receiver.gets(2)
    assert len({one.id for one in got}) == 2
    assert endpoint.id not in got[0].body


async def test_a_worker_that_dies_between_post_and_receipt_is_made_good_under_the_same_id(post, receiver):
    held = asyncio.Event()

    async def first_never_answers(_: web.Request, count: int) -> web.StreamResponse:
        if count == 1:
            await held.wait()
        return web.Response(status=200)

    receiver.answer = first_never_answers
    doomed = post.worker("doomed", lease_seconds=1)
    job_id = await post.submit(receiver.url)
    await post.complete(job_id)
    await receiver.gets(1)
    dead = asyncio.get_running_loop().create_future()

    async def never(*_: object, **__: object) -> None:
        await dead

    doomed._deliveries.record_try = doomed._deliveries.extend_lease = never  # as after kill -9: it writes no more
    post.worker("heir")
    one, two = await receiver.gets(2)
    assert (one.id, one.body) == (two.id, two.body)
    message, receipts = await post.message(job_id, "delivered")
    assert (message.tries, len(receipts)) == (1, 1)
    held.set()
    dead.cancel()


async def test_shutdown_gives_back_what_is_on_its_way(post, receiver, monkeypatch):
    monkeypatch.setattr("worker.tasks.delivery.dispatcher._SHUTDOWN_GRACE_S", 0.05)
    held = asyncio.Event()

    async def first_never_answers(_: web.Request, count: int) -> web.StreamResponse:
        if count == 1:
            await held.wait()
        return web.Response(status=200)

    receiver.answer = first_never_answers
    post.worker("leaver", lease_seconds=60)
    await post.complete(await post.submit(receiver.url))
    await receiver.gets(1)
    await post.stop()
    post.worker("next", lease_seconds=60)
    one, two = await receiver.gets(2)
    assert one.id == two.id
    held.set()


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_dead_and_a_slow_endpoint_delay_nobody(post, receiver, redis, workers):
    """Hundreds of jobs, three endpoints: the healthy one gets each message once, in order, within 2 s of its event."""
    jobs_wanted, seen = (cases(200, 500), {}) if workers == 1 else (60, {})

    async def slow(_: web.Request, count: int) -> web.StreamResponse:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.5)
        return web.Response(status=200)

    async with Receiver(slow) as tortoise, stopwatch(redis) as watch:
        for url in ("http://127.0.0.1:1/dead", tortoise.url, receiver.url):
            await post.endpoint(url, ("job.queued", "job.completed"))
        for number in range(workers):
            post.worker(f"w{number}")
        for _ in range(jobs_wanted):
            job_id = await post.submit()
            await post.complete(job_id)
            seen[job_id] = time.monotonic()
        got = await receiver.gets(2 * jobs_wanted)
    by_job: dict[str, list[int]] = {}
    for one in got:
        by_job.setdefault(one.where[0], []).append(one.where[1])
    assert by_job == {job_id: [1, 5] for job_id in seen}, "each once, in order"
    late = [one.at - seen[one.where[0]] for one in got if one.where[1] == 5]
    print(
        f"{workers} workers, {jobs_wanted} jobs: slowest {max(late):.3f} s, median {sorted(late)[len(late) // 2]:.3f} s"
    )
    assert max(late) < 2.0 + watch.lost


async def test_a_full_message_of_a_blocked_job_holds_no_output(post, receiver):
    await post.endpoint(receiver.url, ("job.blocked",), "full")
    post.worker()
    job_id = await post.submit()
    drafts = [(STARTED, None), (began(), 1), (done("blocked"), 1), (BLOCKED, 1)]
    kept = codec.seal({"output_text": "half a secret", "draft": "a draft"})
    await post.jobs.change(job_id, lambda _: drafts, writes=lambda _: [("SET", keys.job_output(job_id), kept)])
    (got,) = await receiver.gets(1)
    assert got.json["data"]["status"] == "blocked"
    assert "half a secret" not in got.body
    assert "a draft" not in got.body


async def test_openai_payloads_tell_of_ends_only(post, receiver):
    post.worker()
    job_id = await post.submit(receiver.url, STEPS, "openai")
    await post.jobs.change(job_id, lambda _: LIFE[:2])
    await post.jobs.change(job_id, lambda _: [(ev.CancelRequested(by="k"), None), *LIFE[2:]])
    (got,) = await receiver.gets(1)
    assert got.json["type"] == "response.completed"
    message, _ = await post.message(job_id, "delivered")
    assert message.type == "job.completed"
