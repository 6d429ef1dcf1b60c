"""Classifies errors of the provider and the transport as a `Failure`: all of table A (wire.md) in one place.

The code decides before the HTTP status does, and message text is never read. Pure: it must not depend on time or on
other attempts.
"""

# ruff: noqa: PLR2004  an HTTP status is its own best name

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final, Literal

from worker.jobs.errors import RETRYABLE, Failure, Fault
from worker.jobs.record import Block, BlockCategory, Carrier, ProviderError
from worker.jobs.states import Outcome
from worker.safety.codes import (
    GENERIC,
    Code,
    CodeKind,
    code_of,
    is_invalid_request,
    lookup,
    normalize_code,
    rank,
    status_of,
)
from worker.safety.messages import block_advice, limited_advice
from worker.safety.stream import Closed, NoConnection, ProviderProblem, Rejected, StreamError, Terminal

Scope = Literal["attempt", "account", "deployment", "model"]

_BY_KIND: Final[dict[CodeKind, tuple[Outcome, str, Fault, Scope]]] = {
    CodeKind.QUOTA: (Outcome.QUOTA_EXHAUSTED, "quota_exhausted", "account", "account"),
    CodeKind.RATE: (Outcome.RATE_LIMITED, "rate_limited", "account", "attempt"),
    CodeKind.OVERLOAD: (Outcome.OVERLOADED, "overloaded", "provider", "attempt"),
    CodeKind.SERVER: (Outcome.SERVER_ERROR, "server_error", "provider", "attempt"),
    CodeKind.MODEL: (Outcome.ACCESS_DENIED, "model_not_granted", "account", "model"),
    CodeKind.ORGANIZATION: (Outcome.AUTH_FAILED, "wrong_organization", "account", "account"),
    CodeKind.KEY: (Outcome.AUTH_FAILED, "auth_failed", "account", "account"),
    CodeKind.REGION: (Outcome.ACCESS_DENIED, "region_unsupported", "account", "attempt"),
    CodeKind.RESIDENCY: (Outcome.ACCESS_DENIED, "data_residency_mismatch", "account", "attempt"),
    CodeKind.CONTEXT: (Outcome.CONTEXT_TOO_LONG, "context_too_long", "caller", "attempt"),
    CodeKind.REQUEST: (Outcome.BAD_REQUEST, "bad_request", "caller", "attempt"),
}

_DEPLOYMENT_CODES: Final = {
    Outcome.AUTH_FAILED: "deployment_auth_failed",
    Outcome.QUOTA_EXHAUSTED: "deployment_quota_exhausted",
}

_UNPROVEN_WITHOUT_CODE: Final = frozenset(
    {Outcome.SERVER_ERROR, Outcome.RATE_LIMITED, Outcome.OVERLOADED, Outcome.ACCESS_DENIED}
)
"""Outcomes after which a prompt is sent again or elsewhere, which takes a code once a check was signalled."""

_VERIFICATION_PARAMS: Final = frozenset({"stream", "reasoning.summary"})
"""Parameters that only a verified organisation may use, refused with `unsupported_value` (wire.md section 4)."""


_END_USER_PARAM: Final = "safety_identifier"
"""The `param` of a block that limits the end user's access to the model, not this request (wire-news section 1.2)."""

NO_CONNECTION: Final[dict[NoConnection | None, str]] = {
    "untrusted": "certificate_untrusted",
    "certificate": "certificate_invalid",
    "tls": "tls_failed",
    "name": "name_not_resolved",
    "refused": "connection_refused",
    "unreachable": "host_unreachable",
    "timeout": "connect_timeout",
    "proxy": "proxy_failed",
}
"""Vigil's code for each reason why there was no connection."""


def rejected(event: Rejected, *, after_output: bool = False) -> Failure:
    """Return the failure of a call that was answered with an HTTP error."""
    retry_after = event.retry_after
    if retry_after is None and event.problem is not None:
        retry_after = event.problem.retry_after
    provider_error = _provider_error(event.problem, event.http_status, event.request_id)
    carrier: Carrier = "http_403" if event.http_status == 403 else "http_400"
    code = code_of(event.problem)
    if code is not None and code.kind is CodeKind.BLOCK:
        return _blocked(code, event.problem, carrier, after_output, provider_error)
    if event.next_differs and (code is None or code.generic or code.kind in (CodeKind.UNKNOWN, CodeKind.REQUEST)):
        return _failure(Outcome.BAD_REQUEST, "token_limit_name", "us", provider_error, retryable=True)
    if event.on != "create" and event.http_status in (404, 405, 410, 501):
        return _failure(Outcome.LOST, "response_lost", "provider", provider_error, retryable=True)
    if event.on != "create" and event.http_status == 400:
        return _failure(Outcome.STREAM_CUT, "resume_refused", "provider", provider_error)
    failure = _classify(event.problem, code, event.http_status, provider_error, retry_after)
    return _scope_to_deployment(failure, event.problem, forwarded=event.forwarded)


