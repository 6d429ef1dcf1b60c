"""The client's types are those of the API's document: the same fields, the same values, null where null may come.

What the client leaves open on purpose is listed here with its reason; everything else that differs fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from document_check import document

from worker.client import models, responses
from worker.client.api_model import ApiModel

DOCUMENT = document().document
COMPONENTS = DOCUMENT["components"]["schemas"]

PAIRS: dict[str, type[ApiModel]] = {
    "Job": models.Job,
    "CancelledJob": models.CancelledJob,
    "BatchRow": responses.BatchRow,
    "Message": responses.Message,
    "AuditRecord": responses.AuditRecord,
    "Model": responses.Model,
    "Status": responses.Status,
    "JobList": responses.Page[models.Job],
}
LEFT_OUT = {
    "/object": "a constant: the client's type says it",
    "/created": "for clients of OpenAI: the client reads `price_from`",
    "/owned_by": "for clients of OpenAI: a constant",
}
LEFT_OPEN = {
    "/unreadable": "names of members: plain text",
    "/urls": "a map of names to URLs",
    "/problem": "the client raises no error for a row of a batch; the caller reads the document as it came",
    "/account/families": "a map for people: the client's `raw` has it",
    "/account/evidence": "a map for people: the client's `raw` has it",
    "/accounts/families": "a map for people: the client's `raw` has it",
    "/circuits": "rows for people: the client's `raw` has them",
    "/pauses": "rows for people: the client's `raw` has them",
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_type_is_that_of_the_document(name):
    schema = PAIRS[name].model_json_schema()
    assert list(differences(schema, schema, ref(name), "")) == []


def test_every_list_that_has_pages_is_read_as_a_page():
    paged = {name for name, schema in COMPONENTS.items() if "next_cursor" in schema.get("properties", {})}
    lists = paged - {"JobActions", "SafetyReport"}  # more than rows: what became of many jobs, sums
    assert lists
    for name in lists:
        assert set(COMPONENTS[name]["properties"]) == {"object", *responses.Page.model_fields}, name


def test_an_event_has_the_members_of_every_event_of_the_document():
    kinds = COMPONENTS["StreamedEvent"]["discriminator"]["mapping"]
    members = set().union(*(resolved({"$ref": to}, COMPONENTS)["properties"] for to in kinds.values()))
    assert members == set(models.Event.model_fields)
    assert models.DELTA in kinds
    assert set(kinds) >= models.TERMINAL_EVENTS
    settled = {name for name in kinds if name.removeprefix("job.") in COMPONENTS["JobStatus"]["enum"]}
    assert settled - models.TERMINAL_EVENTS <= {"job.queued", "job.scheduled"}


def test_what_is_left_open_is_still_there():
    seen = {path for name in PAIRS for path in paths(ref(name), "")}
    assert {*LEFT_OUT, *LEFT_OPEN} <= seen


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema behind references and beside null."""
    while True:
        if "$ref" in schema:
            schema = definitions[schema["$ref"].rpartition("/")[2]]
        elif "anyOf" in schema and len(rest := [one for one in schema["anyOf"] if one != {"type": "null"}]) == 1:
            schema = rest[0]
        else:
            return schema


def differences(client: dict[str, Any], field: dict[str, Any], documented: dict[str, Any], path: str) -> Iterator[str]:
    """What differs between a field of the client and the schema of the document."""
    if path in LEFT_OPEN or (path and documented.get("$ref", "").rpartition("/")[2] in PAIRS):
        return  # the latter is compared on its own
    definitions = client.get("$defs", {})
    if nullable(documented, COMPONENTS) and not nullable(field, definitions):
        yield f"{path}: null is not read"
    read_as, described = resolved(field, definitions), resolved(documented, COMPONENTS)
    if (known := values(described, COMPONENTS)) != (read := values(read_as, definitions)):
        yield f"{path}: the document has {known}, the client {read}"
    if described.get("type") == "array":
        yield from differences(client, read_as.get("items", {}), described.get("items", {}), path)
    elif "properties" in described:
        yield from _members(client, read_as, described, path)


def _members(client: dict[str, Any], read_as: dict[str, Any], described: dict[str, Any], path: str) -> Iterator[str]:
    here, there = read_as.get("properties", {}), described["properties"]
    for name in sorted(here.keys() | there.keys()):
        at = f"{path}/{name}"
        if name not in there:
            yield f"{at}: not in the document"
        elif name not in here:
            if at not in LEFT_OUT:
                yield f"{at}: not in the client"
        else:
            yield from differences(client, here[name], there[name], at)
    if extra := set(read_as.get("required", ())) - set(described.get("required", ())):
        yield f"{path}: the client wants {extra}, which may be missing"


def nullable(schema: dict[str, Any], definitions: dict[str, Any]) -> bool:
    if "$ref" in schema:
        return nullable(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return schema.get("type") == "null" or any(nullable(one, definitions) for one in schema.get("anyOf", ()))


def values(schema: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    """The known values of a text; none if it may be any."""
    schema = resolved(schema, definitions)
    found = [schema["const"]] if "const" in schema else list(schema.get("enum", ()))
    for one in schema.get("anyOf", ()):
        found += values(one, definitions)
    return sorted(map(str, found))


def paths(schema: dict[str, Any], path: str) -> Iterator[str]:
    schema = resolved(schema, COMPONENTS)
    yield path
    if schema.get("type") == "array":
        yield from paths(schema["items"], path)
    for name, inner in schema.get("properties", {}).items():
        yield from paths(inner, f"{path}/{name}")
