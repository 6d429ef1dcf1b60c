"""Builds the packet for the provider's support: what was sent where, when, under which request id, and the result.

In the form that the access guide asks for. Made of content-free fields; the only free text is the app's own description
with its secrets removed. The provider's message is shown only if it is, word for word, one that is known to hold
nothing but names: any other may quote the prompt (promise P7). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from worker.jobs.record import Attempt, Check, Job, ProviderError
from worker.jobs.states import Evidence, Outcome
from worker.jobs.timestamps import iso_utc
from worker.safety.codes import normalize_code
from worker.safety.notices import SafetyNotice
from worker.safety.redact import Redacted, redact

Relevance = Literal["blocked", "denied", "checked", "rerouted", "delayed", "failed", "other"]

_RANK: Final[tuple[Relevance, ...]] = ("blocked", "denied", "checked", "rerouted", "delayed", "failed", "other")
_DENIED: Final = frozenset({Outcome.ACCESS_DENIED, Outcome.AUTH_FAILED, Outcome.QUOTA_EXHAUSTED})
_SURFACES: Final = {
    "background": "API, Responses (background mode, streamed)",
    "stream": "API, Responses (streamed)",
    "chat": "API, Chat Completions (streamed)",
}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
_UNKNOWN: Final = "not known"
_WITHHELD: Final = "its words are withheld, because they can quote the prompt; if they don't, add them by a description"
_LABELS: Final = (
    ("Surface", "surface"),
    ("Model", "model_line"),
    ("Organization", "organization"),
    ("Account", "account"),
    ("Exact message", "exact_message"),
    ("Request ID", "request_id"),
    ("Timestamp", "timestamp"),
    ("VPN or proxy", "vpn_or_proxy"),
)
_WIDTH: Final = max(len(label) for label, _ in _LABELS) + 2


def build_packet(
    job: Job, messages: Mapping[str, str], notices: Sequence[SafetyNotice], description: Redacted | None, now: datetime
) -> dict[str, Any]:
    """Return the packet as JSON values with its `text`; `messages`: the provider's messages by attempt number."""
    chosen = _relevant_attempts(job)
    requests = [_request(job, attempt, messages.get(str(attempt.number))) for attempt in chosen]
    body: dict[str, Any] = {
        "object": "support_packet",
        "job": job.id,
        "status": job.status.value,
        "created_at": iso_utc(now, "milliseconds"),
        "requests": requests,
        "notices": [
            {
                "type": n.type,
                "at": iso_utc(n.at, "milliseconds"),
                "subject": n.subject,
                "category": n.category,
                "request_id": n.request_id,
            }
            for n in notices
        ],
        "description": description.text if description else None,
        "redactions": [{"detector": found.detector, "count": found.times} for found in description.found]
        if description
        else [],
    }
    return {**body, "text": _text(body, job)}


def relevance(job: Job, attempt: Attempt) -> Relevance:
    """Return why this request matters to the provider's support."""
    evidence = {check.evidence for check in job.checks if check.attempt == attempt.number}
    if attempt.outcome is Outcome.BLOCKED:
        return "blocked"
    if attempt.outcome in _DENIED:
        return "denied"
    if Evidence.SIGNALLED in evidence:
        return "checked"
    if "rerouted" in attempt.flags or "model_conflict" in attempt.flags:
        return "rerouted"
    if evidence:
        return "delayed"
    return "failed" if attempt.error is not None else "other"


def _relevant_attempts(job: Job) -> list[Attempt]:
    """Return the relevant attempts, most relevant first, or the last attempt if none is."""
    ranked = sorted(job.attempts, key=lambda attempt: (_RANK.index(relevance(job, attempt)), attempt.number))
    return [attempt for attempt in ranked if relevance(job, attempt) != "other"] or list(job.attempts[-1:])


def _request(job: Job, attempt: Attempt, message: str | None) -> dict[str, Any]:
    at = attempt.finished_at or attempt.started_at
    checks = [check for check in job.checks if check.attempt == attempt.number]
    model, served = _name(attempt.model), _name(attempt.served_model)
    other = f" (served by {served})" if served is not None and served != model else ""
    who = _name(job.safety_identifier)
    return {
        "attempt": attempt.number,
        "why": relevance(job, attempt),
        "surface": _SURFACES.get(attempt.mode, "API"),
        "model": model or _UNKNOWN,
        "served_model": served,
        "model_line": f"{model or _UNKNOWN}{other}",
        "organization": _name(attempt.organization) or _UNKNOWN,
        "project": _name(attempt.project),
        "account": f"API key of project {_name(attempt.project) or _UNKNOWN}"
        + (f"; end user by safety_identifier {who}" if who else ""),
        "exact_message": _exact_message(job, attempt, checks, message),
        "outcome": attempt.outcome.value if attempt.outcome else None,
        "error": _error(job, attempt),
        "checks": [_check(check) for check in checks],
        "request_id": _name(attempt.request_id) or _UNKNOWN,
        "client_request_id": _name(attempt.client_request_id),
        "response_id": _name(attempt.response_id),
        "started_at": iso_utc(attempt.started_at, "milliseconds"),
        "ended_at": iso_utc(attempt.finished_at, "milliseconds") if attempt.finished_at else None,
        "timestamp": f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.}{at.microsecond // 1000:03} UTC (+00:00)",
        "proxy": attempt.proxied,
        "vpn_or_proxy": f"{'an' if attempt.proxied else 'no'} egress proxy was configured; whether a VPN was in use is "
        "not known to Vigil",
    }


