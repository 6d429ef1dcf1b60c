"""What the provider's safety team would tell of a request: events for webhooks, and the pages behind them.

It must not know how an event is signed or sent.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from .wire import Json

NOTIFY = ("identifier_blocked", "warning", "deactivation", "alert")
_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """Of the request that is told about: who asked which model, and how the provider called it."""

    model: str
    project: str
    request_id: str
    response_id: str | None
    safety_identifier: str | None
    category: str


class Pages:
    """The pages under /v1/safety, by their last two steps; the oldest go first."""

    def __init__(self) -> None:
        """Start empty."""
        self._pages: dict[str, Json] = {}

    def put(self, name: str, page: Json) -> None:
        """Keep a page under the name of its case or alert."""
        self._pages[name] = page
        while len(self._pages) > _KEPT:
            del self._pages[next(iter(self._pages))]

    def get(self, name: str) -> Json | None:
        """The page of that name."""
        return self._pages.get(name)


def event(what: str, asked: Asked, pages: Pages) -> tuple[str, Json] | None:
    """(type, data) of the webhook for one of NOTIFY, its page kept; None when the request names no end user."""
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
                "model": asked.model,
                "reason": "simulated: a description for customers",
                "request_id": asked.request_id,
                "request_paused": True,
                "response_id": asked.response_id or "resp_unknown",
            },
        )
        return "safety.alert.created", {"id": name}
    if asked.safety_identifier is None:
        return None
    if what == "identifier_blocked":
        data: Json = {
            "safety_category": asked.category,
            "safety_identifier": asked.safety_identifier,
            "model": asked.model,
            "project_id": asked.project,
            "request_id": asked.request_id,
        }
        return "safety_identifier.blocked", data
    name = f"C-{secrets.token_hex(8)}"
    pages.put(
        name,
        {
            "id": name,
            "object": "safety.case",
            "created_at": now,
            "entity_identifier": asked.safety_identifier,
            "notice": {"type": what},
            "reason": f"{asked.category}_abuse",
        },
    )
    return f"safety.{what}_issued", {"id": name}
