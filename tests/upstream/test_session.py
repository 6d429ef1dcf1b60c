"""One attempt over all its connections, against scripted servers and against the simulator."""

from __future__ import annotations

import asyncio

import pytest
from waiting import soon

from tests.upstream.rawserver import (
    CHUNKED,
    LAST,
    SNAPSHOT,
    Connection,
    RawServer,
    as_json,
    chunk,
    completed,
    created,
    delta,
    frame,
    plays,
)
from tests.upstream.session_scripts import TOO_LATE, breaks_after, paths, state, streams
from tests.upstream.upstream_calls import Rig, call, kinds, play, rest_of
from worker.safety.stream import Closed, Created, Delta, Keepalive, Opened, Rejected, StreamEvent, Terminal
from worker.upstream.client import Provider
from worker.upstream.session import ResumePoint, Session

# -- one connection is enough


@pytest.mark.parametrize("mode", ["background", "stream"])
async def test_a_stream_without_trouble(rig: Rig, mode: str) -> None:
    async with RawServer(streams(created(), delta(1), completed(2))) as server:
        session = rig.session(server.url, call(mode))
        assert kinds(await play(session)) == [Opened, Created, Delta, Terminal]
        assert (session.response_id, session.sequence, session.resumed) == ("resp_raw01", 2, 0)
        assert paths(server) == ["POST "]
    assert rig.sleeps.taken == []


async def test_the_connection_is_closed_once_the_terminal_event_is_seen(rig: Rig) -> None:
    gone = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await connection.events(completed(1))
        await connection.gone()
        gone.set()

    async with RawServer(script) as server:
        async for batch in rig.session(server.url, call("stream")).batches():
            if type(batch[-1]) is Terminal:
                break
        await soon(gone.wait())


async def test_after_the_terminal_event_everything_is_only_life(rig: Rig) -> None:
    late = {"type": "response.rate_limits.updated", "sequence_number": 4}
    body = b"".join(frame(event) for event in (completed(2), delta(3), late, completed(5, status="failed")))
    async with RawServer(plays(CHUNKED, chunk(body), LAST)) as server:
        events = await play(rig.session(server.url))
    assert kinds(events) == [Opened, Terminal, Keepalive, Keepalive, Keepalive]
    assert events[-1] == Keepalive(5, "Terminal")
    assert events[-2] == Keepalive(4, "response.rate_limits.updated")


@pytest.mark.parametrize("mode", ["stream", "chat"])
async def test_a_foreground_stream_is_not_resumed(rig: Rig, mode: str) -> None:
    first = created() if mode == "stream" else {"type": "x", "id": "chatcmpl-1", "choices": []}
    async with RawServer(breaks_after(first)) as server:
        events = await play(rig.session(server.url, call(mode)))
        assert len(server.requests) == 1
    assert kinds(events) == [Opened, Created, Closed]


async def test_a_rejection_passes(rig: Rig) -> None:
    async with RawServer(plays(as_json(429, {"error": {"code": "rate_limit_exceeded"}}))) as server:
        events = await play(rig.session(server.url))
        assert len(server.requests) == 1
    assert kinds(events) == [Rejected]


async def test_a_cut_before_the_id_is_known_passes(rig: Rig) -> None:
    async with RawServer(breaks_after({"type": "keepalive", "sequence_number": 0})) as server:
        events = await play(rig.session(server.url))
        assert len(server.requests) == 1
    assert kinds(events) == [Opened, Keepalive, Closed]


# -- resuming


@pytest.mark.parametrize("end", [b"ff\r\n", LAST, chunk(b'data: {"ty') + LAST, chunk(b"data: {nope}\n\n") + LAST])
async def test_a_cut_is_resumed_after_the_last_sequence(rig: Rig, end: bytes) -> None:
    scripts = streams(created(), delta(1), delta(2), end=end), streams(delta(3), completed(4))
    async with RawServer(*scripts) as server:
        session = rig.session(server.url)
        events = await play(session)
        assert paths(server) == ["POST ", "GET /resp_raw01?stream=true&starting_after=2"]
        assert [r.headers["x-client-request-id"] for r in server.requests] == ["att_1", "att_1.r1"]
    assert [e.sequence for e in events if type(e) is Delta] == [1, 2, 3]
    assert [e.resumed for e in events if type(e) is Opened] == [False, True]
    assert type(events[-1]) is Terminal
    assert (session.resumed, session.sequence) == (1, 4)


