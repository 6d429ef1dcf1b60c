"""A Bloom filter over the chains of a segment: tells which segments need not be read for a chain. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Collection, Iterator
from typing import Final

_BITS_PER_CHAIN: Final = 10  # one in a hundred segments is read for nothing
_HASHES: Final = 7


def filter_of(chains: Collection[str]) -> str:
    """Return the filter in base64."""
    bits = bytearray(max(8, (len(chains) * _BITS_PER_CHAIN + 7) // 8))
    for chain in chains:
        for bit in _bits(chain, len(bits) * 8):
            bits[bit >> 3] |= 1 << (bit & 7)
    return base64.b64encode(bits).decode()


def may_have(text: str, chain: str) -> bool:
    """Return False if the chain is none of those of the filter; True for a text that is no filter."""
    try:
        bits = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return True
    return not bits or all(bits[bit >> 3] >> (bit & 7) & 1 for bit in _bits(chain, len(bits) * 8))


def _bits(chain: str, size: int) -> Iterator[int]:
    digest = hashlib.blake2b(chain.encode(), digest_size=16).digest()
    first, step = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big") | 1
    for n in range(_HASHES):
        yield (first + n * step) % size
