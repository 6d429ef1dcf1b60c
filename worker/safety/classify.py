"""From what the provider or the transport said to a `Failure`: all of table A (wire.md) in one place.

The code decides before the HTTP status does, and message text is never read. Pure; must not know: time, attempts,
what the shell will do about it.
"""

# ruff: noqa: PLR2004  an HTTP status is its own best name

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final, Literal

from worker.jobs.errors import RETRYABLE, Failure, Fault as Whose
from worker.jobs.record import Block, BlockCategory, Carrier, ProviderError
from worker.jobs.states import Outcome
from worker.safety.codes import Code, CodeKind, code_of, is_invalid_request, lookup, normalize_code, status_of
from worker.safety.messages import block_advice
from worker.safety.stream import Closed, NoConnection, ProviderProblem, Rejected, StreamError, Terminal

Scope = Literal["attempt", "account", "deployment", "model"]

_BY_KIND: Final[dict[CodeKind, tuple[Outcome, str, Whose, Scope]]] = {
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

_VERIFICATION_PARAMS: Final = frozenset({"stream", "reasoning.summary"})
"""With `unsupported_value`: what an organisation may use only after its verification (wire.md section 4)."""


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
"""Our code for each reason that there was no connection."""


def rejected(event: Rejected, *, after_output: bool = False) -> Failure:
    """The failure of a call that was answered with an HTTP error."""
    asked = event.retry_after
    if asked is None and event.problem is not None:
        asked = event.problem.retry_after
    said = _provider_error(event.problem, event.http_status, event.request_id)
    carrier: Carrier = "http_403" if event.http_status == 403 else "http_400"
    code = code_of(event.problem)
    if code is not None and code.kind is CodeKind.BLOCK:
        return _blocked(code, carrier, after_output, said)
    if event.otherwise and (code is None or code.generic or code.kind in (CodeKind.UNKNOWN, CodeKind.REQUEST)):
        return _failure(Outcome.BAD_REQUEST, "token_limit_name", "us", said, retryable=True)
    if event.on != "create" and event.http_status in (404, 405, 410, 501):
        return _failure(Outcome.LOST, "response_lost", "provider", said, retryable=True)
    if event.on != "create" and event.http_status == 400:
        return _failure(Outcome.STREAM_CUT, "resume_refused", "provider", said)
    failure = _classify(event.problem, code, event.http_status, said, asked)
    return _scope_to_deployment(failure, event.problem, forwarded=event.forwarded)


def fault(
    event: StreamError, *, http_status: int | None = None, request_id: str | None = None, after_output: bool = False
) -> Failure:
    """The failure that an error event inside a stream tells of."""
    return _in_stream(event.problem, event.carrier, http_status, request_id, after_output)


def terminal(
    event: Terminal, *, http_status: int | None = None, request_id: str | None = None, after_output: bool = False
) -> Failure | None:
    """The failure in the provider's last word; None when it delivers an answer, whole or cut short.

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
        return _blocked(code, carrier, after_output, _provider_error(problem, http_status, request_id))
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
    """The failure of a transport that ended before the provider's last word; `opened`: headers had come."""
    if event.how == "lost":
        return _failure(Outcome.LOST, "response_lost", "provider", None, retryable=True)
    if event.how == "unreachable":
        return _failure(Outcome.LOST, "response_unreachable", "provider", None, retryable=True)
    if event.how == "bad_id":
        return _failure(Outcome.PROTOCOL_ERROR, "response_id_too_long", "provider", retryable=False)
    if event.how == "bad_json":
        return _failure(Outcome.PROTOCOL_ERROR, "bad_json", "provider")
    if event.how == "not_an_answer":
        return _failure(Outcome.PROTOCOL_ERROR, "not_an_answer", "provider", retryable=False)  # it was paid for
    if event.how == "page":
        return _failure(Outcome.PROTOCOL_ERROR, "gateway_page", "network")
    if not opened and (event.how == "connect_failed" or not event.opened):
        return _failure(Outcome.CONNECT_FAILED, NO_CONNECTION.get(event.why, "connect_failed"), "network")
    return _failure(Outcome.STREAM_CUT, _CUT_CODES.get(event.how, "stream_cut"), "network")


def after_check(failure: Failure) -> Failure:
    """The failure of a response that named no cause while a signalled check ran: it may be a block that lost its code.

    That nothing under a signalled check is sent again by itself is `retry`'s rule; this gives it its own words.
    """
    return replace(failure, code="failed_after_check") if failure.outcome is Outcome.SERVER_ERROR else failure


def silent(*, first_event: bool) -> Failure:
    """The failure of a stream that told nothing for too long; `first_event`: not even the first thing came."""
    return _failure(Outcome.IDLE_TIMEOUT, "no_first_event" if first_event else "idle_timeout", "provider")


def _in_stream(
    problem: ProviderProblem | None,
    carrier: Carrier,
    http_status: int | None,
    request_id: str | None,
    after_output: bool,
) -> Failure:
    code, said = code_of(problem), _provider_error(problem, http_status, request_id)
    if code is not None and code.kind is CodeKind.BLOCK:
        return _blocked(code, carrier, after_output, said)
    failure = _classify(problem, code, None, said, problem.retry_after if problem else None)
    return _scope_to_deployment(failure, problem, forwarded=False)


def _scope_to_deployment(failure: Failure, problem: ProviderProblem | None, *, forwarded: bool) -> Failure:
    """The failure, for one deployment alone when a gateway passes on that the server behind it refused its key.

    Vigil's own key was accepted then, and other models may stand on other keys. A gateway that passes an error on
    quotes it, names the deployment in its headers, or gives it the status as its code (LiteLLM: `"code": "401"`);
    when it refuses our key itself, it says so by a code or a type of its own.
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
    said: ProviderError | None,
    asked: float | None,
) -> Failure:
    """All that is no block. `status` is None inside a stream, where HTTP has nothing more to say."""
    if status is None and (code is None or code.generic):
        status = status_of(problem)  # gateways repeat there what the status would have been
    special = _special_case(problem, code, status, said)
    if special is not None:
        return special
    if (
        code is not None
        and code.kind is not CodeKind.UNKNOWN
        and not (code.generic and _status_is_more_specific(status))
    ):
        outcome, name, whose, scope = _BY_KIND[code.kind]
        return _failure(outcome, code.ours or name, whose, said, scope=scope, asked=asked)
    if status is None:
        return _unexplained(problem, code, said, asked)
    return _by_status(problem, code, status, said, asked)


def _status_is_more_specific(status: int | None) -> bool:
    """A generic code next to a status such as 401 or 429: the status says more than the code."""
    return status is not None and status < 500


def _special_case(
    problem: ProviderProblem | None, code: Code | None, status: int | None, said: ProviderError | None
) -> Failure | None:
    """The cases in which a code alone would mislead."""
    param = ((problem.param if problem else None) or "").strip().lower()
    name = code.name if code else None
    blank = code is None or code.generic
    unclear = blank or (code is not None and code.kind in (CodeKind.UNKNOWN, CodeKind.REQUEST))
    if name == "model_not_found" and status == 403:
        return _failure(Outcome.ACCESS_DENIED, "wrong_project", "account", said, scope="model")
    if name == "unsupported_value" and param in _VERIFICATION_PARAMS:
        return _failure(Outcome.ACCESS_DENIED, "verification_required", "account", said)
    if status in (None, 400, 422) and unclear and param == "background":
        return _failure(Outcome.BAD_REQUEST, "background_refused", "us", said)
    if name == "slow_down" and status == 503:
        return _failure(Outcome.OVERLOADED, "overloaded", "provider", said)
    names_program = param.split(".")[0] == "access_programs" or (problem is not None and problem.mentions_access)
    if status == 403 and unclear and names_program:
        return _failure(Outcome.ACCESS_DENIED, "program_required", "account", said)
    if blank and param == "model" and status in (400, 401, 403, 404, 422):  # LiteLLM and vLLM name no code for it
        return _failure(Outcome.ACCESS_DENIED, "model_not_granted", "account", said, scope="model")
    if blank and param == "input_tokens" and status in (400, 422):  # vLLM
        return _failure(Outcome.CONTEXT_TOO_LONG, "context_too_long", "caller", said)
    if status in (None, 400) and unclear and param == "service_tier":
        return _failure(Outcome.BAD_REQUEST, "service_tier_not_allowed", "caller", said)
    return None


def _unexplained(
    problem: ProviderProblem | None, code: Code | None, said: ProviderError | None, asked: float | None
) -> Failure:
    """An error inside a stream without a code that we know.

    An unknown code may be a block that is new to us, so it is never sent again by itself: clients that did so
    replayed blocked prompts (wire.md section 1, CPA4854).
    """
    if is_invalid_request(problem):
        return _failure(Outcome.BAD_REQUEST, "bad_request", "caller", said)
    return _failure(Outcome.SERVER_ERROR, "server_error", "provider", said, asked=asked, retryable=code is None)


def _by_status(  # noqa: C901, PLR0912  one row per status
    problem: ProviderProblem | None, code: Code | None, status: int, said: ProviderError | None, asked: float | None
) -> Failure:
    """An HTTP error without a code that we know: only now the status speaks."""
    blank = code is None or code.generic
    match status:
        case 401:
            return _failure(Outcome.AUTH_FAILED, "auth_failed", "account", said, scope="account")
        case 402:
            return _failure(Outcome.QUOTA_EXHAUSTED, "quota_exhausted", "account", said, scope="account")
        case 403 if problem is None:
            return _failure(Outcome.ACCESS_DENIED, "edge_refused", "network", said, retryable=True)
        case 403 if blank:
            # a server that repeats the status as its code has looked at the model; else it may be about anything
            about: Scope = "model" if status_of(problem) == 403 else "attempt"
            return _failure(Outcome.ACCESS_DENIED, "access_refused", "account", said, scope=about, retryable=True)
        case 404 if blank and status_of(problem) == 404:
            return _failure(Outcome.ACCESS_DENIED, "model_or_path_not_found", "account", said, scope="model")
        case 404 | 405 | 501 if blank:
            return _failure(Outcome.BAD_REQUEST, "not_found", "us", said)
        case 413 if blank:
            return _failure(Outcome.BAD_REQUEST, "request_too_large", "network", said)
        case 408:
            return _failure(Outcome.SERVER_ERROR, "upstream_timeout", "provider", said, asked=asked)
        case 409 | 425:
            return _failure(Outcome.SERVER_ERROR, "server_error", "provider", said, asked=asked)
        case 429:
            return _failure(Outcome.RATE_LIMITED, "rate_limited", "account", said, asked=asked)
        case 503 | 529 if code is None:
            return _failure(Outcome.OVERLOADED, "overloaded", "provider", said, asked=asked)
        case _ if 400 <= status < 500:
            return _failure(Outcome.BAD_REQUEST, "bad_request", "caller", said)
        case _ if status >= 500:
            # a proxied 4xx that calls the request invalid stays invalid; another try would replay it
            again = not is_invalid_request(problem)
            return _failure(Outcome.SERVER_ERROR, "server_error", "provider", said, asked=asked, retryable=again)
        case _:
            return _failure(Outcome.PROTOCOL_ERROR, "unexpected_status", "network", said)


def _blocked(code: Code, carrier: Carrier, after_output: bool, said: ProviderError | None) -> Failure:
    category: BlockCategory = code.category or "unknown"
    block = Block(
        category=category, code=code.name, carrier=carrier, after_output=after_output, advice=block_advice(category)
    )
    # "caller" is the side where something can be done, not a finding: a block says nothing about intent
    return Failure(Outcome.BLOCKED, code.name, "caller", block=block, provider=said)


def _provider_error(problem: ProviderProblem | None, http_status: int | None, request_id: str | None) -> ProviderError:
    """What the provider said, without its words: values that don't look like codes are left out (promise P7)."""
    return ProviderError(
        code=normalize_code(problem.code) if problem else None,
        type=normalize_code(problem.type) if problem else None,
        http_status=http_status,
        request_id=request_id,
    )


def _failure(
    outcome: Outcome,
    code: str,
    fault: Whose,
    provider: ProviderError | None = None,
    *,
    scope: Scope = "attempt",
    asked: float | None = None,
    retryable: bool | None = None,
) -> Failure:
    again = outcome in RETRYABLE if retryable is None else retryable
    wait = asked if asked is not None and math.isfinite(asked) and asked >= 0 else None
    return Failure(outcome, code, fault, again, scope, wait, provider=provider)
