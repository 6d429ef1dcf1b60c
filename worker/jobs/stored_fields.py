"""What every value in Redis has in common: fields of a newer release are kept, and its schema number is looked at.

While a deployment is updated, old and new processes work on the same values. A field that only a newer release knows is
not read, and is written back with the others. What must not be ignored raises the value's `schema_number`: where it is
higher than this release knows, the value is not read at all and stays as it is. `frozen.py` has the same for pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

SCHEMA_FIELD: Final = "schema_number"
"""The lowest schema that a reader must know; a value without it has the first."""
FIRST_SCHEMA: Final = 1
_NEWER: Final = "newer"
_names: dict[type, tuple[str, ...]] = {}  # of each class, in order


class NewerSchema(ValueError):
    """The value says something that only a newer release can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFields:
    """The base of dataclasses that are in Redis; `newer`: the fields that this release does not know, as they were."""

    newer: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)


Body = TypeVar("Body", bound=Mapping[str, Any])
Value = TypeVar("Value", bound=StoredFields)


def require_known_schema(body: Body, known: int = FIRST_SCHEMA) -> Body:
    """Return the value, whose schema is at most `known`. Raises NewerSchema for a higher one, ValueError for none."""
    number = body.get(SCHEMA_FIELD, FIRST_SCHEMA)
    if type(number) is not int:
        raise ValueError("not a schema number")
    if number > known:
        raise NewerSchema("the value needs a newer release")
    return body


def load_fields(kind: type[Value], body: Mapping[str, Any], **decoded: Any) -> Value:
    """Return the dataclass that was stored so. `decoded`: fields that are no plain JSON.

    Raises NewerSchema; TypeError for a value without its fields.
    """
    names = _names_of(kind)
    known = {name: value for name, value in require_known_schema(body).items() if name in names}
    # nearly every value has none
    newer = {name: value for name, value in body.items() if name not in names} if len(known) < len(body) else {}
    return kind(**{**known, **decoded}, newer=newer)


def dump_fields(value: StoredFields) -> dict[str, Any]:
    """Return the value as it is stored: its fields, and those that only a newer release knows."""
    return {**{name: _dump(getattr(value, name)) for name in _names_of(type(value))}, **value.newer}


def _dump(value: Any) -> Any:
    if isinstance(value, StoredFields):
        return dump_fields(value)
    return [_dump(one) for one in value] if isinstance(value, tuple) else value


def _names_of(kind: type[StoredFields]) -> tuple[str, ...]:
    if kind not in _names:
        _names[kind] = tuple(one.name for one in fields(kind) if one.name != _NEWER)
    return _names[kind]
