"""Tell what kind of key a key of Redis is: the word behind `vigil:`, as keys.py spells it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import FunctionType
from typing import Final

from worker.store import keys


def _spelled() -> Iterator[str]:
    """Yield the names of keys, or how they begin, that stand in keys.py."""
    for value in vars(keys).values():
        yield from [value] if isinstance(value, str) else ()
        if isinstance(value, FunctionType) and value.__module__ == keys.__name__:
            yield from (part for part in value.__code__.co_consts if isinstance(part, str))


KINDS: Final = frozenset(kind for name in _spelled() for kind in re.findall(r"vigil:([a-z]+)", name))
"""The kinds of keys: the word behind `vigil:`. ops/design/redis-keys.md describes each."""


def kind_of(key: str) -> str:
    """Return the kind of a key; "other" for one that is not in keys.py."""
    kind = key.split(":")[1] if key.startswith("vigil:") else ""
    return kind if kind in KINDS else "other"
