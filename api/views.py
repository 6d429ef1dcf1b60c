"""A model as an app sees it. How a job is shown stands in `worker/jobs/view.py`: webhooks show it too."""

from __future__ import annotations

from typing import Any

from worker.jobs.catalogue import dollars
from worker.jobs.view import dumps, job_view

__all__ = ["dumps", "job_view", "model_view"]


def model_view(model: Any) -> dict[str, Any]:
    """A model of the catalogue; nobody has probed it yet."""
    access = {"status": "unknown", "since": None, "probed_at": None, "request_id": None}
    return {
        "id": model.id,
        "family": model.family,
        "tier": model.tier,
        "checked": model.checked,
        "input_per_million": dollars(model.input),
        "output_per_million": dollars(model.output),
        "cached_input_per_million": None if model.cached_input is None else dollars(model.cached_input),
        "aliases": model.aliases,
        "access": {**access, "advice": "Not probed yet: run `vigil probe` to learn whether this key may call it."},
    }
