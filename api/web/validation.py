"""Checks JSON values against the request models; says where each bad field is, by JSON pointer, never what was sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from api.web.problems import Fault, Problem, fault

M = TypeVar("M", bound=BaseModel)

_MAX_ERRORS: Final = 20
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
    """Return `sent` as the model; raise a Problem (422) that names every bad field."""
    try:
        return model.model_validate(sent)
    except ValidationError as error:
        raise from_validation(error, sent) from None


def from_validation(error: ValidationError, sent: object) -> Problem:
    """Return the Problem (422) that names every bad field of `sent`."""
    rows = error.errors(include_input=False, include_url=False, include_context=False)
    faults: list[Fault] = []
    for row in rows:
        pointer = _pointer(row["loc"], sent, missing=row["type"] == "missing")
        detail = _MESSAGES.get(row["type"], row["msg"].removeprefix("Value error, "))
        one = fault(pointer, detail, row["type"])
        if one not in faults:
            faults.append(one)
    faults = [one for one in faults if not any(_is_inside(other, one) for other in faults)]
    detail = f"{len(faults)} field{'s' if len(faults) != 1 else ''} of the request can't be used as sent; see errors."
    return Problem(422, "validation_error", detail, faults[:_MAX_ERRORS])


def _is_inside(inner: Fault, outer: Fault) -> bool:
    """Return whether `inner` is deeper in the same place: of the faults of a union, the deepest is the most precise."""
    return inner["pointer"].startswith(outer["pointer"] + "/")


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
