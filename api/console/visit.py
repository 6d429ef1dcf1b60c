"""Who visits the console: the session of a request, and the checks that every action passes.

The cookie is read here and nowhere else: the API knows bearer keys alone, so no page of another origin can make a
browser call it.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from api.runtime.console_sessions import ConsoleSession
from api.runtime.context import AppContext, context_of
from api.runtime.partitions import partitions_of
from api.runtime.store_deadline import with_deadline
from api.web.auth import enter
from api.web.body import read_body
from api.web.forwarded import prefix
from api.web.header_fields import header_values
from api.web.params import APP_KEY
from api.web.problems import Problem
from api.web.receipt import note_no_answers
from worker.jobs.errors import UNAUTHENTIC, RecordUnreadable
from worker.store.apps import ApiKey
from worker.store.console_access import SESSION_SECONDS
from worker.store.values import report_unreadable

ROOT: Final = "/console"
LIVE_HEADER: Final = b"vigil-live"
"""Sent by console.js when it asks for a newer state of the page that is open."""
_COOKIE: Final = "vigil_console"
_SECURE_COOKIE: Final = "__Secure-vigil_console"
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_FIELDS: Final = 2_000


class LoginNeeded(Exception):
    """The request has no live session."""


class Form:
    """The fields of an action's form."""

    def __init__(self, pairs: list[tuple[str, str]], size: int) -> None:
        """`size`: the bytes of the body."""
        self.pairs, self.size = pairs, size

    def text(self, name: str, default: str = "") -> str:
        """Return the field, without spaces around it; `default` if it is missing or empty."""
        return next((value.strip() for key, value in self.pairs if key == name), "") or default

    def all(self, name: str) -> list[str]:
        """Return every value of the field: of boxes that are ticked."""
        return [value for key, value in self.pairs if key == name]


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody who is logged in."""

    request: Request
    session: ConsoleSession

    @property
    def context(self) -> AppContext:
        """Return the objects that handlers work with."""
        return context_of(self.request)

    @property
    def key(self) -> ApiKey:
        """Return the API key that the session stands for, without the limits of its app."""
        return self.session.key

    @property
    def query(self) -> Mapping[str, str]:
        """Return the query's parameters."""
        return self.request.query_params

    @property
    def is_live(self) -> bool:
        """Return whether an open page asks for a newer state of itself: it costs as few reads as possible."""
        return bool(header_values(self.request.scope, LIVE_HEADER))

    def may(self, scope: str) -> bool:
        """Return whether the key has this scope: pages show no button of an action that it may not do."""
        return scope in self.key.scopes

    async def key_with_limits(self) -> ApiKey:
        """Return the key with the rate and quota of its app, which that of a session lacks; raise LoginNeeded if it is
        not live any more.
        """
        key = await with_deadline(self.request, self.context.key_cache.find_by_id(self.key.id))
        if key is None:
            raise LoginNeeded
        return key

    def url(self, path: str) -> str:
        """Return the address of a page of the console, such as `/jobs`."""
        return console_url(self.request, path)


def console_url(request: Request, path: str) -> str:
    """Return the address of a page of the console, below the prefix of a proxy."""
    return f"{prefix(request.scope)}{ROOT}{path}"


async def visit_of(request: Request, scope: str) -> Visit:
    """Return the visit, and count the request for its app.

    Raises LoginNeeded without a live session, a Problem (403) if its key lacks the scope, LimitReached.
    """
    session = await session_of(request)
    if session is None:
        raise LoginNeeded
    if scope not in session.key.scopes:
        detail = f"This needs the scope {scope}, which the key of this session lacks. Log in with another key."
        raise Problem(403, "insufficient_scope", detail)
    note_no_answers(request.scope)  # a person looks: the app itself has not received the answer
    await enter(request, session.key)
    return Visit(request, session)


async def session_of(request: Request) -> ConsoleSession | None:
    """Return the live session of the request's cookie, or None."""
    token = session_cookie(request)
    if token is None:
        return None
    try:
        finding = partitions_of(request).find(request, token, lambda context: context.console.sessions.find(token))
        return await with_deadline(request, finding)
    except RecordUnreadable as error:
        if error.why not in UNAUTHENTIC:
            raise
        report_unreadable(error)  # something else than Vigil wrote the session, or its key
        return None


def session_cookie(request: Request) -> str | None:
    """Return the token of the session; None without one, or with two: another site below this domain may set one."""
    name, found = _cookie_name(request), list[str]()
    for line in header_values(request.scope, b"cookie"):
        for pair in line.split(";"):
            key, _, value = pair.strip().partition("=")
            if key == name:
                found.append(value)
    return found[0] if len(found) == 1 else None


def set_session_cookie(request: Request, response: Response, token: str) -> None:
    """Set the session's cookie, or remove it if `token` is empty."""
    response.set_cookie(
        _cookie_name(request),
        token,
        max_age=SESSION_SECONDS if token else 0,
        path=console_url(request, ""),
        secure=_is_secure(request),
        httponly=True,
        samesite="strict",
    )


def check_origin(request: Request) -> None:
    """Raise a Problem (403) unless a page of this console sent the request; browsers say so with every form."""
    origins, sites = header_values(request.scope, b"origin"), header_values(request.scope, b"sec-fetch-site")
    if len(origins) == 1 and _is_own(request, origins[0]) and sites in ([], ["same-origin"]):
        return
    detail = (
        "This form was not sent by a page of this console. Behind a proxy, it must pass on the Host and "
        "X-Forwarded-Proto that the browser used, or VIGIL_PUBLIC_URL must say them."
    )
    raise Problem(403, "foreign_origin", detail)


def check_csrf(session: ConsoleSession, form: Form) -> None:
    """Raise a Problem (403) unless the form has the token that this session's pages put into their forms."""
    if not hmac.compare_digest(form.text("csrf").encode(), session.csrf.encode()):
        detail = "The form belongs to another session, or this one began anew. Go back, reload the page and try again."
        raise Problem(403, "csrf_token_invalid", detail)


async def read_form(request: Request, limit: int) -> Form:
    """Return the fields of the body. Raises a Problem: 415 for another type, 413, 400 for what is no form."""
    if [line.partition(";")[0].strip().lower() for line in header_values(request.scope, b"content-type")] != [_FORM]:
        raise Problem(415, "unsupported_media_type", f"Send the form as {_FORM}.")
    body = await read_body(request, limit)
    app = request.scope.get(APP_KEY, "")
    try:
        pairs = await context_of(request).large_work.run(app, len(body), _parse, body)
    except ValueError:
        raise Problem(400, "malformed_form", "The form is not percent-encoded UTF-8 of a bounded size.") from None
    return Form(pairs, len(body))


def _parse(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)


def _is_own(request: Request, origin: str) -> bool:
    public = context_of(request).settings.public_url
    if public is not None and origin == "{0.scheme}://{0.netloc}".format(urlsplit(public)):
        return True
    scheme, _, host = origin.partition("://")
    schemes = ("https",) if _is_secure(request) else ("http", "https")  # a proxy may end TLS without saying so
    return scheme in schemes and [host] == header_values(request.scope, b"host")


def _is_secure(request: Request) -> bool:
    return bool(request.scope["scheme"] == "https")


def _cookie_name(request: Request) -> str:
    return _SECURE_COOKIE if _is_secure(request) else _COOKIE
