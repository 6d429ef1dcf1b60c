"""A compressed body, piece by piece: gzip in any number of members, deflate with and without its zlib header."""

from __future__ import annotations

import zlib
from typing import Final

ENCODINGS: Final = frozenset({b"gzip", b"x-gzip", b"deflate"})
_MOST: Final = 16 * 1024 * 1024  # from one piece: no bombs
_GZIP_OR_ZLIB: Final = 47
_RAW: Final = -15
_GZIP: Final = b"\x1f\x8b"
_HEADER: Final = 2  # bytes that tell which it is


class TooMuch(zlib.error):
    """One piece inflates beyond reason."""


class Inflater:
    """Inflates one body. `feed` raises `zlib.error` for what is none of the encodings."""

    def __init__(self) -> None:
        self._head = b""
        self._inflate: zlib._Decompress | None = None
        self._over = False

    def feed(self, piece: bytes) -> bytes:
        """Return what `piece` holds; may be empty."""
        if self._inflate is None:
            piece = self._head + piece
            if len(piece) < _HEADER:
                self._head = piece
                return b""
            self._head, self._inflate = b"", zlib.decompressobj(_window(piece))
        out: list[bytes] = []
        room = _MOST
        while piece and not self._over:
            out.append(self._inflate.decompress(piece, room))
            room -= len(out[-1])
            if self._inflate.unconsumed_tail or room <= 0:
                raise TooMuch("inflates beyond reason")
            if not self._inflate.eof:
                break
            piece = self._head + self._inflate.unused_data
            self._head = b""
            if len(piece) < _HEADER and _GZIP.startswith(piece):
                self._head, self._inflate = piece, None
                break
            self._over = not piece.startswith(_GZIP)  # padding behind the last member
            self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
        return b"".join(out)


def _window(head: bytes) -> int:
    """What zlib is told: RFC 1950's header is a multiple of 31 with method 8; deflate without one is raw (RFC 1951)."""
    zlib_header = head[0] & 0x0F == zlib.DEFLATED and (head[0] << 8 | head[1]) % 31 == 0
    return _GZIP_OR_ZLIB if zlib_header or head.startswith(_GZIP) else _RAW
