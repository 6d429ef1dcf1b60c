"""Checks JSON values against the request models; says where each bad field is, by JSON pointer, never what was sent.

The work grows with the size of the model, not with the number of mistakes: what is sent beyond all limits of the model
is cut before it is checked (`bounded_input`), and at most MAX_ERRORS mistakes are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from api.web.bounded_input import MAX_ERRORS, bounded
from api.web.problems import Fault, Problem, fault

M = TypeVar("M", bound=BaseModel)

_MAX_NAME_LENGTH: Final = 64
_MESSAGES: Final = {
    "missing": "is required",
    "extra_forbidden": "is not a field here",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "tuple_type": "must be a list",
    "string_type": "must be a string",
    "string_pattern_mismatch": "contains characters that are not allowed",
}
"""Instead of pydantic's messages, which use terms of Python."""


def validate(model: type[M], sent: object) -> M:
    """Return `sent` as the model; raise a Problem (422) that names the first bad fields."""
    try:
        return model.model_validate(bounded(model, sent))
    except ValidationError as error:
        raise _problem(error, sent) from None


def _problem(error: ValidationError, sent: object) -> Problem:
    """Return the Problem (422) that names the first MAX_ERRORS bad fields of `sent`."""
    found: dict[tuple[str, str, str], None] = {}  # in the order in which pydantic reports them, each once
    for row in error.errors(include_input=False, include_url=False, include_context=False):
        pointer = _pointer(row["loc"], sent, missing=row["type"] == "missing")
        detail = _MESSAGES.get(row["type"], row["msg"].removeprefix("Value error, "))
        found[pointer, detail, row["type"]] = None
    outer = {parent for pointer, _, _ in found for parent in _parents(pointer)}
    # of the faults of a union, the deepest is the most precise
    faults: list[Fault] = [fault(*one) for one in found if one[0] not in outer]
    many = len(faults) > MAX_ERRORS
    count = f"More than {MAX_ERRORS}" if many else str(len(faults))
    fields = f"{count} field{'s' if len(faults) != 1 else ''} of the request can't be used as sent; "
    detail = fields + (f"errors names the first {MAX_ERRORS}." if many else "see errors.")
    return Problem(422, "validation_error", detail, faults[:MAX_ERRORS])


def _parents(pointer: str) -> list[str]:
    """Return the pointers of all values that the one of `pointer` is inside."""
    out = []
    while pointer:
        pointer = pointer.rpartition("/")[0]
        out.append(pointer)
    return out


def _pointer(loc: Sequence[int | str], sent: object, *, missing: bool) -> str:
    """Return the RFC 6901 pointer. Pydantic's location also names branches of unions: only steps that exist in `sent`
    are used.
    """
    out, here = "", sent
    for step in loc:
        if isinstance(here, dict) and (step in here or (missing and step is loc[-1])):
            here = here.get(step)
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
        else:
            continue
        out += "/" + str(step)[:_MAX_NAME_LENGTH].replace("~", "~0").replace("/", "~1")
    return out
