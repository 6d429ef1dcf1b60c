"""Quarantine of end users of the key's app, whose jobs are refused: list, add, lift. Scope `ops`."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api.jobs import quarantining
from api.jobs.submission import require_future
from api.runtime.context import context_of
from api.runtime.store_deadline import with_deadline
from api.schema.documented_route import Routes
from api.schema.openapi import TEXT, json_body, operation, parameter
from api.schema.requests import LiftRequest, QuarantineRequest
from api.schema.responses import QuarantinedEndUserView, QuarantineListView
from api.web.auth import authorize
from api.web.body import read_json, read_optional_json
from api.web.params import query_params
from api.web.problems import Problem, bad_parameter
from api.web.responses import json_response
from api.web.validation import validate
from worker.clock import from_ms
from worker.store.end_users.ledger_entries import LEDGER_TTL_S
from worker.store.end_users.quarantine_rows import QuarantinedUser

routes = Routes("ops")
_ALL: Final = "/v1/quarantine"
_ONE: Final = _ALL + "/{end_user:path}"  # an id may contain a slash
_END_USER: Final = {
    "name": "end_user",
    "in": "path",
    "required": True,
    "schema": TEXT,
    "description": "The app's own id of the end user, or the safety identifier.",
}

_REASON: Final = parameter("reason", "Why, if no body says it: at most 500 characters.")


@routes.get(
    _ALL,
    operation(
        "list_quarantine", "List end users in quarantine", {200: ("Of the key's app.", QuarantineListView)}, scope="ops"
    ),
)
async def list_quarantine(request: Request) -> Response:
    """Returns them newest first, with their checks and blocks in the window and in all that the ledger keeps."""
    key, context = await authorize(request, "ops"), context_of(request)
    query_params(request)
    found = await with_deadline(request, context.quarantine.of_app(key.app))
    rows = [await _view(request, one) for one in found]
    page: QuarantineListView = {"object": "list", "data": rows, "next_cursor": None}
    return json_response(page)


@routes.post(
    _ALL,
    operation(
        "add_quarantine",
        "Put an end user in quarantine",
        {
            200: (
                "New jobs are refused from now on, waiting ones are cancelled, running ones continue.",
                QuarantinedEndUserView,
            )
        },
        scope="ops",
        problems=(409,),
        body=json_body(QuarantineRequest, {"end_user": "user-17", "reason": "Reported by the abuse team."}),
    ),
)
async def add_quarantine(request: Request) -> Response:
    """Puts an end user in quarantine, or renews it: this quarantine replaces the one before.

    409 `would_end_earlier` for an end before that of the one in force, unless `shorten` is true.

    It is in force when the response is sent. It names the end user by the app's own id, or a known safety identifier.
    """
    key, context = await authorize(request, "ops"), context_of(request)
    query_params(request)
    sent = await read_json(request, context.settings.body_limit)
    body = validate(QuarantineRequest, sent)
    require_future(body.until, context)
    adding = quarantining.quarantine_end_user(
        context, key, body.end_user, body.reason, body.until, shorten=body.shorten
    )
    added = await with_deadline(request, adding)
    return json_response(await _view(request, added))


@routes.get(
    _ONE,
    operation(
        "get_quarantine",
        "Get whether an end user is in quarantine",
        {200: ("Since when, until when and why.", QuarantinedEndUserView)},
        scope="ops",
        problems=(404,),
        parameters=(_END_USER,),
    ),
)
async def get_quarantine(request: Request) -> Response:
    """Finds the end user by the app's own id or by the safety identifier; 404 if there is no quarantine."""
    key, context = await authorize(request, "ops"), context_of(request)
    query_params(request)
    named = str(request.path_params["end_user"])
    person = await with_deadline(request, quarantining.person_named(context, key.app, named))
    found = await with_deadline(request, context.quarantine.find(key.app, person)) if person is not None else None
    if found is None:
        raise _not_quarantined()
    return json_response(await _view(request, found))


@routes.delete(
    _ONE,
    operation(
        "lift_quarantine",
        "Lift the quarantine of an end user",
        {200: ("The lifted quarantine; earlier blocks no longer count.", QuarantinedEndUserView)},
        scope="ops",
        problems=(400, 404, 413, 415),
        parameters=(_END_USER, _REASON),
        body=json_body(LiftRequest, {"reason": "Appeal upheld: it was coursework."}, required=False),
    ),
)
async def lift_quarantine(request: Request) -> Response:
    """Finds the end user by the app's own id or by the safety identifier; 404 if there is no quarantine. The reason is
    required and kept in the audit trail; a body keeps it out of the logs of proxies.
    """
    key, context = await authorize(request, "ops"), context_of(request)
    params = query_params(request, "reason")
    sent = await read_optional_json(request, context.settings.body_limit)
    if params and sent:
        raise bad_parameter("reason", "Send the reason once: in the body, or as the parameter.")
    reason = validate(LiftRequest, sent or params).reason
    lifting = quarantining.lift_quarantine(context, key, str(request.path_params["end_user"]), reason)
    lifted = await with_deadline(request, lifting)
    if lifted is None:
        raise _not_quarantined()
    return json_response(await _view(request, lifted))


def _not_quarantined() -> Problem:
    return Problem(404, "not_quarantined", "No end user of this name is in quarantine.")


async def _view(request: Request, one: QuarantinedUser) -> QuarantinedEndUserView:
    quarantine, window = context_of(request).quarantine, context_of(request).settings.quarantine_window_seconds
    counts = await with_deadline(request, quarantine.counts(one.safety_identifier, window))
    ledger = await with_deadline(request, quarantine.counts(one.safety_identifier, LEDGER_TTL_S))
    limits = await with_deadline(request, quarantine.limits(one.safety_identifier, LEDGER_TTL_S))
    return {
        "end_user": one.name,
        "safety_identifier": one.safety_identifier,
        "source": one.source,
        "reason": one.reason,
        "since": from_ms(one.since_ms),
        "until": from_ms(one.until_ms) if one.until_ms else None,
        "by": one.by,
        "checks": counts["checks"],
        "blocks": counts["blocks"],
        "limits": limits,
        "ledger": {
            "days": LEDGER_TTL_S // 86_400,
            "checks": ledger["checks"],
            "blocks": ledger["blocks"],
            "warnings": ledger["warnings"],
        },
    }
