"""The text of an API key: how one is made, and recognised without asking Redis.

190 random bits need no slow hash: it would only let an attacker use up CPU.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Final

_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY, _CHECK = 32, 6


def new_key(random_bytes: bytes) -> str:
    """Return `vgl_`, 32 random characters, and a checksum of 6: scanners recognise a key without asking Vigil."""
    body = _base62(int.from_bytes(random_bytes, "big"), _BODY)
    return f"vgl_{body}{_base62(zlib.crc32(body.encode()), _CHECK)}"


def is_well_formed(key: str) -> bool:
    """Return False for text that can't be a key, so that junk costs no call to Redis."""
    if not key.startswith("vgl_") or len(key) != 4 + _BODY + _CHECK or not key.isascii():
        return False
    body = key[4 : 4 + _BODY]
    return key[4 + _BODY :] == _base62(zlib.crc32(body.encode()), _CHECK)


def digest_of(key: str) -> str:
    """Return the SHA-256 under which a key is stored."""
    return hashlib.sha256(key.encode()).hexdigest()


def _base62(value: int, width: int) -> str:
    out = ""
    for _ in range(width):
        value, low = divmod(value, 62)
        out = _BASE62[low] + out
    return out
