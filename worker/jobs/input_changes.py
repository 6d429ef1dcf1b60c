"""Discloses what the provider removed from a job's input by itself. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from worker.jobs.record import Job
from worker.jobs.view_schema import InputChangesView

_REASONS: Final = {
    "organization_mismatch": "it was made for another organisation",
    "end_user_mismatch": "it was made for another end user",
    "model_mismatch": "it was made by another model",
    "prefix_mismatch": "what came before it in the input had changed",
    "turn_boundary": "it belongs to an earlier turn",
}
"""Reasons of the SDK's InputTransformation (openai 3.57.0)."""


def input_changes(job: Job) -> InputChangesView | None:
    """Return what was removed for the attempt that answered, or for the last one, with a sentence about it; or None."""
    if not job.attempts:
        return None
    attempt = job.attempt(job.winner) if job.winner is not None else job.attempts[-1]
    removed = [change for change in attempt.input_transformations if change.action == "removed"]
    if not removed:
        return None
    reasons = list(dict.fromkeys(change.reason for change in removed if change.reason))
    return {"removed": len(removed), "reasons": reasons, "message": _message(len(removed), reasons)}


def _message(count: int, reasons: Collection[str]) -> str:
    items = "one item" if count == 1 else f"{count} items"
    why = " or ".join(_REASONS.get(reason, f"of {reason}") for reason in reasons)
    return (
        f"The provider removed {items} of earlier reasoning from the input before the model read it"
        f"{f' (because {why})' if why else ''}: the answer was made without it."
    )