async def test_what_a_resumed_stream_says_again_is_dropped(rig: Rig) -> None:
    scripts = (
        breaks_after(created(), delta(1), delta(2)),
        streams(created(), delta(1), delta(2), delta(3), completed(4)),
    )
    async with RawServer(*scripts) as server:
        events = await play(rig.session(server.url))
    assert [e.sequence for e in events if type(e) in (Created, Delta, Terminal)] == [0, 1, 2, 3, 4]


async def test_a_comment_before_the_replay_changes_nothing(rig: Rig) -> None:
    again = plays(
        CHUNKED, chunk(b": ping\n\n"), chunk(frame(delta(1)) + frame(delta(2))), chunk(frame(completed(3))), LAST
    )
    async with RawServer(breaks_after(created(), delta(1)), again) as server:
        events = await play(rig.session(server.url))
    assert [e.sequence for e in events if type(e) is Delta] == [1, 2]


async def test_deltas_that_come_one_by_one_move_the_cursor(rig: Rig) -> None:
    seen = asyncio.Queue[int | None]()

    async def script(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await connection.events(created())
        for number in range(1, 6):
            await connection.events(delta(number))
            while await seen.get() != number:
                pass
        await connection.events(completed(6))

    async with RawServer(script) as server:
        session = rig.session(server.url)
        events: list[StreamEvent] = []
        async for batch in session.batches():
            events += batch
            if type(batch[-1]) is Delta:
                assert session.sequence == batch[-1].sequence
                seen.put_nowait(session.sequence)
        await session.aclose()
    assert [e.sequence for e in events if type(e) is Delta] == [1, 2, 3, 4, 5]


async def test_gaps_in_the_sequence_are_nothing_special(rig: Rig) -> None:
    scripts = breaks_after(created(), delta(10), delta(17)), streams(delta(40), completed(99))
    async with RawServer(*scripts) as server:
        events = await play(rig.session(server.url))
        assert paths(server)[1].endswith("starting_after=17")
    assert [e.sequence for e in events if type(e) is Delta] == [10, 17, 40]


async def test_a_worker_that_comes_after_a_crash_resumes_and_sends_nothing_again(rig: Rig) -> None:
    async with RawServer(streams(delta(6), completed(7))) as server:
        session = rig.session(server.url, resume_from=ResumePoint("resp_raw01", 5))
        events = await play(session)
        assert paths(server) == ["GET /resp_raw01?stream=true&starting_after=5"]
    assert kinds(events) == [Opened, Delta, Terminal]
    assert session.resumed == 1


async def test_without_a_sequence_the_stream_is_read_from_its_start(rig: Rig) -> None:
    async with RawServer(streams(created(), completed(1))) as server:
        await play(rig.session(server.url, resume_from=ResumePoint("resp_raw01", None)))
        assert paths(server) == ["GET /resp_raw01?stream=true"]


def test_only_background_responses_resume(rig: Rig) -> None:
    with pytest.raises(ValueError, match="background"):
        Session(Provider("sk"), call("stream"), ResumePoint("resp_1", 1))


async def test_a_server_away_for_a_while_is_waited_for(rig: Rig) -> None:
    busy = plays(as_json(503, {"error": {}}))
    scripts = breaks_after(created(), delta(1)), busy, busy, plays(), streams(completed(2))
    async with RawServer(*scripts) as server:
        session = rig.session(server.url)
        events = await play(session)
    assert type(events[-1]) is Terminal
    assert rig.sleeps.taken == [0.2, 0.5, 1.0, 2.0]
    assert session.resumed == 1


# -- polling


async def test_a_refused_resume_is_polled_to_the_end(rig: Rig) -> None:
    polls = state("queued"), state("in_progress"), state("completed")
    async with RawServer(breaks_after(created(), delta(1)), TOO_LATE, *polls) as server:
        session = rig.session(server.url)
        events = await play(session)
        assert paths(server)[2:] == ["GET /resp_raw01"] * 3
    assert kinds(events) == [Opened, Created, Delta, Opened, Created, Created, Terminal]
    assert rig.sleeps.taken == [0.2, 0.5, 1.0, 1.5]
    assert (session.resumed, session.sequence) == (1, 1)


async def test_a_block_seen_by_polling_has_its_code(rig: Rig) -> None:
    async with RawServer(breaks_after(created()), TOO_LATE, state("failed", error={"code": "bio_policy"})) as server:
        end = (await play(rig.session(server.url)))[-1]
    assert isinstance(end, Terminal)
    assert end.problem is not None
    assert end.problem.code == "bio_policy"


async def test_resumed_streams_without_news_turn_into_polls(rig: Rig) -> None:
    empty = streams()
    async with RawServer(breaks_after(created()), empty, empty, empty, state("completed")) as server:
        events = await play(rig.session(server.url))
        assert [path.partition("?")[1] for path in paths(server)] == ["", "?", "?", "?", ""]
    assert type(events[-1]) is Terminal


async def test_polls_that_fail_are_tried_again(rig: Rig) -> None:
    bad = plays(as_json(200, b"{nope"))
    scripts = breaks_after(created()), TOO_LATE, plays(), plays(as_json(502, b"")), bad, state("completed")
    async with RawServer(*scripts) as server:
        events = await play(rig.session(server.url))
    assert type(events[-1]) is Terminal


async def test_a_server_that_streams_nothing_is_polled(rig: Rig) -> None:
    """It answers the first call with the snapshot and does not know `stream` on retrieval either."""
    scripts = state("queued"), state("queued"), state("in_progress"), state("in_progress"), state("completed")
    async with RawServer(*scripts) as server:
        events = await play(rig.session(server.url))
        assert [r.method for r in server.requests].count("POST") == 1
    assert type(events[-1]) is Terminal


# -- cancelling and closing


async def test_cancel_of_a_background_response_reaches_the_provider(rig: Rig) -> None:
    async def first(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await connection.events(created())
        await connection.gone()

    async with RawServer(first, plays(as_json(200, SNAPSHOT | {"status": "cancelled"}))) as server:
        session = rig.session(server.url)
        batches = session.batches()
        while session.response_id is None:
            await anext(batches)
        reader = asyncio.create_task(rest_of(batches))
        cancelled = await session.cancel()
        assert await soon(reader) == []
        assert paths(server) == ["POST ", "POST /resp_raw01/cancel"]
    assert cancelled.took_effect


async def test_cancel_waits_a_moment_for_the_id(rig: Rig) -> None:
    requested, go = asyncio.Event(), asyncio.Event()

    async def first(connection: Connection) -> None:
        requested.set()
        await go.wait()
        await connection.send(CHUNKED)
        await connection.events(created())
        await connection.gone()

    async with RawServer(first, plays(as_json(200, SNAPSHOT | {"status": "cancelled"}))) as server:
        session = rig.session(server.url)
        reader = asyncio.create_task(rest_of(session.batches()))
        await soon(requested.wait())
        cancelling = asyncio.create_task(session.cancel())
        await asyncio.sleep(0)
        go.set()
        assert (await soon(cancelling)).took_effect
        await soon(reader)


async def test_cancel_learns_the_id_itself_when_nobody_reads(rig: Rig) -> None:
    async def first(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await connection.events({"type": "keepalive", "sequence_number": 0}, created(1))
        await connection.gone()

    async with RawServer(first, plays(as_json(200, SNAPSHOT | {"status": "cancelled"}))) as server:
        session = rig.session(server.url)
        batches = session.batches()
        assert kinds(await anext(batches)) == [Opened]
        assert (await session.cancel()).took_effect
        assert paths(server) == ["POST ", "POST /resp_raw01/cancel"]
        await batches.aclose()


async def test_cancel_of_a_response_without_a_name_has_no_effect(rig: Rig) -> None:
    async with RawServer(Connection.gone) as server:
        session = rig.session(server.url, identify_timeout=0.02)
        reader = asyncio.create_task(rest_of(session.batches()))
        assert not (await session.cancel()).took_effect
        assert await soon(reader) == []


async def test_cancel_of_a_foreground_stream_hangs_up(rig: Rig) -> None:
    gone = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await connection.events(created())
        await connection.gone()
        gone.set()

    async with RawServer(script) as server:
        session = rig.session(server.url, call("stream"))
        batches = session.batches()
        await anext(batches)
        assert (await session.cancel()).took_effect
        await soon(gone.wait())
        assert len(server.requests) == 1
        await batches.aclose()


async def test_a_session_that_is_closed_before_it_began_says_nothing(rig: Rig) -> None:
    async with RawServer(streams()) as server:
        session = rig.session(server.url)
        await session.aclose()
        assert await rest_of(session.batches()) == []
        assert server.requests == []
