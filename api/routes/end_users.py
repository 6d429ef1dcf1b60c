"""End users of the key's app: who has checks, blocks, warnings or a quarantine, and what led to it. Scope `ops`.

Operators see those of all apps too, by counts and without content.
"""

from __future__ import annotations

from typing import Final, get_args

from starlette.requests import Request
from starlette.responses import Response

from api.jobs.end_user_views import deployment_view, end_user_view, summary_view
from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.end_user_schema import DeploymentEndUserListView, EndUserListView, EndUserView
from api.schema.openapi import LIMIT, TEXT, TIME, operation, parameter
from api.schema.requests import instant
from api.web.auth import authorize
from api.web.params import base_url, integer_param, query_params
from api.web.problems import Problem, bad_parameter
from api.web.responses import json_response
from worker.clock import to_ms
from worker.store.end_users.end_user_ledger import EndUserFilter, Kind, State

routes = Routes("ops")
_ALL: Final = "/v1/end-users"
_ONE: Final = _ALL + "/{end_user:path}"  # an id may contain a slash
_OPERATORS: Final = "/v1/ops/end-users"
_CURSOR: Final = parameter("cursor", "The next_cursor of the previous page.")
_FILTERS: Final = (
    parameter("state", "Only those in this state.", {**TEXT, "enum": list(get_args(State))}),
    parameter("kind", "Only those with an entry of this kind in the ledger.", {**TEXT, "enum": list(get_args(Kind))}),
    parameter("since", "Only those with an entry at this time or later.", TIME),
)
_END_USER: Final = {
    "name": "end_user",
    "in": "path",
    "required": True,
    "schema": TEXT,
    "description": "The app's own id of the end user, or the safety identifier.",
}


@routes.get(
    _ALL,
    operation(
        "list_end_users",
        "List end users with checks, blocks, warnings or a quarantine",
        {200: ("Of the key's app, those with the newest entries first.", EndUserListView)},
        scope="ops",
        parameters=(*_FILTERS, LIMIT, _CURSOR),
    ),
)
async def list_end_users(request: Request) -> Response:
    """Returns a page of them. Where a filter rarely fits, a page may be short, or empty, although `next_cursor` says
    that there may be more.
    """
    key, context = await authorize(request, "ops"), context_of(request)
    params = query_params(request, "state", "kind", "since", "limit", "cursor")
    wanted, limit = _filter(params), integer_param("limit", params.get("limit"), 20, 1, 100)
    found, following = await with_deadline(request, context.ledger.page(key.app, wanted, limit, params.get("cursor")))
    base = base_url(request)
    data = [summary_view(context, one, base) for one in found]
    page: EndUserListView = {"object": "list", "data": data, "next_cursor": following}
    return json_response(page)


@routes.get(
    _ONE,
    operation(
        "get_end_user",
        "Get what is known of an end user",
        {200: ("Ledger, near miss, quarantine with its log, appeals and jobs.", EndUserView)},
        scope="ops",
        problems=(404,),
        parameters=(_END_USER,),
    ),
)
async def get_end_user(request: Request) -> Response:
    """Finds the end user by the app's own id or by the safety identifier. The app's own id is in the answer only if the
    request named it. 404 if the app has no job, entry or quarantine of this end user.
    """
    key, context = await authorize(request, "ops"), context_of(request)
    query_params(request)
    named = str(request.path_params["end_user"])
    found = await with_deadline(request, end_user_view(context, key.app, named, base_url(request)))
    if found is None:
        detail = "No job, entry of the ledger or quarantine of this app is of an end user of this name."
        raise Problem(404, "end_user_not_found", detail)
    return json_response(found)


@routes.get(
    _OPERATORS,
    operation(
        "list_all_end_users",
        "List the end users of all apps",
        {
            200: (
                "With counts, those with the newest entries first; no content, names or reasons.",
                DeploymentEndUserListView,
            )
        },
        scope="ops",
        parameters=(parameter("app", "Only those of this app."), LIMIT, _CURSOR),
    ),
)
async def list_all_end_users(request: Request) -> Response:
    """Returns them for operators, by safety identifier, whichever app's key asks."""
    await authorize(request, "ops")
    context = context_of(request)
    params = query_params(request, "app", "limit", "cursor")
    limit = integer_param("limit", params.get("limit"), 20, 1, 100)
    names = await with_deadline(request, context.deployment.app_names())
    if "app" in params and params["app"] not in names:
        raise bad_parameter("app", "There is no app of this name; `vigil apps list` shows all.")
    apps = [params["app"]] if "app" in params else names
    found, following = await with_deadline(request, context.deployment.end_users(apps, limit, params.get("cursor")))
    data = [deployment_view(context, one) for one in found]
    page: DeploymentEndUserListView = {"object": "list", "data": data, "next_cursor": following}
    return json_response(page)


def _filter(params: dict[str, str]) -> EndUserFilter:
    """Return the filter of these parameters. Raises a Problem (422)."""
    state = next((one for one in get_args(State) if one == params.get("state")), None)
    if "state" in params and state is None:
        raise bad_parameter("state", f"state must be one of {', '.join(get_args(State))}.")
    kind = next((one for one in get_args(Kind) if one == params.get("kind")), None)
    if "kind" in params and kind is None:
        raise bad_parameter("kind", f"kind must be one of {', '.join(get_args(Kind))}.")
    try:
        since = to_ms(instant(params["since"])) if "since" in params else 0
    except ValueError as error:
        raise bad_parameter("since", f"since {error}.") from None
    return EndUserFilter(state, kind, since)
