"""Unwraps answers inside an envelope: `{"response": {…}}`, `{"data": {…}}`, `{"result": {…}}` or `[{…}]`.

It also decides which API's shape an object has, and whether a complete JSON body is an answer at all. Pure.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from worker.safety.stream import CheckNotice, Flagged, Keepalive, Served, StreamError, StreamEvent, Terminal
from worker.upstream.problems import is_block, is_empty_error, problem_of

_WRAPPER_KEYS: Final = ("response", "data", "result")
_MAX_DEPTH: Final = 4
_CHAT_OBJECTS: Final = ("chat.completion", "chat.completion.chunk", "text_completion")
_STATUSES: Final = ("queued", "in_progress", "completed", "incomplete", "failed", "cancelled")
_UNINFORMATIVE: Final = (Keepalive, Served, Flagged, CheckNotice)


def unwrap(value: object) -> object:
    """Return the answer inside `value`, or `value` itself if it is one, has none, or reports a block."""
    inner = value
    for _ in range(_MAX_DEPTH):
        if type(inner) is list and len(inner) == 1:
            inner = inner[0]
        elif type(inner) is dict and not _is_answer(inner):
            if is_block(problem_of({key: one for key, one in inner.items() if key not in _WRAPPER_KEYS})):
                return value
            inner = next((inner[key] for key in _WRAPPER_KEYS if type(inner.get(key)) in (dict, list)), None)
        else:
            break
    return inner if type(inner) is dict and _is_answer(inner) else value


def is_answer(events: list[StreamEvent], *, chat: bool) -> bool:
    """Return whether a complete body was an answer; for chat it must have ended, as there is no state to poll later."""
    if chat:
        return any(isinstance(event, Terminal | StreamError) for event in events)
    return any(not isinstance(event, _UNINFORMATIVE) for event in events)


def shape_of(data: object) -> Literal["event", "response", "chat"] | None:
    """Return what an object is: an event of a Responses stream, a response, a completion or a chunk of one, or None."""
    if type(data) is not dict:
        return None
    kind = data.get("type")
    if type(kind) is str and kind.startswith("response."):
        return "event"
    if "choices" in data or data.get("object") in _CHAT_OBJECTS:
        return "chat"
    if data.get("object") == "response" or (data.get("status") in _STATUSES and ("id" in data or "output" in data)):
        return "response"
    return None


def _is_answer(data: dict[str, Any]) -> bool:
    """Return whether an object looks like a response, a completion, an event of a stream, or an error."""
    errs = data.get("type") == "error" or data.get("object") == "error" or not is_empty_error(data.get("error"))
    return errs or shape_of(data) is not None
