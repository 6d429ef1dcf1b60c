"""Routes of the console: pages are read, actions change something, and both show their errors as pages.

A page needs a session whose key has its scope. An action needs that too, and a form that a page of this session sent:
its CSRF token is checked, and its Origin.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import Final
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from api.console.notices import with_notice
from api.console.page_response import HEADERS, Page, render, render_page
from api.console.visit import (
    LIVE_HEADER,
    ROOT,
    Form,
    LoginNeeded,
    Visit,
    check_csrf,
    check_origin,
    console_url,
    read_form,
    session_cookie,
    session_of,
    visit_of,
)
from api.schema.documented_route import DocumentedRoute, Handler, Operation
from api.web.header_fields import header_values
from api.web.problems import Problem, problem_of

MAX_FORM_BYTES: Final = 64 * 1024
_MAX_NEXT: Final = 2_000
_SAFE: Final = "/?&=:,.~+-_%"


@dataclass(frozen=True, slots=True)
class Done:
    """Where the browser goes on: to the page `path`, which shows the notice of this code."""

    path: str
    notice: str | None = None
    count: int | None = None


PageHandler = Callable[[Visit], Awaitable[Page | Done]]
ActionHandler = Callable[[Visit, Form], Awaitable[Page | Done]]


class ConsoleRoute(DocumentedRoute):
    """A route whose errors are pages."""

    async def respond(self, request: Request) -> Response:
        """Return the handler's response, the login for a page without a session, or a page about the error."""
        try:
            return await super().respond(request)
        except ClientDisconnect:
            raise
        except LoginNeeded:
            return _to_login(request)
        except Exception as error:  # noqa: BLE001  a person reads it
            return await error_page(request, problem_of(error, request.scope))


class ConsoleRoutes:
    """The routes of one module of the console, collected by decorators."""

    def __init__(self) -> None:
        self.all: Final[list[ConsoleRoute]] = []

    def page(self, path: str, scope: str = "read") -> Callable[[PageHandler], PageHandler]:
        """Add a page at this path below /console, for keys with the scope."""

        def decorate(handler: PageHandler) -> PageHandler:
            @wraps(handler)
            async def respond(request: Request) -> Response:
                visit = await visit_of(request, scope)
                return _response(visit, await handler(visit))

            self.add(path, respond, "GET")
            return handler

        return decorate

    def action(
        self, path: str, scope: str, max_bytes: int = MAX_FORM_BYTES
    ) -> Callable[[ActionHandler], ActionHandler]:
        """Add an action at this path below /console, for keys with the scope; it is sent as a form by POST."""

        def decorate(handler: ActionHandler) -> ActionHandler:
            @wraps(handler)
            async def respond(request: Request) -> Response:
                visit = await visit_of(request, scope)
                check_origin(request)
                form = await read_form(request, max_bytes)
                check_csrf(visit.session, form)
                return _response(visit, await handler(visit, form))

            self.add(path, respond, "POST")
            return handler

        return decorate

    def add(self, path: str, handler: Handler, method: str, operation: Operation | None = None) -> None:
        """Add a handler that checks by itself who may call it."""
        self.all.append(ConsoleRoute(f"{ROOT}{path}", handler, method, operation, None))


def _response(visit: Visit, result: Page | Done) -> Response:
    if isinstance(result, Page):
        return render_page(visit, result)
    address = visit.url(result.path)
    return redirect(with_notice(address, result.notice, result.count) if result.notice else address)


class RootRoute(ConsoleRoute):
    """Leads a browser from / to the console; every other request for / is answered as if this route were not there."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return whether the request is a browser's."""
        html = scope["type"] == "http" and "text/html" in ",".join(header_values(scope, b"accept"))
        return super().matches(scope) if html and scope["method"] in {"GET", "HEAD"} else (Match.NONE, {})


async def lead_to_console(request: Request) -> Response:
    """Return a redirect to the console."""
    return redirect(console_url(request, ""))


def redirect(address: str) -> Response:
    """Return a redirect to an address of this console, which the browser reads."""
    return Response(status_code=303, headers=HEADERS | {"Location": address})


def next_path(text: str) -> str:
    """Return the page to go on with after the login; the first page for what can't be one."""
    fits = text.startswith("/") and not text.startswith("//") and len(text) <= _MAX_NEXT and text.isascii()
    return quote(text, safe=_SAFE) if fits and text.isprintable() and "\\" not in text else ""


def _to_login(request: Request) -> Response:
    """Return the way to the login.

    A browser sends no SameSite=Strict cookie with a link of another site: it gets a page that opens the same address
    again, from this site.
    """
    if header_values(request.scope, LIVE_HEADER):
        return Response(status_code=401, headers=HEADERS)
    method, cookie = request.method, session_cookie(request)
    if method == "GET" and cookie is None and header_values(request.scope, b"sec-fetch-site") == ["cross-site"]:
        return render(request, "again.html", {})
    target = request.scope["path"].removeprefix(ROOT)
    if request.scope["query_string"]:
        target += "?" + request.scope["query_string"].decode("latin-1")
    target = next_path(target) if method == "GET" else ""
    return redirect(console_url(request, "/login" + (f"?next={quote(target, safe='')}" if target else "")))


async def error_page(request: Request, problem: Problem) -> Response:
    """Return the page about a problem; it shows the navigation to those who are logged in."""
    page = Page("problem.html", {"problem": problem.body()}, status=problem.status)
    try:
        session = await session_of(request)
    except Exception as error:  # noqa: BLE001  then the page shows no navigation
        problem_of(error, request.scope)
        session = None
    if session is None:
        response = render(request, "problem_outside.html", page.values, page.status)
    else:
        response = render_page(Visit(request, session), page)
    for name in ("Retry-After", "Allow"):
        if name in problem.headers:
            response.headers[name] = problem.headers[name]
    return response
