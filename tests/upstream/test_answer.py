"""One connection to a real server over a real socket, however badly the server behaves."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
from waiting import soon

from tests.upstream.rawserver import (
    CHUNKED,
    LAST,
    SSE,
    TO_THE_END,
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
from tests.upstream.upstream_calls import ProviderAt, call, drain, events_of, kinds
from worker.safety.stream import (
    CheckNotice,
    Closed,
    Created,
    Delta,
    Keepalive,
    Opened,
    ProviderProblem,
    Rejected,
    StreamError,
    Terminal,
)
from worker.upstream.client import Provider


@pytest.fixture(params=["wire", "aiohttp"])
def over(request: pytest.FixtureRequest) -> str:
    return str(request.param)


SEEN = [Created, Delta, Delta, Terminal]
STREAM = b"".join(frame(event) for event in (created(), delta(1), delta(2, "lo."), completed(3)))


async def test_a_stream_from_its_opening_to_its_end(provider_at: ProviderAt) -> None:
    events = await events_of(provider_at, CHUNKED, chunk(STREAM), LAST)
    assert kinds(events) == [Opened, *SEEN, Closed]
    assert events[0] == Opened(200, request_id="req_raw")
    assert events[-1] == Closed("clean")


async def test_one_byte_at_a_time(provider_at: ProviderAt) -> None:
    whole = CHUNKED + chunk(STREAM) + LAST
    events = await events_of(provider_at, *(whole[i : i + 1] for i in range(len(whole))))
    assert kinds(events) == [Opened, *SEEN, Closed]


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
async def test_other_line_ends(provider_at: ProviderAt, end: bytes) -> None:
    events = await events_of(provider_at, TO_THE_END, b"\xef\xbb\xbf" + STREAM.replace(b"\n", end))
    assert kinds(events) == [Opened, *SEEN, Closed]


async def test_a_body_that_ends_with_its_connection(provider_at: ProviderAt) -> None:
    assert kinds(await events_of(provider_at, TO_THE_END, STREAM)) == [Opened, *SEEN, Closed]


async def test_ten_thousand_tiny_deltas(provider_at: ProviderAt) -> None:
    many = b"".join(frame(delta(n, "x")) for n in range(10_000))
    events = await events_of(provider_at, CHUNKED, *(chunk(many[i : i + 997]) for i in range(0, len(many), 997)), LAST)
    assert [e.sequence for e in events if type(e) is Delta] == list(range(10_000))


async def test_a_frame_of_five_megabytes(provider_at: ProviderAt) -> None:
    text = "\u00fcx" * (5 << 19)
    item = {"type": "message", "content": [{"type": "output_text", "text": text}]}
    events = await events_of(provider_at, CHUNKED, chunk(frame(completed(1, output=[item]))), LAST)
    (end,) = [e for e in events if type(e) is Terminal]
    assert end.output[0]["content"][0]["text"] == text


async def test_comments_prove_life(provider_at: ProviderAt) -> None:
    events = await events_of(provider_at, CHUNKED, chunk(b": ping\n\n"), LAST)
    assert events[1:] == [Keepalive(None, "comment"), Closed("clean")]


async def test_a_halved_surrogate_pair_is_mended_and_not_fatal(provider_at: ProviderAt) -> None:
    data = b'data: {"type":"response.output_text.delta","sequence_number":1,"delta":"a\\ud83d"}\n\n'
    events = await events_of(provider_at, CHUNKED, chunk(data), LAST)
    assert events[1:] == [Delta(1, "a"), Delta(None, "\ufffd"), Closed("clean")]


async def test_a_character_in_two_deltas_is_one(provider_at: ProviderAt) -> None:
    one, two = (
        b'data: {"type":"response.output_text.delta","sequence_number":%d,"delta":"%b"}\n\n' % half
        for half in ((1, b"a\\ud83d"), (2, b"\\ude00b"))
    )
    events = await events_of(provider_at, CHUNKED, chunk(one), chunk(two), chunk(frame(delta(3, "c"))), LAST)
    assert events[1:] == [Delta(1, "a"), Delta(2, "\U0001f600b"), Delta(3, "c"), Closed("clean")]


async def test_bytes_that_are_not_utf8_are_mended(provider_at: ProviderAt) -> None:
    data = b'data: {"type":"response.output_text.delta","sequence_number":1,"delta":"a\xff"}\n\n'
    assert (await events_of(provider_at, CHUNKED, chunk(data), LAST))[1] == Delta(1, "a\ufffd")


# -- ends


async def reset_after(connection: Connection, *parts: bytes) -> None:
    await connection.send(CHUNKED, *parts)
    connection.reset()


async def test_a_reset_is_a_cut(provider_at: ProviderAt) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await connection.events(created(), delta(1))
        await soon(received.wait())  # a RST may overtake what was not read yet
        connection.reset()

    received = asyncio.Event()
    async with RawServer(script) as server:
        answer, events = provider_at(server.url).open(call()), []
        while batch := await answer.read():
            events += batch
            if any(type(event) is Delta for event in batch):
                received.set()
    assert kinds(events) == [Opened, Created, Delta, Closed]
    assert events[-1].how == "cut"
    assert events[-1].opened


async def test_a_fin_inside_a_chunk_is_a_cut(provider_at: ProviderAt) -> None:
    events = await events_of(provider_at, CHUNKED, chunk(frame(created())), b"ff\r\ndata: {")
    assert kinds(events) == [Opened, Created, Closed]
    assert events[-1].how == "cut"


async def test_what_arrived_before_the_cut_is_not_lost(provider_at: ProviderAt) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(CHUNKED + chunk(STREAM) + b"ff\r\n")

    async with RawServer(script) as server:
        answer = provider_at(server.url).open(call())
        events = await answer.read()
        while server.serving:  # let the whole of it arrive, end and all, before anybody reads
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        events += await drain(answer)
    assert kinds(events) == [Opened, *SEEN, Closed]
    assert events[-1].how == "cut"


async def test_a_clean_end_without_a_terminal_event_is_just_that(provider_at: ProviderAt) -> None:
    events = await events_of(provider_at, CHUNKED, chunk(frame(created())), LAST)
    assert events[-1] == Closed("clean")


async def test_half_a_frame(provider_at: ProviderAt) -> None:
    events = await events_of(provider_at, CHUNKED, chunk(frame(created()) + b'data: {"type":"response.outp'), LAST)
    assert kinds(events) == [Opened, Created, Closed]
    assert events[-1] == Closed("half_frame", "BadJson")


async def test_a_last_frame_without_its_blank_line_counts(provider_at: ProviderAt) -> None:
    events = await events_of(provider_at, CHUNKED, chunk(STREAM[:-2]), LAST)
    assert kinds(events) == [Opened, *SEEN, Closed]


@pytest.mark.parametrize("bad", [b"data: {nope}\n\n", b"data: " + b"[" * 100_000 + b"\n\n"])
async def test_a_frame_that_is_not_json_ends_the_reading(provider_at: ProviderAt, bad: bytes) -> None:
    events = await events_of(provider_at, CHUNKED, chunk(frame(delta(1)) + bad + frame(delta(2))), LAST)
    assert events[1:] == [Delta(1, "Hel"), Closed("bad_json", "BadJson")]


async def test_a_connection_closed_without_an_answer_may_have_run(provider_at: ProviderAt) -> None:
    (end,) = await events_of(provider_at)
    assert isinstance(end, Closed)
    assert (end.how, end.opened) == ("cut", False)


async def test_nobody_listening_is_a_failed_connect(provider_at: ProviderAt) -> None:
    async with RawServer(plays()) as server:
        url = server.url
    (end,) = await drain(provider_at(url).open(call()))
    assert isinstance(end, Closed)
    assert (end.how, end.opened, end.reason) == ("connect_failed", False, "refused")


async def test_an_unknown_host_is_a_failed_connect(provider_at: ProviderAt) -> None:
    (end,) = await drain(provider_at("http://no-such-host.invalid/v1").open(call()))
    assert isinstance(end, Closed)
    assert (end.how, end.opened, end.reason) == ("connect_failed", False, "name")


async def test_a_key_that_cannot_be_sent_is_not_shown() -> None:
    provider = Provider("sk-\u00fcnsafe", "http://127.0.0.1:9/v1")
    try:
        (end,) = await drain(provider.open(call()))
    finally:
        await provider.aclose()
    assert end == Closed("connect_failed", "UnicodeEncodeError", opened=False)
    assert "sk-" not in repr(provider)


@pytest.mark.parametrize("garbage", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00\x01\x02\r\n\r\n"])
async def test_an_answer_that_is_not_http(provider_at: ProviderAt, garbage: bytes) -> None:
    (end,) = await events_of(provider_at, garbage)
    assert isinstance(end, Closed)
    assert (end.how, end.opened) == ("cut", False)


async def test_headers_without_end_are_refused(provider_at: ProviderAt) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(SSE)
        while True:
            await connection.send(b"x-more: " + b"y" * 1000 + b"\r\n")

    async with RawServer(script) as server:
        (end,) = await soon(drain(provider_at(server.url).open(call())))
    assert isinstance(end, Closed)


# -- servers that answer otherwise than asked


async def test_a_server_that_does_not_heed_stream(provider_at: ProviderAt) -> None:
    body = completed(0)["response"]
    events = await events_of(provider_at, as_json(200, body))
    assert kinds(events) == [Opened, Terminal, Closed]


async def test_a_chat_server_that_does_not_heed_stream(provider_at: ProviderAt) -> None:
    message = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    events = await events_of(provider_at, as_json(200, {"id": "c1", "choices": [message]}), mode="chat")
    assert kinds(events) == [Opened, Created, Delta, Terminal, Closed]


async def test_an_error_in_a_200_is_a_fault(provider_at: ProviderAt) -> None:
    events = await events_of(provider_at, as_json(200, {"error": {"code": "server_error"}}))
    assert events[1:] == [StreamError(None, ProviderProblem("server_error", None), "error_event"), Closed("clean")]


async def test_a_200_with_broken_json(provider_at: ProviderAt) -> None:
    assert (await events_of(provider_at, as_json(200, b'{"id": ')))[1:] == [Closed("bad_json", "BadJson")]


async def test_a_compressed_stream_is_read_though_never_asked_for(provider_at: ProviderAt) -> None:
    body = gzip.compress(STREAM)
    head = SSE + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
    async with RawServer(plays(head, chunk(body[:50]), chunk(body[50:]), LAST)) as server:
        events = await drain(provider_at(server.url).open(call()))
        assert server.requests[0].headers["accept-encoding"] == "identity"
    assert kinds(events) == [Opened, *SEEN, Closed]


async def test_a_compressed_error_is_read_too(provider_at: ProviderAt) -> None:
    body = gzip.compress(json.dumps({"error": {"code": "c"}}).encode())
    assert await events_of(provider_at, as_json(400, body, "content-encoding: gzip")) == [
        Rejected(400, ProviderProblem("c", None))
    ]


async def test_a_stream_that_lies_about_its_encoding(provider_at: ProviderAt) -> None:
    head = SSE + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
    events = await events_of(provider_at, head, chunk(STREAM), LAST)
    assert kinds(events) == [Opened, *SEEN, Closed]


async def test_a_refusal_that_can_not_be_inflated_keeps_its_status(provider_at: ProviderAt) -> None:
    body = b"\x8b\x05\x80cyber\x03"
    assert kinds(await events_of(provider_at, as_json(400, body, "content-encoding: br"))) == [Rejected]


async def test_a_code_behind_a_long_message_is_read(provider_at: ProviderAt) -> None:
    body = json.dumps({"error": {"message": "x" * 300_000, "code": "cyber_policy"}}).encode()
    (event,) = await events_of(provider_at, as_json(400, body))
    assert isinstance(event, Rejected)
    assert event.problem is not None
    assert event.problem.code == "cyber_policy"


# -- chat


async def test_a_chat_stream_ends_at_done(provider_at: ProviderAt) -> None:
    first = {"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}
    last = {"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    body = b"".join(b"data: " + json.dumps(data).encode() + b"\n\n" for data in (first, last)) + b"data: [DONE]\n\n"
    assert kinds(await events_of(provider_at, CHUNKED, chunk(body), LAST, mode="chat")) == [
        Opened, Created, Delta, Keepalive, Terminal, Closed,
    ]  # fmt: skip
    without = body.removesuffix(b"data: [DONE]\n\n")
    assert kinds(await events_of(provider_at, CHUNKED, chunk(without), LAST, mode="chat"))[-2:] == [Terminal, Closed]


async def test_a_notice_is_seen_before_the_output_it_rides_on(provider_at: ProviderAt) -> None:
    riding = delta(1, safety_buffering={"use_cases": ["bio"]})
    events = await events_of(provider_at, CHUNKED, chunk(frame(riding)), LAST)
    assert kinds(events) == [Opened, CheckNotice, Delta, Closed]
