"""A background response is kept until somebody says that it is lost: whatever its looks are answered with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

import pytest
from waiting import LIMIT

from tests.upstream.rawserver import (
    CHUNKED,
    LAST,
    MESSAGE,
    SNAPSHOT,
    Connection,
    RawServer,
    Script,
    as_json,
    chunk,
    completed,
    created,
    delta,
    plays,
)
from tests.upstream.session_scripts import TOO_LATE, breaks_after, paths, state, streams
from tests.upstream.upstream_calls import Rig, Sleeps, call, play
from worker.jobs.events import AttemptUpdated
from worker.safety import event_mapping
from worker.safety.stream import Closed, Created, Delta, Rejected, StreamError, StreamEvent, Terminal
from worker.safety.watch import AttemptWatch
from worker.telemetry import events
from worker.upstream.session import Session
from worker.upstream.translate import translate_snapshot

GONE = plays(as_json(404, {"error": {"message": "no such response", "type": "invalid_request_error"}}))


async def until_waited(session: Session, sleeps: Sleeps, seconds: float) -> list[StreamEvent]:
    """The events of a session that nothing ends, until it has paused for so long in all."""
    events: list[StreamEvent] = []

    async def read() -> None:
        async for batch in session.batches():
            events.extend(batch)

    reading = asyncio.create_task(read())
    async with asyncio.timeout(LIMIT):
        while sum(sleeps.taken) < seconds and not reading.done():
            await asyncio.sleep(0.001)
    assert not reading.done(), f"it gave up: {events[-1:]}"
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await session.aclose()
    return events


UNREACHABLE = {
    "closes": plays(),
    "overloaded": plays(as_json(503, {"error": {"code": "server_is_overloaded"}})),
    "html": plays(b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>"),
    "key": plays(as_json(401, {"error": {"code": "invalid_api_key"}})),
    "forbidden": plays(as_json(403, {"error": {"message": "no"}})),
    "gateway": plays(b"HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>"),
    "error under 200": plays(as_json(200, {"object": "error", "error": {"message": "upstream", "code": "500"}})),
    "empty": plays(as_json(200, b"")),
    "empty stream": streams(),
    "replay": streams(created(background=True), delta(1)),
    "error frame": plays(CHUNKED, chunk(b'data: {"error": {"message": "upstream", "code": "500"}}\n\n'), LAST),
}


@pytest.mark.parametrize("answer", UNREACHABLE.values(), ids=UNREACHABLE.keys())
async def test_a_response_that_nobody_calls_lost_is_kept_and_looked_for_ever_less_often(
    rig: Rig, answer: Script
) -> None:
    async with RawServer(breaks_after(created(background=True), delta(1)), answer) as server:
        session = rig.session(server.url)
        events = await until_waited(session, rig.sleeps, 900)
        methods = [request.method for request in server.requests]
        assert methods.count("POST") == 1, "never a second response"
        assert len(methods) < 260, "neither fast nor without end"
    assert [e for e in events if type(e) in (Delta, Closed, Rejected, Terminal)] == [Delta(1, "Hel")]
    assert min(rig.sleeps.taken) >= 0.2


async def test_retry_after_is_kept_however_long_and_however_often(rig: Rig) -> None:
    limited = plays(as_json(429, {"error": {"code": "rate_limit_exceeded"}}, "Retry-After: 31"))
    scripts = breaks_after(created(), delta(1)), *[limited] * 5, streams(completed(2))
    async with RawServer(*scripts) as server:
        session = rig.session(server.url)
        events = await play(session)
        assert [request.method for request in server.requests] == ["POST", *["GET"] * 6]
    assert type(events[-1]) is Terminal
    assert rig.sleeps.taken == [0.2, 31.0, 31.0, 31.0, 31.0, 31.0]


async def test_a_wait_that_was_asked_for_is_not_cut_short_by_a_hint(rig: Rig) -> None:
    loop, times, hinted = asyncio.get_running_loop(), [], asyncio.Event()

    async def limited(connection: Connection) -> None:
        await connection.send(as_json(429, {"error": {}}, "Retry-After: 0.5"))
        times.append(loop.time())
        hinted.set()

    async def there(connection: Connection) -> None:
        times.append(loop.time())
        await streams(completed(2))(connection)

    async with RawServer(breaks_after(created()), limited, there) as server:
        session = rig.session(server.url, sleep=asyncio.sleep, expedite_delay=0.0)
        reading = asyncio.create_task(play(session))
        await hinted.wait()
        while not reading.done():
            session.expedite()
            await asyncio.sleep(0.01)
        assert type((await reading)[-1]) is Terminal
    assert times[1] - times[0] >= 0.49


# -- what a look may be answered with


async def test_a_response_that_is_seen_late_is_waited_for_and_streamed_again(rig: Rig) -> None:
    """404 while the provider's own write is not yet seen by its reads: the response is there a moment later."""
    scripts = breaks_after(created(), delta(1)), GONE, GONE, GONE, state("in_progress"), streams(delta(2), completed(3))
    async with RawServer(*scripts) as server:
        events = await play(rig.session(server.url))
        resume = "GET /resp_raw01?stream=true&starting_after=1"
        assert paths(server) == ["POST ", resume, *["GET /resp_raw01"] * 3, resume]
    assert [e.sequence for e in events if type(e) is Delta] == [1, 2]
    assert rig.sleeps.taken == [0.2, 0.5, 1.0, 2.0, 1.0]


