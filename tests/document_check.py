"""Checks responses against the OpenAPI document, read strictly: no object has a field that the document doesn't name.

So a view and its type can't drift apart: a field that is missing, new, null or of another kind fails the test that
happens to look at it. Every client of `Running` checks each JSON response.
"""

from __future__ import annotations

import re
from functools import cache, cached_property
from typing import Any

import httpx2
import jsonschema_rs

from api.app import openapi_document

UNDOCUMENTED = frozenset({404, 405, 410})
"""What any route may answer beside the statuses in its operation; the body is a Problem all the same."""


class Document:
    """The document with every object closed, and validators for its schemas."""

    def __init__(self) -> None:
        self.document = openapi_document()
        self._validators: dict[str, Any] = {}
        self._operations = [
            (method.upper(), re.compile(_pattern(path)), operation)
            for path, methods in sorted(self.document["paths"].items(), key=lambda row: row[0].count("{"))
            for method, operation in methods.items()
        ]

    @cached_property
    def _components(self) -> dict[str, Any]:
        closed: dict[str, Any] = _closed(self.document["components"]["schemas"])
        return closed

    def faults(self, schema: dict[str, Any], value: Any) -> list[str]:
        """What is wrong with a value, as lines; `schema` is one of the document, perhaps a reference."""
        key = str(schema)
        if key not in self._validators:
            whole = {**_closed(schema), "components": {"schemas": self._components}}
            self._validators[key] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        return [
            f"{'/'.join(map(str, error.instance_path))}: {error.message[:300]}"
            for error in self._validators[key].iter_errors(value)
        ]

    def check(self, name: str, value: Any) -> None:
        """Fail unless `value` is what the component says."""
        assert self.faults({"$ref": f"#/components/schemas/{name}"}, value) == []

    def check_response(self, response: httpx2.Response) -> None:
        """Fail unless a response of a described route is as described."""
        method, path = response.request.method, response.request.url.path
        operation = next((op for verb, form, op in self._operations if verb == method and form.fullmatch(path)), None)
        media = response.headers.get("content-type", "").partition(";")[0]
        if operation is None or not media.endswith("json"):
            return
        where = f"{method} {path} {response.status_code}"
        described = operation["responses"].get(str(response.status_code))
        if described is None:
            assert response.status_code in UNDOCUMENTED, where
            described = operation["responses"]["500"]
        faults = self.faults(described["content"][media]["schema"], response.json())
        assert faults == [], f"{where} {faults}"


@cache
def document() -> Document:
    """The document of this API."""
    return Document()


async def check_each_response(response: httpx2.Response) -> None:
    """A hook for a client."""
    if "json" in response.headers.get("content-type", ""):
        await response.aread()
        document().check_response(response)


def _pattern(path: str) -> str:
    parts = re.split(r"(\{\w+\})", path)
    return "".join(
        (".+" if part == "{end_user}" else "[^/]+") if part.startswith("{") else re.escape(part) for part in parts
    )


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out = {name: _closed(inner) for name, inner in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        out.setdefault("additionalProperties", False)
    return out
