"""Models and pauses as an app sees them. The view of a job is in `worker/jobs/view.py`, because webhooks use it too."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from api.schema.responses import ModelView, PauseView, ProviderEndpointView
from worker.jobs.catalogue import dollars
from worker.jobs.model import Model
from worker.jobs.view import dumps, job_view
from worker.safety.access import ModelAccess
from worker.safety.endpoint import EndpointFit
from worker.safety.messages import job_error
from worker.store.admission.pauses import UNREADABLE, Pause
from worker.store.apps import ApiKey

__all__ = ["dumps", "endpoint_view", "job_view", "may_see_pause", "model_view", "pause_view"]


def model_view(model: Model, access: ModelAccess, now: datetime) -> ModelView:
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
        "input_per_million": dollars(row.input) if row else None,
        "output_per_million": dollars(row.output) if row else None,
        "cached_input_per_million": _price(row.cached_input) if row else None,
        "price_from": row.start if row else None,
        "price_until": row.end if row else None,
        "price_checked_on": row.checked_on if row else None,
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


def endpoint_view(endpoint: EndpointFit | None) -> ProviderEndpointView:
    """Return whether the workers' VIGIL_UPSTREAM fits the provider's server; all null before the first probe."""
    if endpoint is None:
        advice = job_error("access_not_probed").advice
        return {"upstream": None, "fits": None, "best": None, "probed_at": None, "advice": advice}
    return {
        "upstream": endpoint.upstream,
        "fits": endpoint.fits,
        "best": endpoint.best,
        "probed_at": endpoint.probed_at,
        "advice": endpoint.advice,
    }


def _price(amount: Decimal | None) -> str | None:
    return None if amount is None else dollars(amount)


def pause_view(pause: Pause) -> PauseView:
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
