"""Typed events of the OpenAI-compatible API: live, replayed and resumed they are the same, number by number."""

from __future__ import annotations

import asyncio
import json

import openai
import pytest
from api_server import running
from in_process import until
from openai_sdk import SOL, blocking, frames, gapless, sdk_against_api
from test_api_openai import TOOL, over
from waiting import LIMIT

from worker.clock import Clock
from worker.jobs import events as ev

LIVE = "[[sim: normal tokens=400 rate=10]] Hello"  # at speed 20 two seconds of text


@pytest.fixture
async def sdk(settings, redis, clock, valkey_url):
    async with sdk_against_api(settings, redis, clock, valkey_url) as sdk:
        yield sdk


@pytest.fixture
def watch(api):
    """The frames of a response as they come, by a task that collects them."""

    def start(client, job_id, **params):
        got = []

        async def collect():
            query = {"stream": "true", **params}
            async with client.stream("GET", f"/v1/responses/{job_id}", params=query, timeout=LIMIT) as answer:
                buffer = b""
                async for piece in answer.aiter_bytes():
                    *whole, buffer = (buffer + piece).split(b"\n\n")
                    got.extend(frame for frame in whole if not frame.startswith(b":"))

        return got, asyncio.create_task(collect())

    return start


def parsed(raw):
    return [json.loads(frame.partition(b"data: ")[2]) for frame in raw]


async def have(got, count):
    async def enough():
        return len(got) >= count

    await until(f"{count} frames of {len(got)}", enough)


# -- by the SDK, with a real worker


async def collected(stream):
    return [event async for event in stream]


