"""Appeals against blocks and quarantines, as cases of the key's app: open, list, get, take steps. Scope `ops`."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, TypeVar, get_args

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from api.jobs import appealing
from api.jobs.appeal_views import appeal_view
from api.jobs.quarantining import person_named
from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.end_user_schema import (
    AppealAnswerRequest,
    AppealJobsRequest,
    AppealListView,
    AppealNoteRequest,
    AppealOutcomeRequest,
    AppealRequest,
    AppealSentRequest,
    AppealView,
)
from api.schema.openapi import LIMIT, TEXT, json_body, operation, parameter
from api.web.auth import authorize
from api.web.body import read_json
from api.web.params import base_url, integer_param, query_params
from api.web.problems import Problem, bad_parameter
from api.web.responses import json_response
from api.web.validation import validate
from worker.jobs import ids
from worker.safety.appeals import Appeal, AppealState
from worker.store.end_users.appeals import is_in

routes = Routes("ops")
B = TypeVar("B", bound=BaseModel)
_ALL: Final = "/v1/appeals"
_ONE: Final = _ALL + "/{appeal_id}"
_APPEAL: Final = {"name": "appeal_id", "in": "path", "required": True, "schema": TEXT, "description": "`appeal_…`"}
_AFTER: Final = {200: ("The appeal after this step.", AppealView)}
_FILTERS: Final = (
    parameter("state", "Only appeals in this state.", {**TEXT, "enum": list(get_args(AppealState))}),
    parameter("end_user", "Only appeals of this end user: the app's own id, or the safety identifier."),
    parameter("job", "Only appeals about this job."),
    parameter("provider_case", "Only appeals that were sent under this case of the provider."),
)
_NAMES: Final = ("end_user", "job", "provider_case")
_MORE: Final = parameter("cursor", "The next_cursor of the previous page.")


@routes.post(
    _ALL,
    operation(
        "open_appeal",
        "Open an appeal",
        {201: ("The appeal, which is open now.", AppealView)},
        scope="ops",
        problems=(409,),
        body=json_body(AppealRequest, {"end_user": "user-17", "reason": "Says that it was coursework."}),
    ),
)
async def open_appeal(request: Request) -> Response:
    """Opens an appeal of an end user, or about jobs. Each step of it is an audit record, without its text."""
    key, context = await authorize(request, "ops"), context_of(request)
    query_params(request)
    body = await _read(request, AppealRequest)
    opening = appealing.open_appeal(context, key, body.end_user, body.jobs, body.reason, body.provider_case)
    shown = appeal_view(await with_deadline(request, opening), base_url(request))
    if body.end_user is not None and body.end_user != shown["safety_identifier"]:
        shown["end_user"] = body.end_user
    response = json_response(shown, 201)
    response.headers["Location"] = shown["urls"]["self"]
    return response


@routes.get(
    _ALL,
    operation(
        "list_appeals",
        "List appeals",
        {200: ("Of the key's app, newest first.", AppealListView)},
        scope="ops",
        problems=(409,),
        parameters=(*_FILTERS, LIMIT, _MORE),
    ),
)
async def list_appeals(request: Request) -> Response:
    """Returns a page of them. Where a state is rare, a page may be short although there are more.

    Only one of `end_user`, `job` and `provider_case` may be sent.
    """
    key, context = await authorize(request, "ops"), context_of(request)
    params = query_params(request, "state", *_NAMES, "limit", "cursor")
    states = [one for one in get_args(AppealState) if one == params.get("state")]
    if "state" in params and not states:
        raise bad_parameter("state", f"state must be one of {', '.join(get_args(AppealState))}.")
    named = [name for name in _NAMES if name in params]
    if len(named) > 1:
        raise bad_parameter(named[1], f"Send only one of {', '.join(_NAMES)}.")
    limit, index = integer_param("limit", params.get("limit"), 20, 1, 100), ("", "")
    if "end_user" in params:
        person = await with_deadline(request, person_named(context, key.app, params["end_user"]))
        index = ("user", person or params["end_user"])
    elif "job" in params:
        index = ("job", ids.job_id_of(params["job"]))
    elif "provider_case" in params:
        index = ("case", params["provider_case"])
    paging = context.appeals.page(key.app, index, is_in(states), limit, params.get("cursor"))
    found, following = await with_deadline(request, paging)
    data = [appeal_view(one, base_url(request)) for one in found]
    page: AppealListView = {"object": "list", "data": data, "next_cursor": following}
    return json_response(page)


@routes.get(
    _ONE,
    operation(
        "get_appeal",
        "Get an appeal",
        {200: ("The appeal with all its steps.", AppealView)},
        scope="ops",
        problems=(404, 409),
        parameters=(_APPEAL,),
    ),
)
async def get_appeal(request: Request) -> Response:
    """Returns one appeal of the key's app."""
    key, context = await authorize(request, "ops"), context_of(request)
    query_params(request)
    found = await with_deadline(request, context.appeals.find(key.app, _id(request)))
    if found is None:
        raise Problem(404, "appeal_not_found", appealing.NOT_FOUND)
    return json_response(appeal_view(found, base_url(request)))


