"""What a body under 200 is, told by its first bytes: labels lie, and some answers have none.

Pure and bounded: white space in front is dropped, then seven bytes are enough.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

_BOM: Final = b"\xef\xbb\xbf"
_WHITE_SPACE: Final = b" \t\r\n\x00"
_SSE_PREFIXES: Final = (b":", b"data:", b"event:", b"id:", b"retry:", b"error:")


class BodyKind(Enum):
    """What is read."""

    EVENTS = "events"
    JSON = "json"
    PAGE = "page"  # HTML or XML: no provider answers so, a gateway does


class BodySniffer:
    """Looks at the first bytes of one body until they tell; `label` is its content type, "" for none."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._head = b""

    def feed(self, piece: bytes) -> tuple[BodyKind, bytes] | None:
        """Return what it is and the bytes from its beginning on, or None while that is open."""
        head = (self._head + piece).removeprefix(_BOM).lstrip(_WHITE_SPACE)
        kind = self._kind(head)
        self._head = b"" if kind is not None else head
        return None if kind is None else (kind, head)

    def end(self) -> tuple[BodyKind, bytes]:
        """Return what the whole body was: it ended before its beginning told."""
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
