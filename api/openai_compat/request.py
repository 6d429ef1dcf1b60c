"""A body of OpenAI's `responses.create` -> a job to be, by the same types as the other face.

Our own fields stand in `vigil` and are strict; what we don't know of OpenAI's passes to the provider as it is.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from api.openai_compat.errors import ParamProblem
from api.schema.requests import Submit
from api.web.problems import Fault, Problem, fault, from_validation

_VIGIL: Final = ("policy", "webhook", "end_user", "priority", "not_before", "metadata")
_CHAINED: Final = ("previous_response_id", "conversation")
_FLAGS: Final = ("background", "stream", "store")
_PLACED: Final = frozenset(
    {"model", "input", "instructions", "metadata", "vigil", "background", "stream", "stream_options", "user"}
    | {"safety_identifier", *_CHAINED}
)
"""What has a place of its own in a job; everything else is a parameter of the call."""


class ParsedRequest(NamedTuple):
    """The job to be, and how its answer is wanted."""

    job: Submit
    background: bool
    stream: bool


def read(sent: Any) -> ParsedRequest:
    """Raises a Problem that names every field that can't be used."""
    if not isinstance(sent, dict):
        raise Problem(422, "validation_error", "The body is an object.")
    for name in _CHAINED:
        if sent.get(name) is not None:
            detail = f"{name} is not supported: a job carries its whole input. Send the earlier items in `input`."
            raise ParamProblem(400, "unsupported_parameter", detail, name)
    own = _own(sent.get("vigil"))
    faults = [fault(f"/{name}", "must be true or false", "bool_type") for name in _FLAGS if not _flag(sent.get(name))]
    metadata = _metadata(sent.get("metadata"), own.pop("metadata", None), faults)
    if faults:
        raise Problem(422, "validation_error", "Some fields can't be used as sent.", faults)
    person = sent.get("safety_identifier") if sent.get("safety_identifier") is not None else sent.get("user")
    job: dict[str, Any] = {name: sent[name] for name in ("model", "input", "instructions") if name in sent}
    job["params"] = {name: value for name, value in sent.items() if name not in _PLACED}
    job |= {"metadata": metadata, "end_user": person, **own}
    try:
        return ParsedRequest(Submit.model_validate(job), bool(sent.get("background")), bool(sent.get("stream")))
    except ValidationError as error:
        problem = from_validation(error, job)
        if "end_user" not in own:  # it is named as the caller named it
            name = "safety_identifier" if sent.get("safety_identifier") is not None else "user"
            for row in problem.errors:
                row["pointer"] = row["pointer"].replace("/end_user", f"/{name}")
        raise problem from None


def _own(sent: Any) -> dict[str, Any]:
    if sent is None:
        return {}
    if not isinstance(sent, dict):
        raise ParamProblem(422, "validation_error", "vigil: must be an object", "vigil")
    for name in sent:
        if name not in _VIGIL:
            detail = f"vigil has no such field; known: {', '.join(_VIGIL)}."
            raise ParamProblem(422, "validation_error", detail, f"vigil.{name[:64]}")
    return dict(sent)


def _flag(value: object) -> bool:
    return value is None or isinstance(value, bool)


def _metadata(theirs: Any, ours: Any, faults: list[Fault]) -> dict[str, Any]:
    """OpenAI's pairs and ours as one; ours win."""
    out: dict[str, Any] = {}
    for pointer, sent in (("/metadata", theirs), ("/vigil/metadata", ours)):
        if isinstance(sent, dict):
            out |= sent
        elif sent is not None:
            faults.append(fault(pointer, "must be an object", "dict_type"))
    return out
