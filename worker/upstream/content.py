"""Reads the content of messages and output items tolerantly, in whatever shape a server sends it.

Pure. The result always has the shape of the Responses API: an item is an object, a message's content a list of objects,
text a string, every number finite.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

MAX_DEPTH: Final = 100
"""Levels of nesting that are kept; a deeper value becomes null."""
_MAX_BITS: Final = 1024  # a float's; writing larger ones as text is refused by Python
NOT_A_NUMBER: Final = "not_a_number"
"""The flag of an answer in which NaN, an infinity or an oversized number was replaced by null."""
MALFORMED_CONTENT: Final = "malformed_content"
"""The flag of an answer in which an unreadable part was left out."""

_ARGUMENTS: Final = {"function_call": "arguments", "mcp_call": "arguments", "custom_tool_call": "input"}
"""By the type of an item: its field that is a text, also where a server sends an object."""
_TEXT: Final = frozenset({"output_text", "text", "input_text"})


class ContentReader:
    """Reads the items of one answer; `flags` then names what had to be repaired."""

    def __init__(self) -> None:
        self.flags: set[str] = set()

    def items(self, value: object) -> tuple[dict[str, Any], ...]:
        """Return the output items of `value`, which should be a list of objects."""
        if value is None:
            return ()
        if type(value) is dict:
            value = [value]
        if type(value) is str:
            value = [{"type": "message", "role": "assistant", "status": "completed", "content": value}] if value else []
        if type(value) is not list:
            self.flags.add(MALFORMED_CONTENT)
            return ()
        found = []
        for one in value:
            if type(one) is dict:
                found.append(self.item(one))
            elif one is not None:
                self.flags.add(MALFORMED_CONTENT)
        return tuple(found)

    def item(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return one output item; the content of a message is normalised, the rest stays as it came."""
        item: dict[str, Any] = self.plain(value)
        if item.get("type") == "message" or ("type" not in item and "content" in item and "role" in item):
            item["type"] = "message"
            item["content"] = self.parts(item.get("content"))
        field = _ARGUMENTS.get(str(item.get("type")))
        if field is not None and field in item and type(item[field]) is not str:
            item[field] = arguments_of(item[field]) or ""
        return item

    def parts(self, content: object, depth: int = 0) -> list[dict[str, Any]]:
        """Return content as a list of parts: null, a string, one part, or a list of any of these, however nested."""
        if content is None:
            return []
        if type(content) is str:
            return [output_text(content)]
        if type(content) is dict:
            return [self._part(content)]
        if type(content) is list and depth < MAX_DEPTH:
            return [part for one in content for part in self.parts(one, depth + 1)]
        self.flags.add(MALFORMED_CONTENT)
        return []

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Return `value` in a form that JSON can express: finite, and not too deep."""
        kind = type(value)
        if (kind is float and not math.isfinite(value)) or (kind is int and value.bit_length() > _MAX_BITS):
            self.flags.add(NOT_A_NUMBER)
            return None
        if kind is dict or kind is list:
            if depth >= MAX_DEPTH:
                self.flags.add(MALFORMED_CONTENT)
                return None
            if kind is dict:
                return {key: self.plain(one, depth + 1) for key, one in value.items()}
            return [self.plain(one, depth + 1) for one in value]
        return value

    def _part(self, part: dict[str, Any]) -> dict[str, Any]:
        kind = part.get("type")
        if kind == "refusal" or (type(kind) is not str and type(part.get("refusal")) is str):
            return {**part, "type": "refusal", "refusal": self._string(part.get("refusal"))}
        if (type(kind) is str and kind in _TEXT) or (type(kind) is not str and "text" in part):
            return {**part, "type": "output_text", "text": self._string(part.get("text"))}
        return part

    def _string(self, value: object) -> str:
        """Return a text; some servers wrap it in an object: `{"value": ...}`, `{"text": ...}`."""
        if type(value) is dict:
            value = value.get("value", value.get("text"))
        if type(value) is str:
            return value
        if type(value) is list:
            return "".join(self._string(one) for one in value)
        if type(value) in (int, float):
            return str(value)
        if value is not None:
            self.flags.add(MALFORMED_CONTENT)
        return ""


def arguments_of(value: object) -> str | None:
    """Return the arguments of a call as text, or None; some servers send them as an object instead."""
    if value is None or type(value) is str:
        return value
    return json.dumps(ContentReader().plain(value), ensure_ascii=False, separators=(",", ":"))


def output_text(text: str) -> dict[str, Any]:
    """Return a part of a message that is text."""
    return {"type": "output_text", "text": text, "annotations": []}
