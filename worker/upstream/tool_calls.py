"""Assembles the tool calls of one chat answer from their fragments, however a server numbers them.

Pure. Servers leave out the index, give all parallel calls the same one, repeat id and name in every fragment or invent
a new id for each. Calls are told apart by, in this order: a known id; the index; and if both fail, that a call has one
name and its arguments are one JSON value.
"""

from __future__ import annotations

import json
from typing import Any, Final

from worker.upstream.content import ContentReader
from worker.upstream.surrogates import join_surrogates
from worker.upstream.tolerant_fields import bounded_identifier, mapping, non_negative, text

_UNLIMITED: Final = 1 << 30  # characters: content is never cut
NO_ARGUMENTS: Final = "{}"
"""The arguments of a call that has none: an empty text is not JSON."""
_OPENING, _CLOSING = frozenset("{["), frozenset("}]")


class ToolCall:
    """One call while its fragments come in."""

    def __init__(self, *, custom: bool) -> None:
        self.id: str | None = None
        self.name: str | None = None
        self.custom = custom
        self._pieces: list[str] = []
        self._depth = 0
        self._begun = self._in_string = self._escaped = False

    @property
    def arguments(self) -> str:
        """Return the arguments so far."""
        return join_surrogates("".join(self._pieces))

    @property
    def complete(self) -> bool:
        """Return whether the arguments are a complete JSON value, so that what follows belongs to another call."""
        return self._begun and self._depth == 0 and not self._in_string

    def add(self, piece: str) -> None:
        """Append a piece of the arguments; reads each character once."""
        self._pieces.append(piece)
        for char in piece:
            if self._escaped:
                self._escaped = False
            elif self._in_string:
                self._escaped = char == "\\"
                self._in_string = char != '"'
            elif char == '"':
                self._begun = self._in_string = True
            elif char in _OPENING:
                self._begun = True
                self._depth += 1
            elif char in _CLOSING:
                self._depth -= 1


class ToolCalls:
    """All calls of one answer, in the order in which they began."""

    def __init__(self) -> None:
        self._calls: list[ToolCall] = []
        self._by_id: dict[str, ToolCall] = {}
        self._by_index: dict[int, ToolCall] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, fragment: dict[str, Any], position: int, total: int) -> str | None:
        """Add fragment number `position` of the `total` in one chunk; return its piece of the arguments, or None."""
        custom = type(fragment.get("custom")) is dict
        fields = mapping(fragment["custom"] if custom else fragment.get("function"))
        name, piece = text(fields.get("name"), 256), arguments_of(fields.get("input" if custom else "arguments"))
        call = self._call(fragment, name, piece, position if total > 1 else None, custom=custom)
        if name is not None and name != call.name:
            call.name = (call.name or "") + name  # a name may come in pieces too
        if piece:
            call.add(piece)
        return piece

    def output(self, tail: str, status: str) -> list[dict[str, Any]]:
        """Return the calls as Responses output items; `tail` makes ids for those that have none."""
        items: list[dict[str, Any]] = []
        for number, call in enumerate(self._calls):
            common = {"status": status, "call_id": call.id or f"call_{tail}_{number}", "name": call.name or ""}
            if call.custom:
                items.append(
                    {"id": f"ctc_{tail}_{number}", "type": "custom_tool_call", **common, "input": call.arguments}
                )
            else:
                items.append(
                    {
                        "id": f"fc_{tail}_{number}",
                        "type": "function_call",
                        **common,
                        "arguments": call.arguments or (NO_ARGUMENTS if status == "completed" else ""),
                    }
                )
        return items

    def _call(
        self, fragment: dict[str, Any], name: str | None, piece: str | None, position: int | None, *, custom: bool
    ) -> ToolCall:
        call_id, index = bounded_identifier(fragment.get("id")), non_negative(fragment.get("index"))
        if call_id is not None and call_id in self._by_id:
            return self._by_id[call_id]
        call = self._continued_call(index, position)
        if call is None or _starts_new_call(call, call_id, name, piece):
            call = ToolCall(custom=custom)
            self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        if call_id is not None:
            call.id = call.id or call_id
            self._by_id[call_id] = call
        return call

    def _continued_call(self, index: int | None, position: int | None) -> ToolCall | None:
        """Return the call that a fragment without a known id continues, unless it begins another one, or None."""
        if index is not None:
            return self._by_index.get(index)
        if position is not None:
            return self._calls[position] if position < len(self._calls) else None
        return self._calls[-1] if self._calls else None


def _starts_new_call(call: ToolCall, call_id: str | None, name: str | None, piece: str | None) -> bool:
    if name is None:
        return False  # every call has a name; a fragment without one goes on, whatever its id
    if call.name is None:
        return False
    if call_id is not None and call.id is not None:
        return True  # an id that is not known
    if name != call.name:
        return not (call.id is not None and call_id is None and not call.arguments)  # else the rest of the name
    return call.complete and bool(piece and piece.strip())


def arguments_of(value: object) -> str | None:
    """Return arguments as text, or None; some servers send them as an object instead."""
    if type(value) is str:
        return text(value, _UNLIMITED)
    return (
        None if value is None else json.dumps(ContentReader().plain(value), ensure_ascii=False, separators=(",", ":"))
    )
