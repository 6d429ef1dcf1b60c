"""A safety check in the streams of both OpenAI APIs: told while it runs, and at the same place in every replay."""

from __future__ import annotations

import asyncio
import json

from api_server import running
from hypothesis import given, settings as examples, strategies as st
from openai_sdk import SOL, frames, gapless, sdk_against_api
from test_api_openai_stream import begun, have, parsed, watch  # noqa: F401  a fixture

from api.openai_compat.check_states import Text, in_order
from worker.clock import Clock
from worker.jobs import events as ev
from worker.store.jobs.streamed_chunks import Streamed, StreamedCheck

NOTICE = {"use_cases": ["cyber"], "reasons": ["user_risk"]}


def check_states(events):
    """The states of checks among events, as (state, the provider's notice, how much text came before)."""
    out, characters = [], 0
    for event in events:
        characters += len(event.get("delta", ""))
        if event["type"] == "response.in_progress" and "safety" in event["response"]["vigil"]:
            state = event["response"]["vigil"]["safety"]["state"]
            out.append((state, event.get("safety_buffering"), characters))
    return out


async def test_checks_stand_at_the_same_place_in_every_stream(api, acme, worker, watch, settings, redis):  # noqa: F811
    job_id, got, task = await begun(api, acme, worker, watch, "a" * 70)
    await have(got, 6)
    async with running(settings, redis, Clock()) as second:
        other, other_task = watch(await second.client(), job_id)
        await worker.check(job_id)
        await have(got, 7)
        middle, middle_task = watch(acme, job_id)
        await have(middle, 7)
        more = ev.CheckUpdated(
            evidence="signalled", use_cases=("cyber",), reasons=("user_risk",), retry_model=None, repeats=3,
            retry_model_state="none",
        )  # fmt: skip
        await worker.commit(job_id, (more, 1))
        await have(got, 8)
        await worker.commit(job_id, (ev.CheckEnded(ended_by="output"), 1))
        await worker.text(job_id, 1, 70, "b" * 40)
        await have(got, 9)
        await worker.complete(job_id, "a" * 70 + "b" * 40)
        await asyncio.gather(task, other_task, middle_task)
    replay = await frames(acme, job_id)
    assert got == other == middle == [raw for _, raw in replay]
    assert gapless([number for number, _ in replay])
    states = check_states(parsed(got))
    assert states[:2] == [("checking", NOTICE, 64), ("checking", {**NOTICE, "retry_model": None}, 64)]
    assert [state for state, _, _ in states[2:]] == ["cleared"]
    assert states[2][1] is None, "nothing is buffered any more"
    assert await frames(acme, job_id, starting_after=6) == replay[7:]
    texts = "".join(event.get("delta", "") for event in parsed(got))
    assert texts == "a" * 70 + "b" * 40


async def test_repeats_of_a_notice_are_told_once(api, acme, worker, watch):  # noqa: F811
    job_id, got, task = await begun(api, acme, worker, watch, "")
    await worker.check(job_id)
    await have(got, 3)
    for repeats in (1, 2):
        again = ev.CheckUpdated(evidence="signalled", use_cases=("cyber",), reasons=("user_risk",), repeats=repeats)
        await worker.commit(job_id, (again, 1))
    await worker.commit(job_id, (ev.CheckEnded(ended_by="blocked"), 1))
    await worker.block(job_id)
    await task
    assert [state for state, _, _ in check_states(parsed(got))][:1] == ["checking"]
    assert len(check_states(parsed(got))) <= 2, "the end of the check may be told before that of the job"
    assert got == [raw for _, raw in await frames(acme, job_id)]


async def test_openais_sdk_reads_both_streams(settings, redis, clock, valkey_url):
    prompt = "[[sim: check_then_clear hold=30]] Hello"
    async with sdk_against_api(settings, redis, clock, valkey_url) as sdk:
        async with sdk.client.responses.stream(model=SOL, input=prompt) as stream:
            events = [event async for event in stream]
            final = await stream.get_final_response()
        assert final.output_text
        snapshots = [e for e in events if e.type == "response.in_progress" and "safety" in e.response.vigil]
        assert snapshots[0].response.vigil["safety"]["state"] == "checking"
        assert snapshots[0].safety_buffering["use_cases"] == ["cyber"]
        assert {e.response.status for e in snapshots} == {"in_progress"}
        kinds = [json.loads(raw.partition(b"data: ")[2])["type"] for _, raw in await sdk.frames(final.id)]
        assert kinds.count("response.in_progress") == 1 + len(snapshots), "in a replay too"
        chunks = [
            chunk
            async for chunk in await sdk.client.chat.completions.create(
                model=SOL, messages=[{"role": "user", "content": prompt}], stream=True
            )
        ]
        checking = [
            chunk for chunk in chunks if getattr(chunk, "vigil", {}).get("safety", {}).get("state") == "checking"
        ]
        assert checking[0].safety_buffering["reasons"]
        assert checking[0].choices[0].delta.content is None
        assert chunks[-1].choices[0].finish_reason == "stop"


async def test_a_suspicion_has_no_notice_of_the_provider(api, acme, worker, watch):  # noqa: F811
    job_id, got, task = await begun(api, acme, worker, watch, "")
    await worker.commit(job_id, (ev.CheckStarted(evidence="suspected"), 1))
    await have(got, 3)
    assert check_states(parsed(got)) == [("checking", None, 0)]
    await worker.commit(job_id, (ev.CheckEnded(ended_by="output"), 1))
    await worker.complete(job_id)
    await task


PLACES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=6)


@given(st.dictionaries(st.integers(1, 3), st.integers(1, 6), max_size=3), PLACES, st.data())
@examples(max_examples=40, deadline=None)
def test_the_order_does_not_depend_on_when_one_looks(counts, places, data):
    """Whoever has seen less of it gets the rest in the same order."""
    places = sorted(place for place in places if place[0] == 0 or place[1] <= counts.get(place[0], -1))
    places = [(0, 0) if attempt == 0 else (attempt, chunks) for attempt, chunks in places]
    checks = tuple(StreamedCheck(*place, b"%d" % number) for number, place in enumerate(sorted(places)))
    whole = Streamed(dict(sorted(counts.items())), checks)

    def written(streamed, out, emitted):
        noted = sum(isinstance(one, bytes) for one in out)
        for step in in_order(streamed, noted):
            if isinstance(step, Text):
                out += [(step.attempt, n) for n in range(emitted.get(step.attempt, 0), step.upto)]
                emitted[step.attempt] = max(step.upto, emitted.get(step.attempt, 0))
            else:
                out.append(step.state)
        return out

    at_once = written(whole, [], {})
    assert [one for one in at_once if isinstance(one, bytes)] == [check.state for check in checks]
    cut = data.draw(st.integers(0, len(at_once)))
    seen = at_once[:cut]
    upto = {attempt: n + 1 for attempt, n in (one for one in seen if isinstance(one, tuple))}
    part = Streamed(dict(sorted(upto.items())), checks[: sum(isinstance(one, bytes) for one in seen)])
    out, emitted = [], {}
    assert written(part, out, emitted) == seen
    assert written(whole, out, emitted) == at_once
