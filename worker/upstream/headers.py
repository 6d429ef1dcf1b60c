"""What the headers of an answer say, and what an HTTP error says as a whole.

Pure. Headers come as a case-insensitive mapping; values are copied with a length limit and never judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from worker.safety.stream import Opened, Problem, Rejected
from worker.upstream.fields import named, problem_of, table, text, whole
from worker.upstream.payload import BadJson, parse
from worker.upstream.retry_after import number, retry_after

On = Literal["create", "resume", "poll"]

_CONTEXT: Final = ("openai-version", "openai-model-snapshot", "cf-ray", "x-oai-request-id")
_CONTEXT_PREFIX: Final = "x-codex-safety-buffering-"
_MOST: Final = 24
_LONGEST_MS: Final = 1e10


def opened_from(status: int, headers: Mapping[str, str], *, resumed: bool) -> Opened:
    """The accepted call, with everything that an audit may ask for later."""
    return Opened(
        http_status=status,
        request_id=named(headers.get("x-request-id")),
        organization=text(headers.get("openai-organization"), 200),
        project=text(headers.get("openai-project"), 200),
        processing_ms=_digits(headers.get("openai-processing-ms")),
        served_header=text(headers.get("openai-model")) or text(headers.get("x-openai-model")),
        rate_limits=_rate_limits(headers),
        context=_context(headers),
        resumed=resumed,
    )


def rejected_from(status: int, headers: Mapping[str, str], body: bytes, now: datetime, *, on: On) -> Rejected:
    """An HTTP error as a value; a body that is not JSON gives no problem."""
    return Rejected(
        http_status=status,
        problem=_problem(body),
        request_id=named(headers.get("x-request-id")),
        organization=text(headers.get("openai-organization"), 200),
        project=text(headers.get("openai-project"), 200),
        processing_ms=_digits(headers.get("openai-processing-ms")),
        retry_after=retry_after(headers, now),
        rate_limits=_rate_limits(headers),
        on=on,
    )


def _problem(body: bytes) -> Problem | None:
    try:
        data = parse(body)
    except BadJson:
        return None
    if type(data) is list and len(data) == 1:
        data = data[0]  # gateways wrap the envelope in a list
    if type(data) is not dict:
        return Problem(None, None)
    for key in ("error", "detail"):
        if type(data.get(key)) in (dict, str):
            return problem_of(data[key])
    if type(data.get("detail")) is list:
        return Problem(None, None, param=_field(data["detail"]))
    return problem_of(data)


def _field(faults: list[Any]) -> str | None:
    """The field that FastAPI's first fault is about: the last name in its `loc`."""
    where = table(faults[0]).get("loc") if faults else None
    names = [name for name in where if type(name) is str] if type(where) is list else []
    return text(names[-1]) if names else None


def _rate_limits(headers: Mapping[str, str]) -> dict[str, str]:
    kept = {k.lower()[:64]: v[:64] for k, v in headers.items() if k.lower().startswith("x-ratelimit-")}
    return dict(list(kept.items())[:_MOST])


def _context(headers: Mapping[str, str]) -> dict[str, str]:
    kept = {
        k.lower(): v[:200] for k, v in headers.items() if k.lower().startswith(_CONTEXT_PREFIX) or k.lower() in _CONTEXT
    }
    return dict(list(kept.items())[:_MOST])


def _digits(value: str | None) -> int | None:
    millis = number(value)
    return None if millis is None or millis > _LONGEST_MS else whole(int(millis))
