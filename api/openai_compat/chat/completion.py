"""Builds OpenAI's chat completion of a job from its Response object. Pure."""

from __future__ import annotations

from typing import Any, Final

from api.openai_compat.failures import chat_error
from api.openai_compat.response import ResponseSource, seconds
from worker.jobs import ids
from worker.jobs.record import Job
from worker.jobs.states import Status

Json = dict[str, Any]

_CALLS: Final = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}


def completion_of(source: ResponseSource) -> Json:
    """Return the completion of a settled job.

    A block is a choice without content whose `finish_reason` is `content_filter`; any other job without an answer has
    no choice. Both have an `error`.
    """
    job, response = source.job, source.current()
    out: Json = {
        **completion_head(job),
        "model": response["model"],
        "choices": [],
        "usage": usage_of(response["usage"]),
        "system_fingerprint": None,
        **({"service_tier": tier} if (tier := response.get("service_tier")) else {}),
        **({"metadata": response["metadata"]} if response["metadata"] else {}),
        "vigil": response["vigil"],
    }
    if job.status is Status.COMPLETED:
        message, logprobs = message_of(response["output"])
        choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish_reason_of(response)}
        return out | {"choices": [choice]}
    if job.status is Status.BLOCKED:
        withheld: Json = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
        out["choices"] = [{"index": 0, "message": withheld, "logprobs": None, "finish_reason": "content_filter"}]
    return out | {"error": chat_error(job)}


def completion_head(job: Job) -> Json:
    """Return the members that say which completion this is."""
    return {
        "id": ids.completion_id_of(job.id),
        "object": "chat.completion",
        "created": seconds(job.created_at),
        "model": job.requested_model,
    }


def message_of(output: list[Json]) -> tuple[Json, Json | None]:
    """Return (the message, its log probabilities or None) of output items; chat has no form for others."""
    parts = [part for item in output if item.get("type") == "message" for part in _list(item.get("content"))]
    texts = [part for part in parts if part.get("type") == "output_text"]
    refusals = [str(part.get("refusal") or "") for part in parts if part.get("type") == "refusal"]
    calls = tool_calls_of(output)
    text = "".join(str(part.get("text") or "") for part in texts)
    message: Json = {
        "role": "assistant",
        "content": text if text or not (refusals or calls) else None,
        "refusal": "".join(refusals) or None,
        "annotations": _annotations(texts),
    }
    if calls:
        message["tool_calls"] = calls
    return message, logprobs_of(texts)


def tool_calls_of(output: list[Json]) -> list[Json]:
    """Return the tool calls among output items."""
    calls: list[Json] = []
    for item in output:
        if str(item.get("type")) in _CALLS:
            kind, name = _CALLS[item["type"]]
            inner = {"name": str(item.get("name") or ""), name: str(item.get(name) or "")}
            calls.append({"id": str(item.get("call_id") or item["id"]), "type": kind, kind: inner})
    return calls


def logprobs_of(texts: list[Json]) -> Json | None:
    """Return the log probabilities of text parts, or None if the provider sent none."""
    rows = [row for part in texts for row in _list(part.get("logprobs"))]
    return {"content": rows, "refusal": None} if rows else None


def finish_reason_of(response: Json) -> str:
    """Return why the answer ended; `vigil.reason` has the provider's word for one that was cut short."""
    if response["status"] == "incomplete":
        return "length"
    return "tool_calls" if any(str(item.get("type")) in _CALLS for item in response["output"]) else "stop"


def usage_of(usage: Json | None) -> Json | None:
    """Return the usage under chat's names."""
    if usage is None:
        return None
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
        "prompt_tokens_details": {**usage["input_tokens_details"], "audio_tokens": 0},
        "completion_tokens_details": {
            **usage["output_tokens_details"],
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _annotations(texts: list[Json]) -> list[Json]:
    """Return the URL citations; their places count from the start of the whole text."""
    out: list[Json] = []
    start = 0
    for part in texts:
        for one in _list(part.get("annotations")):
            if isinstance(one, dict) and one.get("type") == "url_citation":
                places = {k: one[k] + start for k in ("start_index", "end_index") if isinstance(one.get(k), int)}
                named = {key: one[key] for key in ("title", "url") if key in one}
                out.append({"type": "url_citation", "url_citation": {**named, **places}})
        start += len(str(part.get("text") or ""))
    return out


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
