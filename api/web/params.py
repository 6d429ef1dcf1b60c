"""Reads headers and query parameters of requests, strictly. Must not know Redis nor jobs."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from api.web.forwarded import prefix
from api.web.header_fields import header_values
from api.web.problems import Problem, bad_parameter

MAX_WAIT_S: Final = 60
_MAX_PARAMETERS: Final = 20
_MAX_REPEATED: Final = 20
APP_KEY: Final = "vigil.app"
"""Of a request's scope: the app of its API key, once that is known."""
_BASE: Final = "vigil.base_url"
_SECONDS_PATTERN: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_KEY_PATTERN: Final = re.compile(r"[\x21-\x7e]{1,255}")
_HOST_PATTERN: Final = re.compile(r"[A-Za-z0-9._\-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")


def query_params(request: Request, *known: str) -> dict[str, str]:
    """Return the query parameters; raise a Problem (422) for unknown ones and for one that is sent twice."""
    return {name: values[0] for name, values in query_values(request, *known).items()}


def query_values(request: Request, *known: str, repeatable: Collection[str] = ()) -> dict[str, list[str]]:
    """Return all values of the query parameters; raise a Problem (422) for unknown ones and for one that is sent twice
    but is not `repeatable`.
    """
    raw = request.scope["query_string"]
    if not raw:
        return {}
    most = _MAX_PARAMETERS + (_MAX_REPEATED if repeatable else 0)
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=most)
    except ValueError:
        raise bad_parameter("", f"The query is not percent-encoded UTF-8 of at most {most} parameters.") from None
    out: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in known:
            raise bad_parameter(name[:64], f"This route has no such parameter; known: {', '.join(known) or 'none'}.")
        if name in out and name not in repeatable:
            raise bad_parameter(name, "This parameter is sent twice.")
        if "\0" in value:
            raise bad_parameter(name, "This parameter must not contain NUL.")
        out.setdefault(name, []).append(value)
    return out


def wait_seconds(value: str | None) -> float | None:
    """Parse `wait`, a number of seconds from 0 to 60; return None when it is not sent."""
    if value is None:
        return None
    if _SECONDS_PATTERN.fullmatch(value) is None or float(value) > MAX_WAIT_S:
        raise bad_parameter("wait", f"wait must be a number of seconds from 0 to {MAX_WAIT_S}.")
    return float(value)


def integer_param(name: str, value: str | None, default: int, low: int, high: int) -> int:
    """Parse an integer in [low, high]; return `default` when it is not sent."""
    if value is None:
        return default
    if re.fullmatch(r"[0-9]{1,10}", value) is None or not low <= int(value) <= high:
        raise bad_parameter(name, f"{name} must be an integer from {low} to {high}.")
    return int(value)


def refuse_dry_run(request: Request) -> None:
    """Raise a Problem (422) for `dry_run` where nothing can be tried: who asks for the price must not be charged."""
    if "dry_run" in request.query_params:
        raise bad_parameter("dry_run", "dry_run is a parameter of POST /v1/jobs alone; this route would run the job.")


def preferred_wait(request: Request) -> float | None:
    """Return the seconds of `Prefer: wait=N` (RFC 7240), or None; other preferences are ignored."""
    for line in header_values(request.scope, b"prefer"):
        for preference in line.split(","):
            name, _, value = preference.partition(";")[0].partition("=")
            if name.strip().lower() == "wait":
                return wait_seconds(value.strip().strip('"'))
    return None


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key, bare or quoted, or None; raise a Problem (400) if it is malformed or sent twice."""
    sent = header_values(request.scope, b"idempotency-key")
    if not sent:
        return None
    value = sent[0]
    if len(value) > 1 and value.startswith('"') and value.endswith('"'):
        value = re.sub(r'\\(["\\])', r"\1", value[1:-1])
    elif '"' in value[:1]:
        value = ""
    if len(sent) > 1 or _KEY_PATTERN.fullmatch(value) is None:
        raise Problem(400, "invalid_idempotency_key", "Send one Idempotency-Key of 1 to 255 visible ASCII characters.")
    return value


def last_event_id(request: Request) -> int | None:
    """Return the `seq` after which an event stream continues, or None."""
    value = "".join(header_values(request.scope, b"last-event-id")[:1])
    if not value:
        return None
    if re.fullmatch(r"[0-9]{1,10}", value) is None:
        raise Problem(400, "invalid_last_event_id", "Last-Event-ID must be the id of an event that this stream sent.")
    return int(value)


def base_url(request: Request) -> str:
    """Return the address that the caller used, for URLs in responses; only its path for an invalid Host."""
    known: str | None = request.scope.get(_BASE)
    if known is None:
        host = "".join(header_values(request.scope, b"host"))  # uvicorn_protocol.py refuses a second one
        path = prefix(request.scope)
        known = f"{request.scope['scheme']}://{host}{path}" if _HOST_PATTERN.fullmatch(host) else path
        request.scope[_BASE] = known
    return known
