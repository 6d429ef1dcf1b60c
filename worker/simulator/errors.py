"""Lists the provider's errors: code -> HTTP status, type, param, message (wire.md sections 3, 4, 6).

Pure. It must not depend on scenarios, sockets or HTTP frameworks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ErrorShape:
    """One failure in the provider's envelope; `code` is the code on the wire (None = null)."""

    status: int
    type: str
    message: str
    code: str | None
    param: str | None = None
    policy: bool = False  # content was withheld: usage is reported and billed


def _shape(status: int, kind: str, message: str, *, param: str | None = None, policy: bool = False) -> ErrorShape:
    return ErrorShape(status, kind, message, None, param, policy)


_BAD = "invalid_request_error"
_MONEY = "insufficient_quota"

_TABLE: dict[str, ErrorShape] = {
    "cyber_policy": _shape(400, "invalid_request", "simulated: withheld for possible cyber risk", policy=True),
    "bio_policy": _shape(400, "invalid_request", "simulated: withheld for possible biological risk", policy=True),
    "invalid_prompt": _shape(400, _BAD, "simulated: prompt flagged", policy=True),
    "misalignment_policy_violation": _shape(403, _BAD, "simulated: stopped for review", policy=True),
    "content_policy_violation": _shape(400, _BAD, "simulated: content withheld", policy=True),
    "image_content_policy_violation": _shape(400, _BAD, "simulated: image withheld", policy=True),
    "model_not_found": _shape(404, _BAD, "The model `{model}` does not exist or you do not have access to it."),
    "mismatched_organization": _shape(401, _BAD, "simulated: organization header does not match the key"),
    "invalid_api_key": _shape(401, _BAD, "simulated: incorrect API key provided"),
    "unsupported_country_region_territory": _shape(403, "request_forbidden", "simulated: location not supported"),
    "unsupported_value": _shape(400, _BAD, "simulated: verify the organization to stream", param="stream"),
    "context_length_exceeded": _shape(
        400, _BAD, "simulated: input exceeds the context window of this model", param="input"
    ),
    "data_residency_mismatch": _shape(400, _BAD, "simulated: data residency mismatch"),
    "rate_limit_exceeded": _shape(429, "requests", "simulated: rate limit reached for requests"),
    "slow_down": _shape(429, "rate_limit_error", "simulated: slow down"),
    "insufficient_quota": _shape(429, _MONEY, "simulated: quota used up"),
    "credit_balance_exhausted": _shape(429, _MONEY, "simulated: credit balance used up"),
    "organization_spend_limit_exceeded": _shape(429, _MONEY, "simulated: organization spend limit"),
    "project_spend_limit_exceeded": _shape(429, _MONEY, "simulated: project spend limit"),
    "organization_usage_limit_exceeded": _shape(429, _MONEY, "simulated: organization usage limit"),
    "billing_hard_limit_reached": _shape(429, _MONEY, "simulated: billing hard limit"),
    "flex_unavailable": _shape(429, "service_unavailable_error", "simulated: no flex capacity"),
    "server_is_overloaded": _shape(503, "service_unavailable_error", "simulated: overloaded"),
    "server_error": _shape(500, "server_error", "simulated: server had an error"),
    "internal_server_error": _shape(500, "server_error", "simulated: internal server error"),
}

CODES = tuple(_TABLE)
PROGRAM_REQUIRED = "program_required"  # its body has no code (T10e, shape guessed)


def shape(code: str, *, model: str, project: str, status: int | None = None) -> ErrorShape:
    """Return the shape for a code; an unknown code is an ordinary 400 that carries it.

    `status` overrides the code's own HTTP status (a carrier such as http_403 or http_502 does that).
    """
    if code == PROGRAM_REQUIRED:
        return ErrorShape(status or 403, _BAD, "simulated: program access required", None, "access_programs.cyber")
    base = _TABLE.get(code) or _shape(400, _BAD, f"simulated: {code}")
    message = base.message.format(model=model)
    if code == "model_not_found" and status == HTTPStatus.FORBIDDEN:  # T10a: the project may not use the model
        message = f"Project `{project}` does not have access to model `{model}`"
    return ErrorShape(status or base.status, base.type, message, code, base.param, base.policy)


def envelope(error: ErrorShape) -> Json:
    """Return the JSON body of an HTTP error."""
    inner: Json = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    if error.code == "misalignment_policy_violation":
        inner["misalignment"] = None
    return {"error": inner}


def wrapped(error: ErrorShape, how: str) -> Json:
    """Return the JSON body in which LiteLLM passes an error on: it quotes the body, or (its chat route) the words."""
    quoted = error.message if how == "prose" else json.dumps(envelope(error), separators=(",", ":"))
    text = f"litellm.APIError: APIError: OpenAIException - {quoted}. Received Model Group=simulated"
    return {"error": {"message": text, "type": None, "param": None, "code": str(error.status)}}


def simple(status: int, message: str, *, code: str | None = None, param: str | None = None) -> ErrorShape:
    """Return an ordinary `invalid_request_error`, for what the provider refuses by itself."""
    return ErrorShape(status, _BAD, message, code, param)


MISALIGNMENT: Json = {
    "error_type": "potentially_unintended_data_access",
    "detailed_explanation": "simulated",
    "review_target": None,
    "steer": {"message": "simulated instruction"},
}
