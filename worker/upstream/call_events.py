"""Reads the events of a Responses stream about a tool call: that it has begun, and its complete arguments.

Pure.
"""

from __future__ import annotations

from typing import Any, Final

from worker.safety.stream import CallDone
from worker.upstream.tolerant_fields import bounded_identifier, identifier, mapping, non_negative, text
from worker.upstream.tool_calls import arguments_of

_ARGUMENTS: Final = {
    "response.function_call_arguments.done": ("function_call", "arguments"),
    "response.custom_tool_call_input.done": ("custom_tool_call", "input"),
    "response.mcp_call_arguments.done": ("mcp_call", "arguments"),
}
"""By event type: the type of the item, and its field whose full text the event has."""


_PIECES: Final = {kind.removesuffix("done") + "delta": row for kind, row in _ARGUMENTS.items()}


def call_piece(kind: str, data: dict[str, Any]) -> CallDone | None:
    """Return the next piece of a call's arguments, or None."""
    if kind not in _PIECES or type(data.get("delta")) is not str:
        return None
    item, field = _PIECES[kind]
    index, item_id = non_negative(data.get("output_index")) or 0, identifier(data.get("item_id")) or ""
    sequence = non_negative(data.get("sequence_number"))  # so that a piece that is sent again is left out
    return CallDone(sequence, index, item_id, item, field, data["delta"], is_piece=True)


def call_done(kind: str, sequence: int | None, data: dict[str, Any]) -> CallDone | None:
    """Return the complete arguments of a call, or None; some servers send them only here and not in the item."""
    if kind not in _ARGUMENTS:
        return None
    item, field = _ARGUMENTS[kind]
    arguments = arguments_of(data.get(field))
    if not arguments:
        return None
    return CallDone(
        sequence,
        non_negative(data.get("output_index")) or 0,
        identifier(data.get("item_id")) or "",
        item,
        field,
        arguments,
        text(data.get("name"), 256),
        bounded_identifier(data.get("call_id")),
    )


def call_started(data: dict[str, Any]) -> CallDone | None:
    """Return the name of a call that has begun, or None; some servers send only its arguments later."""
    item = mapping(data.get("item"))
    field = next((field for kind, field in _ARGUMENTS.values() if kind == item.get("type")), None)
    name = text(item.get("name"), 256)
    if field is None or name is None:
        return None
    index, item_id = non_negative(data.get("output_index")) or 0, identifier(item.get("id")) or ""
    return CallDone(None, index, item_id, item["type"], field, "", name, bounded_identifier(item.get("call_id")))