async def test_a_snapshot_in_the_place_of_a_resumed_stream_is_polled_on_ever_more_slowly(rig: Rig) -> None:
    running = state("in_progress")
    async with RawServer(breaks_after(created(), delta(1)), *[running] * 20, state("completed")) as server:
        events = await play(rig.session(server.url))
        assert [path.partition("?")[1] for path in paths(server)] == ["", "?", *[""] * 20]
    assert type(events[-1]) is Terminal
    assert rig.sleeps.taken[:5] == [0.2, 1.0, 1.5, 2.25, 3.375]
    assert rig.sleeps.taken[-1] == 5.0


async def test_a_stream_without_numbers_is_never_read_twice(rig: Rig) -> None:
    """Compatible servers leave `sequence_number` out: a resume would say the text again from its start."""
    bare = {"type": "response.created", "response": SNAPSHOT}, {"type": "response.output_text.delta", "delta": "Hel"}
    async with RawServer(breaks_after(*bare), state("completed", output=[MESSAGE])) as server:
        events = await play(rig.session(server.url))
        assert paths(server) == ["POST ", "GET /resp_raw01"]
    assert [e.text for e in events if type(e) is Delta] == ["Hel"]


IN_BACKGROUND = created(background=True)


async def test_a_response_that_stays_unknown_is_lost(rig: Rig) -> None:
    gone = plays(as_json(404, {"error": {"message": "no such response", "type": "invalid_request_error"}}))
    async with RawServer(breaks_after(IN_BACKGROUND), gone) as server:
        events = await play(rig.session(server.url))
        assert [request.method for request in server.requests].count("POST") == 1
    assert events[-1] == Closed("lost")
    assert 10 <= sum(rig.sleeps.taken) <= 15


@pytest.mark.parametrize("answer", [plays(as_json(410, {})), plays(as_json(400, {"error": {"code": "expired"}}))])
async def test_a_response_that_is_called_gone_is_lost_at_once(rig: Rig, answer: Script) -> None:
    async with RawServer(breaks_after(IN_BACKGROUND), answer) as server:
        assert (await play(rig.session(server.url)))[-1] == Closed("lost")
        assert len(server.requests) == 2


@pytest.mark.parametrize("status", [404, 405, 400, 501])
async def test_a_server_that_ignored_background_mode_can_not_be_looked_at(rig: Rig, status: int) -> None:
    """It never said that the response runs in the background: that it has no such page says nothing of the response."""
    answer = plays(as_json(status, {"error": {"message": "x", "type": "invalid_request_error"}}))
    async with RawServer(breaks_after(created(background=False), delta(1)), answer) as server:
        events = await play(rig.session(server.url))
    assert events[-1] == Closed("unreachable")
    assert 10 <= sum(rig.sleeps.taken) <= 15


async def test_a_block_that_a_look_is_refused_with_is_the_last_word(rig: Rig) -> None:
    answer = plays(as_json(403, {"error": {"code": "misalignment_policy_violation"}}))
    async with RawServer(breaks_after(IN_BACKGROUND), answer) as server:
        end = (await play(rig.session(server.url)))[-1]
        assert len(server.requests) == 2
    assert isinstance(end, Rejected)
    assert end.on == "resume"


async def test_it_is_told_once_that_a_response_is_out_of_reach_and_once_that_it_is_back(rig: Rig) -> None:
    reported: list[tuple[str, float]] = []

    def record(name: str, fields: Mapping[str, object]) -> None:
        reported.append((name, float(str(fields["seconds"]))))

    away = plays(as_json(503, {"error": {"code": "server_is_overloaded"}}))
    short = [*[away] * 3, state("in_progress")]
    long = [*[away] * 12, state("in_progress"), state("in_progress"), *[away] * 4, state("completed")]
    events.subscribe(record, ["response.out_of_reach", "response.back"])
    try:
        async with RawServer(breaks_after(created(), delta(1)), *short, *long) as server:
            await play(rig.session(server.url))
    finally:
        events.unsubscribe(record)
    assert [name for name, _ in reported] == ["response.out_of_reach", "response.back"]
    assert 30 < reported[0][1] < 45
    assert reported[1][1] > reported[0][1]


# -- answered with its state


@pytest.mark.parametrize("answer", [*UNREACHABLE.values(), state("in_progress")], ids=[*UNREACHABLE, "running"])
async def test_a_foreground_call_that_is_answered_with_a_running_response_is_kept(rig: Rig, answer: Script) -> None:
    async with RawServer(state("in_progress"), answer) as server:
        session = rig.session(server.url, call("stream"))
        events = await until_waited(session, rig.sleeps, 300)
        assert [request.method for request in server.requests].count("POST") == 1, "never a second response"
    assert not [event for event in events if type(event) in (Closed, Rejected, Terminal)]


