"""Converts bodies in UTF-16 and UTF-32 to UTF-8. Pure."""

from __future__ import annotations

import codecs
import json
from typing import Final

_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MARK_BYTES: Final = 4
_WIDE_ENCODINGS: Final = ("utf-16", "utf-32")


def to_utf8(body: bytes) -> bytes | None:
    """Return a complete JSON body as UTF-8, or None if it is not UTF-16 or UTF-32; the mark may be missing."""
    encoding = json.detect_encoding(body)
    return body.decode(encoding, "replace").encode("utf-8", "replace") if encoding.startswith(_WIDE_ENCODINGS) else None


class Utf8Decoder:
    """Converts the pieces of a body to UTF-8 if its first bytes are the mark of UTF-16 or UTF-32."""

    def __init__(self) -> None:
        self._head: bytes | None = b""
        self._decoder: codecs.IncrementalDecoder | None = None

    @property
    def wide(self) -> bool | None:
        """Return whether the body is UTF-16 or UTF-32, or None while that is undecided."""
        return None if self._head is not None else self._decoder is not None

    def feed(self, piece: bytes, *, last: bool = False) -> bytes:
        """Return the piece as UTF-8, or nothing while the encoding is undecided. `last`: nothing more comes."""
        if self._head is not None:
            piece, self._head = self._head + piece, None
            could_be = any(mark.startswith(piece) for mark, _ in _MARKS)
            if not last and (could_be or piece == codecs.BOM_UTF16_LE) and len(piece) < _MARK_BYTES:
                self._head = piece
                return b""
            encoding = next((name for mark, name in _MARKS if piece.startswith(mark)), None)
            if encoding is not None:
                self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        if self._decoder is None:
            return piece
        return self._decoder.decode(piece, last).encode("utf-8", "replace")
