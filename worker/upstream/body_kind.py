"""Detects what a body under 200 is by its first bytes: content types may be wrong or missing.

Pure and bounded: leading white space is dropped, then seven bytes are enough.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

_BOM: Final = b"\xef\xbb\xbf"
_WHITE_SPACE: Final = b" \t\r\n\x00"
_SSE_PREFIXES: Final = (b":", b"data:", b"event:", b"id:", b"retry:", b"error:")


class BodyKind(Enum):
    """The kind of a body."""

    EVENTS = "events"
    JSON = "json"
    PAGE = "page"  # HTML or XML: no provider answers so, a gateway does


class BodySniffer:
    """Looks at the first bytes of one body until its kind is clear; `label` is its content type, "" for none."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._head = b""

    def feed(self, piece: bytes) -> tuple[BodyKind, bytes] | None:
        """Return the kind and the bytes from the beginning on, or None while it is undecided."""
        head = (self._head + piece).removeprefix(_BOM).lstrip(_WHITE_SPACE)
        kind = self._kind(head)
        self._head = b"" if kind is not None else head
        return None if kind is None else (kind, head)

    def end(self) -> tuple[BodyKind, bytes]:
        """Return the kind by content type, and the bytes, of a body that ended while it was undecided."""
        by_label = BodyKind.JSON if self._label_is_json else BodyKind.EVENTS
        return by_label, self._head

    @property
    def _label_is_json(self) -> bool:
        return self._label == "application/json" or self._label.endswith("+json")

    def _kind(self, head: bytes) -> BodyKind | None:
        if not head or _BOM.startswith(head):
            return None
        first = head[:1]
        if first in b"{[":
            return BodyKind.JSON
        if first == b"<":
            return BodyKind.PAGE
        if head.startswith(_SSE_PREFIXES):
            return BodyKind.EVENTS
        if any(line.startswith(head) for line in _SSE_PREFIXES):
            return None
        return BodyKind.JSON if self._label_is_json else BodyKind.EVENTS
