"""A job's events: as a list, as a stream, resumed without gap or repeat, with its text."""

from __future__ import annotations

import asyncio
import re

import pytest
from api_server import running, submitted, watching
from waiting import stopwatch

import api.jobs.event_stream
from api.jobs.event_stream import EventFeed
from api.runtime.context import build_context
from worker.jobs import events as ev
from worker.jobs.errors import StoreUnavailable
from worker.store import channels


def numbered(events):
    return [event for event in events if event["_id"] is not None]


def text_of(events, attempt=1):
    """The text put together from deltas, each of which begins where the last one ended."""
    text = ""
    for event in events:
        if event["type"] == "job.output.delta" and event["attempt"] == attempt:
            assert event["_id"] is None
            assert "seq" not in event
            assert event["data"]["offset"] == len(text)
            text += event["data"]["delta"]
    return text


async def test_all_so_far_then_live_then_the_end(acme, worker):
    job_id = await submitted(acme)
    async with watching(acme, job_id) as stream:
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert stream.response.headers["x-accel-buffering"] == "no"
        assert stream.response.headers["cache-control"] == "no-store"
        first = await stream.next()
        assert (first["_id"], first["_event"], first["seq"], first["data"]["app"]) == ("1", "job.queued", 1, "acme")
        await worker.start(job_id)
        seen = await stream.until("job.attempt.started")
        await worker.text(job_id, 1, 0, "Hello")
        delta = await stream.next()
        assert {k: delta[k] for k in ("type", "job_id", "attempt", "data", "_event")} == {
            "type": "job.output.delta",
            "job_id": job_id,
            "attempt": 1,
            "data": {"offset": 0, "delta": "Hello"},
            "_event": "job.output.delta",
        }
        await worker.text(job_id, 1, 5, " world")
        assert (await stream.next())["data"] == {"offset": 5, "delta": " world"}
        await worker.complete(job_id, "Hello world")
        rest = await stream.remaining()
    events = [first, *seen, *rest]
    assert [e["seq"] for e in events] == [1, 2, 3, 4, 5]
    assert [e["type"] for e in rest] == ["job.attempt.finished", "job.completed"]
    listed = (await acme.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "application/json"})).json()
    assert listed == {
        "object": "list",
        "data": [{k: v for k, v in e.items() if not k.startswith("_")} for e in events],
        "next_cursor": None,
    }


