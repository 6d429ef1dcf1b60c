"""What may leave for Sentry: allow-lists, applied to everything at the last moment. Pure dictionaries in and out.

A rule of thumb would miss something; here whatever is not named is not sent. Must not know: Sentry's SDK.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, Final

from worker.jobs.errors import AlreadySettled, LeaseLost, StoreUnavailable, UnsafeStore
from worker.telemetry.events import EVENTS
from worker.telemetry.sentry_issues import TAGS

_OWN_WORDS: Final = (AlreadySettled, LeaseLost, StoreUnavailable, UnsafeStore)
"""Exceptions whose text is ours: an id, a status, a type. Every other text may quote a prompt."""

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

_NAMES: Final = re.compile(
    r"(POST /v1/[a-z/]{1,40}|queue\.publish|vigil\.run|webhook\.deliver|responses [\w.:/-]{1,64})"
)
_SHAPE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
_DEEPEST: Final = 5


def identifier_or_other(value: object) -> str:
    """A model, a code, an id: itself when it is shaped like one, else "other"."""
    text = str(value)
    return text if _SHAPE.fullmatch(text) else "other"


def event(sent: dict[str, Any]) -> dict[str, Any] | None:
    """An event less all that is not named here; None when it is none of ours."""
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
    """A span less every attribute that is not named here."""
    name = sent.get("name") or ""
    attributes = {key: value for key, value in (sent.get("attributes") or {}).items() if key in ATTRIBUTES}
    return {**sent, "name": name if _NAMES.fullmatch(name) else "other", "attributes": attributes}


def exception(error: BaseException) -> dict[str, Any]:
    """An exception and what caused it, outermost last: types, places, and only words of our own."""
    return {"values": [_value(one) for one in reversed(list(_chain(error)))]}


def _chain(error: BaseException) -> Iterator[BaseException]:
    here: BaseException | None = error
    for _ in range(_DEEPEST):
        if here is None:
            return
        yield here
        here = here.__cause__ or (None if here.__suppress_context__ else here.__context__)


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
        "value": str(error) if isinstance(error, _OWN_WORDS) else "",
        "stacktrace": {"frames": frames[-50:]},
    }
