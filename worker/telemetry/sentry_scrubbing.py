"""What may be sent to Sentry: allow-lists, applied to everything at the last moment. Pure dictionaries in and out.

A heuristic would miss something; here whatever is not named is not sent. Must not import Sentry's SDK.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, Final

from worker.jobs.errors import AlreadySettled, LeaseLost, StoreUnavailable, UnsafeStore
from worker.telemetry.events import EVENTS
from worker.telemetry.sentry_issues import TAGS

_OWN_MESSAGES: Final = (AlreadySettled, LeaseLost, StoreUnavailable, UnsafeStore)
"""Exceptions whose message is Vigil's own: an id, a status, a type. Every other message may quote a prompt."""

_EVENT: Final = ("event_id", "timestamp", "platform", "level", "environment", "release", "fingerprint")
_CHECK_IN: Final = ("type", "event_id", "timestamp", "check_in_id", "monitor_slug", "status", "duration",
                    "monitor_config", "environment", "release")  # fmt: skip
_FRAME: Final = ("filename", "function", "lineno", "module", "in_app")
_TRACE: Final = ("trace_id", "span_id", "parent_span_id", "op", "dynamic_sampling_context")
_TAGS: Final = frozenset({"vigil.event", *TAGS})

ATTRIBUTES: Final = frozenset(
    {
        "sentry.op", "sentry.origin", "sentry.segment.id", "sentry.segment.name", "sentry.segment.name.source",
        "sentry.trace_lifecycle", "sentry.release", "sentry.environment", "sentry.platform", "sentry.sdk.name",
        "sentry.sdk.version",
        "http.request.method", "http.route", "http.response.status_code",
        "messaging.system", "messaging.destination.name", "messaging.message.id", "messaging.message.receive.latency",
        "messaging.message.retry.count", "messaging.operation.type",
        "gen_ai.operation.name", "gen_ai.system", "gen_ai.provider.name", "gen_ai.request.model",
        "gen_ai.response.model", "gen_ai.response.finish_reasons", "gen_ai.response.time_to_first_token",
        "gen_ai.usage.input_tokens", "gen_ai.usage.input_tokens.cached", "gen_ai.usage.output_tokens",
        "gen_ai.usage.output_tokens.reasoning", "gen_ai.usage.total_tokens",
        "openai.request_id", "safety.check.seconds", "safety.outcome", "model.substituted",
        "vigil.app", "vigil.attempt", "vigil.ended", "vigil.status", "vigil.worker", "vigil.code", "vigil.result",
        "vigil.lag_seconds", "vigil.receiver", "vigil.cost_usd", "vigil.resumed", "vigil.purpose",
    }
)  # fmt: skip
"""Every attribute that a span may carry."""

_SPAN_NAME: Final = re.compile(
    r"(POST /v1/[a-z/]{1,40}|queue\.publish|vigil\.run|webhook\.deliver|responses [\w.:/-]{1,64})"
)
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
_MAX_CAUSES: Final = 5


def identifier_or_other(value: object) -> str:
    """Return a model, a code or an id as it is if it looks like one, else "other"."""
    text = str(value)
    return text if _IDENTIFIER.fullmatch(text) else "other"


def event(sent: dict[str, Any]) -> dict[str, Any] | None:
    """Return the event with only what is named here; None if it is not one of Vigil's."""
    if sent.get("type") == "check_in":
        return {key: sent[key] for key in _CHECK_IN if sent.get(key) is not None}
    tags = sent.get("tags") or {}
    if tags.get("vigil.event") not in EVENTS:
        return None
    out = {key: sent[key] for key in _EVENT if sent.get(key) is not None}
    out["tags"] = {key: str(value)[:200] for key, value in tags.items() if key in _TAGS}
    trace = (sent.get("contexts") or {}).get("trace") or {}
    out["contexts"] = {"trace": {key: trace[key] for key in _TRACE if key in trace}}
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


def span(sent: dict[str, Any]) -> dict[str, Any]:
    """Return the span with only the attributes that are named here."""
    name = sent.get("name") or ""
    attributes = {key: value for key, value in (sent.get("attributes") or {}).items() if key in ATTRIBUTES}
    return {**sent, "name": name if _SPAN_NAME.fullmatch(name) else "other", "attributes": attributes}


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
