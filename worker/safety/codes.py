"""Lists the provider's error codes, each with its source, and ranks how much a code tells.

A code decides; HTTP status and message text never do (wire.md section 0.6). It must not depend on outcomes, messages or
retries. The sources were last read in 2026-11 (wire.md, wire-news.md; openai 3.57.0).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from worker.jobs.record import BlockCategory
from worker.safety.http_status_phrases import is_blank, status_in
from worker.safety.stream import ProviderProblem


class CodeKind(StrEnum):
    """What a code is about."""

    BLOCK = "block"
    QUOTA = "quota"
    RATE = "rate"
    OVERLOAD = "overload"
    SERVER = "server"
    MODEL = "model"  # the access to this model
    ORGANIZATION = "organization"
    KEY = "key"
    REGION = "region"
    RESIDENCY = "residency"
    CONTEXT = "context"
    REQUEST = "request"  # the request itself is wrong
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Code:
    """One code, its meaning and its source. A `generic` code only says that something failed."""

    name: str
    kind: CodeKind
    source: str
    category: BlockCategory | None = None
    our_code: str | None = None  # Vigil's more specific code, if the kind alone says too little
    generic: bool = False
    guessed: bool = False  # not in the table: its kind is inferred from its form


def _rows() -> list[Code]:
    block, quota, rate, over, server = CodeKind.BLOCK, CodeKind.QUOTA, CodeKind.RATE, CodeKind.OVERLOAD, CodeKind.SERVER
    sdk, agents = "D, SDK response_error.py", "D, SDK beta/session_turn_error.py"
    rows = [
        # blocks: wire.md section 3
        Code("cyber_policy", block, "D+C, CYBERDOC", "cyber"),
        Code("bio_policy", block, "D+C, SDK response_error.py", "bio"),
        Code("invalid_prompt", block, "D+C, PAL178", "prompt"),
        Code("misalignment_policy_violation", block, "D, MISDOC", "misalignment"),
        Code("image_content_policy_violation", block, sdk, "image"),
        Code("content_filter", block, "D, SDK response.py", "content_filter"),
        Code("cyber_policy_violation", block, "C, wire-news 1.2 (with a scope in `param`)", "cyber"),
        Code("content_policy_violation", block, "C, gateways' tables; LiteLLM's image route", "content_filter"),
        Code("responsibleaipolicyviolation", block, "D, Azure OpenAI (innererror.code)", "content_filter"),
        Code("moderation_blocked", block, "C, image API", "image"),
        Code("sensitive_words_detected", block, "C, new-api", "content_filter"),
        Code("data_inspection_failed", block, "D, Alibaba Model Studio error codes", "content_filter"),
        Code("datainspectionfailed", block, "D, Alibaba Model Studio error codes", "content_filter"),
        # money and limits: wire.md section 6
        Code("insufficient_quota", quota, "D, HELP429", our_code="quota_exhausted"),
        Code("credit_balance_exhausted", quota, "D, HELP429", our_code="credit_exhausted"),
        Code("billing_hard_limit_reached", quota, "D, HELP661", our_code="spend_limit_reached"),
        Code("organization_spend_limit_exceeded", quota, "D, HELP429", our_code="spend_limit_reached"),
        Code("project_spend_limit_exceeded", quota, "D, HELP429", our_code="project_spend_limit_reached"),
        Code("organization_usage_limit_exceeded", quota, "D, HELP429", our_code="usage_limit_reached"),
        Code("usage_limit_exceeded", quota, agents, our_code="usage_limit_reached"),
        Code("session_budget_exceeded", quota, agents, our_code="usage_limit_reached"),
        Code("billing_not_active", quota, agents, our_code="credit_exhausted"),
        Code("budget_exceeded", quota, "C, LiteLLM", our_code="spend_limit_reached"),
        # rates
        Code("rate_limit_exceeded", rate, "D+C, HELP429"),
        Code("slow_down", rate, "D, ERRDOC-JA", our_code="slow_down"),
        Code("rate_limit_error", rate, "D, ERRDOC-JA (a type)"),
        # capacity
        Code("server_is_overloaded", over, "D, DD503"),
        Code("server_overloaded", over, agents),
        Code("flex_unavailable", over, "C; " + agents, our_code="flex_unavailable"),
        Code("service_unavailable_error", over, "D, DD503 (a type)"),
        Code("overloaded_error", over, "D, Anthropic's errors (a type, kept by gateways)"),
        # faults; all but the last are generic: a more precise code may have come before
        Code("server_error", server, "D+C, SDK response_error.py", generic=True),
        Code("internal_server_error", server, "C", generic=True),
        Code("internal_error", server, agents, generic=True),
        Code("api_error", server, "C (a type)", generic=True),
        Code("error", server, "I", generic=True),
        Code("unknown_error", server, "I", generic=True),
        Code("upstream_error", server, "C, one-api and new-api", generic=True),
        Code("bad_response_status_code", server, "C, one-api and new-api", generic=True),
        Code("request_timeout", server, agents, our_code="upstream_timeout"),
        Code("connection_failed", server, agents),
        Code("vector_store_timeout", server, sdk, our_code="upstream_timeout"),
        # access: wire.md section 4
        Code("model_not_found", CodeKind.MODEL, "C, RD9, CURSOR2953"),
        Code("deploymentnotfound", CodeKind.MODEL, "D, Azure OpenAI"),
        Code("invalid_model", CodeKind.MODEL, "C, gateways"),
        Code("key_model_access_denied", CodeKind.MODEL, "C, LiteLLM (a type; also team_, user_, org_, project_)"),
        Code("mismatched_organization", CodeKind.ORGANIZATION, "C, CODEX1000"),
        Code("invalid_api_key", CodeKind.KEY, "D, ERRDOC", our_code="invalid_key"),
        Code("authentication_error", CodeKind.KEY, agents),
        Code("auth_error", CodeKind.KEY, "C, LiteLLM (a type)", our_code="invalid_key"),
        Code("token_not_found_in_db", CodeKind.KEY, "C, LiteLLM (a type)", our_code="invalid_key"),
        Code("expired_key", CodeKind.KEY, "C, LiteLLM (a type)", our_code="invalid_key"),
        Code("unsupported_country_region_territory", CodeKind.REGION, "D+C, ERRDOC"),
        Code("data_residency_mismatch", CodeKind.RESIDENCY, sdk),
        # the request
        Code("context_length_exceeded", CodeKind.CONTEXT, "D+C; " + agents),
        Code("exceed_context_size_error", CodeKind.CONTEXT, "C, llama.cpp (a type)"),
        Code("contextwindowexceedederror", CodeKind.CONTEXT, "C, LiteLLM (a type)"),
        Code("unsupported_value", CodeKind.REQUEST, "C, LAMB54"),
    ]
    images = (
        "invalid_image invalid_image_format invalid_base64_image invalid_image_url image_too_large image_too_small "
        "image_parse_error invalid_image_mode image_file_too_large unsupported_image_media_type empty_image_file "
        "failed_to_download_image image_file_not_found"
    )
    return rows + [Code(name, CodeKind.REQUEST, sdk, our_code="bad_image") for name in images.split()]


CODES: Final[dict[str, Code]] = {row.name: row for row in _rows()}

INVALID_REQUEST_CODES: Final = frozenset({"invalid_request", "invalid_request_error"})

_INVALID_STATUSES: Final = frozenset({400, 422})

_CODE_PATTERN: Final = re.compile(r"[a-z0-9][a-z0-9_.:/-]{0,99}")
_QUOTA_PATTERN: Final = re.compile(r"quota|^credit_|^billing_|spend_limit|usage_limit|budget_exceeded")
_POLICY_PATTERN: Final = re.compile(r"content_policy|(?:^|_)policy(?:_violation)?$")
_MODERATION_PATTERN: Final = re.compile(r"moderation.*(?:block|flag)|(?:block|flag).*moderation")
"""Codes that `moderation.policy.*.mode = "block"` may lead to: the request type has the mode, no capture was found."""
_CATEGORY_BY_PREFIX: Final[dict[str, BlockCategory]] = {"image": "image", "cyber": "cyber", "bio": "bio"}


_SEPARATORS: Final = re.compile(r"[-_ ]+")
_MAX_LENGTH: Final = 100


def normalize_code(value: str | None) -> str | None:
    """Return `value` as a lower-case code, or None if it does not look like one (it may be prose then).

    Known codes are recognised however their words are joined: `cyber-policy` and `Cyber Policy` are `cyber_policy`.
    """
    word = (value or "").strip().lower()
    if word in CODES:
        return word
    joined = _SEPARATORS.sub("_", word) if len(word) <= _MAX_LENGTH else ""
    return joined if joined in CODES else word if _CODE_PATTERN.fullmatch(word) else None


def lookup(name: str) -> Code:
    """Return the code's row of the table, or what its form says, or a row of kind UNKNOWN."""
    if name in CODES:
        return CODES[name]
    if _POLICY_PATTERN.search(name):
        category = _CATEGORY_BY_PREFIX.get(name.partition("_")[0], "unknown")
        return Code(name, CodeKind.BLOCK, "by its form", category, guessed=True)
    if _MODERATION_PATTERN.search(name):
        return Code(name, CodeKind.BLOCK, "by its form", "content_filter", guessed=True)
    if name.endswith("_model_access_denied"):
        return Code(name, CodeKind.MODEL, "by its form", guessed=True)
    if _QUOTA_PATTERN.search(name):
        return Code(name, CodeKind.QUOTA, "by its form", our_code="quota_exhausted", guessed=True)
    return Code(name, CodeKind.UNKNOWN, "unknown", guessed=True)


