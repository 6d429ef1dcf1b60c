"""Events of a Responses stream that tell of a tool call beside its item: that it has begun, and all its arguments.

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
"""The type of the item, and the field of it, whose whole text such an event has."""


def call_done(kind: str, sequence: int | None, data: dict[str, Any]) -> CallDone | None:
    """The whole arguments of a call: with some servers they come only here, and its item has none."""
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
    """The name of a call, for when nothing but its arguments comes later."""
    item = mapping(data.get("item"))
    field = next((field for kind, field in _ARGUMENTS.values() if kind == item.get("type")), None)
    name = text(item.get("name"), 256)
    if field is None or name is None:
        return None
    index, item_id = non_negative(data.get("output_index")) or 0, identifier(item.get("id")) or ""
    return CallDone(None, index, item_id, item["type"], field, "", name, bounded_identifier(item.get("call_id")))
