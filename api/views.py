"""A model as an app sees it. How a job is shown stands in `worker/jobs/view.py`: webhooks show it too."""

from __future__ import annotations

from typing import Any

from worker.jobs.catalogue import dollars
from worker.jobs.view import dumps, job_view
from worker.safety.access import Access

__all__ = ["dumps", "job_view", "model_view"]


def model_view(model: Any, access: Access) -> dict[str, Any]:
    """A model of the catalogue, and what is known of the access to it."""
    return {
        "id": model.id,
        "family": model.family,
        "tier": model.tier,
        "checked": model.checked,
        "input_per_million": dollars(model.input),
        "output_per_million": dollars(model.output),
        "cached_input_per_million": None if model.cached_input is None else dollars(model.cached_input),
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