def fault(
    event: StreamError, *, http_status: int | None = None, request_id: str | None = None, after_output: bool = False
) -> Failure:
    """Return the failure that an error event inside a stream reports."""
    return _in_stream(event.problem, event.carrier, http_status, request_id, after_output)


def terminal(
    event: Terminal, *, http_status: int | None = None, request_id: str | None = None, after_output: bool = False
) -> Failure | None:
    """Return the failure of a terminal event, or None if it delivers an answer, complete or cut short.

    A block code is a block in every status, and `content_filter` is one as the reason of an incomplete response.
    """
    problem, reason = event.problem, normalize_code(event.incomplete_reason)
    code = code_of(problem)
    if (code is None or code.kind is not CodeKind.BLOCK) and reason and lookup(reason).kind is CodeKind.BLOCK:
        code = lookup(reason)
    if event.status == "failed" and (code is None or code.kind is not CodeKind.BLOCK):
        return _in_stream(problem, event.carrier, http_status, request_id, after_output)
    if code is not None and code.kind is CodeKind.BLOCK:
        carrier = event.carrier
        if event.status == "incomplete" and carrier != "chat_chunk":
            carrier = "incomplete"
        return _blocked(code, problem, carrier, after_output, _provider_error(problem, http_status, request_id))
    if event.status == "cancelled":
        return _failure(
            Outcome.CANCELLED, "cancelled_upstream", "provider", _provider_error(None, http_status, request_id)
        )
    return None


_CUT_CODES: Final = {
    "clean": "no_terminal",
    "nothing": "empty_stream",
    "half_frame": "half_frame",
    "connect_failed": "reconnect_failed",
}


def closed(event: Closed, *, opened: bool = False) -> Failure:
    """Return the failure of a connection that ended before the terminal event; `opened`: headers had come."""
    if event.how == "lost":
        return _failure(Outcome.LOST, "response_lost", "provider", None, retryable=True)
    if event.how == "unreachable":
        return _failure(Outcome.LOST, "response_unreachable", "provider", None, retryable=True)
    if event.how == "no_route":  # it may run on, so that a new one would be paid twice
        return _failure(Outcome.LOST, "response_unreachable", "provider", None, retryable=False)
    if event.how == "bad_id":
        return _failure(Outcome.PROTOCOL_ERROR, "response_id_too_long", "provider", retryable=False)
    if event.how == "bad_json":
        return _failure(Outcome.PROTOCOL_ERROR, "bad_json", "provider")
    if event.how == "not_an_answer":
        return _failure(Outcome.PROTOCOL_ERROR, "not_an_answer", "provider", retryable=False)  # it was billed
    if event.how == "page":
        return _failure(Outcome.PROTOCOL_ERROR, "gateway_page", "network")
    if not opened and (event.how == "connect_failed" or not event.opened):
        return _failure(Outcome.CONNECT_FAILED, NO_CONNECTION.get(event.reason, "connect_failed"), "network")
    return _failure(Outcome.STREAM_CUT, _CUT_CODES.get(event.how, "stream_cut"), "network")


def after_check(failure: Failure) -> Failure:
    """Return the failure of a response without a cause under a signalled check: it may be a block without its code.

    It is neither tried again nor sent to another model, even if a status in the place of the code reads like a rate
    limit, an overload or a denial: only a code of the provider can name those as the cause.
    """
    if failure.outcome not in _UNPROVEN_WITHOUT_CODE:
        return failure
    return replace(failure, code="failed_after_check", retryable=False, scope="attempt", retry_after=None)


def names_cause(failure: Failure) -> bool:
    """Return whether the provider named the cause: by a code that tells something, or by an HTTP status."""
    provider = failure.provider
    if provider is None:
        return False
    refused = provider.http_status is not None and provider.http_status >= 400
    return refused or rank(code_of(ProviderProblem(provider.code, provider.type))) > GENERIC


def silent(*, first_event: bool) -> Failure:
    """Return the failure of a stream that was silent for too long; `first_event`: not even the first event came."""
    return _failure(Outcome.IDLE_TIMEOUT, "no_first_event" if first_event else "idle_timeout", "provider")


