"""What requests say in headers and in the query, read strictly. Must not know Redis or jobs."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import Scope

from api.web.problems import Problem, bad_parameter

MOST_WAIT: Final = 60
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_HOST: Final = re.compile(r"[A-Za-z0-9._\-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")


def header(scope: Scope, name: bytes) -> list[str]:
    """Every value of a header field of the request, in the order sent; `name` in lower case."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def query(request: Request, *known: str) -> dict[str, str]:
    """The query parameters; 422 for unknown ones and for one that is sent twice."""
    raw = request.scope["query_string"]
    if not raw:
        return {}
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise bad_parameter("", "The query is not percent-encoded UTF-8 of at most 20 parameters.") from None
    out: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise bad_parameter(name[:64], f"There is no such parameter here; known: {', '.join(known) or 'none'}.")
        if name in out:
            raise bad_parameter(name, "This parameter is sent twice.")
        if "\0" in value:
            raise bad_parameter(name, "This parameter must not hold NUL.")
        out[name] = value
    return out


def seconds(value: str | None) -> float | None:
    """`wait`: seconds from 0 to 60; None when it is not sent."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value) is None or float(value) > MOST_WAIT:
        raise bad_parameter("wait", f"wait is a number of seconds from 0 to {MOST_WAIT}.")
    return float(value)


def whole(name: str, value: str | None, default: int, low: int, high: int) -> int:
    """A whole number in [low, high]."""
    if value is None:
        return default
    if re.fullmatch(r"[0-9]{1,10}", value) is None or not low <= int(value) <= high:
        raise bad_parameter(name, f"{name} is a whole number from {low} to {high}.")
    return int(value)


def preferred_wait(request: Request) -> float | None:
    """The seconds of `Prefer: wait=N` (RFC 7240); other preferences are not ours and are ignored."""
    for line in header(request.scope, b"prefer"):
        for preference in line.split(","):
            name, _, value = preference.partition(";")[0].partition("=")
            if name.strip().lower() == "wait":
                return seconds(value.strip().strip('"'))
    return None


def idempotency_key(request: Request) -> str | None:
    """The Idempotency-Key, bare or quoted; 400 when it is malformed or sent twice."""
    sent = header(request.scope, b"idempotency-key")
    if not sent:
        return None
    value = sent[0]
    if len(value) > 1 and value.startswith('"') and value.endswith('"'):
        value = re.sub(r'\\(["\\])', r"\1", value[1:-1])
    elif '"' in value[:1]:
        value = ""
    if len(sent) > 1 or _KEY.fullmatch(value) is None:
        raise Problem(400, "invalid_idempotency_key", "Send one Idempotency-Key of 1 to 255 visible ASCII characters.")
    return value


def last_event_id(request: Request) -> int | None:
    """The `seq` after which an event stream goes on."""
    value = "".join(header(request.scope, b"last-event-id")[:1])
    if not value:
        return None
    if re.fullmatch(r"[0-9]{1,10}", value) is None:
        raise Problem(400, "invalid_last_event_id", "Last-Event-ID is the id of an event that this stream sent.")
    return int(value)


def base_url(request: Request) -> str:
    """How the caller reached us, for the addresses in answers; empty (so relative) for a Host that can't be one."""
    host = "".join(header(request.scope, b"host"))  # the protocol lets only one pass
    return f"{request.scope['scheme']}://{host}" if _HOST.fullmatch(host) else ""