async def test_it_is_cancelled_upstream_like_a_background_response(rig: Rig) -> None:
    async with RawServer(state("queued"), state("queued"), state("cancelled")) as server:
        session = rig.session(server.url, call("stream"))
        async for batch in session.batches():
            if any(type(event) is Created for event in batch):
                break
        assert (await session.cancel()).took_effect is False
        assert paths(server)[-1] == "POST /resp_raw01/cancel"


def test_the_record_learns_that_it_runs_in_the_background() -> None:
    (event,) = translate_snapshot(SNAPSHOT)
    signals = AttemptWatch("m", checked=False, now=0.0).feed(event, 1.0)
    facts = [event_mapping.fact_of(signal, datetime(2026, 11, 29, tzinfo=UTC)) for signal in signals]
    assert "background" in [fact.mode for fact in facts if isinstance(fact, AttemptUpdated)]


# -- ids


@pytest.mark.parametrize("name", ["r" * 300, "r" * 4096, "a/b?c=d#e f%2F", "résumé", "..", "q\u2028\U0001f600"])
async def test_an_id_is_kept_whole_and_goes_encoded_into_paths(rig: Rig, name: str) -> None:
    first = breaks_after(created(id=name), delta(1))
    async with RawServer(first, TOO_LATE, state("completed", id=name)) as server:
        session = rig.session(server.url)
        events = await play(session)
        requested = [urlsplit(request.path).path.removeprefix("/v1/responses/") for request in server.requests[1:]]
    assert session.response_id == name
    assert [unquote(path) for path in requested] == [name, name]
    assert not any("/" in path for path in requested)
    assert type(events[-1]) is Terminal


@pytest.mark.parametrize("mode", ["background", "stream"])
async def test_an_id_that_is_too_long_ends_it_before_anything_is_decided(rig: Rig, mode: str) -> None:
    async with RawServer(streams(created(id="r" * 4097), delta(1), completed(2))) as server:
        events = await play(rig.session(server.url, call(mode)))
        assert len(server.requests) == 1
    assert events[-1] == Closed("bad_id")
    assert not [event for event in events if type(event) in (Created, Delta, Terminal)]


async def test_the_first_id_stays(rig: Rig) -> None:
    async with RawServer(breaks_after(created()), TOO_LATE, state("completed", id="resp_other")) as server:
        session = rig.session(server.url)
        events = await play(session)
    assert session.response_id == "resp_raw01"
    assert {e.response_id for e in events if type(e) in (Created, Terminal)} == {"resp_raw01"}


# -- looking anew


async def test_a_stream_that_is_silent_for_too_long_is_read_over_a_new_connection(rig: Rig) -> None:
    silent = asyncio.Event()

    async def hangs(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await connection.events(created(), delta(1))
        silent.set()
        await connection.gone()

    async with RawServer(hangs, streams(delta(2), completed(3))) as server:
        session = rig.session(server.url)
        reading = asyncio.create_task(play(session))
        await silent.wait()
        while len(server.requests) < 2:
            session.reconnect()
            await asyncio.sleep(0.01)
        events = await reading
        assert [request.method for request in server.requests] == ["POST", "GET"]
    assert [e.sequence for e in events if type(e) is Delta] == [1, 2]


async def test_a_poll_that_never_ends_is_given_up(rig: Rig) -> None:
    async def hangs(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{")
        await connection.gone()

    async with RawServer(breaks_after(created()), TOO_LATE, hangs, state("completed")) as server:
        events = await play(rig.session(server.url, poll_timeout=0.05))
    assert type(events[-1]) is Terminal


async def test_a_server_without_a_route_for_responses_is_named_and_nothing_is_created_again(rig: Rig) -> None:
    no_route = plays(as_json(404, {"detail": "Not Found"}))
    async with RawServer(breaks_after(created(background=True), delta(1)), no_route) as server:
        events = await play(rig.session(server.url))
        assert [request.method for request in server.requests].count("POST") == 1
    assert events[-1] == Closed("no_route")
    assert sum(rig.sleeps.taken) >= 60


# -- a block


async def test_a_block_is_the_end_and_nothing_is_looked_up_after_it(rig: Rig) -> None:
    block = {"type": "error", "sequence_number": 1, "error": {"code": "cyber_policy", "message": "m"}}
    async with RawServer(breaks_after(created(), block), plays(as_json(503, {}))) as server:
        session = rig.session(server.url)
        events = await play(session)
        assert len(server.requests) == 1
    assert [type(event) for event in events[-2:]] == [StreamError, Closed]
    assert not rig.sleeps.taken


async def test_the_terminal_event_behind_a_block_still_counts(rig: Rig) -> None:
    block = {"type": "error", "sequence_number": 1, "error": {"code": "cyber_policy", "message": "m"}}

    async def in_two_packets(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await connection.events(created(), block)
        await asyncio.sleep(0.02)
        await connection.events(completed(2))
        await connection.gone()

    async with RawServer(in_two_packets) as server:
        events = await play(rig.session(server.url))
    assert [type(event) for event in events[-2:]] == [StreamError, Terminal]
