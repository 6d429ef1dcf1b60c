"""Makes the notices of the provider's safety team about a request: webhook events, and the pages behind them.

It must not depend on how an event is signed or sent.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from .wire import Json

_MAX_PAGES = 1000


@dataclass(frozen=True, slots=True)
class NoticeSubject:
    """The request that a notice is about: end user, model and the provider's ids."""

    model: str
    project: str
    request_id: str
    response_id: str | None
    safety_identifier: str | None
    category: str


class SafetyPages:
    """The pages under /v1/safety, by their last two steps; the oldest go first."""

    def __init__(self) -> None:
        """Start empty."""
        self._pages: dict[str, Json] = {}

    def put(self, name: str, page: Json) -> None:
        """Store a page under the id of its case or alert."""
        self._pages[name] = page
        while len(self._pages) > _MAX_PAGES:
            del self._pages[next(iter(self._pages))]

    def get(self, name: str) -> Json | None:
        """Return the page with that id."""
        return self._pages.get(name)


def event(what: str, subject: NoticeSubject, pages: SafetyPages) -> tuple[str, Json] | None:
    """Return (type, data) of the webhook for a kind of notice and store its page, or None if there is no end user."""
    now = int(time.time())
    if what == "alert":
        name = f"alert_{secrets.token_hex(16)}"
        pages.put(
            name,
            {
                "id": name,
                "object": "safety.alert",
                "created_at": now,
                "error_type": "potentially_unintended_data_access",
                "model": subject.model,
                "reason": "simulated: a description for customers",
                "request_id": subject.request_id,
                "request_paused": True,
                "response_id": subject.response_id or "resp_unknown",
            },
        )
        return "safety.alert.created", {"id": name}
    if subject.safety_identifier is None:
        return None
    if what == "identifier_blocked":
        data: Json = {
            "safety_category": subject.category,
            "safety_identifier": subject.safety_identifier,
            "model": subject.model,
            "project_id": subject.project,
            "request_id": subject.request_id,
        }
        return "safety_identifier.blocked", data
    name = f"C-{secrets.token_hex(8)}"
    pages.put(
        name,
        {
            "id": name,
            "object": "safety.case",
            "created_at": now,
            "entity_identifier": subject.safety_identifier,
            "notice": {"type": what},
            "reason": f"{subject.category}_abuse",
        },
    )
    return f"safety.{what}_issued", {"id": name}
