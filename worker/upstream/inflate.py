"""Decompresses a body piece by piece: gzip in any number of members, deflate with and without its zlib header.

A body that is plainly a stream of events, JSON or a page is passed on unchanged, because headers may name an encoding
that was not applied.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

_MAX_INFLATED_BYTES: Final = 16 * 1024 * 1024  # of one piece, against compression bombs
_GZIP_OR_ZLIB: Final = 47
_RAW: Final = -15
_GZIP: Final = b"\x1f\x8b"
_HEADER_BYTES: Final = 2  # bytes that show the encoding
_MAX_LAYERS: Final = 3
_PLAIN: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:data:|event:|id:|retry:|error:|:[ \r\n]|[\[{]\s*[\"\[{]|<[!?a-zA-Z])"
)
_PLAIN_HEADER_BYTES: Final = 8  # bytes that show whether it is compressed at all


class InflatedTooLarge(zlib.error):
    """One piece inflates to more than the limit."""


class Inflater:
    """Inflates one body. `feed` raises `zlib.error` for anything that is none of the encodings."""

    def __init__(self, encoding: bytes = b"deflate") -> None:
        self._raw = encoding == b"deflate"  # only then may it have no header
        self._plain = False
        self._begun = False
        self._head = b""
        self._inflate: zlib._Decompress | None = None
        self._over = False

    def feed(self, piece: bytes) -> bytes:
        """Return the decompressed `piece`, which may be empty."""
        if self._plain:
            return piece
        if self._inflate is None:
            piece = self._head + piece
            bare = len(piece) >= _HEADER_BYTES and _window_bits(piece) == _RAW and not self._begun
            if bare and _PLAIN.match(piece):
                self._plain, self._head = True, b""
                return piece
            if len(piece) < (_PLAIN_HEADER_BYTES if bare else _HEADER_BYTES):
                self._head = piece
                return b""
            if bare and not self._raw:
                raise zlib.error("compressed by a method that is not supported")
            self._begun = True
            self._head, self._inflate = b"", zlib.decompressobj(_window_bits(piece))
        out: list[bytes] = []
        room = _MAX_INFLATED_BYTES
        while piece and not self._over:
            out.append(self._inflate.decompress(piece, room))
            room -= len(out[-1])
            if self._inflate.unconsumed_tail or room <= 0:
                raise InflatedTooLarge("inflates beyond reason")
            if not self._inflate.eof:
                break
            piece = self._head + self._inflate.unused_data
            self._head = b""
            if len(piece) < _HEADER_BYTES and _GZIP.startswith(piece):
                self._head, self._inflate = piece, None
                break
            self._over = not piece.startswith(_GZIP)  # padding behind the last member
            self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
        return b"".join(out)


class ContentDecoder:
    """Decodes a body: the encoding that its header names, gzip that no header names, gzip in gzip."""

    def __init__(self, encoding: bytes = b"") -> None:
        self._layers = [] if encoding in (b"", b"identity") else [Inflater(encoding)]
        self._begun = False

    def feed(self, piece: bytes) -> bytes:
        """Return the decoded `piece`, which may be empty; raise `zlib.error` if that fails."""
        for layer in self._layers:
            piece = layer.feed(piece)
        while piece and not self._begun:
            # neither JSON nor events nor a page begin with this byte
            self._begun = piece[:1] != _GZIP[:1] or len(self._layers) >= _MAX_LAYERS
            if not self._begun:
                self._layers.append(Inflater(b"gzip"))
                piece = self._layers[-1].feed(piece)
        return piece


def _window_bits(head: bytes) -> int:
    """Return zlib's window bits: RFC 1950's header is a multiple of 31 with method 8, else it is raw (RFC 1951)."""
    zlib_header = head[0] & 0x0F == zlib.DEFLATED and (head[0] << 8 | head[1]) % 31 == 0
    return _GZIP_OR_ZLIB if zlib_header or head.startswith(_GZIP) else _RAW
