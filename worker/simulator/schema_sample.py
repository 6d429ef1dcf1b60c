"""Makes a small value that satisfies an ordinary JSON schema: the arguments of a call, a structured answer.

Pure. It follows `$ref` inside the schema, so nested models of pydantic and zod get an instance too.
"""

from __future__ import annotations

from typing import Any

_MAX_DEPTH = 20
_FULL_DEPTH = 6  # from here on an optional part is null
_MAX_VALUES = 10_000
_MAX_TEXT = 10_000
_MAX_BOUND = 1e15
_FORMATS = {
    "date-time": "2026-07-09T12:00:00Z",
    "date": "2026-07-09",
    "time": "12:00:00Z",
    "duration": "P1D",
    "email": "sample@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def sample(schema: Any) -> Any:
    """Return a small value that satisfies the schema, as far as types, bounds, formats and references say it.

    It has at most _MAX_VALUES values, however often a schema says that something is required. A pattern isn't solved.
    """
    return _Sampler(schema).value(schema, 0)


class _Sampler:
    def __init__(self, root: Any) -> None:
        self._root, self._left = root, _MAX_VALUES

    def value(self, schema: Any, depth: int) -> Any:
        self._left -= 1
        schema = self._resolved(schema)
        if not isinstance(schema, dict) or depth > _MAX_DEPTH or self._left < 0:
            return {}
        if "const" in schema:
            return schema["const"]
        if isinstance(schema.get("enum"), list) and schema["enum"]:
            return schema["enum"][0]
        if isinstance(schema.get("allOf"), list) and schema["allOf"]:
            return self.value(self._merged(schema), depth + 1)
        for several in ("anyOf", "oneOf"):
            if isinstance(schema.get(several), list) and schema[several]:
                return self.value(_branch(schema[several], depth), depth + 1)
        kind = schema.get("type", "object")
        kind = kind[0] if isinstance(kind, list) and kind else kind
        if kind == "array":
            return self._array(schema, depth)
        if kind == "string":
            return _string(schema)
        if kind in ("integer", "number"):
            return _number(schema, whole=kind == "integer")
        simple: dict[Any, Any] = {"boolean": True, "null": None}
        return simple[kind] if isinstance(kind, str) and kind in simple else self._object(schema, depth)

    def _resolved(self, schema: Any) -> Any:
        """Follow local references; one that leads nowhere or in a circle is as good as no schema."""
        for _ in range(_MAX_DEPTH):
            pointer = schema.get("$ref") if isinstance(schema, dict) else None
            if not isinstance(pointer, str):
                return schema
            found = self._root
            for step in pointer.removeprefix("#").split("/")[1:]:
                name = step.replace("~1", "/").replace("~0", "~")
                found = found.get(name) if isinstance(found, dict) else None
            schema = found
        return None

    def _merged(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the members of all branches of `allOf` as one schema."""
        out = {name: value for name, value in schema.items() if name != "allOf"}
        for branch in schema["allOf"][:_MAX_DEPTH]:
            for name, value in (self._resolved(branch) or {}).items() if isinstance(branch, dict) else ():
                if isinstance(value, dict) and isinstance(out.get(name), dict):
                    out[name] = {**out[name], **value}
                elif isinstance(value, list) and isinstance(out.get(name), list):
                    out[name] = [*out[name], *value]
                else:
                    out[name] = value
        return out

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        prefix = schema.get("prefixItems")
        out = [self.value(one, depth + 1) for one in prefix[: self._left]] if isinstance(prefix, list) else []
        least = schema.get("minItems")
        count = min(least, self._left) - len(out) if isinstance(least, int) else 0
        return out + [self.value(schema.get("items", {}), depth + 1) for _ in range(count)]

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties, required = schema.get("properties"), schema.get("required")
        properties = properties if isinstance(properties, dict) else {}
        names = [name for name in (required if isinstance(required, list) else properties) if isinstance(name, str)]
        found: dict[str, Any] = {}
        for name in dict.fromkeys(names):
            if self._left <= 0:
                break
            found[name] = self.value(properties.get(name, {"type": "string"}), depth + 1)
        return found


def _branch(branches: list[Any], depth: int) -> Any:
    """Return the first branch that is a plain value, or deep down null, so that recursion ends; else the first."""
    kinds = [branch.get("type") if isinstance(branch, dict) else None for branch in branches]
    for branch, kind in zip(branches, kinds, strict=True):
        if kind in ("string", "integer", "number", "boolean") or (kind == "null" and depth > _FULL_DEPTH):
            return branch
    return branches[0]


def _string(schema: dict[str, Any]) -> str:
    known = schema.get("format")
    text = _FORMATS.get(known, "ok") if isinstance(known, str) else "ok"
    least, most = schema.get("minLength"), schema.get("maxLength")
    if isinstance(least, int) and len(text) < least:
        text = text.ljust(min(least, _MAX_TEXT), "k")
    return text[:most] if isinstance(most, int) and most >= 0 else text


def _number(schema: dict[str, Any], *, whole: bool) -> float:
    """Return a number within the bounds, as near to 1 as they allow."""
    low, above = _bound(schema, "minimum"), _bound(schema, "exclusiveMinimum")
    high, below = _bound(schema, "maximum"), _bound(schema, "exclusiveMaximum")
    value: float = 1
    if low is not None:
        value = max(value, low)
    if above is not None and value <= above:
        value = above + 1
    if high is not None:
        value = min(value, high)
    if below is not None and value >= below:
        floor = above if above is not None else low
        value = below - 1 if whole or floor is None or floor < below - 1 else (floor + below) / 2
    part = _bound(schema, "multipleOf")
    if part is not None and part > 0 and value % part:
        value = part * (value // part + 1)
    return int(value) if whole and value == value // 1 else value


def _bound(schema: dict[str, Any], name: str) -> float | None:
    """Return a bound that can be added to without an overflow, or None."""
    value = schema.get(name)
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MAX_BOUND
    return value if usable else None
