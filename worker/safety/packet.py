"""Builds the packet for the provider's support: what was sent where, when, under which request id, and the result.

Its text has the labels of the access guide, word for word and in order; each line says what is known, or that it is
not. Made of content-free fields, the app's own description without its secrets, and the provider's message without what
it quotes (see `provider_message`, promise P7). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.record import Attempt, Check, Job, ProviderError
from worker.jobs.states import Evidence, Outcome
from worker.jobs.timestamps import iso_utc
from worker.jobs.view_schema import MessageCut
from worker.safety.appeals import Appeal
from worker.safety.codes import normalize_code
from worker.safety.notices import SafetyNotice
from worker.safety.packet_advice import NO_EMAIL, NO_WORKSPACE, AccountFacts, packet_advice
from worker.safety.packet_schema import (
    PacketAppealView,
    PacketCheckView,
    PacketErrorView,
    PacketRequestView,
    Relevance,
    SupportPacketView,
)
from worker.safety.redact import Redacted, redact

_RANK: Final[tuple[Relevance, ...]] = ("blocked", "denied", "checked", "rerouted", "delayed", "failed", "other")
_DENIED: Final = frozenset({Outcome.ACCESS_DENIED, Outcome.AUTH_FAILED, Outcome.QUOTA_EXHAUSTED})
_SURFACES: Final = {
    "background": "API, Responses (background mode, streamed)",
    "stream": "API, Responses (streamed)",
    "chat": "API, Chat Completions (streamed)",
}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
_UNKNOWN: Final = "not known"
_NOT_COMPARED: Final = "whose words are withheld, because they could not be compared with the request and the answer"
_CUT_NOTE: Final = "Vigil cut the parts in brackets"
_LABELS: Final = (
    ("Surface", "surface"),
    ("Model", "model_line"),
    ("API organization ID or Codex workspace ID", "organization_line"),
    ("Approved account email", "account_line"),
    ("Exact error message", "exact_message"),
    ("Request ID", "request_id"),
    ("Timestamp and timezone", "timestamp"),
    ("VPN/proxy status", "vpn_or_proxy"),
)
_DESCRIPTION: Final = "Brief redacted task description"
_INDENT: Final = "    "  # of further lines of a value, so that none of them passes for a field


class ShownMessage(NamedTuple):
    """What may be shown of the provider's message on an attempt, and why something of it is cut."""

    text: str | None = None
    cut: Sequence[MessageCut] = ()


def build_packet(
    job: Job,
    messages: Mapping[int, ShownMessage],
    notices: Sequence[SafetyNotice],
    description: Redacted | None,
    now: datetime,
    account: AccountFacts,
    appeals: Sequence[Appeal] = (),
) -> SupportPacketView:
    """Return the packet with its `text`; `messages`: the provider's messages by attempt number."""
    chosen = _relevant_attempts(job)
    requests = [_request(job, attempt, messages.get(attempt.number, ShownMessage()), account) for attempt in chosen]
    body: SupportPacketView = {
        "object": "support_packet",
        "job": job.id,
        "status": job.status,
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
        "appeals": [_appeal(one) for one in appeals],
        "description": description.text if description else None,
        "redactions": [{"detector": found.detector, "count": found.times} for found in description.found]
        if description
        else [],
        "advice": packet_advice(job, account, cut=any(request["exact_message_cut"] for request in requests)),
        "text": "",
    }
    return {**body, "text": _text(body, job, account)}


def _appeal(appeal: Appeal) -> PacketAppealView:
    return {
        "id": appeal.id,
        "state": appeal.state,
        "outcome": appeal.outcome,
        "provider_case": _name(appeal.provider_case),
        "opened_at": iso_utc(appeal.opened_at, "milliseconds"),
        "sent_at": _time(appeal.sent_at),
        "answered_at": _time(appeal.answered_at),
        "closed_at": _time(appeal.closed_at),
    }


def _time(at: datetime | None) -> str | None:
    return iso_utc(at, "milliseconds") if at is not None else None


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


def _request(job: Job, attempt: Attempt, message: ShownMessage, account: AccountFacts) -> PacketRequestView:
    at = attempt.finished_at or attempt.started_at
    checks = [check for check in job.checks if check.attempt == attempt.number]
    model, served = _name(attempt.model), _name(attempt.served_model)
    other = f" (served by {served})" if served is not None and served != model else ""
    who = _name(job.safety_identifier)
    key = f"API key of project {_name(attempt.project) or _UNKNOWN}"
    key += f"; end user by safety_identifier {who}" if who else ""
    return {
        "attempt": attempt.number,
        "why": relevance(job, attempt),
        "surface": _surface(account, _SURFACES.get(attempt.mode, "API")),
        "model": model or _UNKNOWN,
        "served_model": served,
        "model_line": f"{model or _UNKNOWN}{other}",
        "organization": _name(attempt.organization) or _UNKNOWN,
        "project": _name(attempt.project),
        "organization_line": _organization(account, _name(attempt.organization), attempt.account),
        "account": key,
        "account_email": account.email,
        "account_line": f"{account.email or NO_EMAIL}; {key}",
        "exact_message": _exact_message(job, attempt, checks, message),
        "exact_message_cut": list(message.cut),
        "outcome": attempt.outcome,
        "error": _error(job, attempt),
        "checks": [_check(check) for check in checks],
        "request_id": _name(attempt.request_id) or _UNKNOWN,
        "client_request_id": _name(attempt.client_request_id),
        "response_id": _name(attempt.response_id),
        "started_at": iso_utc(attempt.started_at, "milliseconds"),
        "ended_at": iso_utc(attempt.finished_at, "milliseconds") if attempt.finished_at else None,
        "timestamp": _timestamp(at),
        "proxy": attempt.proxied,
        "vpn_or_proxy": f"{'an' if attempt.proxied else 'no'} egress proxy was configured; whether a VPN was in use is "
        "not known to Vigil",
    }