@routes.post(
    f"{_ONE}/sent",
    operation(
        "mark_appeal_sent",
        "Record that an appeal was sent to the provider",
        _AFTER,
        scope="ops",
        problems=(404, 409),
        parameters=(_APPEAL,),
        body=json_body(AppealSentRequest, {"provider_case": "C-1042"}),
    ),
)
async def mark_appeal_sent(request: Request) -> Response:
    """Keeps the provider's case, by which its notices are linked. Follows an appeal that is open or answered."""
    key, context = await authorize(request, "ops"), context_of(request)
    query_params(request)
    body = await _read(request, AppealSentRequest)
    return await _shown(request, appealing.mark_sent(context, key, _id(request), body.provider_case, body.note))


@routes.post(
    f"{_ONE}/answer",
    operation(
        "record_appeal_answer",
        "Record the provider's answer to an appeal",
        _AFTER,
        scope="ops",
        problems=(404, 409),
        parameters=(_APPEAL,),
        body=json_body(AppealAnswerRequest, {"answer": "The block is upheld."}),
    ),
)
async def record_appeal_answer(request: Request) -> Response:
    """Follows an appeal that was sent."""
    key, context = await authorize(request, "ops"), context_of(request)
    query_params(request)
    body = await _read(request, AppealAnswerRequest)
    return await _shown(request, appealing.record_answer(context, key, _id(request), body.answer))


@routes.post(
    f"{_ONE}/outcome",
    operation(
        "close_appeal",
        "Close an appeal with its outcome",
        _AFTER,
        scope="ops",
        problems=(404, 409),
        parameters=(_APPEAL,),
        body=json_body(AppealOutcomeRequest, {"outcome": "overturned", "reason": "The provider agrees."}),
    ),
)
async def close_appeal(request: Request) -> Response:
    """`upheld` and `overturned` follow an open or an answered appeal, `withdrawn` any that is not closed.

    A quarantine is not lifted by it: `DELETE /v1/quarantine/{end_user}` does that, with its own reason.
    """
    key, context = await authorize(request, "ops"), context_of(request)
    query_params(request)
    body = await _read(request, AppealOutcomeRequest)
    return await _shown(request, appealing.close(context, key, _id(request), body.outcome, body.reason))


@routes.post(
    f"{_ONE}/notes",
    operation(
        "add_appeal_note",
        "Add a note to an appeal",
        _AFTER,
        scope="ops",
        problems=(404, 409),
        parameters=(_APPEAL,),
        body=json_body(AppealNoteRequest, {"text": "Called; will send the syllabus."}),
    ),
)
async def add_appeal_note(request: Request) -> Response:
    """Keeps the note with the appeal until that is removed, 90 days after it was closed."""
    key, context = await authorize(request, "ops"), context_of(request)
    query_params(request)
    body = await _read(request, AppealNoteRequest)
    return await _shown(request, appealing.add_note(context, key, _id(request), body.text))


@routes.post(
    f"{_ONE}/jobs",
    operation(
        "link_appeal_jobs",
        "Link jobs to an appeal",
        _AFTER,
        scope="ops",
        problems=(404, 409),
        parameters=(_APPEAL,),
        body=json_body(AppealJobsRequest, {"jobs": ["job_01j00000000000000000000000"]}),
    ),
)
async def link_appeal_jobs(request: Request) -> Response:
    """Their support packets name the appeal from then on."""
    key, context = await authorize(request, "ops"), context_of(request)
    query_params(request)
    body = await _read(request, AppealJobsRequest)
    return await _shown(request, appealing.link_jobs(context, key, _id(request), body.jobs))


def _id(request: Request) -> str:
    return str(request.path_params["appeal_id"])


async def _read(request: Request, model: type[B]) -> B:
    return validate(model, await read_json(request, context_of(request).settings.body_limit))


async def _shown(request: Request, step: Awaitable[Appeal]) -> Response:
    return json_response(appeal_view(await with_deadline(request, step), base_url(request)))
