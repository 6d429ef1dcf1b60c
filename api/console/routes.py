"""All routes of the console."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from api.console import login
from api.console.console_routes import ConsoleRoute, ConsoleRoutes, RootRoute, lead_to_console, redirect
from api.console.navigation import ENTRIES
from api.console.pages import (
    appeals,
    apps,
    audit,
    cost,
    end_users,
    job,
    job_actions,
    job_content,
    job_documents,
    jobs,
    lab,
    now,
    try_it,
    webhooks,
)
from api.console.static_files import get_static
from api.console.visit import console_url, session_of
from api.web.problems import Problem

_PAGES: Final = (
    now,
    jobs,
    job_actions,
    job,
    job_content,
    job_documents,
    try_it,
    webhooks,
    end_users,
    appeals,
    cost,
    audit,
    lab,
    apps,
)
"""The modules of pages, each with its `routes`."""


async def _first_page(request: Request) -> Response:
    """Return the way to the first page that the session's key may see: one with `ops` alone has no Now."""
    session = await session_of(request)
    scopes = session.key.scopes if session is not None else ()
    return redirect(console_url(request, next((one.path for one in ENTRIES if one.scope in scopes), ENTRIES[0].path)))


async def _no_page(_: Request) -> Response:
    raise Problem(404, "not_found", "There is no such page.")


def console_routes() -> list[ConsoleRoute]:
    """Return the routes, the one for everything that no other serves last."""
    shared = ConsoleRoutes()
    shared.add("", _first_page, "GET")
    shared.add("/", _first_page, "GET")
    shared.add("/static/{version}/{name}", get_static, "GET")
    pages = [route for module in (login, *_PAGES) for route in module.routes.all]
    rest = ConsoleRoutes()
    rest.add("/{path:path}", _no_page, "GET")
    return [RootRoute("/", lead_to_console, "GET", None, None), *shared.all, *pages, *rest.all]
