"""Both clients against a real API: every method, and nothing done twice however often it had to be said."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from breaking_proxy import CUT, MODEL, Both, answer, both
from in_process import until
from waiting import LIMIT

from worker.client import AsyncVigil, Conflict, NotFound, OnDelay, Policy, StillRunning, Vigil
from worker.jobs import events as ev
from worker.jobs.states import Status

BUSY = answer(503, '{"code": "store_unavailable", "detail": "Not now."}', "Retry-After: 0")
FAST = answer(429, '{"code": "rate_limited", "detail": "Too fast."}', "Retry-After: 0")


async def test_a_job_from_submit_to_its_answer(vigil: Both, worker):
    job = await vigil.submit(
        model=MODEL,
        input=[{"role": "user", "content": "Why?"}],
        instructions="Be brief.",
        policy=Policy(on_delay=OnDelay(action="wait"), max_attempts=2),
        metadata={"ticket": "A-17"},
        not_before=datetime(2020, 1, 1, tzinfo=UTC),
    )
    assert (job.status, job.settled, job.metadata) == (Status.QUEUED, False, {"ticket": "A-17"})
    await worker.start(job.id)
    waiting = asyncio.create_task(vigil.wait(job.id, timeout=LIMIT))
    await worker.substitute(job.id)
    done = await waiting
    assert (done.completed, done.output_text) == (True, "Luna's answer.")
    assert done.disclosure.reason == "safety_check_delay"
    assert done.cost.total == Decimal("0.0123")
    assert [a.outcome for a in done.attempts] == ["substituted", "completed"]
    assert done.created_at.tzinfo is not None
    assert done == await vigil.get(job.id)
    assert (await vigil.audit(job.id))[0].type == "job.queued"
    assert await vigil.deliveries(job.id) == []


async def test_submit_can_wait_for_the_end(vigil: Both, worker, redis):
    submitting = asyncio.create_task(vigil.submit(model=MODEL, input="x", wait=20))
    await until("the job", lambda: redis.zcard("vigil:ready"))
    job_id = (await vigil.list()).data[0].id
    await worker.start(job_id)
    await worker.complete(job_id)
    assert (await submitting).output_text == "The answer."


@pytest.mark.parametrize("broken", [BUSY, FAST, CUT, b"", b"HTTP/1.1 200 OK\r\nContent-Len"])
async def test_a_submit_that_has_to_be_repeated_makes_one_job(vigil: Both, proxy, broken):
    proxy.plan = [broken, broken]
    job = await vigil.submit(model=MODEL, input="once")
    assert [one.id for one in (await vigil.list()).data] == [job.id]
    keys = [[x for x in head.lower().split("\r\n") if x.startswith("idempotency-key")] for head in proxy.heads[:3]]
    assert len(keys) == 3
    assert keys[0] == keys[1] == keys[2] != []


async def test_two_submits_are_two_jobs_and_one_key_is_one(vigil: Both):
    first = await vigil.submit(model=MODEL, input="x")
    assert (await vigil.submit(model=MODEL, input="x")).id != first.id
    submitted_jobs = [await vigil.submit(model=MODEL, input="x", idempotency_key="mine") for _ in range(2)]
    assert submitted_jobs[0].id == submitted_jobs[1].id


async def test_a_batch_that_has_to_be_repeated_makes_each_job_once(vigil: Both, proxy):
    proxy.plan = [CUT, BUSY]
    rows = await vigil.batch([{"model": MODEL, "input": str(n)} for n in range(3)] + [{"model": "gpt-0", "input": "x"}])
    assert [(row.index, row.status) for row in rows] == [(0, 202), (1, 202), (2, 202), (3, 422)]
    assert (rows[3].job, rows[3].problem["code"]) == (None, "unknown_model")
    assert {row.job.id for row in rows[:3]} == {job.id for job in (await vigil.list()).data}


async def test_an_offer_is_accepted_once_and_never_asked_for_twice(vigil: Both, proxy, worker):
    job = await vigil.submit(model=MODEL, input="x")
    await worker.start(job.id)
    await worker.check(job.id)
    await worker.commit(job.id, (ev.OfferMade(model="gpt-5.6-luna"), None))
    seen = await vigil.get(job.id)
    assert (seen.status, seen.offer.model, seen.safety.checks[0].evidence) == ("checking", "gpt-5.6-luna", "signalled")
    proxy.plan = [FAST]  # it was not looked at: asked again
    accepted = await vigil.retry(job.id, "gpt-5.6-luna")
    assert accepted.offer is None
    with pytest.raises(Conflict) as refused:
        await vigil.retry(job.id)
    assert refused.value.code == "no_offer"
    before = len(proxy.heads)
    async with both("awaiting", proxy.url, "vgl_x") as other:
        proxy.plan = [BUSY]  # it may have been done: told
        with pytest.raises(Exception, match="Not now"):
            await other.retry(job.id)
    assert len(proxy.heads) == before + 1


async def test_cancel_can_be_repeated(vigil: Both, proxy):
    job = await vigil.submit(model=MODEL, input="x")
    proxy.plan = [CUT]
    cancelled = await vigil.cancel(job.id)
    assert (cancelled.status, cancelled.cancel.upstream_under_way) == ("cancelled", False)
    assert (await vigil.wait(job.id)).status == "cancelled"


async def test_lists_are_read_page_by_page(vigil: Both):
    ids = [(await vigil.submit(model=MODEL, input="x")).id for _ in range(3)]
    first = await vigil.list(limit=2, status="queued", created_after=datetime(2020, 1, 1, tzinfo=UTC))
    rest = await vigil.list(limit=2, cursor=first.next_cursor)
    assert [job.id for job in [*first.data, *rest.data]] == ids[::-1]
    assert rest.next_cursor is None


async def test_models_and_status(vigil: Both):
    models = {model.id: model for model in await vigil.models()}
    assert models[MODEL].tier == "flagship"
    assert models[MODEL].input_per_million > 0
    assert models[MODEL].access.status == "unknown"
    await vigil.submit(model=MODEL, input="x")
    assert ((await vigil.status()).queue.queued, (await vigil.status()).workers) == (1, ())


async def test_any_other_route_can_be_asked(vigil: Both):
    made = await vigil.request(
        "POST", "/v1/webhook-endpoints", {"url": "https://example.com/hooks", "events": ["job.completed"]}
    )
    assert (await vigil.request("GET", "/v1/webhook-endpoints"))["data"][0]["id"] == made["id"]
    assert await vigil.request("DELETE", f"/v1/webhook-endpoints/{made['id']}") is None


async def test_a_wait_ends_in_time_and_outlives_a_lost_api(vigil: Both, proxy, worker):
    job = await vigil.submit(model=MODEL, input="x")
    with pytest.raises(StillRunning) as still:
        await vigil.wait(job.id, timeout=0.2)
    assert still.value.job.status == "queued"
    with pytest.raises(StillRunning):
        await vigil.wait(job.id, timeout=0)
    await worker.start(job.id)
    waiting = asyncio.create_task(vigil.wait(job.id))
    await until("the long poll", lambda: _has_requested(proxy, b"wait=30"))
    proxy.plan = [b"", b"", BUSY, b"", BUSY, b"", b"", b""]  # more than `times`
    await proxy.drop()
    await until("the failures", lambda: _used(proxy))
    await worker.complete(job.id)
    assert (await waiting).output_text == "The answer."


async def _has_requested(proxy, words: bytes) -> bool:
    return words in proxy.sent


async def _used(proxy) -> bool:
    return not proxy.plan


async def test_a_job_that_is_not_there_is_reported_at_once(vigil: Both):
    for ask in (vigil.get, vigil.cancel, vigil.wait, vigil.audit, vigil.all_events):
        with pytest.raises(NotFound):
            await ask("job_nope/../x?y")


async def test_leaving_the_block_closes_every_connection(api, proxy):
    key = await api.key()

    def blocking() -> None:
        with Vigil(proxy.url, key) as vigil:
            job = vigil.submit(model=MODEL, input="x")
            next(iter(vigil.events(job.id)))

    await asyncio.to_thread(blocking)
    await until("no connection of the blocking client", lambda: _none_open(proxy))
    async with AsyncVigil(proxy.url, key) as vigil:
        job = await vigil.submit(model=MODEL, input="x")
        events = vigil.events(job.id)
        await anext(events)
        await vigil.get(job.id)
        assert proxy.open == 2
        await events.aclose()
        await until("the stream's connection gone", lambda: _open_is(proxy, 1))
    await until("no connection of the awaiting client", lambda: _none_open(proxy))


async def _none_open(proxy) -> bool:
    return await _open_is(proxy, 0)


async def _open_is(proxy, count: int) -> bool:
    return bool(proxy.open == count)
