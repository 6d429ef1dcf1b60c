"""What may be sent to Sentry: allow-lists, applied to everything at the last moment. Pure dictionaries in and out.

A heuristic would miss something; here whatever is not named is not sent. Must not import Sentry's SDK.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from worker.jobs.errors import AlreadySettled, LeaseLost, StoreUnavailable, UnsafeStore
from worker.telemetry.events import EVENTS
from worker.telemetry.sentry_issues import CAUSES, TAGS

_OWN_MESSAGES: Final = (AlreadySettled, LeaseLost, StoreUnavailable, UnsafeStore)
"""Exceptions whose message is Vigil's own: an id, a status, a type. Every other message may quote a prompt."""

_EVENT: Final = ("event_id", "timestamp", "platform", "level", "environment", "release", "fingerprint")
_CHECK_IN: Final = ("type", "event_id", "timestamp", "check_in_id", "monitor_slug", "status", "duration",
                    "monitor_config", "environment", "release")  # fmt: skip
_FRAME: Final = ("filename", "function", "lineno", "module", "in_app")
_TRACE: Final = ("trace_id", "span_id", "parent_span_id", "op", "status", "origin", "dynamic_sampling_context")
_TRANSACTION: Final = ("type", "event_id", "start_timestamp", "timestamp", "platform", "environment", "release")
_SPAN: Final = ("trace_id", "span_id", "parent_span_id", "op", "origin", "status", "start_timestamp", "timestamp",
                "same_process_as_parent")  # fmt: skip
_INCIDENT: Final = ("count", "suppressed", "number", "runbook")
_TAGS: Final = frozenset({"vigil.event", "vigil.cause", *TAGS})

ATTRIBUTES: Final = frozenset(
    {
        "http.request.method", "http.route", "http.response.status_code", "db.system",
        "messaging.system", "messaging.destination.name", "messaging.message.id", "messaging.message.receive.latency",
        "messaging.message.retry.count", "messaging.operation.type",
        "gen_ai.operation.name", "gen_ai.system", "gen_ai.provider.name", "gen_ai.request.model",
        "gen_ai.response.model", "gen_ai.response.finish_reasons", "gen_ai.response.time_to_first_token",
        "gen_ai.usage.input_tokens", "gen_ai.usage.input_tokens.cached", "gen_ai.usage.output_tokens",
        "gen_ai.usage.output_tokens.reasoning", "gen_ai.usage.total_tokens",
        "vigil.rescued", "openai.request_id", "safety.check.seconds", "safety.outcome", "model.substituted",
        "vigil.app", "vigil.attempt", "vigil.ended", "vigil.status", "vigil.worker", "vigil.code", "vigil.result",
        "vigil.lag_seconds", "vigil.receiver", "vigil.cost_usd", "vigil.resumed", "vigil.purpose",
    }
)  # fmt: skip
"""Every attribute that a span may carry."""

_SPAN_NAME: Final = re.compile(
    r"(POST (/v1/[a-z/]{1,40}|webhook)|queue\.(publish|process)|vigil\.(run|submit)|webhook\.deliver|commit"
    r"|responses [\w.:/-]{1,64})"
)
_MAX_CAUSES: Final = 5


def event(sent: dict[str, Any]) -> dict[str, Any] | None:
    """Return the event with only what is named here; None if it is not one of Vigil's."""
    if sent.get("type") == "check_in":
        return {key: sent[key] for key in _CHECK_IN if sent.get(key) is not None}
    tags = sent.get("tags") or {}
    if tags.get("vigil.event") not in EVENTS or tags.get("vigil.cause") not in CAUSES:
        return None
    out = {key: sent[key] for key in _EVENT if sent.get(key) is not None}
    out["tags"] = {key: str(value)[:200] for key, value in tags.items() if key in _TAGS}
    contexts = sent.get("contexts") or {}
    incident = contexts.get("incident") or {}
    out["contexts"] = {
        "trace": _trace(contexts.get("trace") or {}),
        "incident": {key: incident[key] for key in _INCIDENT if key in incident},
    }
    if "exception" in sent:
        out["exception"] = {"values": [_exception(one) for one in sent["exception"]["values"]]}
    elif sent.get("logentry"):
        out["logentry"] = {"message": sent["logentry"]["message"]}
    return out


def _exception(one: Mapping[str, Any]) -> dict[str, Any]:
    frames = (one.get("stacktrace") or {}).get("frames") or []
    kept = [{key: frame[key] for key in _FRAME if key in frame} for frame in frames]
    return {
        "type": one.get("type"),
        "module": one.get("module"),
        "value": one.get("value") or "",
        "mechanism": {"type": "vigil", "handled": True},
        "stacktrace": {"frames": kept},
    }


def transaction(sent: dict[str, Any]) -> dict[str, Any]:
    """Return the transaction and its spans with only what is named here."""
    trace = (sent.get("contexts") or {}).get("trace") or {}
    return {
        **{key: sent[key] for key in _TRANSACTION if sent.get(key) is not None},
        "transaction": _name(sent.get("transaction")),
        "transaction_info": {"source": str((sent.get("transaction_info") or {}).get("source", "custom"))},
        "contexts": {"trace": {**_trace(trace), "data": _attributes(trace.get("data"))}},
        "spans": _spans(sent.get("spans") or []),
    }


def _spans(sent: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            **{key: one[key] for key in _SPAN if one.get(key) is not None},
            "description": _name(one.get("description")),
            "data": _attributes(one.get("data")),
        }
        for one in sent
    ]


def _name(name: object) -> str:
    return name if isinstance(name, str) and _SPAN_NAME.fullmatch(name) else "other"


def _trace(trace: Mapping[str, Any]) -> dict[str, Any]:
    return {key: trace[key] for key in _TRACE if trace.get(key) is not None}


def _attributes(data: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in (data or {}).items() if key in ATTRIBUTES}


def exception(error: BaseException) -> dict[str, Any]:
    """Return an exception and its causes, outermost last: types, locations, and only messages of Vigil's own."""
    return {"values": [_value(one) for one in reversed(list(_chain(error)))]}


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if current is None:
            return
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _value(error: BaseException) -> dict[str, Any]:
    frames = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        frames.append(
            {
                "module": module,
                "filename": module.replace(".", "/") + ".py",
                "function": frame.f_code.co_name,
                "lineno": line,
                "in_app": module.partition(".")[0] in ("worker", "api"),
            }
        )
    return {
        "type": type(error).__name__,
        "module": type(error).__module__,
        "value": str(error) if isinstance(error, _OWN_MESSAGES) else "",
        "stacktrace": {"frames": frames[-50:]},
    }