def _in_stream(
    problem: ProviderProblem | None,
    carrier: Carrier,
    http_status: int | None,
    request_id: str | None,
    after_output: bool,
) -> Failure:
    code, provider_error = code_of(problem), _provider_error(problem, http_status, request_id)
    if code is not None and code.kind is CodeKind.BLOCK:
        return _blocked(code, problem, carrier, after_output, provider_error)
    failure = _classify(problem, code, None, provider_error, problem.retry_after if problem else None)
    return _scope_to_deployment(failure, problem, forwarded=False)


def _scope_to_deployment(failure: Failure, problem: ProviderProblem | None, *, forwarded: bool) -> Failure:
    """Limit the failure to one deployment if a gateway forwards that the server behind it refused the gateway's key.

    Vigil's own key was accepted then, and other models may use other keys. A gateway that forwards an error quotes it,
    names the deployment in its headers, or uses the status as the code (LiteLLM: `"code": "401"`); if it refuses
    Vigil's key itself, it uses a code or a type of its own.
    """
    name = _DEPLOYMENT_CODES.get(failure.outcome)
    if name is None or failure.scope != "account" or problem is None:
        return failure
    wrapped = (problem.code or "").strip() == "401" and code_of(problem) is None
    return replace(failure, code=name, scope="deployment") if forwarded or problem.quoted or wrapped else failure


def _classify(
    problem: ProviderProblem | None,
    code: Code | None,
    status: int | None,
    provider_error: ProviderError | None,
    retry_after: float | None,
) -> Failure:
    """Classify everything that is no block. `status` is None inside a stream, where HTTP gives no status."""
    if status is None and (code is None or code.generic):
        status = status_of(problem)  # gateways put the original status there
    special = _special_case(problem, code, status, provider_error)
    if special is not None:
        return special
    if (
        code is not None
        and code.kind is not CodeKind.UNKNOWN
        and not (code.generic and _status_is_more_specific(status))
    ):
        outcome, name, at_fault, scope = _BY_KIND[code.kind]
        return _failure(outcome, code.our_code or name, at_fault, provider_error, scope=scope, retry_after=retry_after)
    if status is None:
        return _unexplained(problem, code, provider_error, retry_after)
    return _by_status(problem, code, status, provider_error, retry_after)


def _status_is_more_specific(status: int | None) -> bool:
    """Return whether the status, such as 401 or 429, says more than a generic code."""
    return status is not None and status < 500


def _special_case(
    problem: ProviderProblem | None, code: Code | None, status: int | None, provider_error: ProviderError | None
) -> Failure | None:
    """Return the failure for cases in which the code alone would mislead, else None."""
    if problem is not None and problem.worded_as_block and (code is None or code.generic):
        refused = status is not None and 400 <= status < 500 and status != 429
        outcome = Outcome.BAD_REQUEST if refused else Outcome.SERVER_ERROR
        return _failure(outcome, "may_be_withheld", "provider", provider_error, retryable=False)
    param = ((problem.param if problem else None) or "").strip().lower()
    name = code.name if code else None
    blank = code is None or code.generic
    unclear = blank or (code is not None and code.kind in (CodeKind.UNKNOWN, CodeKind.REQUEST))
    if name == "model_not_found" and status == 403:
        return _failure(Outcome.ACCESS_DENIED, "wrong_project", "account", provider_error, scope="model")
    if name == "unsupported_value" and param in _VERIFICATION_PARAMS:
        return _failure(Outcome.ACCESS_DENIED, "verification_required", "account", provider_error)
    if status in (None, 400, 422) and unclear and param == "background":
        return _failure(Outcome.BAD_REQUEST, "background_refused", "us", provider_error)
    if name == "slow_down" and status == 503:
        return _failure(Outcome.OVERLOADED, "overloaded", "provider", provider_error)
    names_program = param.split(".")[0] == "access_programs" or (problem is not None and problem.mentions_access)
    if status == 403 and unclear and names_program:
        return _failure(Outcome.ACCESS_DENIED, "program_required", "account", provider_error)
    if blank and param == "model" and status in (400, 401, 403, 404, 422):  # LiteLLM and vLLM name no code for it
        return _failure(Outcome.ACCESS_DENIED, "model_not_granted", "account", provider_error, scope="model")
    if blank and param == "input_tokens" and status in (400, 422):  # vLLM
        return _failure(Outcome.CONTEXT_TOO_LONG, "context_too_long", "caller", provider_error)
    if status in (None, 400) and unclear and param == "service_tier":
        return _failure(Outcome.BAD_REQUEST, "service_tier_not_allowed", "caller", provider_error)
    return None


