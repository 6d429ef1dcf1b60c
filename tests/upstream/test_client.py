"""What the provider is asked, what its errors become, and hanging up: over both transports."""

from __future__ import annotations

import asyncio
from typing import Any

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
    delta,
    frame,
    plays,
)
from tests.upstream.upstream_calls import ProviderAt, call, drain, events_of, kinds
from worker.jobs.record import Usage
from worker.safety.stream import (
    Closed,
    Created,
    Opened,
    ProviderProblem,
    Rejected,
)
from worker.upstream.client import CancelResult, Provider


@pytest.fixture(params=["wire", "aiohttp"])
def over(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- HTTP errors


async def test_a_block_before_the_stream(provider_at: ProviderAt) -> None:
    body = {"error": {"message": "m", "type": "invalid_request", "param": None, "code": "cyber_policy"}}
    answer = as_json(400, body, "x-request-id: req_9", "openai-organization: org-1", "openai-processing-ms: 9922")
    assert await events_of(provider_at, answer) == [
        Rejected(
            400,
            ProviderProblem("cyber_policy", "invalid_request", message="m"),
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
    assert end == Rejected(status, ProviderProblem("c", None), retry_after=1.0)


async def test_an_edge_page_has_no_problem(provider_at: ProviderAt) -> None:
    page = b"<html><body>no</body></html>"
    head = b"HTTP/1.1 403 Forbidden\r\ncontent-type: text/html\r\ncf-ray: 9\r\ncontent-length: %d\r\n\r\n" % len(page)
    assert await events_of(provider_at, head + page) == [Rejected(403, None)]


async def test_a_page_under_200_is_no_stream(provider_at: ProviderAt) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n"
    events = await events_of(provider_at, head + b"<html>log in</html>")
    assert events[1:] == [Closed("page")]


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
        assert await soon(drain(provider_at(server.url).open(call()))) == [Rejected(500, None)]


async def test_a_broken_error_body_leaves_the_status(provider_at: ProviderAt) -> None:
    head = b"HTTP/1.1 403 X\r\ncontent-length: 100\r\nx-request-id: req_8\r\n\r\n{"
    assert await events_of(provider_at, head) == [Rejected(403, None, request_id="req_8")]


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
        # the library's patches stay; without integrations they do nothing to the tests that follow
        sentry_sdk.init(default_integrations=False, auto_enabling_integrations=False)


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
    assert end == Rejected(400, ProviderProblem(None, None, message="too old"), on="resume")


async def test_a_poll(provider_at: ProviderAt) -> None:
    async with RawServer(plays(as_json(200, SNAPSHOT | {"status": "queued"}))) as server:
        events = await provider_at(server.url).poll("resp_1", "p1")
        assert server.requests[0].path == "/v1/responses/resp_1"
    assert events == [
        Opened(200, resumed=True),
        Created(None, "resp_raw01", "gpt-5.6-sol", "queued", "default", is_snapshot=True),
    ]


async def test_a_poll_that_is_never_answered_ends(provider_at: ProviderAt) -> None:
    async with RawServer(Connection.gone) as server:
        events = await provider_at(server.url, answer_timeout=0.05).poll("resp_1", "p1")
    assert events == [Closed("cut", "TimeoutError", opened=False)]


@pytest.mark.parametrize(
    ("answer", "cancelled"),
    [
        (as_json(200, SNAPSHOT | {"status": "cancelled"}), CancelResult(True, "cancelled", None, 200)),
        (
            as_json(200, SNAPSHOT | {"status": "completed", "usage": {"input_tokens": 1, "output_tokens": 2}}),
            CancelResult(False, "completed", Usage(input_tokens=1, output_tokens=2, total_tokens=3), 200),
        ),
        (as_json(404, {"error": {}}), CancelResult(False, http_status=404)),
        (b"", CancelResult(False)),
    ],
)
async def test_a_cancel_says_whether_it_took_effect(
    provider_at: ProviderAt, answer: bytes, cancelled: CancelResult
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
        assert await soon(pending) == []
        await soon(gone.wait())


async def test_closing_before_the_headers_hangs_up(provider_at: ProviderAt) -> None:
    requested, gone = asyncio.Event(), asyncio.Event()

    async def script(connection: Connection) -> None:
        requested.set()
        await connection.gone()
        gone.set()

    async with RawServer(script) as server:
        answer = provider_at(server.url).open(call())
        pending = asyncio.create_task(answer.read())
        await soon(requested.wait())
        await answer.aclose()
        assert await soon(pending) == []
        await soon(gone.wait())


async def test_a_cancelled_reader_stays_cancelled(provider_at: ProviderAt) -> None:
    requested = asyncio.Event()

    async def script(connection: Connection) -> None:
        requested.set()
        await connection.gone()

    async with RawServer(script) as server:
        answer = provider_at(server.url).open(call())
        pending = asyncio.create_task(answer.read())
        await soon(requested.wait())
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
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", "inside.test")
    from worker.upstream.proxy_transport import environment_proxy

    assert environment_proxy("https://api.openai.com/v1") == "http://proxy.test:3128"
    assert environment_proxy("https://inside.test/v1") is None
    assert environment_proxy("http://api.openai.com/v1") is None


async def test_a_proxy_is_used() -> None:
    async with RawServer(plays(as_json(200, SNAPSHOT))) as proxy:
        provider = Provider("sk", "http://model.test/v1", proxy=f"http://127.0.0.1:{proxy.port}")
        await drain(provider.open(call()))
        await provider.aclose()
        assert proxy.requests[0].path == "http://model.test/v1/responses"
