"""Reads the webhooks of the provider's safety team into notices, and tells whom they concern.

A notice keeps names, codes and times; the provider's free text is left out, because it may quote a prompt. Pure: it
must not depend on Redis or signatures.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from pydantic import Field

from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.frozen import StoredRecord
from worker.jobs.record import JobError
from worker.jobs.view_schema import NoticeAbout, NoticeView
from worker.safety.codes import normalize_code
from worker.safety.messages import job_error

BLOCKED: Final = "safety_identifier.blocked"
WARNING: Final = "safety.warning_issued"
DEACTIVATION: Final = "safety.deactivation_issued"
ALERT: Final = "safety.alert.created"
ORG_ALERT: Final = "safety.org_alert.created"

TYPES: Final = frozenset({BLOCKED, WARNING, DEACTIVATION, ALERT, ORG_ALERT})
"""The events that become notices (wire.md section 8)."""
RESPONSE_END_TYPES: Final = frozenset(
    {"response.completed", "response.failed", "response.incomplete", "response.cancelled"}
)
"""The events that report the end of a background response; they do not include the result."""
QUARANTINING: Final = frozenset({BLOCKED, DEACTIVATION})
"""The notices after which the provider refuses that end user, so nothing more should be sent."""

Lookup = Literal["none", "pending", "done", "refused"]

_LOOKED_UP: Final = {WARNING: "case", DEACTIVATION: "case", ALERT: "alert"}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,199}")
_ID: Final = re.compile(r"[!-~]{1,4096}")  # a cut id would name nothing; an id has no space
_TYPE: Final = re.compile(r"[a-z0-9_.]{1,100}")
_MESSAGE_CODES: Final = {
    BLOCKED: "notice_identifier_blocked",
    WARNING: "notice_warning",
    DEACTIVATION: "notice_deactivation",
    ALERT: "notice_alert",
    ORG_ALERT: "notice_org_alert",
}
_LOOKUP_DELAYS_S: Final = (2.0, 10.0, 60.0, 300.0, 1800.0, 7200.0)
"""Seconds until a notice is looked up again: a webhook may come before the record of the request that it names, and the
provider's pages may be unavailable for a while."""
_MAX_SKEW: Final = timedelta(days=30)


class SafetyNotice(StoredRecord):
    """One notice of the provider; content-free."""

    id: str  # the event's own id, so that the same event under another webhook-id is the same notice
    type: str
    at: datetime  # the provider's time of the event
    received_at: datetime
    safety_identifier: str | None = None
    request_id: str | None = None
    response_id: str | None = None
    model: str | None = None
    project: str | None = None
    category: str | None = None
    subject: str | None = None  # the id of the case or the alert, for an answer to the provider
    # added later, by lookup and by matching it to Vigil's own records
    lookup: Lookup = "none"
    request_paused: bool | None = None
    tries: int = 0
    app: str | None = None
    jobs: tuple[str, ...] = ()
    account: str = Field(default=DEFAULT_ACCOUNT, exclude_if=lambda value: value == DEFAULT_ACCOUNT)  # that sent it
    shut_out: bool = False  # the end user was quarantined because of it

    @property
    def about(self) -> NoticeAbout:
        """Return whom it concerns: one request, one end user, or the account."""
        if self.request_id is not None or self.response_id is not None:
            return "request"
        return "end_user" if self.safety_identifier is not None else "account"

    @property
    def page(self) -> tuple[str, str] | None:
        """Return ("case" | "alert", its id) if the provider has a page about it, else None."""
        kind = _LOOKED_UP.get(self.type)
        return (kind, self.subject) if kind is not None and self.subject is not None else None

    @property
    def message(self) -> JobError:
        """Return the message: what it means and what to do next."""
        return job_error(_MESSAGE_CODES[self.type])

    def learned(self, page: Mapping[str, Any]) -> SafetyNotice:
        """Return the notice with missing fields filled in from its page."""
        notice = page.get("notice")
        kind = notice.get("type") if isinstance(notice, dict) else None
        reason = _code(page.get("reason")) or _code(page.get("error_type")) or _code(kind)
        paused = page.get("request_paused")
        return self.evolve(
            safety_identifier=self.safety_identifier or _name(page.get("entity_identifier")),
            request_id=self.request_id or _id(page.get("request_id")),
            response_id=self.response_id or _id(page.get("response_id")),
            model=self.model or _name(page.get("model")),
            category=self.category or reason,
            request_paused=paused if isinstance(paused, bool) else self.request_paused,
            lookup="done",
        )

    @property
    def wait(self) -> float | None:
        """Return the seconds until the next lookup, or None if none is needed or all were made."""
        joined = self.about == "account" or bool(self.jobs)
        if (joined and self.lookup != "pending") or self.tries > len(_LOOKUP_DELAYS_S):
            return None
        return _LOOKUP_DELAYS_S[max(0, self.tries - 1)]

    def view(self) -> NoticeView:
        """Return the notice as the app of a job sees it."""
        message = self.message
        return {
            "id": self.id,
            "type": self.type,
            "at": self.at,
            "received_at": self.received_at,
            "about": self.about,
            "request_id": self.request_id,
            "model": self.model,
            "category": self.category,
            "subject": self.subject,
            "request_paused": self.request_paused,
            "message": message.message,
            "advice": message.advice,
        }


def project_of(event: Mapping[str, Any]) -> str | None:
    """Return the project that an event names, or None."""
    return _name(_data(event).get("project_id"))


def type_of(event: Mapping[str, Any]) -> str | None:
    """Return the event's type, or None if it has no valid one."""
    kind = event.get("type")
    return kind if isinstance(kind, str) and _TYPE.fullmatch(kind) else None


def response_id_of(event: Mapping[str, Any]) -> str | None:
    """Return the id of the response that an event of RESPONSE_END_TYPES is about."""
    return _id(_data(event).get("id"))


def read(
    event: Mapping[str, Any], webhook_id: str, now: datetime, account: str = DEFAULT_ACCOUNT
) -> SafetyNotice | None:
    """Return the notice of a webhook's event that an account received, or None if it is of another type."""
    kind = type_of(event)
    if kind is None or kind not in TYPES:
        return None
    data = _data(event)
    notice = SafetyNotice(
        id=_name(event.get("id")) or "evt_" + hashlib.sha256(webhook_id.encode()).hexdigest()[:32],
        type=kind,
        at=_time(event.get("created_at"), now),
        received_at=now,
        safety_identifier=_name(data.get("safety_identifier")),
        request_id=_id(data.get("request_id")),
        model=_name(data.get("model")),
        project=project_of(event),
        account=account,
        category=_code(data.get("safety_category")),
        subject=None if kind == BLOCKED else _name(data.get("id")),
    )
    return notice.evolve(lookup="pending") if notice.page is not None else notice


def _data(event: Mapping[str, Any]) -> Mapping[str, Any]:
    data = event.get("data")
    return data if isinstance(data, dict) else {}


def _name(value: object) -> str | None:
    """Return an id or a model's name, or None for anything that could be prose."""
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None


def _id(value: object) -> str | None:
    return value if isinstance(value, str) and _ID.fullmatch(value) else None


def _code(value: object) -> str | None:
    return normalize_code(value) if isinstance(value, str) else None


def _time(value: object, now: datetime) -> datetime:
    """Return the provider's Unix time if it is plausible, else now."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return now
    try:
        at = datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return now
    return at if abs(at - now) <= _MAX_SKEW else now