def code_of(problem: ProviderProblem | None) -> Code | None:
    """Return the code of an error, from `code`, else from `type`, or None if it has none.

    A known precise one in either wins (wire.md section 11, rule 4). A code that only repeats the status is none, and
    next to it an unknown `type` is the name of a server's exception class, not a code.
    """
    if problem is None:
        return None
    code, kind = normalize_code(problem.code), normalize_code(problem.type)
    names = [name for name in (code, kind) if name and not (name not in CODES and is_blank(name))]
    found = sorted((lookup(name) for name in names), key=rank, reverse=True)
    first = lookup(names[0]) if names else None
    if first is None or rank(first) >= KNOWN:
        return first
    if code is not None and code not in names and rank(found[0]) <= UNKNOWN:
        return found[0] if found[0].generic else None
    return found[0]


def status_of(problem: ProviderProblem | None) -> int | None:
    """Return the HTTP status that an error repeats in its `code` or its `type`, or None."""
    words = [normalize_code(problem.code), normalize_code(problem.type)] if problem is not None else []
    return next((status for word in words if word and (status := status_in(word)) is not None), None)


def is_invalid_request(problem: ProviderProblem | None) -> bool:
    """Return whether the error calls the request itself invalid, by type or by code."""
    if problem is None:
        return False
    return (
        bool({normalize_code(problem.code), normalize_code(problem.type)} & INVALID_REQUEST_CODES)
        or status_of(problem) in _INVALID_STATUSES
    )


NOTHING, GENERIC, UNKNOWN, KNOWN, SUSPECT, BLOCK = range(6)


def rank(code: Code | None) -> int:
    """Return how much a code tells; a later error replaces an earlier one only if it tells more.

    Nothing < generic < unknown < known < a block by its form < a known block (wire.md section 11, rule 2). Blocks rank
    highest, so that no order of events lets a withheld prompt be sent again.
    """
    if code is None:
        return NOTHING
    if code.kind is CodeKind.BLOCK:
        return SUSPECT if code.guessed else BLOCK
    if code.generic:
        return GENERIC
    return UNKNOWN if code.kind is CodeKind.UNKNOWN else KNOWN


def weight(problem: ProviderProblem | None, incomplete_reason: str | None = None) -> int:
    """Return the rank of one event: of its error or of its reason to stop."""
    reason = normalize_code(incomplete_reason)
    return max(rank(code_of(problem)), rank(lookup(reason)) if reason else NOTHING)
