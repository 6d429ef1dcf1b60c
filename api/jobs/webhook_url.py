"""Addresses that webhooks may be sent to, as answers of the API: the guard's refusal becomes a fault of a field."""

from __future__ import annotations

from api.web.problems import Problem, fault
from worker.jobs.errors import Refused
from worker.settings import Settings
from worker.webhooks import guard


def check_webhook_url(text: str, settings: Settings, pointer: str = "/webhook/url") -> str:
    """The one spelling to store and to dial; 422 with the reason for an address that we may not call."""
    try:
        return guard.check_webhook_url(text, settings)
    except Refused as no:
        raise Problem(no.status, no.code, no.detail, [fault(pointer, no.detail, no.code)]) from None
