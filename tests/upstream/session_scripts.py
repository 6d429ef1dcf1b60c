"""Makes server scripts for the tests of a session, and reads which requests a server received."""

from __future__ import annotations

from typing import Any

from tests.upstream.rawserver import CHUNKED, LAST, SNAPSHOT, RawServer, Script, as_json, chunk, frame, plays

TOO_LATE = plays(as_json(400, {"error": {"message": "more than 5 minutes old", "type": "invalid_request_error"}}))


def streams(*events: Any, end: bytes = LAST) -> Script:
    return plays(CHUNKED, *(chunk(frame(event)) for event in events), end)


def breaks_after(*events: Any) -> Script:
    return streams(*events, end=b"ff\r\n")


def paths(server: RawServer) -> list[str]:
    return [f"{request.method} {request.path.removeprefix('/v1/responses')}" for request in server.requests]


def state(status: str, **more: Any) -> Script:
    return plays(as_json(200, SNAPSHOT | {"status": status} | more))
