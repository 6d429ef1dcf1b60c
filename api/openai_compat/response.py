"""Builds OpenAI's Response object of a job's record, input and output, with a `vigil` object of our own in it.

Pure: no HTTP, no Redis. Only completed jobs show output, as in the native API.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, cast

from api.openai_compat.failures import error_of
from api.schema.views import job_view
from worker.jobs import ids
from worker.jobs.input_items import output_id
from worker.jobs.record import Job
from worker.jobs.states import Status
from worker.jobs.view_schema import JobUsageView

Json = dict[str, Any]

_STATUSES: Final = {
    Status.QUEUED: "queued",
    Status.SCHEDULED: "queued",
    Status.RUNNING: "in_progress",
    Status.CHECKING: "in_progress",
    Status.COMPLETED: "completed",
    Status.BLOCKED: "failed",
    Status.FAILED: "failed",
    Status.CANCELLED: "cancelled",
    Status.EXPIRED: "failed",
}
_DEFAULTS: Final[Json] = {
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "reasoning": {"effort": None, "summary": None},
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
}
_ECHOED: Final = ("prompt", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "service_tier")
_VIGIL_FIELDS: Final = (
    *("status", "reason", "requested_model", "served_model", "disclosure", "safety", "offer", "hold"),
    *("cost", "error", "next_attempt_at", "unreadable", "unfiltered"),
)


class ResponseSource:
    """A job with all that its Response objects are made of."""

    def __init__(self, job: Job, private: Json, request: Json | None, output: Json | None) -> None:
        self.job, self._private, self._request = job, private, request or {}
        self._view = job_view(job, private, output, None, "")

    def created(self) -> Json:
        """Return the response as it was when the job was accepted, whatever has happened since."""
        return self._initial("queued")

    def started(self) -> Json:
        """Return the response as it was when the first run began, whatever has happened since."""
        return self._initial("in_progress")

    def current(self) -> Json:
        """Return the response in its current state."""
        job, view = self.job, cast("Json", self._view)
        vigil = {"job_id": job.id, **{name: view[name] for name in _VIGIL_FIELDS}}
        cut_short = job.status is Status.COMPLETED and job.reason is not None
        status = "incomplete" if cut_short else _STATUSES[job.status]
        tier = job.attempt(job.winner).service_tier if job.winner is not None else None
        return {
            **self._constant_members(),
            "status": status,
            "completed_at": seconds(job.finished_at) if job.status is Status.COMPLETED and job.finished_at else None,
            "error": error_of(job),
            "incomplete_details": {"reason": job.reason} if cut_short else None,
            "model": job.served_model or job.requested_model,
            "output": self.output,
            "usage": _usage(view["usage"]) if job.settled else None,
            **({"service_tier": tier} if tier else {}),
            "vigil": vigil,
        }

    @property
    def output(self) -> list[Json]:
        """Return the output items, with the ids and members that the SDK expects."""
        return [_item(item, output_id(item, self.job.id, i)) for i, item in enumerate(self._view["output"])]

    @property
    def text(self) -> str:
        """Return the output text."""
        return self._view["output_text"] or ""

    @property
    def tail(self) -> str:
        """Return the part of the id that all ids of this job share."""
        return self.job.id.removeprefix("job_")

    def _initial(self, status: str) -> Json:
        vigil = {"job_id": self.job.id, "status": "running" if status == "in_progress" else status}
        return {
            **self._constant_members(),
            "status": status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "model": self.job.requested_model,
            "output": [],
            "usage": None,
            "vigil": {**vigil, "requested_model": self.job.requested_model},
        }

    def _constant_members(self) -> Json:
        """Return the members that never change. `background` is always true: every job may be polled, cancelled and
        streamed again.
        """
        params, state = self._request.get("params") or {}, self._private.get("state") or {}
        conversation = state.get("conversation")
        echoed = {
            name: params[name] if params.get(name) is not None else default for name, default in _DEFAULTS.items()
        }
        return {
            "id": ids.response_id_of(self.job.id),
            "object": "response",
            "created_at": seconds(self.job.created_at),
            "background": True,
            "conversation": {"id": conversation} if conversation else None,
            "instructions": self._request.get("instructions"),
            "metadata": self._private.get("metadata") or {},
            "previous_response_id": state.get("previous_response_id"),
            "safety_identifier": self._private.get("end_user"),
            "store": self.job.store,
            "user": None,
            **echoed,
            **{name: params[name] for name in _ECHOED if name in params},
        }


def seconds(at: datetime) -> int:
    """Return a time as OpenAI does, in full seconds."""
    return int(at.timestamp())


def _usage(usage: JobUsageView | None) -> Json | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage["input_tokens"],
        "input_tokens_details": {
            "cached_tokens": usage["cached_input_tokens"],
            "cache_write_tokens": usage["cache_write_tokens"],
        },
        "output_tokens": usage["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": usage["reasoning_tokens"]},
        "total_tokens": usage["total_tokens"],
    }


def _item(item: Json, name: str) -> Json:
    out = {**item, "id": name}
    if item.get("type") == "message":
        parts = [part for part in item.get("content") or () if isinstance(part, dict)]
        out |= {"role": item.get("role") or "assistant", "status": item.get("status") or "completed"}
        out["content"] = [_part(part) for part in parts]
    return out


def _part(part: Json) -> Json:
    return {"annotations": [], "logprobs": [], **part} if part.get("type") == "output_text" else part
