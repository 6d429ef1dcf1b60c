"""Events of a Responses stream against the SDK's own types: it builds them without a look, so they are validated here.

Words that the provider adds without notice (error codes, reasons of an incomplete response) may be any.
"""

from typing import Any, get_args

from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel, ValidationError

_OPEN_WORDS = {"code", "reason"}


def event_types() -> dict[str, type[Any]]:
    """Return the SDK's class of each event by the event's type."""
    union = get_args(ResponseStreamEvent)[0]
    return {get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(union)}


_TYPES = event_types()


def faults_of(event: Any) -> list[str]:
    """Return what the SDK's type of this event says against it; nothing when the SDK has no such type."""
    kind = _TYPES.get(event.type or "")
    if kind is None:
        return []
    return [f"{event.type}: {fault}" for fault in faults_in(kind, event)]


def faults_in(kind: type[BaseModel], got: BaseModel) -> list[str]:
    """Return what this type of the SDK says against an object that the SDK has built without a look."""
    try:
        kind.model_validate(got.model_dump(warnings="none", by_alias=True))
    except ValidationError as error:
        return [
            f"{'.'.join(map(str, row['loc']))}: {row['msg']}"
            for row in error.errors()
            if not (row["type"] == "literal_error" and row["loc"][-1] in _OPEN_WORDS)
        ]
    return []
