"""Log in with an API key or a one-time link, and log out."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from api.console.console_routes import ConsoleRoutes, next_path, redirect
from api.console.page_response import render
from api.console.visit import (
    check_csrf,
    check_origin,
    console_url,
    read_form,
    session_cookie,
    session_of,
    set_session_cookie,
)
from api.runtime.context import context_of
from api.runtime.partitions import partitions_of
from api.runtime.store_deadline import with_deadline
from api.web.problems import Problem
from worker.jobs.errors import UNAUTHENTIC, RecordUnreadable
from worker.store.apps import ApiKey
from worker.store.console_access import LINK_PREFIX
from worker.store.values import report_unreadable
from worker.telemetry.events import emit

routes = ConsoleRoutes()
_MAX_FORM_BYTES = 8 * 1024
_WRONG_LINK = (
    "This link was used before or is older than ten minutes, or its key was revoked. `vigil console` prints another."
)
_WRONG_KEY = "This is no live API key of this Vigil. `vigil keys list` shows those that there are."


async def show_login(request: Request) -> Response:
    """Return the login; somebody who is logged in may log in with another key."""
    return _login_page(request, next_path(request.query_params.get("next", "")))


async def log_in(request: Request) -> Response:
    """Begin a session. Whatever cookie was sent is replaced and its session ends, so nobody can prepare one."""
    check_origin(request)
    attempts = context_of(request).console.attempts
    try:
        async with attempts.turns.turn():
            form = await read_form(request, _MAX_FORM_BYTES)
            secret = form.text("secret").rpartition("#link=")[2]  # without the script a person pastes the whole address
            key = await with_deadline(request, _key_of(request, secret))
    except TimeoutError:
        raise Problem(503, "too_busy", "Too many log in at once; try again.", headers={"Retry-After": "1"}) from None
    going_on, what = next_path(form.text("next")), "link" if secret.startswith(LINK_PREFIX) else "key"
    if key is None:
        wait = attempts.fail(request.client.host if request.client else "")
        if wait is not None:
            detail = f"Too many failed attempts from your address; try again in {wait} s."
            raise Problem(429, "too_many_attempts", detail, headers={"Retry-After": str(wait)})
        emit("console.login_refused", what=what)
        return _login_page(request, going_on, _WRONG_LINK if what == "link" else _WRONG_KEY)
    before, sessions = session_cookie(request), context_of(request).console.sessions
    if before is not None:  # it may be one of another partition than the new one
        ending = partitions_of(request).everywhere(lambda context: context.console.sessions.end(before))
        await with_deadline(request, ending)
    response = redirect(console_url(request, going_on))
    set_session_cookie(request, response, await with_deadline(request, sessions.begin(key)))
    emit("console.logged_in", app=key.app, what=what)
    return response


async def log_out(request: Request) -> Response:
    """End the session. A form of another site comes without the strict cookie, and must not remove it either."""
    check_origin(request)
    session = await session_of(request)
    response = redirect(console_url(request, "/login"))
    if session is not None:
        form = await read_form(request, _MAX_FORM_BYTES)
        check_csrf(session, form)
        await with_deadline(request, context_of(request).console.sessions.end(session.token))
    set_session_cookie(request, response, "")
    return response


async def _key_of(request: Request, secret: str) -> ApiKey | None:
    if not secret.isascii():
        return None
    try:
        return await partitions_of(request).find(
            request, f"login {secret}", lambda context: context.console.sessions.key_of(secret)
        )
    except RecordUnreadable as error:
        if error.why not in UNAUTHENTIC:
            raise
        report_unreadable(error)
        return None


def _login_page(request: Request, going_on: str, fault: str | None = None) -> Response:
    return render(request, "login.html", {"next": going_on, "fault": fault}, 401 if fault else 200)


routes.add("/login", show_login, "GET")
routes.add("/login", log_in, "POST")
routes.add("/logout", log_out, "POST")
