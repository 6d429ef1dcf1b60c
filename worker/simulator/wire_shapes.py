"""Reshapes streams to the form of other servers and gateways: the same answer in another shape on the wire.

Pure: steps in, steps out; what a response is afterwards (its snapshot) does not change. It must not depend on sockets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Final

from .wire import Json, Step, dumps

PING: Final = b"event: ping\ndata: ping\n\n"
PAGE: Final = "<!doctype html><html><body>simulated gateway page</body></html>"


def reshape(steps: Iterator[Step], shape: str) -> Iterator[Step]:
    """Return the steps in this shape; an empty one changes nothing."""
    if not shape or shape == "page":  # a page takes the place of the whole answer: see answers.py
        return steps
    if shape == "json_body":
        return _json_body(steps)
    return _each(steps, _SHAPES[shape])


def _each(steps: Iterator[Step], change: Callable[[Json], Json | None]) -> Iterator[Step]:
    """Yield each frame changed, or leave it out."""
    for step in steps:
        data = _data(step.frame)
        if data is None:
            yield step
            continue
        changed = change(data)
        if changed is None:
            yield step._replace(frame=b"", seq=-1)
            continue
        yield step._replace(frame=f"data: {dumps(changed)}\n\n".encode())
        if change is _same:
            yield Step(0.0, PING)


def _json_body(steps: Iterator[Step]) -> Iterator[Step]:
    """Yield the complete answer as one JSON value at the end, still labelled as an event stream."""
    for step in steps:
        body = dumps(step.snapshot).encode() if step.terminal and step.snapshot is not None else b""
        yield step._replace(frame=body)


def _data(frame: bytes) -> Json | None:
    start = frame.find(b"data: {")
    if start < 0:
        return None
    found: Json = json.loads(frame[start + 6 :])
    return found


def _same(data: Json) -> Json:
    return data


def _only_whole(data: Json) -> Json | None:
    """Leave out deltas and items, also of the last snapshot: only `output_text.done` has the text."""
    kind = str(data.get("type"))
    if kind.endswith(".delta") or kind in ("response.output_item.done", "response.content_part.done"):
        return None
    if kind == "response.completed":
        data["response"]["output"] = []
    return data


def _choices(data: Json, change: Callable[[Json], None]) -> Json:
    for choice in data.get("choices") or ():
        change(choice)
    return data


def _numbered_from_one(data: Json) -> Json:
    def change(choice: Json) -> None:
        choice["index"] = 1

    return _choices(data, change)


def _parts(data: Json) -> Json:
    """Write content as a list of parts, and the content of a Responses message as one string."""

    def change(choice: Json) -> None:
        content = choice["delta"].get("content")
        if isinstance(content, str) and content:
            choice["delta"]["content"] = [{"type": "text", "text": content[:1]}, {"type": "text", "text": content[1:]}]

    for item in (data.get("response") or {}).get("output") or ():
        if item.get("type") == "message":
            item["content"] = "".join(part.get("text", "") for part in item["content"])
    return _choices(data, change)


def _nameless(data: Json) -> Json:
    if "choices" in data:
        data["id"] = ""
    return data


def _no_reason(data: Json) -> Json:
    def change(choice: Json) -> None:
        choice["finish_reason"] = None

    return _choices(data, change)


_SHAPES: Final[dict[str, Callable[[Json], Json | None]]] = {
    "pings": _same,
    "only_whole": _only_whole,
    "index_one": _numbered_from_one,
    "parts": _parts,
    "no_id": _nameless,
    "no_reason": _no_reason,
}
