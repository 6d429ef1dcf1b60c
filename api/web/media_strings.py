"""Takes long base64 strings (images, files, audio) out of JSON text, so that only the rest has to be parsed and held.

What is taken out is left as it is until the worker needs it: in pieces of 1 MiB, each handled by calls into C that are
short, while a parser would hold the interpreter for as long as it copies 30 MiB. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from worker.store.media import MediaStrings

SHORTEST: Final = 64 * 1024
"""Bytes of the shortest string that is taken out."""
_PIECE: Final = 2**20
_QUOTE: Final = b'"'
_BACKSLASH: Final = 0x5C
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-"
_DATA_URL: Final = re.compile(rb"(?i:data):[!#-+\--~]{0,200},")
_FIELDS: Final = frozenset({"image_url", "url", "file_data", "data", "result"})
"""Where images and files stand in Responses items and chat messages."""


class TextTooLong(Exception):
    """What is not a string of an image or a file is longer than it may be."""


class CutText(NamedTuple):
    """JSON text without its long strings, and these; `size`: bytes of the text without what stands in their place."""

    text: bytes
    media: MediaStrings
    size: int


def cut_media(raw: bytes, most: int, mark: str) -> CutText:
    """Take the long base64 strings out; each leaves a `data:` URL with the `mark`, which must be unguessable.

    Raises TextTooLong as soon as the rest is known to be longer than `most` bytes. Text that is no JSON is left as it
    is from where that shows: the parser says so.
    """
    media, kept, copied, cut = MediaStrings(mark, []), list[bytes](), 0, 0
    for start, end in _long_strings(raw, most):
        pieces = _base64_pieces(raw, start, end)
        if pieces is None:
            continue
        kept += (raw[copied:start], media.placeholder(len(media.strings)).encode())
        media.strings.append(pieces)
        copied, cut = end, cut + end - start
    if len(raw) - cut > most:
        raise TextTooLong
    kept.append(raw[copied:])
    return CutText(b"".join(kept), media, len(raw) - cut)


def only_in_media_fields(value: Any, media: MediaStrings) -> bool:
    """Return whether each string that was taken out stands where an image or a file may be."""
    found, left = 0, [value] if isinstance(value, dict | list) else []
    while left:
        one = left.pop()
        for name, inner in one.items() if isinstance(one, dict) else ((None, inner) for inner in one):
            if isinstance(inner, dict | list):
                left.append(inner)
            elif isinstance(inner, str) and name in _FIELDS and media.number_of(inner) is not None:
                found += 1
    return found == len(media.strings)


def _long_strings(raw: bytes, most: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the content of each long string without an escaped quote."""
    at, text = 0, 0
    while (opening := raw.find(_QUOTE, at)) >= 0:
        closing, escaped = raw.find(_QUOTE, opening + 1), False
        while closing >= 0 and raw[closing - 1] == _BACKSLASH:
            if text + closing - opening > most:  # before it is looked at byte by byte
                raise TextTooLong
            if not _is_escaped(raw, opening + 1, closing):
                break
            escaped = True
            closing = raw.find(_QUOTE, closing + 1)
        if closing < 0:
            return
        length = closing - opening - 1
        if length >= SHORTEST and not escaped:
            yield opening + 1, closing
        else:
            text += length + opening - at
        if text > most:
            raise TextTooLong
        at = closing + 1


def _is_escaped(raw: bytes, start: int, quote: int) -> bool:
    """Return whether an odd number of backslashes stands before the quote."""
    at = quote
    while at > start and raw[at - 1] == _BACKSLASH:
        at -= 1
    return (quote - at) % 2 == 1


def _base64_pieces(raw: bytes, start: int, end: int) -> list[bytes] | None:
    r"""Return the string in pieces, without the escapes of `/` that PHP writes; None if it is no base64, nor a `data:`
    URL of some.
    """
    pieces, at = list[bytes](), start
    head = _DATA_URL.match(raw, start, min(end, start + 256))
    if head is not None:
        pieces.append(raw[start : head.end()].replace(b"\\/", b"/"))
        if _BACKSLASH in pieces[0]:
            return None
        at = head.end()
    while at < end:
        stop = min(end, at + _PIECE)
        if stop < end and raw[stop - 1] == _BACKSLASH:
            stop += 1
        piece = raw[at:stop]
        if _BACKSLASH in piece:
            piece = piece.replace(b"\\/", b"/")
        if piece.translate(None, _BASE64):
            return None
        pieces.append(piece)
        at = stop
    return pieces