async def test_create_streams_live_and_every_replay_is_the_same(sdk):
    stream = await sdk.client.responses.create(model=SOL, input=LIVE, stream=True)
    events, unsettled = [], 0
    async for event in stream:
        events.append(event)
        if event.type == "response.output_text.delta" and not unsettled:
            job_id = events[0].response.vigil["job_id"]
            unsettled = not (await sdk.stage.job(job_id)).settled
    assert unsettled, "no text before the end"
    assert [e.type for e in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert [e.type for e in events[-4:]] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert gapless([e.sequence_number for e in events])
    final = events[-1].response
    streamed = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert streamed == final.output_text == events[-4].text
    assert (final.status, final.model, final.usage.output_tokens > 0) == ("completed", SOL, True)
    again = await collected(await sdk.client.responses.retrieve(final.id, stream=True))
    assert [e.to_json() for e in again] == [e.to_json() for e in events]
    whole = await sdk.frames(final.id)
    for after in (0, 1, 5, len(whole) - 2):
        rest = await sdk.frames(final.id, starting_after=after)
        assert rest == whole[after + 1 :]
        assert rest == await sdk.frames(final.id, starting_after=after)
    assert await sdk.frames(final.id, starting_after=len(whole) - 1) == []
    assert (await sdk.client.responses.retrieve(final.id)).to_dict() == final.to_dict()


async def test_resumed_in_mid_run_by_both_sdks(sdk):
    stream = await sdk.client.responses.create(model=SOL, input=LIVE, stream=True, background=True)
    seen = []
    async for event in stream:
        seen.append(event)
        if len(seen) == 8:
            break
    await stream.close()
    response_id, at = seen[0].response.id, seen[-1].sequence_number
    rest, same = await asyncio.gather(
        collected(await sdk.client.responses.retrieve(response_id, stream=True, starting_after=at)),
        blocking(lambda: list(sdk.blocking.responses.retrieve(response_id, stream=True, starting_after=at))),
    )
    assert rest[0].sequence_number == at + 1
    assert [e.to_json() for e in rest] == [e.to_json() for e in same]
    whole = [e.to_json() for e in await collected(await sdk.client.responses.retrieve(response_id, stream=True))]
    assert [e.to_json() for e in [*seen, *rest]] == whole


async def test_the_stream_helper_of_the_sdk(sdk):
    async with sdk.client.responses.stream(model=SOL, input=LIVE, background=True) as stream:
        async for event in stream:
            assert event.sequence_number >= 0
        final = await stream.get_final_response()
    assert final.output_text

    def resume():
        with sdk.blocking.responses.stream(response_id=final.id, starting_after=6) as stream:
            return [event.sequence_number for event in stream], stream.get_final_response()

    numbers, same = await blocking(resume)
    assert (numbers[0], same.output_text) == (7, final.output_text)


@pytest.mark.parametrize("waits", [True, False])
async def test_function_calls(sdk, waits):
    prompt = "[[sim: normal tool=1]] Weather?"
    made = await sdk.client.responses.create(model=SOL, input=prompt, tools=[TOOL], background=True)
    if waits:
        await over(sdk, made.id)
    events = await collected(await sdk.client.responses.retrieve(made.id, stream=True))
    kinds = [e.type.removeprefix("response.") for e in events]
    assert kinds[:3] == ["created", "in_progress", "output_item.added"]
    assert kinds[-3:] == ["function_call_arguments.done", "output_item.done", "completed"]
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    call = events[-1].response.output[0]
    assert "".join(deltas) == call.arguments == events[-3].arguments
    assert (events[2].item.arguments, events[-2].item) == ("", call)
    async with sdk.client.responses.stream(model=SOL, input=prompt, tools=[TOOL]) as stream:
        final = await stream.get_final_response()
    assert final.output[0].parsed_arguments == {"city": "ok"}


@pytest.mark.parametrize(
    ("scenario", "last", "status"),
    [("refusal", "completed", "completed"), ("max_tokens", "incomplete", "incomplete")],
)
async def test_refusal_and_token_limit(sdk, scenario, last, status):
    events = await collected(
        await sdk.client.responses.create(model=SOL, input=f"[[sim: {scenario}]] Hello", stream=True)
    )
    assert (events[-1].type, events[-1].response.status) == (f"response.{last}", status)
    kind = "refusal" if scenario == "refusal" else "output_text"
    assert "".join(e.delta for e in events if e.type == f"response.{kind}.delta")
    assert gapless([e.sequence_number for e in events])


@pytest.mark.parametrize("scenario", ["check_block_after_output", "bio_block", "block_before_stream hold=1"])
async def test_a_block_ends_the_stream_as_failed_and_no_error_is_raised(sdk, scenario):
    prompt = f"[[sim: {scenario}]] Hello"
    events = await blocking(lambda: list(sdk.blocking.responses.create(model=SOL, input=prompt, stream=True)))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code in {"cyber_policy", "bio_policy"}
    assert events[-1].response.output == []
    assert gapless([e.sequence_number for e in events])


async def test_a_check_does_not_disturb_the_sdk(sdk):
    stream = await sdk.client.responses.create(model=SOL, input="[[sim: check_repeats]] Hello", stream=True)
    events = await collected(stream)
    assert all(e.type.startswith("response.") for e in events)
    assert events[-1].response.vigil["safety"]["checks"][0]["evidence"] == "signalled"


async def test_a_dead_worker_is_not_seen(sdk):
    stream = await sdk.client.responses.create(model=SOL, input=LIVE, stream=True)
    events = []
    async for event in stream:
        events.append(event)
        if len(events) == 6:
            dying = asyncio.create_task(sdk.stage.crash(sdk.stage._workers[0][0]))
            await asyncio.wait([dying], timeout=2)  # cancelled within a commit it may hang: dead enough
            await sdk.stage.worker()
    dying.cancel()
    await asyncio.wait([dying])
    assert events[-1].type == "response.completed"
    streamed = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert streamed == events[-1].response.output_text
    again = await collected(await sdk.client.responses.retrieve(events[0].response.id, stream=True))
    assert [e.to_json() for e in again] == [e.to_json() for e in events]


async def test_watchers_of_two_processes_are_told_the_same(sdk, settings, redis, watch):
    made = await sdk.client.responses.create(model=SOL, input=LIVE, background=True)
    async with running(settings, redis, Clock()) as second:
        other = await second.client(key=sdk.key)
        watching = [watch(client, made.id) for client in (sdk.http, other, sdk.http, other)]
        await asyncio.gather(*(task for _, task in watching))
    whole = [raw for _, raw in await sdk.frames(made.id)]
    assert len(whole) > 30
    assert all(got == whole for got, _ in watching)


# -- by the hand that plays the worker


async def begun(api, acme, worker, watch, text, **policy):
    """(job id, the live watcher's frames, its task): an attempt that runs and has said this."""
    made = await acme.post(
        "/v1/responses", json={"model": SOL, "input": "Hi", "background": True, "vigil": {"policy": policy}}
    )
    job_id = made.json()["vigil"]["job_id"]
    got, task = watch(acme, job_id)
    await have(got, 1)
    await worker.start(job_id)
    await worker.text(job_id, 1, 0, text)
    return job_id, got, task


async def test_text_comes_in_whole_chunks_and_the_rest_at_the_end(api, acme, worker, watch):
    job_id, got, task = await begun(api, acme, worker, watch, "a" * 70)
    await have(got, 6)
    await worker.text(job_id, 1, 70, "b" * 10)
    early, first = watch(acme, job_id)
    await have(early, 6)
    assert early == got
    await worker.complete(job_id, "a" * 70 + "b" * 10)
    await asyncio.gather(task, first)
    assert early == got == [raw for _, raw in await frames(acme, job_id)]
    assert [e["delta"] for e in parsed(got) if "delta" in e] == ["a" * 32, "a" * 32, "a" * 6 + "b" * 10]


async def test_what_was_shown_before_a_block_keeps_its_numbers_and_loses_its_text(api, acme, worker, watch):
    job_id, got, task = await begun(api, acme, worker, watch, "secret " * 20)
    await have(got, 8)
    await worker.block(job_id)
    await task
    live, replay = parsed(got), await frames(acme, job_id)
    assert (live[-1]["type"], live[-1]["sequence_number"]) == ("response.failed", 8)
    assert gapless([number for number, _ in replay])
    replayed = parsed(raw for _, raw in replay)
    assert [e["type"] for e in replayed] == [e["type"] for e in live]
    assert replayed[-1] == live[-1]
    assert b"secret" not in b"".join(raw for _, raw in replay)
    assert await frames(acme, job_id) == replay
    assert await frames(acme, job_id, starting_after=7) == replay[8:]


async def test_a_superseded_attempt_ends_its_item_and_the_answer_is_another_one(api, acme, worker, watch):
    job_id, got, task = await begun(api, acme, worker, watch, "x" * 70)
    await have(got, 6)
    await worker.commit(job_id, (ev.AttemptFinished(outcome="lost"), 1))
    await worker.attempt(job_id, 2, purpose="retry")
    await worker.text(job_id, 2, 0, "y" * 33)
    await have(got, 10)
    middle, watching = watch(acme, job_id)
    await have(middle, 10)
    usage = ev.Usage(output_tokens=1, total_tokens=1)
    done = ev.AttemptFinished(outcome="completed", served_model=SOL, usage=usage)
    answer = {"output_text": "y" * 33, "output": [], "refusal": None}
    await worker.commit(job_id, (done, 2), (ev.Completed(served_model=SOL), 2), answer=answer)
    await asyncio.gather(task, watching)
    live, replayed = parsed(got), parsed(raw for _, raw in await frames(acme, job_id))
    assert parsed(middle) == replayed
    assert [(e["type"], e["sequence_number"]) for e in live] == [(e["type"], e["sequence_number"]) for e in replayed]
    assert live[8:] == replayed[8:]
    ended = [e["item"] for e in replayed if e["type"] == "response.output_item.done"]
    assert [item["status"] for item in ended] == ["incomplete", "completed"]
    assert ended[1]["content"][0]["text"] == "y" * 33
    assert "x" not in "".join(e["delta"] for e in replayed if "delta" in e)


async def test_of_two_that_race_nothing_is_shown_until_one_is_left(api, acme, worker, watch):
    job_id, got, task = await begun(api, acme, worker, watch, "", on_delay={"action": "race"})
    await worker.attempt(job_id, 2, "gpt-5.6-luna", "race")
    await worker.text(job_id, 1, 0, "x" * 64)
    await worker.text(job_id, 2, 0, "y" * 64)
    late, second = watch(acme, job_id)
    await have(late, 2)
    await worker.commit(job_id, (ev.AttemptFinished(outcome="server_error"), 2))
    await worker.text(job_id, 1, 64, "x" * 32)
    await have(got, 7)
    await worker.complete(job_id, "x" * 96)
    await asyncio.gather(task, second)
    assert got == late == [raw for _, raw in await frames(acme, job_id)]
    assert b"yyy" not in b"".join(got)


@pytest.mark.parametrize("final", ["", "short", "x" * 500])
async def test_an_answer_that_is_not_what_was_streamed_keeps_the_numbers(api, acme, worker, watch, final):
    job_id, got, task = await begun(api, acme, worker, watch, "z" * 100)
    await have(got, 7)
    await worker.complete(job_id, final)
    await task
    replay = parsed(raw for _, raw in await frames(acme, job_id))
    assert [(e["type"], e["sequence_number"]) for e in parsed(got)] == [
        (e["type"], e["sequence_number"]) for e in replay
    ]
    assert next(e for e in parsed(got) if e["type"].endswith("text.done"))["text"] == final


async def test_items_beside_the_text_follow_it_and_without_live_text_stand_where_they_stood(api, acme, worker, watch):
    text = {"type": "output_text", "text": "t" * 40, "annotations": []}
    output = [
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]},
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}", "status": "completed"},
    ]

    async def finish(job_id):
        done = ev.AttemptFinished(outcome="completed", served_model=SOL)
        answer = {"output_text": "t" * 40, "output": output, "refusal": None}
        await worker.commit(job_id, (done, 1), (ev.Completed(served_model=SOL), 1), answer=answer)
        added = [e for e in parsed(raw for _, raw in await frames(acme, job_id)) if e["type"].endswith("item.added")]
        return [(e["output_index"], e["item"]["type"]) for e in added]

    job_id, got, task = await begun(api, acme, worker, watch, "t" * 40)
    await have(got, 5)
    assert await finish(job_id) == [(0, "message"), (1, "reasoning"), (2, "function_call")]
    await task
    assert got == [raw for _, raw in await frames(acme, job_id)]
    assert parsed(got)[-1]["response"]["output"][0]["type"] == "reasoning"
    made = await acme.post("/v1/jobs", json={"model": SOL, "input": "Hi"})
    await worker.start(made.json()["id"])
    assert await finish(made.json()["id"]) == [(0, "reasoning"), (1, "message"), (2, "function_call")]


