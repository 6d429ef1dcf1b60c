"""Reads which jobs an app asks for, from a query or a JSON object, and translates that to the store's filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from api.jobs.submission import identifier
from api.runtime.context import AppContext
from api.schema.components import accepted
from api.schema.openapi import TEXT, TIME, parameter
from api.schema.requests import JobFilter, StatusName
from api.web.problems import Problem, bad_parameter
from api.web.validation import validate
from worker.store.jobs.list_filters import ListFilters

FILTER_PARAMETERS: Final = (
    {
        **parameter(
            "status",
            "Only jobs of this status, or of these.",
            {"anyOf": [accepted(StatusName), {"type": "array", "items": accepted(StatusName)}]},
        ),
        "explode": False,
    },
    parameter("model", "Only jobs that request this model."),
    parameter("served_model", "Only jobs that this model answered."),
    parameter("code", "Only jobs whose error or block has this code, Vigil's own or the provider's."),
    parameter("end_user", "Only jobs of this end user."),
    parameter(
        "metadata",
        "`KEY=VALUE`: only jobs with this pair of metadata; repeated, only jobs with all of them. A key ends at the "
        "first `=`.",
        {"type": "array", "items": TEXT},
    ),
    parameter("request_id", "Only the job of this request of the provider, `x-request-id`."),
    parameter("response_id", "Only the job of this response: the provider's id, or Vigil's own `resp_…`."),
    parameter("group", "Only jobs of this group: the batches that named it, or the one that made it."),
    parameter("created_after", "Only jobs created at this time or later.", TIME),
    parameter("created_before", "Only jobs created before this time.", TIME),
)
"""The filters of a list, as parameters of a query."""
FILTERS: Final = tuple(str(one["name"]) for one in FILTER_PARAMETERS)
REPEATABLE: Final = ("status", "metadata")


def filter_of_query(params: Mapping[str, Sequence[str]]) -> JobFilter:
    """Return the filter that the values of these parameters describe. Raises a Problem (422).

    A status may be repeated, or several may be separated by commas.
    """
    sent: dict[str, Any] = {name: values[0] for name, values in params.items() if name not in REPEATABLE}
    if "status" in params:
        sent["status"] = list(dict.fromkeys(one for value in params["status"] for one in value.split(",")))
    if "metadata" in params:
        sent["metadata"] = _pairs(params["metadata"])
    try:
        return validate(JobFilter, sent)
    except Problem as problem:
        first = problem.errors[0]
        name = str(first["pointer"]).split("/")[1]
        raise bad_parameter(name, f"{name} {first['detail']}.") from None


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise bad_parameter("metadata", "metadata must be KEY=VALUE, percent-encoded as `KEY%3DVALUE`.")
        if key in out:
            raise bad_parameter("metadata", "metadata names a key twice; a job has one value of it.")
        out[key] = value
    return out


async def list_filters(context: AppContext, app: str, wanted: JobFilter) -> ListFilters:
    """Return the store's filters for the app's jobs."""
    return ListFilters(
        statuses=wanted.status,
        model=wanted.model,
        served_model=wanted.served_model,
        code=wanted.code,
        safety_identifier=await identifier(context, app, wanted.end_user),
        metadata=tuple(wanted.metadata.items()),
        request_id=wanted.request_id,
        response_id=wanted.response_id,
        group=wanted.group,
        created_after=wanted.created_after,
        created_before=wanted.created_before,
    )
