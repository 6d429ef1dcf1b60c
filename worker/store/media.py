"""Long strings of an input (images, files) that are kept beside it in pieces, and put back where the input is needed.

The layout of a stored input with such strings (lengths are four bytes):

    5 | piece, sealed | piece, sealed | … | input, sealed as any

Each piece stands behind its length, the input before its own. The sealed input has the mark of the strings and the
number of pieces of each in the member `media`; the name of a piece's field has its position, so that none can be moved,
left out or repeated.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from worker.jobs.errors import ContentDamaged
from worker.store import codec
from worker.store.envelope import INPUT, JobCipher

KIND: Final = b"5"
_LENGTH: Final = struct.Struct("!I")
LENGTH_BYTES: Final = _LENGTH.size
_MEMBER: Final = "media"


@dataclass(frozen=True, slots=True)
class MediaStrings:
    """The strings, each in pieces of at most 1 MiB, all of characters that JSON needs no escape for."""

    mark: str
    strings: list[list[bytes]] = field(repr=False)

    def placeholder(self, number: int) -> str:
        """Return what stands in the input in the place of a string."""
        return f"data:,{self.mark}-{number}"

    def number_of(self, text: str) -> int | None:
        """Return which string a text stands for, or None."""
        prefix = f"data:,{self.mark}-"
        return int(text[len(prefix) :]) if text.startswith(prefix) else None

    @property
    def size(self) -> int:
        """Return the bytes of all strings."""
        return sum(len(piece) for pieces in self.strings for piece in pieces)

    def restored(self, value: Any) -> Any:
        """Return the value with the strings in it; it is changed in place."""
        return _restored(value, self, [b"".join(pieces).decode("ascii") for pieces in self.strings])

    def put_back(self, canonical: bytes) -> Iterator[bytes]:
        """Yield JSON text with the strings in it, in pieces."""
        at = 0
        for match in re.finditer(re.escape(f"data:,{self.mark}-".encode()) + rb"(\d+)", canonical):
            yield canonical[at : match.start()]
            yield from self.strings[int(match[1])]
            at = match.end()
        yield canonical[at:]


def seal_piece(cipher: JobCipher, number: int, piece: bytes) -> bytes:
    """Return a piece as it is stored; `number`: how many pieces come before it. The first begins the stored input."""
    sealed = cipher.seal_bytes(_field(number), piece)
    return (b"" if number else KIND) + _LENGTH.pack(len(sealed)) + sealed


def seal_head(cipher: JobCipher, given: dict[str, Any], mark: str, sizes: list[int]) -> bytes:
    """Return what ends the stored input: the input without its strings; `sizes`: the pieces of each string."""
    head = cipher.seal(INPUT, {**given, _MEMBER: [mark, sizes]})
    return head + _LENGTH.pack(len(head))


def has_media(raw: bytes | None) -> bool:
    """Return whether a stored input has strings beside it; `raw`: its first bytes or all."""
    return raw is not None and raw[:1] == KIND


def head_length(tail: bytes) -> int:
    """Return how many of the last bytes of a stored input hold the input without its strings."""
    return _LENGTH.size + int(_LENGTH.unpack(tail[-_LENGTH.size :].rjust(_LENGTH.size, b"\0"))[0])


def head_of(raw: bytes) -> bytes:
    """Return the sealed input without its strings."""
    return raw[-head_length(raw) : -_LENGTH.size]


def without_media(job_id: str, given: dict[str, Any]) -> Any:
    """Return the input, opened from its head, with null for its strings. Raises ContentDamaged."""
    try:
        mark, sizes = given[_MEMBER]
        return _restored(_without_member(given), MediaStrings(mark, []), [None] * len(sizes))
    except (KeyError, TypeError, ValueError, IndexError):
        raise ContentDamaged(job_id, INPUT) from None


def parts_of(job_id: str, given: dict[str, Any]) -> tuple[dict[str, Any], str, list[int]]:
    """Return (the input with placeholders for its strings, their mark, the pieces of each). Raises ContentDamaged."""
    try:
        mark, sizes = given[_MEMBER]
        return _without_member(given), str(mark), [int(size) for size in sizes]
    except (KeyError, TypeError, ValueError):
        raise ContentDamaged(job_id, INPUT) from None


def piece_bounds(job_id: str, at: int, length: bytes) -> tuple[int, int]:
    """Return (start, end) of the sealed piece whose stored length, `length`, begins at `at`. Raises ContentDamaged."""
    if len(length) != _LENGTH.size:
        raise ContentDamaged(job_id, INPUT)
    start = at + _LENGTH.size
    return start, start + int(_LENGTH.unpack(length)[0])


def open_piece(cipher: JobCipher, number: int, sealed: bytes) -> bytes:
    """Return a piece; `number`: how many pieces come before it. Raises ContentDamaged."""
    return cipher.unseal_bytes(_field(number), sealed)


def _without_member(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != _MEMBER}


async def open_input(cipher: JobCipher, job_id: str, raw: bytes) -> Any:
    """Return a stored input, whole. Raises ContentDamaged, ContentNotSealed."""
    if not has_media(raw):
        return cipher.unseal(INPUT, raw)
    return await open_media(cipher, job_id, raw, cipher.unseal(INPUT, head_of(raw)))


async def open_media(cipher: JobCipher, job_id: str, raw: bytes, given: Any) -> Any:
    """Return the input, opened from its head, with its strings put back; lets the loop serve others between the pieces.

    Raises ContentDamaged.
    """
    try:
        mark, sizes = given[_MEMBER]
        strings, at, number = list[str](), len(KIND), 0
        for size in sizes:
            pieces = []
            for _ in range(size):
                start = at + _LENGTH.size
                at = start + int(_LENGTH.unpack_from(raw, at)[0])
                pieces.append(open_piece(cipher, number, raw[start:at]).decode("ascii"))
                number += 1
                await asyncio.sleep(0)
            strings.append("".join(pieces))
        if at != len(raw) - head_length(raw):
            raise ContentDamaged(job_id, INPUT)
        return _restored(_without_member(given), MediaStrings(mark, []), strings)
    except (KeyError, TypeError, ValueError, IndexError, struct.error):
        raise ContentDamaged(job_id, INPUT) from None


def _restored(given: Any, media: MediaStrings, strings: Sequence[str | None]) -> Any:
    """Put the strings back into the value, in place."""
    left = [given] if isinstance(given, dict | list) else []
    while left:
        one = left.pop()
        for name, inner in one.items() if isinstance(one, dict) else enumerate(one):
            if isinstance(inner, dict | list):
                left.append(inner)
            elif isinstance(inner, str) and (number := media.number_of(inner)) is not None:
                one[name] = strings[number]
    return given


def is_plain(raw: bytes) -> bool:
    """Return whether no key is needed to read a stored input."""
    return codec.is_plain(head_of(raw) if has_media(raw) else raw)


def _field(number: int) -> str:
    return f"{INPUT}:{number}"
