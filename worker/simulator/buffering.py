"""Writes the object that signals a check in each shape that was seen (wire.md section 2.1, wire-news 1.1). Pure."""

from __future__ import annotations

from typing import Any

from .plan import Plan
from .wire import Json

SHAPES = (
    *("full", "reasons", "retry_model", "use_cases", "reason", "enabled", "disabled", "string", "duplicate", "proto"),
)
_AGAIN = b'#again"'


def buffering(plan: Plan, *, repeat: bool = False) -> Any:
    """Return the object, or what stands in its place, for the plan's shape."""
    cases, reasons = plan.labels("use_case"), plan.labels("reason")
    full: Json = {"use_cases": cases, "reasons": reasons}
    model = None if plan.retry_model == "none" else plan.retry_model
    if plan.retry_model != "absent" and not repeat:
        full["retry_model"] = model
    match plan.shape:
        case "reasons":
            return {"reasons": reasons}
        case "retry_model":
            return {"retry_model": model}
        case "use_cases":
            return {"use_cases": cases, "reasons": []}
        case "reason":
            return {"reason": reasons[0] if reasons else ""}
        case "enabled" | "disabled":
            return {"enabled": plan.shape == "enabled"}
        case "string":
            return "buffered"
        case "duplicate":
            return {"use_cases": ["stale"], "reasons": ["stale"], "use_cases#again": cases, "reasons#again": reasons}
        case "proto":
            return {"__proto__": {"reasons": ["polluted"], "retry_model": "polluted"}, **full}
        case _:
            return full


def with_duplicate_keys(frame: bytes, shape: str) -> bytes:
    """Return the frame with the keys that JSON text may have twice and a Python dict can't."""
    return frame.replace(_AGAIN, b'"') if shape == "duplicate" else frame
