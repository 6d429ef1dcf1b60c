"""Renders pages from templates, with the headers that every page has.

Templates escape what they show and fail on names that are missing. A page may load its own style and script, and
nothing else: no inline style or script, no other origin, no frame around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response

from api.console import formats
from api.console.navigation import ENTRIES
from api.console.notices import text_of
from api.console.static_files import static_url
from api.console.visit import Visit, console_url
from api.runtime.context import context_of
from api.web.header_fields import header_values

_POLICY: Final = "; ".join(
    (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'"),
        *("form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"),
        *("require-trusted-types-for 'script'", "trusted-types vigil"),
    )
)
HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "same-origin",  # without a referrer browsers hide the origin of forms, too
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_TEMPLATES: Final = Environment(
    loader=PackageLoader("api.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_TEMPLATES.filters |= formats.FILTERS


@dataclass(frozen=True, slots=True)
class Page:
    """A page to render. `version`: another one for each state that it may show; with `refresh`, the seconds after which
    a browser asks for a newer one, it is live.
    """

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    version: str | None = None
    refresh: float | None = None
    status: int = 200


def render_page(visit: Visit, page: Page) -> Response:
    """Return the response with the page; 304 without rendering it if the browser has this version."""
    headers = {}
    if page.version is not None:
        tag = headers["ETag"] = f'"{page.version}"'
        if tag in header_values(visit.request.scope, b"if-none-match"):
            return Response(status_code=304, headers=HEADERS | headers)
    values = {
        **page.values,
        "csrf": visit.session.csrf,
        "key": visit.key,
        "may": visit.may,
        "notice": text_of(visit.query),
        "refresh": page.refresh,
        "version": page.version or "",
        "entries": [entry for entry in ENTRIES if visit.may(entry.scope)],
    }
    return render(visit.request, page.template, values, page.status, headers)


def render(
    request: Request,
    template: str,
    values: Mapping[str, Any],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the response with a template that needs no session."""
    shown = {
        **values,
        "now": context_of(request).clock.now(),
        "path": request.scope["path"],
        "url": lambda path: console_url(request, path),
        "static": lambda name: static_url(request, name),
    }
    text = _TEMPLATES.get_template(template).render(shown)
    body = text.encode("utf-8", "replace")  # a provider may send half of a surrogate pair
    return Response(body, status, HEADERS | dict(headers or {}), media_type="text/html")
