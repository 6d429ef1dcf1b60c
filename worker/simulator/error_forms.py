"""Writes a planned failure in the form that the plan names: whose fault, in whose words, with which fields beside it.

Pure. Forms: wire-news 1.1 (WebSocket events), 1.2 (no usable code, `param`, `misalignment`, moderation that blocks).
"""

from __future__ import annotations

import re
from dataclasses import replace

from .errors import MISALIGNMENT, ErrorShape, Json, shape
from .plan import Plan
from .request_body import ParsedRequest

FORMS = ("plain", "websocket", "misalignment", "worded", "status", "moderation")
WORDED = "This request was blocked by our safety systems. Reason: simulated."
_DIRECTIVE = re.compile(r"\[\[sim:.*?\]\]", re.DOTALL | re.IGNORECASE)
_MODERATION_SCORE = 0.97


def planned_error(plan: Plan, ask: ParsedRequest, project: str, status: int | None = None) -> ErrorShape:
    """Return the error of a plan; `quote` makes its message repeat the first words of the prompt."""
    error = shape(plan.code, model=ask.model, project=project, status=status)
    if plan.form == "worded":  # a proxy lost code and type
        error = replace(error, code=None, type="", message=WORDED)
    if plan.form == "status":  # a gateway wrote the status in the place of the code
        error = replace(error, code=str(error.status), type="")
    if plan.param:
        error = replace(error, param=plan.param)
    if plan.quote:
        quoted = " ".join(_DIRECTIVE.sub("", ask.text).split()[: plan.quote])
        error = replace(error, message=f"{error.message}: {quoted}")
    return error


def error_object(error: ErrorShape, form: str) -> Json:
    """Return the error object in this form."""
    inner: Json = {"type": error.type or None, "code": error.code, "message": error.message, "param": error.param}
    if form in {"websocket", "misalignment"}:
        inner["misalignment"] = MISALIGNMENT
    return inner


def fields_beside(error: ErrorShape, form: str) -> Json:
    """Return what stands beside `error` in an error event: a WebSocket's has the status and the stream's id."""
    return {"status": error.status, "stream_id": "stream_sim01"} if form == "websocket" else {}


def filter_down() -> Json:
    """Return what stands in place of the results of a content filter that was not available."""
    error = {"code": "content_filter_error", "message": "The contents are not filtered"}
    return {"content_filter_results": {"error": error}}


def moderation(*, blocked: bool) -> Json:
    """Return the moderation results of a response: scores, and whether the input was blocked for them.

    The scores are the SDK's (openai 3.57.0); how a block shows is guessed, because no capture was found.
    """
    result: Json = {
        "type": "moderation_result",
        "model": "omni-moderation-latest",
        "categories": {"illicit": True},
        "category_scores": {"illicit": _MODERATION_SCORE},
        "category_applied_input_types": {"illicit": ["text"]},
        "flagged": True,
    }
    clean = {**result, "categories": {"illicit": False}, "flagged": False}
    return {
        "policy": {"input": {"mode": "block" if blocked else "score"}},
        "input": {**result, **({"action": "blocked"} if blocked else {})},
        "output": clean,
    }
