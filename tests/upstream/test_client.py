"""One connection to a real server over a real socket, however badly the server behaves."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.upstream.rawserver import (
    CHUNKED,
    LAST,
    SNAPSHOT,
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
from worker.jobs.record import Usage
from worker.safety.stream import (
    Alive,
    Closed,
    Created,
    Delta,
    Fault,
    Notice,
    Opened,
    Problem,
    Rejected,
    StreamEvent,
    Terminal,
)
from worker.upstream.answer import Answer
from worker.upstream.call import Call
from worker.upstream.client import Cancelled, Provider

ProviderAt = Callable[..., Provider]


@pytest.fixture(params=["wire", "aiohttp"])
def over(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def call(mode: str = "stream", **values: Any) -> Call:
    return Call(**({"model": "gpt-5.6-sol", "mode": mode, "client_request_id": "att_1", "input": "hi"} | values))


async def drain(answer: Answer) -> list[StreamEvent]:
    events: list[StreamEvent] = []
    while batch := await answer.read():
        events += batch
    return events


async def events_of(provider_at: ProviderAt, *parts: bytes, mode: str = "stream") -> list[StreamEvent]:
    async with RawServer(plays(*parts)) as server:
        return await drain(provider_at(server.url).open(call(mode)))


SEEN = [Created, Delta, Delta, Terminal]
STREAM = b"".join(frame(event) for event in (created(), delta(1), delta(2, "lo."), completed(3)))


def kinds(events: list[StreamEvent]) -> list[type]:
    return [type(event) for event in events]


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
    assert events[1:] == [Alive(None, "comment"), Closed("clean")]


async def test_a_halved_surrogate_pair_is_mended_and_not_fatal(provider_at: ProviderAt) -> None:
    data = b'data: {"type":"response.output_text.delta","sequence_number":1,"delta":"a\\ud83d"}\n\n'
    assert (await events_of(provider_at, CHUNKED, chunk(data), LAST))[1] == Delta(1, "a\ufffd")


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
        await asyncio.wait_for(heard.wait(), 5)  # a RST may overtake what was not read yet
        connection.reset()

    heard = asyncio.Event()
    async with RawServer(script) as server:
        answer, events = provider_at(server.url).open(call()), []
        while batch := await answer.read():
            events += batch
            if any(type(event) is Delta for event in batch):
                heard.set()
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
    assert end in (
        Closed("connect_failed", "ConnectionRefusedError", opened=False),
        Closed("connect_failed", "ClientConnectorError", opened=False),
    )


async def test_an_unknown_host_is_a_failed_connect(provider_at: ProviderAt) -> None:
    (end,) = await drain(provider_at("http://no-such-host.invalid/v1").open(call()))
    assert isinstance(end, Closed)
    assert (end.how, end.opened) == ("connect_failed", False)


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
        (end,) = await asyncio.wait_for(drain(provider_at(server.url).open(call())), 10)
    assert isinstance(end, Closed)


# -- HTTP errors


async def test_a_block_before_the_stream(provider_at: ProviderAt) -> None:
    body = {"error": {"message": "m", "type": "invalid_request", "param": None, "code": "cyber_policy"}}
    answer = as_json(400, body, "x-request-id: req_9", "openai-organization: org-1", "openai-processing-ms: 9922")
    assert await events_of(provider_at, answer) == [
        Rejected(
            400,
            Problem("cyber_policy", "invalid_request", message="m"),
            request_id="req_9",
            organization="org-1",
            processing_ms=9922,
        )
    ]


@pytest.mark.parametrize("status", [401, 403, 404, 409, 422, 429, 500, 502, 503, 529])
async def test_no_error_is_retried_by_anybody_else(provider_at: ProviderAt, status: int) -> None:
    async with RawServer(plays(as_json(status, {"error": {"code": "c"}}, "retry-after: 1"))) as server:
        (end,) = await drain(provider_at(server.url).open(call()))
        assert len(server.requests) == 1
    assert end == Rejected(status, Problem("c", None), retry_after=1.0)


async def test_an_edge_page_has_no_problem(provider_at: ProviderAt) -> None:
    page = b"<html><body>no</body></html>"
    head = b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/html\r\ncf-ray: 9\r\ncontent-length: %d\r\n\r\n" % len(page)
    assert await events_of(provider_at, head + page) == [Rejected(403, None)]


async def test_a_page_under_200_is_no_stream(provider_at: ProviderAt) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n"
    events = await events_of(provider_at, head + b"<html>log in</html>")
    assert events[1:] == [Closed("bad_json", "text/html")]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(provider_at: ProviderAt, status: int) -> None:
    async with RawServer(plays(as_json(status, b"", "location: /elsewhere"))) as server:
        (end,) = await drain(provider_at(server.url).open(call()))
        assert len(server.requests) == 1
    assert isinstance(end, Rejected)
    assert end.http_status == status


async def test_an_endless_error_body_is_cut_short(provider_at: ProviderAt) -> None:
    async def script(connection: Connection) -> None:
        await connection.send(b"HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await connection.send(chunk(b"x" * 4096))

    async with RawServer(script) as server:
        assert await asyncio.wait_for(drain(provider_at(server.url).open(call())), 10) == [Rejected(500, None)]


async def test_a_broken_error_body_leaves_the_status(provider_at: ProviderAt) -> None:
    head = b"HTTP/1.1 403 X\r\ncontent-length: 100\r\nx-request-id: req_8\r\n\r\n{"
    assert await events_of(provider_at, head) == [Rejected(403, None, request_id="req_8")]


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
    assert events[1:] == [Fault(None, Problem("server_error", None), "error_event"), Closed("clean")]


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
        Rejected(400, Problem("c", None))
    ]


async def test_a_stream_that_lies_about_its_encoding(provider_at: ProviderAt) -> None:
    head = SSE + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
    events = await events_of(provider_at, head, chunk(STREAM), LAST)
    assert kinds(events) == [Opened, Closed]


# -- chat


async def test_a_chat_stream_ends_at_done(provider_at: ProviderAt) -> None:
    first = {"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}
    last = {"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    body = b"".join(b"data: " + json.dumps(data).encode() + b"\n\n" for data in (first, last)) + b"data: [DONE]\n\n"
    assert kinds(await events_of(provider_at, CHUNKED, chunk(body), LAST, mode="chat")) == [
        Opened, Created, Delta, Alive, Terminal, Closed,
    ]  # fmt: skip
    without = body.removesuffix(b"data: [DONE]\n\n")
    assert kinds(await events_of(provider_at, CHUNKED, chunk(without), LAST, mode="chat"))[-2:] == [Terminal, Closed]


# -- what is sent


async def test_what_is_sent(provider_at: ProviderAt) -> None:
    async with RawServer(plays(as_json(200, SNAPSHOT))) as server:
        provider = provider_at(server.url, organization="org-1", project="proj_1", user_agent="vigil/1")
        await drain(provider.open(call("background")))
        (sent,) = server.requests
    assert (sent.method, sent.path) == ("POST", "/v1/responses")
    assert sent.json == {
        "model": "gpt-5.6-sol", "input": "hi", "stream": True, "background": True, "store": True,
        "stream_options": {"include_obfuscation": False},
    }  # fmt: skip
    assert sent.headers["authorization"] == "Bearer sk-test"
    assert sent.headers["x-client-request-id"] == "att_1"
    assert sent.headers["openai-organization"] == "org-1"
    assert sent.headers["openai-project"] == "proj_1"
    assert sent.headers["user-agent"] == "vigil/1"
    assert sent.headers["content-type"] == "application/json"
    assert (
        not {"sentry-trace", "baggage", "traceparent", "tracestate", "cookie", "idempotency-key"} & sent.headers.keys()
    )


async def test_settings_come_from_arguments_not_from_the_environment(
    provider_at: ProviderAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-env")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-env")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    async with RawServer(plays(as_json(200, SNAPSHOT))) as server:
        await drain(provider_at(server.url).open(call()))
        (sent,) = server.requests
    assert not {"openai-organization", "openai-project"} & sent.headers.keys()


async def test_tracing_libraries_add_nothing_to_what_is_sent(provider_at: ProviderAt) -> None:
    import sentry_sdk
    from sentry_sdk.transport import Transport

    class Nowhere(Transport):
        def capture_envelope(self, envelope: object) -> None:
            pass

    # every integration that Sentry would switch on by itself, told to propagate the trace everywhere
    options: dict[str, Any] = {"dsn": "http://k@127.0.0.1:9/1", "transport": Nowhere, "traces_sample_rate": 1.0}
    sentry_sdk.init(**options, trace_propagation_targets=[".*"])
    try:
        async with RawServer(plays(as_json(200, SNAPSHOT))) as server:
            with sentry_sdk.start_transaction(name="test"):
                await drain(provider_at(server.url).open(call()))
                await provider_at(server.url).poll("resp_1", "p1")
            assert len(server.requests) == 2
            for sent in server.requests:
                assert not {"sentry-trace", "baggage", "traceparent"} & sent.headers.keys()
    finally:
        sentry_sdk.get_client().close()
        sentry_sdk.init()


async def test_a_resume_asks_for_the_rest(provider_at: ProviderAt) -> None:
    async with RawServer(plays(CHUNKED, chunk(frame(delta(6))), LAST)) as server:
        events = await drain(provider_at(server.url).resume("resp/1", 5, "att_1.r1"))
        (sent,) = server.requests
    assert (sent.method, sent.path) == ("GET", "/v1/responses/resp%2F1?stream=true&starting_after=5")
    assert sent.headers["x-client-request-id"] == "att_1.r1"
    assert isinstance(events[0], Opened)
    assert events[0].resumed


async def test_a_refused_resume_says_so(provider_at: ProviderAt) -> None:
    async with RawServer(plays(as_json(400, {"error": {"code": None, "message": "too old"}}))) as server:
        (end,) = await drain(provider_at(server.url).resume("resp_1", 5, "r1"))
    assert end == Rejected(400, Problem(None, None, message="too old"), on="resume")


async def test_a_poll(provider_at: ProviderAt) -> None:
    async with RawServer(plays(as_json(200, SNAPSHOT | {"status": "queued"}))) as server:
        events = await provider_at(server.url).poll("resp_1", "p1")
        assert server.requests[0].path == "/v1/responses/resp_1"
    assert events == [Opened(200, resumed=True), Created(None, "resp_raw01", "gpt-5.6-sol", "queued", "default")]


async def test_a_poll_that_is_never_answered_ends(provider_at: ProviderAt) -> None:
    async with RawServer(Connection.gone) as server:
        events = await provider_at(server.url, answer_timeout=0.05).poll("resp_1", "p1")
    assert events == [Closed("cut", "TimeoutError", opened=False)]


@pytest.mark.parametrize(
    ("answer", "cancelled"),
    [
        (as_json(200, SNAPSHOT | {"status": "cancelled"}), Cancelled(True, "cancelled", None, 200)),
        (
            as_json(200, SNAPSHOT | {"status": "completed", "usage": {"input_tokens": 1, "output_tokens": 2}}),
            Cancelled(False, "completed", Usage(input_tokens=1, output_tokens=2, total_tokens=3), 200),
        ),
        (as_json(404, {"error": {}}), Cancelled(False, http_status=404)),
        (b"", Cancelled(False)),
    ],
)
async def test_a_cancel_says_whether_it_took_effect(
    provider_at: ProviderAt, answer: bytes, cancelled: Cancelled
) -> None:
    async with RawServer(plays(answer)) as server:
        assert await provider_at(server.url).cancel("resp_1", "c1") == cancelled
        (sent,) = server.requests
    assert (sent.method, sent.path, sent.headers["x-client-request-id"]) == (
        "POST",
        "/v1/responses/resp_1/cancel",
        "c1",
    )


# -- closing


async def test_closing_wakes_a_pending_read_and_hangs_up(provider_at: ProviderAt) -> None:
    gone = asyncio.Event()

    async def script(connection: Connection) -> None:
        await connection.send(CHUNKED)
        await connection.gone()
        gone.set()

    async with RawServer(script) as server:
        answer = provider_at(server.url).open(call())
        assert kinds(await answer.read()) == [Opened]
        pending = asyncio.create_task(answer.read())
        await asyncio.sleep(0)
        await answer.aclose()
        assert await asyncio.wait_for(pending, 5) == []
        await asyncio.wait_for(gone.wait(), 5)


async def test_closing_before_the_headers_hangs_up(provider_at: ProviderAt) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def script(connection: Connection) -> None:
        asked.set()
        await connection.gone()
        gone.set()

    async with RawServer(script) as server:
        answer = provider_at(server.url).open(call())
        pending = asyncio.create_task(answer.read())
        await asyncio.wait_for(asked.wait(), 5)
        await answer.aclose()
        assert await asyncio.wait_for(pending, 5) == []
        await asyncio.wait_for(gone.wait(), 5)


async def test_a_cancelled_reader_stays_cancelled(provider_at: ProviderAt) -> None:
    asked = asyncio.Event()

    async def script(connection: Connection) -> None:
        asked.set()
        await connection.gone()

    async with RawServer(script) as server:
        answer = provider_at(server.url).open(call())
        pending = asyncio.create_task(answer.read())
        await asyncio.wait_for(asked.wait(), 5)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        await answer.aclose()


async def test_a_read_after_the_end_is_empty(provider_at: ProviderAt) -> None:
    async with RawServer(plays(CHUNKED, LAST)) as server:
        answer = provider_at(server.url).open(call())
        await drain(answer)
        assert await answer.read() == []
        await answer.aclose()
        assert await answer.read() == []


def test_a_proxy_is_taken_from_the_environment_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", "inside.test")
    from worker.upstream.proxied import environment_proxy

    assert environment_proxy("https://api.openai.com/v1") == "http://proxy.test:3128"
    assert environment_proxy("https://inside.test/v1") is None
    assert environment_proxy("http://api.openai.com/v1") is None


async def test_a_proxy_is_used() -> None:
    async with RawServer(plays(as_json(200, SNAPSHOT))) as proxy:
        provider = Provider("sk", "http://model.test/v1", proxy=f"http://127.0.0.1:{proxy.port}")
        await drain(provider.open(call()))
        await provider.aclose()
        assert proxy.requests[0].path == "http://model.test/v1/responses"


async def test_a_notice_is_seen_before_the_output_it_rides_on(provider_at: ProviderAt) -> None:
    riding = delta(1, safety_buffering={"use_cases": ["bio"]})
    events = await events_of(provider_at, CHUNKED, chunk(frame(riding)), LAST)
    assert kinds(events) == [Opened, Notice, Delta, Closed]
