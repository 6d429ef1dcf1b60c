"""Translates a body of OpenAI's `responses.create` to a submit request, validated as in the native API.

Vigil's own fields are in `vigil` and are strict; unknown fields of OpenAI are passed to the provider unchanged.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from api.openai_compat.errors import ParamProblem
from api.schema.requests import Submit
from api.web.problems import Fault, Problem, fault
from api.web.validation import validate

_VIGIL_FIELDS: Final = ("policy", "webhook", "end_user", "priority", "not_before", "metadata")
_FLAGS: Final = ("background", "stream", "store")
_STATE: Final = ("previous_response_id", "conversation")
"""May be null, as the SDK of OpenAI may send them."""
_MAPPED: Final = frozenset(
    {"model", "input", "instructions", "metadata", "vigil", "background", "stream", "stream_options", "user"}
    | {"safety_identifier"}
)
"""Fields that are not passed to the provider as `params`."""


class ParsedRequest(NamedTuple):
    """The job to submit, and how its response is requested."""

    job: Submit
    background: bool
    stream: bool


def parse_request(sent: Any) -> ParsedRequest:
    """Parse a body. Raises a Problem that names every bad field."""
    if not isinstance(sent, dict):
        raise Problem(422, "validation_error", "The body must be an object.")
    vigil = _vigil_fields(sent.get("vigil"))
    faults = [fault(f"/{name}", "must be true or false", "bool_type") for name in _FLAGS if not _flag(sent.get(name))]
    metadata = _metadata(sent.get("metadata"), vigil.pop("metadata", None), faults)
    if faults:
        raise Problem(422, "validation_error", "Some fields can't be used as sent.", faults)
    end_user = sent.get("safety_identifier") if sent.get("safety_identifier") is not None else sent.get("user")
    job: dict[str, Any] = {name: sent[name] for name in ("model", "input", "instructions") if name in sent}
    job["params"] = {
        name: value for name, value in sent.items() if name not in _MAPPED and not (value is None and name in _STATE)
    }
    _leave_out_comparison(job["params"])
    job |= {"metadata": metadata, "end_user": end_user, **vigil}
    try:
        return ParsedRequest(validate(Submit, job), bool(sent.get("background")), bool(sent.get("stream")))
    except Problem as problem:
        if "end_user" not in vigil:  # use the caller's name of the field
            name = "safety_identifier" if sent.get("safety_identifier") is not None else "user"
            for row in problem.errors:
                row["pointer"] = row["pointer"].replace("/end_user", f"/{name}")
        raise


def _leave_out_comparison(params: dict[str, Any]) -> None:
    """Remove the response with which the provider's cache is to be compared: it has an id of ours, which the provider
    does not know. pydantic-ai sends it in every turn after the first; it asks for a diagnosis only.
    """
    options = params.get("prompt_cache_options")
    if isinstance(options, dict) and "comparison_response_id" in options:
        kept = {name: value for name, value in options.items() if name != "comparison_response_id"}
        params["prompt_cache_options"] = kept
        if not kept:
            del params["prompt_cache_options"]


def _vigil_fields(sent: Any) -> dict[str, Any]:
    if sent is None:
        return {}
    if not isinstance(sent, dict):
        raise ParamProblem(422, "validation_error", "vigil: must be an object", "vigil")
    for name in sent:
        if name not in _VIGIL_FIELDS:
            detail = f"vigil has no such field; known: {', '.join(_VIGIL_FIELDS)}."
            raise ParamProblem(422, "validation_error", detail, f"vigil.{name[:64]}")
    return dict(sent)


def _flag(value: object) -> bool:
    return value is None or isinstance(value, bool)


def _metadata(openai: Any, vigil: Any, faults: list[Fault]) -> dict[str, Any]:
    """Return both metadata objects as one; the pairs in `vigil` win."""
    out: dict[str, Any] = {}
    for pointer, sent in (("/metadata", openai), ("/vigil/metadata", vigil)):
        if isinstance(sent, dict):
            out |= sent
        elif sent is not None:
            faults.append(fault(pointer, "must be an object", "dict_type"))
    return out
