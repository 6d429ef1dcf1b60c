"""Cuts JSON down to a depth that the parsers read: what lies deeper becomes null.

Pure; linear in the length. Used only for a payload that a parser refused because of its depth.
"""

from __future__ import annotations

import re
from typing import Final

MAX_DEPTH: Final = 150
"""Below the limit of jiter (200); output of this depth is cut to null later anyway (`content`)."""
_TOKENS: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""A string without its end reaches to the end of the text, so that no quote in it is tried as a beginning."""


def cut_depth(payload: bytes) -> bytes:
    """Return the payload with null instead of each list and object deeper than MAX_DEPTH."""
    out: list[bytes] = []
    depth, kept_to = 0, 0
    for token in _TOKENS.finditer(payload):
        mark = token[0]
        if mark in (b"[", b"{"):
            depth += 1
            if depth == MAX_DEPTH + 1:
                out += [payload[kept_to : token.start()], b"null"]
                kept_to = len(payload)
        elif mark in (b"]", b"}"):
            if depth == MAX_DEPTH + 1:
                kept_to = token.end()
            depth -= 1
    return b"".join([*out, payload[kept_to:]])