async def test_clients_that_read_only_events_see_the_reasoning(api, acme, worker):
    summary = [{"type": "summary_text", "text": "s" * 40}, {"type": "summary_text", "text": "t"}]
    thought = {"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "gAAA"}
    thought["content"] = [{"type": "reasoning_text", "text": "u"}]
    odd = {"type": "reasoning", "id": "rs_2", "summary": "none", "content": [3, {"text": None}]}
    job_id = (await acme.post("/v1/jobs", json={"model": SOL, "input": "Hi"})).json()["id"]
    await worker.start(job_id)
    done = ev.AttemptFinished(outcome="completed", served_model=SOL)
    answer = {"output_text": "", "output": [thought, odd], "refusal": None}
    await worker.commit(job_id, (done, 1), (ev.Completed(served_model=SOL), 1), answer=answer)
    got = parsed(raw for _, raw in await frames(acme, job_id))
    deltas = [(e["summary_index"], e["delta"]) for e in got if e["type"] == "response.reasoning_summary_text.delta"]
    assert deltas == [(0, "s" * 32), (0, "s" * 8), (1, "t")]
    done_texts = [e["text"] for e in got if e["type"].endswith("text.done")]
    assert done_texts == ["s" * 40, "t", "u"]
    added = [e["item"] for e in got if e["type"] == "response.output_item.added"]
    assert (added[0]["summary"], added[0]["content"]) == ([], [])
    assert [e["item"] for e in got if e["type"] == "response.output_item.done"] == [thought, odd]


async def test_a_response_that_never_ran(api, acme, watch):
    made = (await acme.post("/v1/responses", json={"model": SOL, "input": "Hi", "background": True})).json()
    got, task = watch(acme, made["id"])
    await have(got, 1)
    assert (await acme.post(f"/v1/responses/{made['id']}/cancel")).json()["status"] == "cancelled"
    await task
    assert [e["type"] for e in parsed(got)] == ["response.created", "response.failed"]
    assert got == [raw for _, raw in await frames(acme, made["id"])]


async def test_deleting_or_revoking_ends_the_stream(api, acme, worker, watch, monkeypatch):
    job_id, got, task = await begun(api, acme, worker, watch, "x" * 64)
    await have(got, 6)
    monkeypatch.setattr("api.openai_compat.routes._CANCEL_WAIT_S", 0.1)
    assert (await acme.delete(f"/v1/responses/{job_id}")).status_code == 409, "it runs on: nothing is half deleted"
    end = ev.Cancelled(upstream_under_way=True, billed=True)
    await worker.commit(job_id, (ev.AttemptFinished(outcome="cancelled"), 1), (end, None))
    assert (await acme.delete(f"/v1/responses/{job_id}")).json()["deleted"] is True
    await task
    assert (await acme.get(f"/v1/responses/{job_id}", params={"stream": "true"})).status_code == 404


async def test_the_client_raises_its_own_class_for_a_stream_that_is_not_there(sdk):
    with pytest.raises(openai.NotFoundError):
        await sdk.client.responses.retrieve("resp_" + "0" * 26, stream=True)