async def test_the_list_goes_on_after_a_seq(acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    answer = await acme.get(f"/v1/jobs/{job_id}/events?after=1", headers={"Accept": "application/json"})
    assert [e["seq"] for e in answer.json()["data"]] == [2, 3]


@pytest.mark.parametrize("how", ["header", "query"])
async def test_a_stream_resumes_where_it_was_left(acme, worker, how):
    job_id = await submitted(acme)
    await worker.start(job_id)
    headers, params = ({"Last-Event-ID": "2"}, {}) if how == "header" else ({}, {"after": 2})
    async with watching(acme, job_id, headers, **params) as stream:
        assert (await stream.next())["seq"] == 3
        await worker.complete(job_id)
        assert [e["seq"] for e in numbered(await stream.remaining())] == [4, 5]


async def test_many_broken_streams_together_have_every_event_once(acme, worker):
    """A watcher that is cut off after each event and comes back sees what one long stream sees."""
    job_id = await submitted(acme)

    async def work():
        await worker.start(job_id)
        for step in range(30):
            await worker.commit(job_id, (ev.AttemptUpdated(sequence=step), 1))
            await worker.text(job_id, 1, step, "x")
        await worker.complete(job_id, "x" * 30)

    working = asyncio.create_task(work())
    seen, last = [], 0
    while not seen or seen[-1]["type"] != "job.completed":
        async with watching(acme, job_id, {"Last-Event-ID": str(last)}) as stream:
            while (event := await stream.next()) is not None:
                if event["_id"]:
                    seen.append(event)
                    last = event["seq"]
                    break
    await working
    assert [e["seq"] for e in seen] == list(range(1, 36))


async def test_a_resumed_offset_counts_for_the_attempt_that_was_read_and_no_other(acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    await worker.text(job_id, 1, 0, "A long first text")
    await worker.commit(job_id, (ev.AttemptFinished(outcome="stream_cut"), 1))
    await worker.attempt(job_id, 2, purpose="retry")
    await worker.text(job_id, 2, 0, "Second")
    for after in (3, 4):  # left before and after the first attempt's end
        async with watching(acme, job_id, offset=17, after=after) as stream:
            events = await stream.until("job.output.delta")
            assert (events[-1]["attempt"], events[-1]["data"]) == (2, {"offset": 0, "delta": "Second"})
    await worker.complete(job_id, "Second.", attempt=2)
    async with watching(acme, job_id, offset=17, after=3) as stream:
        assert [e["data"]["delta"] for e in await stream.remaining() if not e["_id"]] == ["Second."]
    async with watching(acme, job_id, offset=6, after=5) as stream:
        assert [e["data"]["delta"] for e in await stream.remaining() if not e["_id"]] == ["."]


async def test_text_so_far_comes_as_one_delta(acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    for offset, piece in ((0, "One "), (4, "two "), (8, "three")):
        await worker.text(job_id, 1, offset, piece)
    for params, expected in (({}, "One two three"), ({"offset": 4}, "two three"), ({"offset": 6}, "o three")):
        async with watching(acme, job_id, **params) as stream:
            delta = (await stream.until("job.output.delta"))[-1]
            assert delta["data"] == {"offset": params.get("offset", 0), "delta": expected}
    async with watching(acme, job_id, offset=13) as stream:
        await stream.until("job.attempt.started")
        await worker.text(job_id, 1, 13, " four")
        assert (await stream.next())["data"] == {"offset": 13, "delta": " four"}


async def test_a_chunk_stored_twice_is_shown_once(acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    for offset, piece in ((0, "One "), (0, "One "), (2, "e two")):
        await worker.text(job_id, 1, offset, piece)
    async with watching(acme, job_id) as stream:
        events = await stream.until("job.output.delta")
        await worker.text(job_id, 1, 4, "two!")
        events.append(await stream.next())
    assert text_of(events) == "One two!"


async def test_a_finished_job_gives_its_text_before_its_end(acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    await worker.text(job_id, 1, 0, "The ans")
    await worker.complete(job_id, "The answer.")
    async with watching(acme, job_id) as stream:
        events = await stream.remaining()
    assert text_of(events) == "The answer."
    assert events[-1]["type"] == "job.completed"


async def test_text_written_while_streams_open_is_complete_in_each(acme, worker):
    """The hand-over from "so far" to "live" loses and repeats nothing, whenever it happens."""
    job_id = await submitted(acme)
    await worker.start(job_id)
    full = "".join(f"[{i}]" for i in range(120))

    async def write():
        at = 0
        while at < len(full):
            await worker.text(job_id, 1, at, full[at : at + 4])
            at += 4
        await worker.complete(job_id, full)

    async def read():
        async with watching(acme, job_id) as stream:
            return await stream.remaining()

    writing = asyncio.create_task(write())
    readers = []
    for _ in range(12):
        readers.append(asyncio.create_task(read()))
        await acme.get(f"/v1/jobs/{job_id}")  # a little later each
    for events in await asyncio.gather(*readers):
        assert text_of(events) == full
        assert [e["seq"] for e in numbered(events)] == [1, 2, 3, 4, 5]
    await writing


async def test_a_watcher_that_is_too_slow_catches_up(acme, worker, monkeypatch):
    import api.runtime.broadcaster

    monkeypatch.setattr(api.runtime.broadcaster, "_MAX_CHUNKS", 2)
    monkeypatch.setattr(api.runtime.broadcaster, "_MAX_CHARACTERS", 50)
    await test_text_written_while_streams_open_is_complete_in_each(acme, worker)


async def test_no_text_after_a_block(acme, worker, redis):
    job_id = await submitted(acme)
    await worker.start(job_id)
    async with watching(acme, job_id) as stream:
        await stream.until("job.attempt.started")
        await worker.text(job_id, 1, 0, "before ")
        assert (await stream.next())["data"]["delta"] == "before "
        await worker.block(job_id, output_text="SECRET")
        late = b'1[-1,7,"SECRET"]'
        await redis.publish(channels.output_chunks_of(job_id), f"{job_id}:1 ".encode() + late)
        assert [e["type"] for e in await stream.remaining()] == ["job.attempt.finished", "job.blocked"]
    async with watching(acme, job_id) as stream:
        events = await stream.remaining()
    assert text_of(events) == ""
    assert events[-1]["type"] == "job.blocked"


async def test_only_the_current_attempts_text_is_shown(acme, worker):
    job_id = await submitted(acme)
    await worker.start(job_id)
    async with watching(acme, job_id) as stream:
        await stream.until("job.attempt.started")
        await worker.text(job_id, 1, 0, "old")
        assert (await stream.next())["attempt"] == 1
        await worker.attempt(job_id, 2, "gpt-5.6-luna", "draft")
        await worker.text(job_id, 2, 0, "draft text")
        await worker.commit(job_id, (ev.AttemptFinished(outcome="stream_cut"), 1))
        await worker.attempt(job_id, 3, purpose="retry")
        await worker.text(job_id, 1, 3, " too late")
        await worker.text(job_id, 3, 0, "new")
        events = await stream.until("job.output.delta")
        assert (events[-1]["attempt"], events[-1]["data"]) == (3, {"offset": 0, "delta": "new"})
        assert "job.output.delta" not in [e["type"] for e in events[:-1]]
        await worker.commit(job_id, (ev.AttemptFinished(outcome="cancelled"), 2))
        await worker.complete(job_id, "new text", attempt=3)
        assert text_of([events[-1], *await stream.remaining()], 3) == "new text"


async def test_a_silent_stream_sends_comments(acme, monkeypatch):
    monkeypatch.setattr(api.jobs.event_stream, "_HEARTBEAT_S", 0.05)
    job_id = await submitted(acme)
    async with watching(acme, job_id) as stream:
        assert (await stream.next())["seq"] == 1
        async for line in stream._lines:
            if line.startswith(":"):
                break
        await acme.post(f"/v1/jobs/{job_id}/cancel")
        assert [e["type"] for e in await stream.remaining()] == ["job.cancelled"]


async def test_an_eventsource_that_has_seen_the_end_is_told_to_stop(acme):
    job_id = await submitted(acme)
    await acme.post(f"/v1/jobs/{job_id}/cancel")
    assert (await acme.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "2"})).status_code == 204
    answer = await acme.get(f"/v1/jobs/{job_id}/events?after=2")
    assert (answer.status_code, answer.text) == (200, "")


async def test_streams_end_when_the_process_does(settings, redis, clock, jobs):
    async with running(settings, redis, clock) as served:
        client = await served.client()
        job_id = await submitted(client)
        context = watching(client, job_id)
        stream = await context.__aenter__()
        assert (await stream.next())["seq"] == 1
        waiting = asyncio.create_task(client.get(f"/v1/jobs/{job_id}?wait=60"))
        await client.get("/healthz")
        leaving = asyncio.create_task(stream.remaining())
        async with stopwatch() as watch:
            served.stop.set()
            assert await leaving == []
            assert (await waiting).json()["status"] == "queued"
            await context.__aexit__(None, None, None)
            assert watch.seconds < 2


async def test_text_is_subscribed_only_while_someone_watches_the_job(acme, redis):
    job_id, other = await submitted(acme), await submitted(acme)

    async def listeners():
        rows = await redis.pubsub_numsub(channels.output_chunks_of(job_id), channels.output_chunks_of(other))
        (_, watched), (_, unwatched) = rows
        assert unwatched == 0
        return watched

    for _ in range(2):
        async with watching(acme, job_id) as stream:
            await stream.next()
            while await listeners() != 1:
                await asyncio.sleep(0.01)
        while await listeners() != 0:
            await asyncio.sleep(0.01)


async def test_a_redis_that_fails_half_way_loses_and_repeats_nothing(settings, redis, clock, worker, acme):
    """What was read, and not yet sent when the next read of Redis fails, is sent all the same."""
    context = build_context(settings, redis, clock)
    context.broadcaster.start()
    job_id = await submitted(acme)
    await worker.start(job_id)
    await worker.text(job_id, 1, 0, "Hello")
    await worker.complete(job_id, "Hello")
    known, fails = context.key_cache.find, iter((True, False, True))

    async def find(key):
        if next(fails, False):
            raise StoreUnavailable("played")
        return await known(key)

    context.key_cache.find = find
    answer, reads = context.jobs.load_output, iter((True, True))

    async def once_away(name):
        if next(reads, False):
            raise StoreUnavailable("played")
        return await answer(name)

    context.jobs.load_output = once_away
    key = acme.headers["authorization"].removeprefix("Bearer ")

    async def live():
        return await context.key_cache.find(key) is not None

    try:
        feed = EventFeed(context, live, job_id, 0, 0)
        body = b"".join([chunk async for chunk in feed.run()]).decode()
    finally:
        await context.broadcaster.stop()
    assert re.findall(r"^id: (\d+)$", body, re.MULTILINE) == ["1", "2", "3", "4", "5"]
    assert re.findall(r'"delta":"(\w+)"', body) == ["Hello"]
