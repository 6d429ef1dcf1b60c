"""Reads the headers of an answer, and HTTP errors.

Pure. Headers come as a case-insensitive mapping; values are copied with a length limit and never judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

from worker.http_headers import parse_number
from worker.safety.codes import KNOWN, code_of, rank
from worker.safety.stream import Opened, ProviderProblem, Rejected
from worker.upstream.payload import BadJson, parse
from worker.upstream.problems import problem_of
from worker.upstream.retry_after import retry_after
from worker.upstream.sse import FrameTooLarge, SseSplitter
from worker.upstream.tolerant_fields import bounded_identifier, non_negative, text
from worker.upstream.wide_encodings import Utf8Decoder

RequestKind = Literal["create", "resume", "poll"]

_CONTEXT: Final = ("openai-version", "openai-model-snapshot", "cf-ray", "x-oai-request-id")
_CONTEXT_PREFIX: Final = "x-codex-safety-buffering-"
_MAX_HEADERS: Final = 24
_MAX_MS: Final = 1e10
_MAX_FRAMES: Final = 16
_REQUEST_IDS: Final = (
    "x-request-id",
    "request-id",  # Anthropic's spelling, and servers that follow it
    "llm_provider-x-request-id",  # LiteLLM: the header of the provider behind it
    "llm_provider-request-id",
    "x-oai-request-id",
    "apim-request-id",  # Azure
)
_DEPLOYMENT_HEADERS: Final = ("x-litellm-model-id", "x-litellm-model-api-base")
_FORWARDED_PREFIX: Final = "llm_provider-"


def opened_from(status: int, headers: Mapping[str, str], *, resumed: bool) -> Opened:
    """Return the accepted call, with everything that an audit may need later."""
    return Opened(
        http_status=status,
        request_id=request_id(headers),
        organization=text(headers.get("openai-organization"), 200),
        project=text(headers.get("openai-project"), 200),
        processing_ms=_digits(headers.get("openai-processing-ms")),
        served_header=text(headers.get("openai-model")) or text(headers.get("x-openai-model")),
        rate_limits=_rate_limits(headers),
        context=_context(headers),
        resumed=resumed,
    )


def rejected_from(status: int, headers: Mapping[str, str], body: bytes, now: datetime, *, on: RequestKind) -> Rejected:
    """Return an HTTP error as a value; its problem is None if the body is not JSON."""
    return Rejected(
        http_status=status,
        problem=_problem(body),
        request_id=request_id(headers),
        organization=text(headers.get("openai-organization"), 200),
        project=text(headers.get("openai-project"), 200),
        processing_ms=_digits(headers.get("openai-processing-ms")),
        retry_after=retry_after(headers, now),
        rate_limits=_rate_limits(headers),
        on=on,
        forwarded=_forwarded(headers),
    )


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the request id of the provider, or of a gateway before it, or None."""
    return next((found for name in _REQUEST_IDS if (found := bounded_identifier(headers.get(name))) is not None), None)


def _problem(body: bytes) -> ProviderProblem | None:
    """Read an error body: JSON, JSON framed as server-sent events, or JSON that was cut; None for a web page."""
    body = Utf8Decoder().feed(body, last=True)
    try:
        data = parse(body)
    except BadJson:
        frames = _frames(body)
        if frames:
            return problem_of(frames)
        problem = problem_of(body.decode("utf-8", "replace"))  # a code that prose quotes counts only if it is known
        return problem if rank(code_of(problem)) >= KNOWN else None
    return problem_of(data) if type(data) in (dict, list, str) else ProviderProblem(None, None)


def _frames(body: bytes) -> list[object]:
    """Return the JSON values of a body that is framed as events, whatever its content type says."""
    splitter, values = SseSplitter(), list[object]()
    try:
        payloads = splitter.feed(body)
        if (remainder := splitter.close()) is not None:
            payloads.append(remainder)
    except FrameTooLarge:
        return []
    for payload in payloads[:_MAX_FRAMES]:
        try:
            value = parse(payload)
        except BadJson:
            continue
        if type(value) in (dict, list, str):
            values.append(value)
    return values


def _forwarded(headers: Mapping[str, str]) -> bool:
    return any(name in headers for name in _DEPLOYMENT_HEADERS) or any(
        n.lower().startswith(_FORWARDED_PREFIX) for n in headers
    )


def _rate_limits(headers: Mapping[str, str]) -> dict[str, str]:
    kept = {k.lower()[:64]: v[:64] for k, v in headers.items() if k.lower().startswith("x-ratelimit-")}
    return dict(list(kept.items())[:_MAX_HEADERS])


def _context(headers: Mapping[str, str]) -> dict[str, str]:
    kept = {
        k.lower(): v[:200] for k, v in headers.items() if k.lower().startswith(_CONTEXT_PREFIX) or k.lower() in _CONTEXT
    }
    return dict(list(kept.items())[:_MAX_HEADERS])


def _digits(value: str | None) -> int | None:
    millis = parse_number(value)
    return None if millis is None or millis > _MAX_MS else non_negative(int(millis))
