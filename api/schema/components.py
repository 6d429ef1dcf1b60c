"""Generates the schemas of the OpenAPI document from the request models and the types of response bodies.

An operation holds a `SchemaOf` wherever the document has a schema; `resolve` replaces them all by references.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from worker.jobs.events import FACTS

Schema = dict[str, Any]
Mode = Literal["validation", "serialization"]

REFERENCE: Final = "#/components/schemas/{model}"
_NAMES: Final = {
    "Status": "JobStatus",
    "Outcome": "AttemptOutcome",
    "Purpose": "AttemptPurpose",
    "Evidence": "CheckEvidence",
    "NewEndpoint": "NewWebhookEndpoint",
    "EndpointChange": "WebhookEndpointChange",
    "OpenCircuit": "Circuit",
    "WorkerHeartbeat": "Worker",
}
"""Names in the document of types whose own name says too little outside of their module."""
_RESPONSE_NAMES: Final = {
    "Policy": "JobPolicy",  # as stored: money is text, and a field of a later release may be missing
    "OnDelay": "JobDelayRule",
    "Hold": "HoldData",  # in events; a job's own Hold has fewer fields
    "NextAction": "DelayRuleAction",  # in events; a job's own NextAction also tells of deadlines
    **{fact.__name__: f"{fact.__name__}Data" for fact in FACTS.values()},
}


@dataclass(frozen=True, slots=True)
class SchemaOf:
    """The place of a type's schema: `validation` for what is sent to Vigil, `serialization` for what it returns."""

    type: Any
    mode: Mode


def accepted(kind: Any) -> SchemaOf:
    """Return the place of the schema of a request body."""
    return SchemaOf(kind, "validation")


def returned(kind: Any) -> SchemaOf:
    """Return the place of the schema of a response body."""
    return SchemaOf(kind, "serialization")


def resolve(part: Any) -> tuple[Any, dict[str, Schema]]:
    """Return `part` with references for its places, and the schemas that they name."""
    places = list(dict.fromkeys(_places(part)))
    references: dict[SchemaOf, Schema] = {}
    schemas: dict[str, Schema] = {}
    for generator in (_RequestSchema, _ResponseSchema):
        found, definitions = _generate([one for one in places if one.mode == generator.MODE], generator)
        references |= found
        for name, schema in definitions.items():
            if schemas.setdefault(name, schema) != schema:
                raise ValueError(f"two schemas of the document are named {name}")
    return _replace(part, references), schemas


class _RequestSchema(GenerateJsonSchema):
    """Names the schemas of request bodies."""

    MODE: Mode = "validation"
    NAMES: Mapping[str, str] = _NAMES

    def normalize_name(self, name: str) -> str:
        """Return the name of a type in the document."""
        return self.NAMES.get(name) or super().normalize_name(name).removesuffix("View")

    def field_title_should_be_set(self, _: Any) -> bool:
        """Return False: a title would repeat the name of the field."""
        return False


class _ResponseSchema(_RequestSchema):
    """Names the schemas of response bodies."""

    MODE: Mode = "serialization"
    NAMES: Mapping[str, str] = _NAMES | _RESPONSE_NAMES


def _generate(
    places: list[SchemaOf], generator: type[_RequestSchema]
) -> tuple[dict[SchemaOf, Schema], dict[str, Schema]]:
    inputs: list[tuple[SchemaOf, Mode, TypeAdapter[Any]]] = [
        (place, place.mode, TypeAdapter(place.type)) for place in places
    ]
    found, document = TypeAdapter.json_schemas(inputs, ref_template=REFERENCE, schema_generator=generator)
    definitions: dict[str, Schema] = document.get("$defs", {})
    for schema in definitions.values():
        schema.pop("title", None)  # the class's name, which differs from the schema's
        if generator.MODE == "serialization" and schema.get("additionalProperties") is False:
            del schema["additionalProperties"]  # a response may gain fields
    return {place: schema for (place, _), schema in found.items()}, definitions


def _places(part: Any) -> Iterator[SchemaOf]:
    if isinstance(part, SchemaOf):
        yield part
    elif isinstance(part, dict):
        for inner in part.values():
            yield from _places(inner)
    elif isinstance(part, list | tuple):
        for inner in part:
            yield from _places(inner)


def _replace(part: Any, references: Mapping[SchemaOf, Schema]) -> Any:
    if isinstance(part, SchemaOf):
        return references[part]
    if isinstance(part, dict):
        return {name: _replace(inner, references) for name, inner in part.items()}
    return [_replace(inner, references) for inner in part] if isinstance(part, list | tuple) else part
