"""Silence is counted from the sending of the request, and ends no response that outlives its connection."""

from __future__ import annotations

import pytest
from arq.connections import ArqRedis
from in_process import LUNA, SOL, Stage

from tests.upstream.rawserver import CHUNKED, LAST, Connection, RawServer, as_json, chunk, completed, created, frame
from worker.clock import Clock, to_ms
from worker.jobs.spec import MEASURED, SILENCE
from worker.jobs.states import Evidence, Outcome, Status
from worker.safety import silence
from worker.store import keys
from worker.store.provider.durations import read_durations


@pytest.mark.parametrize("mode", ["stream", "chat", "background"])
async def test_the_delay_rule_acts_before_headers_came(redis: ArqRedis, valkey_url: str, mode: str) -> None:
    """A gateway that holds even the headers back while the model is silent."""

    async def provider(connection: Connection) -> None:
        if connection.request.json["model"] == LUNA:
            if mode == "chat":
                answer = {"id": "c1", "model": LUNA, "choices": [{"index": 0, "message": {"content": "Hello."}}]}
                answer["choices"][0]["finish_reason"] = "stop"  # type: ignore[index]
                await connection.send(as_json(200, answer))
            else:
                await connection.send(CHUNKED, chunk(frame(completed(0, model=LUNA))), LAST)
        else:
            await connection.gone()

    async with RawServer(provider) as server, Stage(redis, valkey_url, OPENAI_BASE_URL=server.url) as stage:
        await stage.worker(upstream=mode)
        rule = {"action": "switch", "silence_seconds": 0.5}
        job = await stage.settled(await stage.submit("hello", policy={"on_delay": rule}))
    assert (job.status, job.served_model) == (Status.COMPLETED, LUNA)
    assert [a.outcome for a in job.attempts] == [Outcome.SUBSTITUTED, Outcome.COMPLETED]
    assert job.disclosure is not None
    assert job.disclosure.reason == "silence"
    assert job.checks[0].evidence is Evidence.SUSPECTED


ERROR = {"type": "error", "error": {"code": "server_is_overloaded", "type": "server_error", "message": "x"}}


@pytest.mark.parametrize("last", [None, ERROR])
async def test_a_background_stream_that_says_no_more_is_looked_at_and_not_sent_again(
    redis: ArqRedis, valkey_url: str, last: object
) -> None:
    """It hangs, also after an error that a gateway put into the stream: the response itself goes on."""
    posts = polls = 0

    async def provider(connection: Connection) -> None:
        nonlocal posts, polls
        if connection.request.method == "POST":
            posts += 1
            events = [created(background=True), *([last] if last else [])]
            await connection.send(CHUNKED, *(chunk(frame(event)) for event in events))
            await connection.gone()
        elif "stream=true" in connection.request.path:
            await connection.send(CHUNKED)
            await connection.gone()
        else:
            polls += 1
            done = completed(5)["response"]
            await connection.send(as_json(200, done if polls > 2 else created(background=True)["response"]))

    async with RawServer(provider) as server, Stage(redis, valkey_url, OPENAI_BASE_URL=server.url) as stage:
        worker = await stage.worker(idle_seconds=0.3)
        object.__setattr__(worker.components.context.limits, "after_fault", 0.3)
        job = await stage.settled(await stage.submit("hello", policy={"on_delay": {"action": "wait"}}))
    assert (job.status, len(job.attempts), posts) == (Status.COMPLETED, 1, 1)


async def test_silence_is_judged_by_what_is_usual_for_the_model(
    redis: ArqRedis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs that give no `silence_seconds`, once 200 calls of the model were measured; a given value stays."""
    monkeypatch.setattr(silence, "LOWEST_S", 0.3)
    today = keys.durations(to_ms(Clock().now()) // 86_400_000)
    await redis.hset(today, f"{SOL}|silent|0", silence.MIN_SAMPLES)
    async with Stage(redis, valkey_url, speed=1) as stage:
        worker = await stage.worker()
        await worker.components.context.durations.current()
        late, rule = "[[sim: silent_delay hold=600]] hello", {"action": "wait"}
        pinned = await stage.submit(late, policy={"on_delay": {**rule, "silence_seconds": 300}})
        measured = await stage.submit(late, policy={"on_delay": rule}, optional={SILENCE: MEASURED})
        await stage.reaches(measured, "a suspected check", lambda job: job.open_checks)
        assert not (await stage.job(pinned)).checks
        stage.hurry()
        jobs = [await stage.settled(one) for one in (measured, pinned)]
    assert [job.status for job in jobs] == [Status.COMPLETED, Status.COMPLETED]
    assert [job.attempts[0].longest_silence_seconds > 0 for job in jobs] == [True, True]  # type: ignore[operator]
    found = (await read_durations(redis, Clock())).silences(stage.settings().catalogue(), SOL)
    assert (found.samples, sum(found.suspected.values())) == (silence.MIN_SAMPLES + 1, 1)


async def test_a_signalled_check_is_no_silence(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        ends = ["check_then_clear", "check_then_block", "normal"]
        for end in ends:
            await stage.settled(await stage.submit(f"[[sim: {end}]] hello", policy={"on_delay": {"action": "wait"}}))
    found = (await read_durations(redis, Clock())).silences(stage.settings().catalogue(), SOL)
    assert (found.samples, found.suspected) == (1, {})