def _exact_message(job: Job, attempt: Attempt, checks: Sequence[Check], message: str | None) -> str:
    """Return the provider's error as exactly as it can be shown without its prose."""
    error = _error(job, attempt)
    words = (message or "").strip()
    if words and words in _harmless_messages(attempt):
        error_text = f'"{words}"'
    elif words or error["code"] or error["type"]:
        error_text = f"error {_WITHHELD}" if words else "an error without words"
    else:
        error_text = ""
    named = ", ".join(
        f"{name} {value}"
        for name, value in (("code", error["code"]), ("type", error["type"]), ("HTTP", error["http_status"]))
        if value
    )
    if error_text:
        return f"{error_text} ({named})" if named else error_text
    if checks:
        return "no error; " + "; ".join(_check_line(check) for check in checks)
    return "no error was reported"


def _harmless_messages(attempt: Attempt) -> set[str]:
    """Return messages that hold nothing but names which are in this packet anyway (wire.md section 4)."""
    return {
        f"The model `{attempt.model}` does not exist or you do not have access to it.",
        f"Project `{attempt.project}` does not have access to model `{attempt.model}`",
        f"Project `{attempt.project}` does not have access to model `{attempt.model}`.",
    }


def _error(job: Job, attempt: Attempt) -> dict[str, Any]:
    """Return the provider's code, type and status; each only if it looks like one."""
    provider = (attempt.error.provider if attempt.error is not None else None) or ProviderError()
    code = normalize_code(provider.code)
    if code is None and attempt.outcome is Outcome.BLOCKED and job.block is not None:
        code = normalize_code(job.block.code)
    status = provider.http_status or attempt.http_status
    return {"code": code, "type": normalize_code(provider.type), "http_status": status}


def _check(check: Check) -> dict[str, Any]:
    seconds = max(0.0, (check.ended_at - check.started_at).total_seconds()) if check.ended_at else None
    return {
        "evidence": check.evidence.value,
        "seconds": None if seconds is None else round(seconds, 3),
        "use_cases": [word for word in map(normalize_code, check.use_cases) if word],
        "reasons": [word for word in map(normalize_code, check.reasons) if word],
    }


def _check_line(check: Check) -> str:
    shown = _check(check)
    lasted = f" for {shown['seconds']:g} s" if shown["seconds"] is not None else ""
    if check.evidence is not Evidence.SIGNALLED:
        return f"silence{lasted}, which may have been a safety check"
    about = ", ".join([*shown["use_cases"], *shown["reasons"]])
    return f"an additional safety check was signalled{lasted}" + (f" ({about})" if about else "")


def _name(value: str | None) -> str | None:
    """Return an id or a name, or None for anything that could be prose or a secret."""
    if value is None or _NAME.fullmatch(value) is None or redact(value).found:
        return None
    return value


def _text(body: Mapping[str, Any], job: Job) -> str:
    """Render the text: the most relevant request, the description, then the other requests."""
    lines = [f"Support request about {job.id} (made by Vigil; it holds no prompt and no output)", ""]
    first, *others = body["requests"] or [None]
    if first is None:
        lines += _fields(_fields_without_request(job))
    else:
        lines += _fields(first)
    about = str(body["description"] or "(none given)").splitlines() or [""]
    lines.append(_line("Description", about[0]))
    lines += [" " * _WIDTH + line for line in about[1:]]
    for notice in body["notices"]:
        name = f", {notice['subject']}" if notice["subject"] else ""
        lines.append(_line("Notice", f"{notice['type']}{name}, {notice['at']}"))
    for other in others:
        lines += ["", f"Also attempt {other['attempt']} ({other['why']}):", *_fields(other)]
    return "\n".join(lines) + "\n"


def _fields(request: Mapping[str, Any]) -> list[str]:
    return [_line(label, str(request[name])) for label, name in _LABELS]


def _line(label: str, value: str) -> str:
    return f"{label + ':':<{_WIDTH}}{value}"


def _fields_without_request(job: Job) -> dict[str, str]:
    """Return the fields of a job that was never sent to the provider."""
    error_text = f"no request was sent ({job.error.code})" if job.error is not None else "no request was sent yet"
    return {
        **dict.fromkeys((name for _, name in _LABELS), _UNKNOWN),
        "surface": "API",
        "model_line": _name(job.requested_model) or _UNKNOWN,
        "exact_message": error_text,
        "request_id": "none",
        "timestamp": iso_utc(job.finished_at or job.created_at, "milliseconds"),
    }
