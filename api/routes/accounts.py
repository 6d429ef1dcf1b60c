"""The accounts at the provider, as the operators configured them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.runtime.context import AppContext, context_of
from api.runtime.store_deadline import with_deadline
from api.schema.account_view import configured_account_view, provider_account_view
from api.schema.documented_route import Routes
from api.schema.openapi import operation
from api.schema.status_responses import AccountListView
from api.web.auth import authorize
from api.web.params import query_params
from api.web.responses import json_response

routes = Routes()


@routes.get(
    "/v1/accounts",
    operation(
        "list_accounts",
        "List the accounts at the provider",
        {200: ("All accounts: settings without secrets, what is bound to each, and its state.", AccountListView)},
        scope="ops",
    ),
)
async def accounts(request: Request) -> Response:
    """Returns each account with its circuit, its state, and the apps and models that are bound to it."""
    await authorize(request, "ops")
    query_params(request)
    return json_response(await with_deadline(request, _accounts(context_of(request))))


async def _accounts(context: AppContext) -> AccountListView:
    states, circuits = await context.deployment.accounts(), await context.deployment.circuits()
    bindings = context.accounts.bindings
    data = [
        configured_account_view(account, bindings, provider_account_view(name, states[name], circuits))
        for name, account in context.accounts.by_name.items()
    ]
    return {"object": "list", "data": data, "next_cursor": None}
