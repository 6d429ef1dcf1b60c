"""Encodes the keys of the audit trail as text: urlsafe base64 of 32 bytes. Pure, and quick to import."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

SIZE: Final = 32


def id_of(public: bytes) -> str:
    """Return the id of a public key."""
    return hashlib.sha256(public).hexdigest()[:16]


def as_text(public: bytes) -> str:
    """Return a public key as text."""
    return base64.urlsafe_b64encode(public).decode()


def from_text(text: str) -> bytes:
    """Decode 32 bytes of urlsafe base64; raise ValueError for anything else, without the text in its message."""
    try:
        raw = base64.b64decode(text.strip() + "=" * (-len(text.strip()) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != SIZE:
        raise ValueError("is not urlsafe base64 of 32 bytes")
    return raw
