"""The worst requests of a size, for every route of an app: made from the routes and from what they document.

Bodies are built so that each kind of work on them is as long as it can be: many keys, many mistakes, deep nesting, long
strings, digits that nearly match. A route, a field or a parameter that is added later is covered without a change here.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from api.schema.components import resolve
from api.schema.documented_route import DocumentedRoute
from api.schema.openapi import document

MAX_TARGET = 8_000
MAX_HEADER = 28_000


@dataclass(frozen=True)
class WorstRequest:
    """A request: what is bad about it, and what is sent."""

    name: str
    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def _many(size: int, item: str) -> str:
    return ",".join([item] * max(1, size // (len(item) + 1)))


def _members(size: int, value: str = "1") -> str:
    return ",".join(f'"{i:06x}":{value}' for i in range(max(1, size // (10 + len(value)))))


def _text(size: int, piece: str) -> str:
    return '"' + piece * max(1, (size - 2) // len(piece)) + '"'


def _nested(size: int, start: str, end: str, depth: int) -> str:
    return "[" + _many(size - 2, start * depth + end * depth) + "]"


NEAR_DIGITS = "1" * 3999 + "x"
VALUES: dict[str, Callable[[int], str]] = {
    "many keys": lambda n: "{" + _members(n - 2) + "}",
    "many keys, one twice": lambda n: "{" + _members(n - 14) + ',"000000":1}',
    "keys that differ late": lambda n: "{" + ",".join(f'"{"k" * 900}{i}":1' for i in range(n // 908)) + "}",
    "many objects in an object": lambda n: "{" + _members(n - 2, "{}") + "}",
    "empty strings": lambda n: "[" + _many(n - 2, '""') + "]",
    "numbers": lambda n: "[" + _many(n - 2, "1") + "]",
    "exponents": lambda n: "[" + _many(n - 2, "1e99") + "]",
    "nulls": lambda n: "[" + _many(n - 2, "null") + "]",
    "empty objects": lambda n: "[" + _many(n - 2, "{}") + "]",
    "empty lists": lambda n: "[" + _many(n - 2, "[]") + "]",
    "messages": lambda n: "[" + _many(n - 2, '{"role":"user","content":[{"type":"input_text","text":"a"}]}') + "]",
    "nested lists": lambda n: _nested(n, "[", "]", 190),
    "nested objects": lambda n: "[" + _many(n - 2, '{"":' * 190 + "1" + "}" * 190) + "]",
    "as many containers as are allowed": lambda n: (
        "[" + _many(n // 5, '{"a":[1]}') + "," + _many(3 * n // 5, "1") + "]"
    ),
    "nested too deep, at the end": lambda n: "[" + _many(n - 800, "1") + "," + "[" * 300 + "]" * 300 + "]",
    "nested without end": lambda n: "[" * n,
    "objects without end": lambda n: '{"a":' * (n // 5),
    "a long string": lambda n: _text(n, "a"),
    "escapes": lambda n: _text(n, "\\u0001"),
    "NULs": lambda n: _text(n, "\\u0000"),
    "emoji as escapes": lambda n: _text(n, "\\ud83d\\ude00"),
    "half surrogates": lambda n: _text(n, "\\ud83d"),
    "spaces": lambda n: _text(n, " "),
    "quotes without end": lambda n: '"' + '\\"' * (n // 2 - 1),
    "brackets and quotes without end": lambda n: "[" * (n // 3) + '"' + '\\"' * (n // 3),
    "brackets in a string": lambda n: _text(n, "[{"),
    "a long integer": lambda n: "9" * n,
    "integers of 4,290 digits": lambda n: "[" + _many(n - 2, "9" * 4290) + "]",
    "integers of 300 digits": lambda n: "[" + _many(n - 2, "9" * 300) + "]",
    "a long fraction": lambda n: "0." + "9" * (n - 2),
    "a large exponent": lambda _: "1e999999",
    "large exponents, at the end": lambda n: "[" + _many(n - 10, "1") + ",1e999999]",
    "digits that nearly match": lambda n: "[" + _text(n - 700, NEAR_DIGITS) + "," + "[" * 300 + "]" * 300 + "]",
    "digits that nearly are too many": lambda n: "[" + _text(n - 10, "1" * 199 + "x") + ",1e99]",
    "text that nearly is an exponent": lambda n: "[" + _text(n - 10, "e99") + ",1e99]",
    "zeros of an exponent": lambda n: "[1e" + "0" * (n - 5) + "]",
    "not JSON at the end": lambda n: "[" + _many(n - 3, "{}") + "x]",
    "secrets": lambda n: _text(n, "sk-aaaaaaaaaaaaaaaa bearer   -----BEGIN PRIVATE KEY a@a. "),
    "models": lambda n: "[" + _many(n - 2, '"gpt-5.6-sol"') + "]",
}
"""What is wrong -> JSON text of about n bytes."""


def requests_for(
    route: DocumentedRoute, target: str, size: int, named: dict[str, Any], in_fields: Iterable[str] = tuple(VALUES)
) -> Iterator[WorstRequest]:
    """Yield the worst requests for a route; `in_fields`: the values that are also sent in the place of each field."""
    yield from heads(route, target)
    if route.method not in {"POST", "PATCH"}:
        return
    for name, make in VALUES.items():
        yield WorstRequest(name, route.method, target, body=make(size).encode())
    schema, example = body_schema(route, named)
    for path in fields(schema):
        for name in in_fields:
            body = _placed(example, path, VALUES[name](size))
            yield WorstRequest(f"{name} in {'.'.join(path)}", route.method, target, body=body)


def fields(schema: dict[str, Any], outer: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each field that is documented, of inner objects too."""
    options = [schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    for one in options:
        for name, inner in one.get("properties", {}).items():
            yield (*outer, name)
            yield from fields(inner, (*outer, name))
        if "items" in one and outer:
            yield from ((*outer, "0", *path[len(outer) :]) for path in fields(one["items"], outer))


def _placed(example: Any, path: tuple[str, ...], text: str) -> bytes:
    """Return the example as JSON with the text in the place of one value; "0" is the first item of a list."""
    whole = copy.deepcopy(example) if isinstance(example, dict) else {}
    here: Any = whole
    for name, following in itertools.pairwise(path):
        wanted = list if following == "0" else dict
        if name == "0":
            here[:] = here[:1] or [{}]
            here = here[0]
        else:
            if not isinstance(here.get(name), wanted):
                here[name] = wanted()
            here = here[name]
    here[path[-1]] = "\0here\0"
    return json.dumps(whole).replace(json.dumps("\0here\0"), text).encode()


def resolved(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return the schema with what its references name in their place."""
    if isinstance(schema, list):
        return [resolved(one, definitions) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return resolved(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: resolved(one, definitions) for name, one in schema.items() if name not in {"example", "examples"}}


def body_schema(route: DocumentedRoute, definitions: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return the schema of the route's body and an example; {} for one that documents none."""
    content = ((route.operation or {}).get("requestBody") or {}).get("content", {})
    kind, _ = resolve(content.get("application/json", {}))
    return resolved(kind.get("schema", {}), definitions), kind.get("example", {})


def definitions_of(routes: Iterable[DocumentedRoute]) -> dict[str, Any]:
    """Return the named schemas of the document of these routes."""
    found: dict[str, Any] = document("t", "1", "", routes)["components"]["schemas"]
    return found


_WORDS = {
    "digits": "9" * MAX_TARGET,
    "percent escapes": "%30" * (MAX_TARGET // 3),
    "base64": "QUFB" * (MAX_TARGET // 4),
    "a time": "2026-01-01T00:00:00." + "9" * 7_000,
    "commas": "," * MAX_TARGET,
}
_HEADERS = {
    "Idempotency-Key": ['"' + "\\\\" * 13_000 + '"', "k" * MAX_HEADER],
    "Prefer": ["wait=" + "9" * MAX_HEADER, "a=b;c," * 4_500, "wait=1," * 4_000],
    "If-None-Match": ['W/"1",' * 4_500, "," * MAX_HEADER],
    "Last-Event-ID": ["9" * MAX_HEADER],
    "Accept": ["application/json," * 1_600, "," * MAX_HEADER],
    "sentry-trace": ["0" * MAX_HEADER, f"{'0' * 32}-{'0' * 16}-1"],
    "baggage": ["sentry-a=1," * 2_500, "sentry-" + "a" * MAX_HEADER],
    "X-Request-Id": ["a" * MAX_HEADER],
    "X-Forwarded-For": ["1.1.1.1," * 3_500],
    "X-Forwarded-Proto": ["https," * 4_500],
    "traceparent": ["00-" + "0" * MAX_HEADER],
    "Content-Type": ["application/json;" + "charset=utf-8;" * 2_000, "a/" + "+json" * 5_000],
    "webhook-signature": ["v1,AAAA " * 3_000],
    "webhook-id": ["a" * MAX_HEADER],
    "webhook-timestamp": ["9" * MAX_HEADER],
}


def heads(route: DocumentedRoute, target: str) -> Iterator[WorstRequest]:
    """Yield requests with the worst query strings, path parameters and header fields."""
    named = [one["name"] for one in (route.operation or {}).get("parameters", ()) if one["in"] == "query"]
    for about, word in _WORDS.items():
        for name in [*named, "unknown"]:
            yield WorstRequest(f"{name}={about}", route.method, f"{target}?{name}={word}"[:MAX_TARGET])
        if route.param_convertors:
            yield WorstRequest(f"{about} in the path", route.method, _target(route, word)[:MAX_TARGET])
    yield WorstRequest("many parameters", route.method, f"{target}?{'a=1&' * 1_900}")
    yield WorstRequest("one parameter twice", route.method, f"{target}?{'limit=1&' * 18}")
    for name, values in _HEADERS.items():
        for i, value in enumerate(values):
            yield WorstRequest(f"header {name} {i}", route.method, target, {name: value})
    yield WorstRequest("many headers", route.method, target, {f"x-{i}": "a" for i in range(2_000)})


def _target(route: DocumentedRoute, word: str) -> str:
    target = route.path
    for name, convertor in route.param_convertors.items():
        written = "{" + name + (":path}" if type(convertor).__name__ == "PathConvertor" else "}")
        target = target.replace(written, word)
    return target


def target_of(route: DocumentedRoute, ids: dict[str, str]) -> str:
    """Return the route's path with things that exist in the place of its parameters."""
    target = route.path
    for name in route.param_convertors:
        for written in ("{" + name + "}", "{" + name + ":path}"):
            target = target.replace(written, quote(ids[name], safe=""))
    return target
