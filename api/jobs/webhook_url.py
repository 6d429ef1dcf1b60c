"""Checks URLs that webhooks are sent to; a refused one becomes the error of a field."""

from __future__ import annotations

from api.web.problems import Problem, fault
from worker.jobs.errors import Refused
from worker.settings import Settings
from worker.webhooks import guard


def check_webhook_url(text: str, settings: Settings, pointer: str = "/webhook/url") -> str:
    """Return the normalised URL; raise a Problem (422) with the reason if webhooks must not be sent to it."""
    try:
        return guard.check_webhook_url(text, settings)
    except Refused as refused:
        errors = [fault(pointer, refused.detail, refused.code)]
        raise Problem(refused.status, refused.code, refused.detail, errors) from None
