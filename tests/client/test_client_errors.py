"""Every way in which the API can say no, or something else answers in its place, has its own exception."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace

import pytest
from breaking_proxy import MODEL, Both, Proxy, answer, both

from worker.client import (
    ApiError,
    AsyncVigil,
    BadRequest,
    Conflict,
    ConnectionFailed,
    Forbidden,
    Job,
    Misconfigured,
    NotFound,
    RateLimited,
    Retries,
    ServerError,
    StillRunning,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unreadable,
    Vigil,
    VigilError,
    errors,
    requests,
)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, BadRequest),
        (401, Unauthorized),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (413, BadRequest),
        (415, BadRequest),
        (418, ApiError),
        (422, BadRequest),
        (429, RateLimited),
        (500, ServerError),
        (502, ServerError),
        (503, Unavailable),
    ],
)
@pytest.mark.parametrize("how", ["blocking", "awaiting"])
async def test_a_problem_is_an_exception_with_all_its_members(how, status, kind, api, proxy: Proxy):
    problem = {
        "type": "urn:vigil:problem:x_y",
        "title": "Title",
        "status": status,
        "detail": "It is so.",
        "code": "x_y",
        "errors": [{"pointer": "/model", "detail": "must be a string.", "code": "string_type", "new": 1}, "odd"],
        "tomorrow": True,
    }
    proxy.plan = [answer(status, json.dumps(problem), "X-Request-Id: req_1", "Retry-After: 7")]
    async with both(how, proxy.url, "vgl_x", Retries(times=0)) as vigil:
        with pytest.raises(VigilError) as caught:
            await vigil.get("job_1")
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code, error.detail) == (status, "x_y", "It is so.")
    assert (error.request_id, error.retry_after) == ("req_1", 7.0)
    assert [(f.pointer, f.detail, f.code) for f in error.errors] == [("/model", "must be a string.", "string_type")]
    assert (error.problem.title, error.problem.type) == ("Title", "urn:vigil:problem:x_y")
    assert error.problem.extra == {"tomorrow": True}
    assert str(error) == "It is so: /model must be a string (x_y)"


async def test_the_api_itself_says_which_fields_are_bad(vigil: Both):
    with pytest.raises(BadRequest) as caught:
        await vigil.submit(model=MODEL, input="a secret", priority="urgent", metadata={"k": 1})
    assert {fault.pointer for fault in caught.value.errors} == {"/priority", "/metadata/k"}
    assert caught.value.request_id
    assert "a secret" not in f"{caught.value}{caught.value!r}"


async def test_a_wrong_key_and_a_missing_scope(api, proxy: Proxy):
    async with both("awaiting", proxy.url, "vgl_wrong") as vigil:
        with pytest.raises(Unauthorized):
            await vigil.list()
    async with both("awaiting", proxy.url, await api.key(scopes=("read",))) as vigil:
        with pytest.raises(Forbidden) as caught:
            await vigil.submit(model=MODEL, input="x")
    assert caught.value.code == "insufficient_scope"


@pytest.mark.parametrize(
    ("response", "kind", "words"),
    [
        (answer(200, "<html>", kind="text/html"), Unreadable, "is that a Vigil?"),
        (answer(200, '{"id": "a secret"}'), Unreadable, "can't read"),
        (answer(200, "[1]"), Unreadable, "can't read"),
        (answer(404, "<html>"), Unreadable, "404 without JSON"),
        (answer(301, ""), Unreadable, "301 without JSON"),
        (answer(502, "<html>bad gateway</html>"), ServerError, "status 502"),
        (b"SSH-2.0-OpenSSH\r\n", ConnectionFailed, "broke"),
    ],
)
async def test_something_else_on_the_port_is_reported(proxy: Proxy, response, kind, words):
    proxy.plan = [response]
    async with both("awaiting", proxy.url, "vgl_x", Retries(times=0)) as vigil:
        with pytest.raises(kind, match=re.escape(words)) as caught:
            await vigil.get("job_1")
    assert "a secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("how", ["blocking", "awaiting"])
async def test_nobody_there(how):
    async with both(how, "http://127.0.0.1:1", "vgl_x", Retries(times=1, first=0.01)) as vigil:
        with pytest.raises(ConnectionFailed, match=r"no Vigil answers at http://127\.0\.0\.1:1") as caught:
            await vigil.wait("job_1")
    assert (caught.value.sent, type(caught.value)) == (False, ConnectionFailed)


@pytest.mark.parametrize("how", ["blocking", "awaiting"])
async def test_an_api_that_hangs_is_not_waited_for_for_ever(how):
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        left.set()

    left = asyncio.Event()
    server = await asyncio.start_server(never, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        async with both(how, url, "vgl_x", Retries(times=0)) as vigil:
            request = replace(requests.get("job_1"), seconds=0.2)
            with pytest.raises(TimedOut, match="took too long") as caught:
                await send(vigil, request)
        await left.wait()
    assert caught.value.sent


async def send(vigil: Both, request: requests.ApiRequest[Job]) -> Job:
    steps = vigil.client._conversation.call(request)
    run = vigil.client._run
    return await (asyncio.to_thread(run, steps) if vigil.blocking else run(steps))


def test_what_a_client_needs_is_said_before_anything_is_sent(monkeypatch):
    monkeypatch.delenv("VIGIL_API_KEY", raising=False)
    monkeypatch.delenv("VIGIL_URL", raising=False)
    for kind in (Vigil, AsyncVigil):
        with pytest.raises(Misconfigured, match="VIGIL_API_KEY"):
            kind("http://127.0.0.1:1")
        with pytest.raises(Misconfigured, match="http://"):
            kind("example.com", "vgl_x")
        with pytest.raises(Misconfigured, match="can't be sent") as caught:
            kind("http://127.0.0.1:1", "vgl_\u00e9")
        assert "\u00e9" not in str(caught.value)


def test_address_and_key_come_from_the_environment_and_the_key_is_never_shown(monkeypatch):
    monkeypatch.setenv("VIGIL_URL", "http://127.0.0.1:1/v1/")
    monkeypatch.setenv("VIGIL_API_KEY", "vgl_hidden")
    with Vigil() as vigil:
        assert vigil.url == "http://127.0.0.1:1"
        assert "vgl_hidden" not in repr(vigil) + repr(vars(vigil))


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    real = [name for name in errors.__all__ if name not in {"Fault", "Problem", "VigilError", "api_error", "ApiError"}]
    assert sorted(drawn) == sorted([*real, "ApiError"])
    assert all(issubclass(getattr(errors, name), VigilError) for name in drawn)
    assert issubclass(TimedOut, ConnectionFailed)
    assert not issubclass(StillRunning, ApiError)