def _unexplained(
    problem: ProviderProblem | None, code: Code | None, provider_error: ProviderError | None, retry_after: float | None
) -> Failure:
    """Classify an error inside a stream without a known code.

    An unknown code may be a new kind of block, so the prompt is never sent again automatically: clients that did so
    replayed blocked prompts (wire.md section 1, CPA4854).
    """
    if is_invalid_request(problem):
        return _failure(Outcome.BAD_REQUEST, "bad_request", "caller", provider_error)
    return _failure(
        Outcome.SERVER_ERROR,
        "server_error",
        "provider",
        provider_error,
        retry_after=retry_after,
        retryable=code is None,
    )


def _by_status(  # noqa: C901, PLR0912  one row per status
    problem: ProviderProblem | None,
    code: Code | None,
    status: int,
    provider_error: ProviderError | None,
    retry_after: float | None,
) -> Failure:
    """Classify an HTTP error without a known code, by its status."""
    blank = code is None or code.generic
    match status:
        case 401:
            return _failure(Outcome.AUTH_FAILED, "auth_failed", "account", provider_error, scope="account")
        case 402:
            return _failure(Outcome.QUOTA_EXHAUSTED, "quota_exhausted", "account", provider_error, scope="account")
        case 403 if problem is None:
            return _failure(Outcome.ACCESS_DENIED, "edge_refused", "network", provider_error, retryable=True)
        case 403 if blank:
            # a server that repeats the status as its code has looked at the model; else it may be about anything
            about: Scope = "model" if status_of(problem) == 403 else "attempt"
            return _failure(
                Outcome.ACCESS_DENIED, "access_refused", "account", provider_error, scope=about, retryable=True
            )
        case 404 if blank and status_of(problem) == 404:
            return _failure(Outcome.ACCESS_DENIED, "model_or_path_not_found", "account", provider_error, scope="model")
        case 404 | 405 | 501 if blank:
            return _failure(Outcome.BAD_REQUEST, "not_found", "us", provider_error)
        case 413 if blank:
            return _failure(Outcome.BAD_REQUEST, "request_too_large", "network", provider_error)
        case 407:
            return _failure(Outcome.CONNECT_FAILED, "proxy_refused", "network", provider_error)
        case 408:
            return _failure(
                Outcome.SERVER_ERROR, "upstream_timeout", "provider", provider_error, retry_after=retry_after
            )
        case 409 | 425:
            return _failure(Outcome.SERVER_ERROR, "server_error", "provider", provider_error, retry_after=retry_after)
        case 429:
            return _failure(Outcome.RATE_LIMITED, "rate_limited", "account", provider_error, retry_after=retry_after)
        case 503 | 529 if code is None:
            return _failure(Outcome.OVERLOADED, "overloaded", "provider", provider_error, retry_after=retry_after)
        case _ if 400 <= status < 500:
            return _failure(Outcome.BAD_REQUEST, "bad_request", "caller", provider_error)
        case _ if status >= 500:
            # a proxied 4xx that calls the request invalid stays invalid; another try would replay it
            again = not is_invalid_request(problem)
            return _failure(
                Outcome.SERVER_ERROR,
                "server_error",
                "provider",
                provider_error,
                retry_after=retry_after,
                retryable=again,
            )
        case _:
            return _failure(Outcome.PROTOCOL_ERROR, "unexpected_status", "network", provider_error)


def _blocked(
    code: Code,
    problem: ProviderProblem | None,
    carrier: Carrier,
    after_output: bool,
    provider_error: ProviderError | None,
) -> Failure:
    category: BlockCategory = code.category or "unknown"
    limited = problem is not None and (problem.param or "").strip().lower() == _END_USER_PARAM
    block = Block(
        category=category,
        code=code.name,
        carrier=carrier,
        after_output=after_output,
        advice=limited_advice() if limited else block_advice(category),
        scope="end_user" if limited else "request",
        misalignment=problem.misalignment if problem is not None else None,
    )
    # "caller" is who can do something about it, not a finding: a block says nothing about intent
    return Failure(Outcome.BLOCKED, code.name, "caller", block=block, provider=provider_error)


def _provider_error(problem: ProviderProblem | None, http_status: int | None, request_id: str | None) -> ProviderError:
    """Return the provider's error without its message; values that don't look like codes are left out (promise P7)."""
    return ProviderError(
        code=normalize_code(problem.code) if problem else None,
        type=normalize_code(problem.type) if problem else None,
        http_status=http_status,
        request_id=request_id,
    )


def _failure(
    outcome: Outcome,
    code: str,
    fault: Fault,
    provider: ProviderError | None = None,
    *,
    scope: Scope = "attempt",
    retry_after: float | None = None,
    retryable: bool | None = None,
) -> Failure:
    again = outcome in RETRYABLE if retryable is None else retryable
    wait = retry_after if retry_after is not None and math.isfinite(retry_after) and retry_after >= 0 else None
    return Failure(outcome, code, fault, again, scope, wait, provider=provider)
