"""Splits server-sent events without I/O: bytes in, data payloads out.

Handles lines and frames only and leaves the payloads unread. Never blocks, never decodes text.
"""

from __future__ import annotations

from typing import Final

_BOM: Final = b"\xef\xbb\xbf"
_JSON_LINE_STARTS: Final = b' \t"{}[]'  # how the lines after the first begin in JSON over several lines
MAX_FRAME: Final = 64 * 1024 * 1024


class FrameTooLarge(ValueError):
    """One frame grew past the limit; the stream can't be trusted to end it."""


class SseSplitter:
    """Splits a byte stream into the data payloads of its events, however the bytes were cut into chunks.

    `comments` counts signs of life without content: comment lines and events without data. JSON without a field name,
    and a field named `error`, are payloads too: some servers report errors so.
    """

    __slots__ = (
        "_after_cr", "_bare", "_begun", "_data", "_field_seen", "_head", "_limit", "_parts", "_size",
        "comments",
    )  # fmt: skip

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self.comments = 0
        self._limit = limit
        self._head = b""  # the first bytes, while they may still be a BOM
        self._begun = False
        self._parts: list[bytes] = []  # the pieces of a line whose end has not come: joined once, so never quadratic
        self._data: list[bytes] = []  # the data lines of the event being read
        self._bare: list[bytes] = []  # the lines of JSON without a field name
        self._field_seen = False  # the event being read has a line that is not a comment
        self._after_cr = False  # the last chunk ended in CR: a LF that follows belongs to it
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the payloads that `chunk` completes, in order."""
        # One complete frame per chunk is the rule with a live model: no state is touched for it.
        if (
            self._begun
            and not self._parts
            and not self._field_seen
            and not self._after_cr
            and chunk[-2:] == b"\n\n"
            and b"\r" not in chunk
        ):
            start = 0
            if chunk[:7] == b"event: ":
                start = chunk.find(b"\n") + 1
            if chunk[start : start + 6] == b"data: ":
                end = chunk.find(b"\n", start + 6)
                if end == len(chunk) - 2 and end > start + 6:
                    return [chunk[start + 6 : end]]
        return self._feed(chunk)

    def close(self) -> bytes | None:
        """Return the data of an event that the end cut off, or None if the stream ended between events."""
        line = self._head + b"".join(self._parts)
        if not line and not self._field_seen:
            return None
        if line.startswith(b":") and not self._field_seen:
            return None
        payloads: list[bytes] = []
        self._head, self._parts = b"", []
        if line:
            self._line(line, payloads)
        self._flush(payloads, cut=True)
        self._field_seen = False
        return payloads[-1] if payloads else b""

    def _feed(self, chunk: bytes) -> list[bytes]:
        if not self._begun:
            chunk = self._strip_bom(chunk)
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[:1] == b"\n":
                chunk = chunk[1:]
        if not chunk:
            return []
        self._size += len(chunk)
        if self._size > self._limit:
            raise FrameTooLarge
        if b"\n" not in chunk and b"\r" not in chunk:
            self._parts.append(chunk)
            return []
        if self._parts:
            self._parts.append(chunk)
            chunk = b"".join(self._parts)
            self._parts = []
        self._after_cr = chunk[-1:] == b"\r"
        lines = chunk.splitlines()  # of bytes: LF, CR and CRLF, nothing else
        if chunk[-1:] not in b"\r\n":
            self._parts.append(lines.pop())
        return self._take(lines)

    def _take(self, lines: list[bytes]) -> list[bytes]:
        payloads: list[bytes] = []
        for line in lines:
            if not line:
                self._dispatch(payloads)
            elif line.startswith(b":"):
                self.comments += 1
            else:
                self._line(line, payloads)
        return payloads

    def _line(self, line: bytes, payloads: list[bytes]) -> None:
        """Process a line that is neither empty nor a comment."""
        self._field_seen = True
        if line.startswith(b"data:"):
            if self._bare:
                self._flush(payloads)
            self._data.append(_value(line))
        elif line.startswith(b"error:"):
            self._flush(payloads)
            self._data.append(line[6:].strip())
        elif line.startswith(b"{") or (self._bare and line[:1] in _JSON_LINE_STARTS):
            if self._data:
                self._flush(payloads)
            self._bare.append(line)

    def _flush(self, payloads: list[bytes], *, cut: bool = False) -> None:
        """Add the payload of the event; JSON without a field name counts if it has its end or was `cut`."""
        payload, bare = b"\n".join(self._data), b"\n".join(self._bare)
        if payload:
            payloads.append(payload)
        if bare.rstrip().endswith(b"}") or (cut and bare):
            payloads.append(bare)
        self._data, self._bare = [], []

    def _dispatch(self, payloads: list[bytes]) -> None:
        if self._field_seen:
            count = len(payloads)
            self._flush(payloads)
            if len(payloads) == count:
                self.comments += 1
            self._field_seen = False
        self._size = 0

    def _strip_bom(self, chunk: bytes) -> bytes:
        head = self._head + chunk
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head, self._begun = b"", True
        return head.removeprefix(_BOM)


def _value(line: bytes) -> bytes:
    value = line[5:]
    return value[1:] if value[:1] == b" " else value
