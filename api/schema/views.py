"""Models and pauses as an app sees them. The view of a job is in `worker/jobs/view.py`, because webhooks use it too."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from worker.jobs.catalogue import dollars
from worker.jobs.model import Model
from worker.jobs.view import dumps, job_view
from worker.safety.access import ModelAccess
from worker.safety.endpoint import EndpointFit
from worker.safety.messages import job_error
from worker.store.admission.pauses import UNREADABLE, Pause
from worker.store.apps import ApiKey

__all__ = ["dumps", "endpoint_view", "job_view", "may_see_pause", "model_view", "pause_view"]


def model_view(model: Model, access: ModelAccess, now: datetime) -> dict[str, Any]:
    """Return a model of the catalogue with its prices now, and what is known about the access to it.

    `object`, `created` and `owned_by` are there for clients of OpenAI, which require them. The catalogue does not know
    when a model was made: `created` is when its price began, else 0.
    """
    row = model.row(now)
    return {
        "id": model.id,
        "object": "model",
        "created": int(row.start.timestamp()) if row is not None and row.start is not None else 0,
        "owned_by": "vigil",
        "family": model.family,
        "tier": model.tier,
        "checked": model.checked,
        "input_per_million": row and dollars(row.input),
        "output_per_million": row and dollars(row.output),
        "cached_input_per_million": row and _price(row.cached_input),
        "price_from": row and row.start,
        "price_until": row and row.end,
        "price_checked_on": row and row.checked_on,
        "efforts_refused": model.efforts_refused,
        "shutdown_date": access.shutdown_date or model.shutdown_date,
        "aliases": model.aliases,
        "access": {
            "status": access.status,
            "since": access.since,
            "probed_at": access.probed_at,
            "request_id": access.request_id,
            "advice": access.advice,
            "skipped": access.skipped,
            "next_probe_at": access.next_probe_at,
        },
    }


def endpoint_view(endpoint: EndpointFit | None) -> dict[str, Any]:
    """Return whether the workers' VIGIL_UPSTREAM fits the provider's server; all null before the first probe."""
    advice = endpoint.advice if endpoint else job_error("access_not_probed").advice
    names = ("upstream", "fits", "best", "probed_at")
    return {**{name: getattr(endpoint, name, None) for name in names}, "advice": advice}


def _price(amount: Decimal | None) -> str | None:
    return None if amount is None else dollars(amount)


def pause_view(pause: Pause) -> dict[str, Any]:
    """Return a pause; an end user is named by the safety identifier."""
    return {
        "scope": pause.kind,
        "name": pause.name or None,
        "note": pause.note,
        "by": pause.by,
        "since": pause.since,
        "until": pause.until,
    }


def may_see_pause(pause: Pause, key: ApiKey) -> bool:
    """Return whether the key may see the pause: it can stop jobs of the key's app, or the key is an operator's."""
    operator = "ops" in key.scopes
    own = {"all": True, "model": True, "app": operator or pause.name == key.app, UNREADABLE: operator}
    return own.get(pause.kind, pause.app == key.app)