def _timestamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.}{at.microsecond // 1000:03} UTC (+00:00)"


def _surface(account: AccountFacts, api: str) -> str:
    return f"Codex, by requests that Vigil sent ({api})" if account.surface == "codex" else api


def _organization(account: AccountFacts, answered: str | None, called: str) -> str:
    """Return the id that the surface asks for, and where it is from; `called`: the name of the account."""
    stated, where = account.stated(called)
    if account.surface == "codex":
        workspace = account.workspace or NO_WORKSPACE
        return f"{workspace}; API organization of the key: {answered or stated or _UNKNOWN}"
    if answered is not None or stated is None:
        return answered or f"{_UNKNOWN} (the provider's answer did not name the API organization)"
    return f"{stated} (as {where}; the provider's answer did not name one)"


def _exact_message(job: Job, attempt: Attempt, checks: Sequence[Check], message: ShownMessage) -> str:
    """Return the provider's message and codes, or what is known instead of them."""
    error = _error(job, attempt)
    if message.text:
        error_text = f'"{message.text}"'
    elif "not_compared" in message.cut:
        error_text = f"an error {_NOT_COMPARED}"
    else:
        error_text = "an error without words" if error["code"] or error["type"] else ""
    rows = (("code", error["code"]), ("type", error["type"]), ("HTTP", error["http_status"]))
    notes = [f"{name} {value}" for name, value in rows if value]
    named = ", ".join(notes + ([_CUT_NOTE] if message.text and message.cut else []))
    if error_text:
        return f"{error_text} ({named})" if named else error_text
    if checks:
        return "no error; " + "; ".join(_check_line(check) for check in checks)
    return "no error was reported"


def _error(job: Job, attempt: Attempt) -> PacketErrorView:
    """Return the provider's code, type and status; each only if it looks like one."""
    provider = (attempt.error.provider if attempt.error is not None else None) or ProviderError()
    code = normalize_code(provider.code)
    if code is None and attempt.outcome is Outcome.BLOCKED and job.block is not None:
        code = normalize_code(job.block.code)
    status = provider.http_status or attempt.http_status
    return {"code": code, "type": normalize_code(provider.type), "http_status": status}


def _check(check: Check) -> PacketCheckView:
    seconds = max(0.0, (check.ended_at - check.started_at).total_seconds()) if check.ended_at else None
    return {
        "evidence": check.evidence,
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


def _text(body: SupportPacketView, job: Job, account: AccountFacts) -> str:
    """Render the text: the guide's template about the most relevant request, then the other requests and the advice."""
    lines = [f"Support request about {job.id} (made by Vigil; it holds no prompt and no output)", ""]
    others = body["requests"][1:]
    lines += _fields(body["requests"][0] if body["requests"] else _fields_without_request(job, account))
    lines.append(_line(_DESCRIPTION, str(body["description"] or "not known to Vigil (none was given)")))
    for notice in body["notices"]:
        name = f", {notice['subject']}" if notice["subject"] else ""
        lines.append(_line("Notice", f"{notice['type']}{name}, {notice['at']}"))
    for appeal in body["appeals"]:
        case = f", case {appeal['provider_case']}" if appeal["provider_case"] else ""
        ended = f", {appeal['outcome']}" if appeal["outcome"] else ""
        sent = f", sent {appeal['sent_at']}" if appeal["sent_at"] else ""
        lines.append(_line("Appeal", f"{appeal['id']}{case}, {appeal['state']}{ended}{sent}"))
    for other in others:
        lines += ["", f"Also attempt {other['attempt']} ({other['why']}):", *_fields(other)]
    if body["advice"]:
        lines += ["", "Before you send this (remove these lines then):", *(f"- {one}" for one in body["advice"])]
    return "\n".join(lines) + "\n"


def _fields(request: Mapping[str, object]) -> list[str]:
    return [_line(label, str(request[name])) for label, name in _LABELS]


def _line(label: str, value: str) -> str:
    return f"{label}: " + f"\n{_INDENT}".join(value.splitlines() or [""])


def _fields_without_request(job: Job, account: AccountFacts) -> dict[str, str]:
    """Return the fields of a job that was never sent to the provider."""
    error_text = f"no request was sent ({job.error.code})" if job.error is not None else "no request was sent yet"
    called = job.hold.account if job.hold is not None and job.hold.account is not None else DEFAULT_ACCOUNT
    return {
        **dict.fromkeys((name for _, name in _LABELS), _UNKNOWN),
        "surface": _surface(account, "API"),
        "model_line": _name(job.requested_model) or _UNKNOWN,
        "organization_line": _organization(account, None, called),
        "account_line": account.email or NO_EMAIL,
        "vpn_or_proxy": "not known to Vigil, because no request was sent",
        "exact_message": error_text,
        "request_id": "none",
        "timestamp": _timestamp(job.finished_at or job.created_at),
    }
