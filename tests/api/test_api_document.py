"""What programs that read the OpenAPI document rely on: a name for every object, a type for every kind of event."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from document_check import document
from pydantic import BaseModel

from api.schema.components import accepted, resolve, returned
from worker.jobs.events import FACTS

DOCUMENT = document().document
SCHEMAS = DOCUMENT["components"]["schemas"]
METHODS = {"get", "post", "patch", "delete"}


def parts(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Every object of a JSON value with its path."""
    if isinstance(value, dict):
        yield path, value
        for name, inner in value.items():
            yield from parts(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from parts(inner, (*path, index))


def test_every_object_with_fields_and_every_state_has_a_name():
    unnamed = [
        path
        for name, schema in SCHEMAS.items()
        for path, part in parts(schema)
        if path
        and path[-1] != "properties"
        and isinstance(part.get("properties"), dict)
        and part.get("type") == "object"
    ]
    assert unnamed == []
    assert [path for path, part in parts(DOCUMENT["paths"]) if "properties" in part] == []
    assert {"Job", "Attempt", "Check", "Problem", "WebhookEndpoint", "JobStatus", "AttemptOutcome"} <= set(SCHEMAS)
    assert all(re.fullmatch(r"[A-Z][A-Za-z]+", name) for name in SCHEMAS), sorted(SCHEMAS)
    assert not [name for name in SCHEMAS if name.endswith("View")]


def test_every_schema_is_used():
    used = {part["$ref"].rpartition("/")[2] for _, part in parts(DOCUMENT) if "$ref" in part}
    used |= {to.rpartition("/")[2] for _, part in parts(SCHEMAS) for to in _mapping(part)}
    assert set(SCHEMAS) == used


def test_events_are_told_apart_by_their_type():
    kinds = SCHEMAS["Event"]["discriminator"]
    assert kinds["propertyName"] == "type"
    assert set(kinds["mapping"]) == set(FACTS)
    assert set(SCHEMAS["StreamedEvent"]["discriminator"]["mapping"]) == {*FACTS, "job.output.delta"}
    for kind, reference in kinds["mapping"].items():
        event = SCHEMAS[reference.rpartition("/")[2]]
        assert event["properties"]["type"]["const"] == kind
        assert "$ref" in event["properties"]["data"]
        assert {"seq", "type", "at", "job_id", "attempt", "data"} == set(event["required"])


def test_descriptions_are_for_users():
    texts = [part["description"] for _, part in parts(DOCUMENT) if isinstance(part.get("description"), str)]
    assert not [text for text in texts if re.search(r"wire\.md|promise P|contract section|\bRedis key\b", text)]
    assert [name for name, schema in SCHEMAS.items() if "description" not in schema] == ["JsonValue"]


def test_a_response_may_gain_fields_and_a_request_may_not():
    assert "additionalProperties" not in SCHEMAS["Block"]
    for name in ("Submit", "Policy", "PauseRequest", "NewWebhookEndpoint"):
        assert SCHEMAS[name]["additionalProperties"] is False


def test_every_operation_says_how_it_fails():
    for methods in DOCUMENT["paths"].values():
        for method in METHODS & methods.keys():
            failures = {s: r for s, r in methods[method]["responses"].items() if int(s) >= 400}
            assert {"500", "503"} <= failures.keys()
            assert methods[method]["security"] == [] or "401" in failures
            for response in failures.values():
                assert [next(iter(body["schema"])) for body in response["content"].values()] == ["$ref"]


def test_two_types_of_one_name_are_refused():
    class Offer(BaseModel):
        one: int

    first, Offer.__module__ = Offer, "elsewhere"

    class Offer(BaseModel):  # type: ignore[no-redef]
        two: int

    with pytest.raises(ValueError, match="named Offer"):
        resolve([accepted(first), returned(Offer)])


def _mapping(part: dict[str, Any]) -> list[str]:
    found = part.get("mapping")
    return list(found.values()) if isinstance(found, dict) and part.get("propertyName") == "type" else []
