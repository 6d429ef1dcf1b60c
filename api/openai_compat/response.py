"""Record, what was asked and what came back -> OpenAI's Response object, with our own `vigil` object in it.

Pure: no HTTP, no Redis. Output is shown of completed jobs alone, by the same rule as on the other face.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from api.schema.views import job_view
from worker.jobs import ids
from worker.jobs.record import Job
from worker.jobs.states import Status

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
_SHOWN: Final = ("status", "reason", "requested_model", "served_model", "disclosure", "safety", "offer", "hold")
_MORE: Final = ("cost", "error", "next_attempt_at", "unreadable")


class ResponseSource:
    """One job with all that its Response objects are made of."""

    def __init__(self, job: Job, private: Json, asked: Json | None, answer: Json | None) -> None:
        self.job, self._private, self._asked = job, private, asked or {}
        self._view = job_view(job, private, answer, None, "")

    def born(self) -> Json:
        """As it was accepted: the same at any later time."""
        return self._early("queued")

    def begun(self) -> Json:
        """As it was when its first run began: the same at any later time."""
        return self._early("in_progress")

    def now(self) -> Json:
        """As it stands."""
        job, view = self.job, self._view
        own = {"job_id": job.id, **{name: view[name] for name in (*_SHOWN, *_MORE)}}
        cut_short = job.status is Status.COMPLETED and job.reason is not None
        status = "incomplete" if cut_short else _STATUSES[job.status]
        tier = job.attempt(job.winner).service_tier if job.winner is not None else None
        return {
            **self._frame(),
            "status": status,
            "completed_at": seconds(job.finished_at) if job.status is Status.COMPLETED and job.finished_at else None,
            "error": error_of(job),
            "incomplete_details": {"reason": job.reason} if cut_short else None,
            "model": job.served_model or job.requested_model,
            "output": self.output,
            "usage": _usage(view["usage"]) if job.settled else None,
            **({"service_tier": tier} if tier else {}),
            "vigil": own,
        }

    @property
    def output(self) -> list[Json]:
        """The items that came back, each with an id and its parts with what the SDK expects of them."""
        return [_item(item, f"{self.tail}_{i}") for i, item in enumerate(self._view["output"])]

    @property
    def text(self) -> str:
        """The answer's text."""
        return self._view["output_text"] or ""

    @property
    def tail(self) -> str:
        """What the names of this job's things share."""
        return self.job.id.removeprefix("job_")

    def _early(self, status: str) -> Json:
        own = {"job_id": self.job.id, "status": "running" if status == "in_progress" else status}
        return {
            **self._frame(),
            "status": status,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "model": self.job.requested_model,
            "output": [],
            "usage": None,
            "vigil": {**own, "requested_model": self.job.requested_model},
        }

    def _frame(self) -> Json:
        """What never changes. `background` is always true: every job may be polled, cancelled and streamed again."""
        params = self._asked.get("params") or {}
        echoed = {name: params[name] if params.get(name) is not None else given for name, given in _DEFAULTS.items()}
        return {
            "id": ids.response_id_of(self.job.id),
            "object": "response",
            "created_at": seconds(self.job.created_at),
            "background": True,
            "conversation": None,
            "instructions": self._asked.get("instructions"),
            "metadata": self._private.get("metadata") or {},
            "previous_response_id": None,
            "safety_identifier": self._private.get("end_user"),
            "store": self.job.store,
            "user": None,
            **echoed,
            **{name: params[name] for name in _ECHOED if name in params},
        }


def seconds(at: datetime) -> int:
    """OpenAI's times are whole seconds."""
    return int(at.timestamp())


def error_of(job: Job) -> Json | None:
    """Why it failed, in our plain sentences; the code is the provider's where content was withheld."""
    if job.block is not None:
        message = f"The provider withheld the content of this response ({job.block.code}). {job.block.advice}"
        return {"code": job.block.code, "message": message}
    if job.error is None or job.status is Status.CANCELLED:  # OpenAI's own have none; `vigil` says it
        return None
    code = "deadline_exceeded" if job.status is Status.EXPIRED else job.error.code
    return {"code": code, "message": f"{job.error.message} {job.error.advice}"}


def _usage(usage: Json | None) -> Json | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage["input_tokens"],
        "input_tokens_details": {"cached_tokens": usage["cached_input_tokens"], "cache_write_tokens": 0},
        "output_tokens": usage["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": usage["reasoning_tokens"]},
        "total_tokens": usage["total_tokens"],
    }


def _item(item: Json, tail: str) -> Json:
    kind = item.get("type")
    prefix = {"message": "msg", "function_call": "fc", "reasoning": "rs"}.get(str(kind), "item")
    out = {**item, "id": item.get("id") or f"{prefix}_{tail}"}
    if kind == "message":
        parts = [part for part in item.get("content") or () if isinstance(part, dict)]
        out |= {"role": item.get("role") or "assistant", "status": item.get("status") or "completed"}
        out["content"] = [_part(part) for part in parts]
    return out


def _part(part: Json) -> Json:
    return {"annotations": [], "logprobs": [], **part} if part.get("type") == "output_text" else part
