"""Models and pauses as an app sees them. How a job is shown stands in `worker/jobs/view.py`: webhooks show it too."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from worker.jobs.catalogue import dollars
from worker.jobs.view import dumps, job_view
from worker.safety.access import ModelAccess
from worker.safety.endpoint import EndpointFit
from worker.safety.messages import job_error
from worker.store.admission.pauses import UNREADABLE, Pause
from worker.store.apps import ApiKey

__all__ = ["concerns", "dumps", "endpoint_view", "job_view", "model_view", "pause_view"]


def model_view(model: Any, access: ModelAccess) -> dict[str, Any]:
    """A model of the catalogue, and what is known of the access to it."""
    return {
        "id": model.id,
        "family": model.family,
        "tier": model.tier,
        "checked": model.checked,
        "input_per_million": _price(model.input),
        "output_per_million": _price(model.output),
        "cached_input_per_million": _price(model.cached_input),
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
    """How the workers' VIGIL_UPSTREAM fits the provider's server; all null before anybody has asked."""
    advice = endpoint.advice if endpoint else job_error("access_not_probed").advice
    shown = ("upstream", "fits", "best", "probed_at")
    return {**{name: getattr(endpoint, name, None) for name in shown}, "advice": advice}


def _price(amount: Decimal | None) -> str | None:
    return None if amount is None else dollars(amount)


def pause_view(pause: Pause) -> dict[str, Any]:
    """A pause; an end user is named by the safety identifier."""
    return {
        "scope": pause.kind,
        "name": pause.name or None,
        "note": pause.note,
        "by": pause.by,
        "since": pause.since,
        "until": pause.until,
    }


def concerns(pause: Pause, key: ApiKey) -> bool:
    """True when it may stop the app's own jobs; operators see every app's pause, and nobody else's end users."""
    operator = "ops" in key.scopes
    own = {"all": True, "model": True, "app": operator or pause.name == key.app, UNREADABLE: operator}
    return own.get(pause.kind, pause.app == key.app)
