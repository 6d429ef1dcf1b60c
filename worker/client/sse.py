"""A parser of server-sent events without I/O: takes chunks of bytes and returns frames, as the HTML standard says."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
MAX_FRAME: Final = 64 * 1024 * 1024


class FrameTooLarge(ValueError):
    """One frame is larger than the limit."""


class Frame(NamedTuple):
    """One event of the stream; `id` is the last id that was sent, as the standard requires."""

    event: str
    data: str
    id: str


class Parser:
    """Splits a byte stream into frames; drops comments, unknown fields and frames without data."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._partial: list[bytes] = []  # the chunks of an unfinished line: joined once, so never quadratic
        self._size = 0  # bytes of the frame being read
        self._begun = False  # the first line was read, and with it a BOM
        self._after_cr = False  # the last chunk ended in CR: a LF that follows belongs to it
        self._event, self._id = "", ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> list[Frame]:
        """Return the frames that `chunk` completes, in order. Raise FrameTooLarge above the limit."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        lines = _LINE_END.split(chunk)
        lines[0] = b"".join([*self._partial, lines[0]]) if len(lines) > 1 else lines[0]
        if len(lines) > 1:
            self._partial = []
        last = lines.pop()
        frames = [frame for line in lines if (frame := self._take(line)) is not None]
        self._size += len(last)
        if self._size > self._limit:
            raise FrameTooLarge
        if last:
            self._partial.append(last)
        return frames

    def _take(self, line: bytes) -> Frame | None:
        if not self._begun:
            line, self._begun = line.removeprefix(_BOM), True
        if not line:
            frame = Frame(self._event or "message", "\n".join(self._data), self._id) if self._data else None
            self._event, self._data, self._size = "", [], 0
            return frame
        self._size += len(line)
        name, _, value = line.decode(errors="replace").partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case _:
                pass  # a comment or an unknown field
        return None
