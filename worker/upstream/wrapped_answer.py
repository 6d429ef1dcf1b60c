"""An answer inside something else: `{"response": {…}}`, `{"data": {…}}`, `{"result": {…}, "success": true}`, `[{…}]`.

And what of a whole body of JSON is an answer at all. Pure.
"""

from __future__ import annotations

from typing import Any, Final

from worker.safety.stream import CheckNotice, Flagged, Keepalive, Served, StreamError, StreamEvent, Terminal
from worker.upstream.problems import is_block, is_empty_error, problem_of

_WRAPPER_KEYS: Final = ("response", "data", "result")
_MAX_DEPTH: Final = 4
_OBJECTS: Final = ("response", "chat.completion", "chat.completion.chunk", "text_completion", "error")
_STATUSES: Final = ("queued", "in_progress", "completed", "incomplete", "failed", "cancelled")
_UNINFORMATIVE: Final = (Keepalive, Served, Flagged, CheckNotice)


def unwrap(value: object) -> object:
    """Return the answer that `value` holds, or `value` itself when it is one, holds none, or tells of a block."""
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
    """Return whether a whole body said anything of an answer; a chat has no state that could be asked for later."""
    if chat:
        return any(isinstance(event, Terminal | StreamError) for event in events)
    return any(not isinstance(event, _UNINFORMATIVE) for event in events)


def _is_answer(data: dict[str, Any]) -> bool:
    """Whether an object looks like a response, a completion, an event of a stream, or an error."""
    kind = data.get("type")
    return (
        "choices" in data
        or data.get("object") in _OBJECTS
        or (data.get("status") in _STATUSES and ("id" in data or "output" in data))
        or (type(kind) is str and (kind == "error" or kind.startswith("response.")))
        or not is_empty_error(data.get("error"))
    )
