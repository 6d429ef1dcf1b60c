"""The header fields of a request, found without reading them all: a dozen are asked for while it is served."""

from __future__ import annotations

from typing import Final

from starlette.types import Scope

_FIELDS: Final = "vigil.header_fields"


def header_values(scope: Scope, name: bytes) -> list[str]:
    """Return every value of a header field, in the order sent; `name` is in lower case."""
    fields: dict[bytes, bytes] | None = scope.get(_FIELDS)
    if fields is None:
        fields = scope[_FIELDS] = dict(scope["headers"])
    if name not in fields:
        return []
    if len(fields) == len(scope["headers"]):  # none is sent twice
        return [fields[name].decode("latin-1")]
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
