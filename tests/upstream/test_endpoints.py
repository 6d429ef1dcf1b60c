"""Which addresses a server has, told from the refusals of real kinds of servers, over a real socket."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.upstream.rawserver import Connection, RawServer, as_json
from tests.upstream.upstream_calls import ProviderAt
from worker.safety.endpoint import ServerEndpoints
from worker.simulator.app import Simulator
from worker.upstream.endpoints import find_endpoints

Route = tuple[int, Any]
NAMED = ("POST /v1/responses", "POST /v1/chat/completions", "GET /v1/responses/")
MISSING = {"error": {"message": "Missing required parameter: 'model'.", "type": "invalid_request_error", "code": None}}
NO_RESPONSE = {"error": {"message": "Response with id 'x' not found.", "type": "invalid_request_error", "code": None}}


def fastapi(method: str, path: str) -> Route:
    return 404, {"detail": "Not Found"}


def openai(method: str, path: str) -> Route:
    error = {"message": f"Invalid URL ({method} {path})", "type": "invalid_request_error", "param": None, "code": None}
    return 404, {"error": error}


def express(method: str, path: str) -> Route:
    return 404, f"<pre>Cannot {method} {path}</pre>".encode()


def serving(elsewhere: Callable[[str, str], Route], *answers: Route | None) -> Callable[[Connection], Awaitable[None]]:
    """A server: what it says to each of NAMED (None: nothing is there), and what it says elsewhere."""

    async def script(connection: Connection) -> None:
        request = connection.request
        line = f"{request.method} {request.path}"
        found = next((a for name, a in zip(NAMED, answers, strict=True) if line.startswith(name)), None)
        status, body = found or elsewhere(request.method, request.path)
        await connection.send(as_json(status, body))

    return script


@pytest.mark.parametrize("elsewhere", [fastapi, openai, express])
@pytest.mark.parametrize(
    ("answers", "found", "best"),
    [
        (((400, MISSING), (400, MISSING), (404, NO_RESPONSE)), ServerEndpoints(True, True, True), "background"),
        (((422, {"detail": []}), (422, {"detail": []}), None), ServerEndpoints(True, False, True), "stream"),
        ((None, (400, MISSING), None), ServerEndpoints(False, False, True), "chat"),
        (((405, {}), (500, {}), (405, {})), ServerEndpoints(False, False, True), "chat"),
        ((None, None, None), ServerEndpoints(False, False, False), None),
        (((401, {}), (401, {}), (401, {})), ServerEndpoints(None, None, None), None),
        (((503, b"<html>"), (429, {}), (403, {})), ServerEndpoints(None, None, None), None),
    ],
)
async def test_what_a_server_has(
    provider_at: ProviderAt, elsewhere: Any, answers: Any, found: ServerEndpoints, best: str | None
) -> None:
    async with RawServer(serving(elsewhere, *answers)) as server:
        seen = await find_endpoints(provider_at(server.url), "probe-1", 10.0)
        assert (seen, seen.best()) == (found, best)
        assert {request.method for request in server.requests} == {"GET", "POST"}
        for request in server.requests:
            sent = json.loads(request.body or b"{}")
            inputs = {sent.pop(name, None) for name in ("input", "messages")}
            assert inputs <= {0, None}, "no prompt is sent"
            assert set(sent) <= {"max_output_tokens", "max_tokens"}, "no model is named"


async def test_a_server_that_takes_no_messages_for_a_prompt_generates_nothing(provider_at: ProviderAt) -> None:
    """As llama-cpp-python does: `messages` is [] unless it is given, and what is no list is a fault of the server's."""

    async def script(connection: Connection) -> None:
        request = connection.request
        if (request.method, request.path) != ("POST", "/v1/chat/completions"):
            return await connection.send(as_json(404, {"detail": "Not Found"}))
        listed = isinstance(json.loads(request.body).get("messages", []), list)
        generated.append(listed)
        return await connection.send(as_json(200 if listed else 500, {"choices": []} if listed else MISSING))

    generated: list[bool] = []
    async with RawServer(script) as server:
        assert (await find_endpoints(provider_at(server.url), "probe-1", 10.0)).best() == "chat"
    assert generated == [False]


async def test_who_answers_everything_tells_nothing(provider_at: ProviderAt) -> None:
    async with RawServer(serving(lambda *_: (200, {}), None, None, None)) as server:
        assert await find_endpoints(provider_at(server.url), "probe-1", 10.0) == ServerEndpoints(None, None, None)


async def test_nobody_there_tells_nothing(provider_at: ProviderAt) -> None:
    assert await find_endpoints(provider_at("http://127.0.0.1:1/v1"), "probe-1", 5.0) == ServerEndpoints()


async def test_the_simulator_has_everything(provider_at: ProviderAt) -> None:
    async with Simulator() as simulator:
        assert (await find_endpoints(provider_at(simulator.url), "probe-1", 10.0)).best() == "background"


def test_each_mode_needs_its_own() -> None:
    only_chat = ServerEndpoints(responses=False, kept=None, chat=True)
    assert [only_chat.has(mode) for mode in ("background", "stream", "chat")] == [False, False, True]
    unsure = ServerEndpoints(responses=True, kept=None, chat=None)
    assert [unsure.has(mode) for mode in ("background", "stream", "chat")] == [None, True, None]
