"""The console's style, script and icon, read once. Their addresses name their content, so browsers keep them for good.

An address of another content, from a page of an older or newer release beside this one, gets this one and keeps it not.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from api.console.visit import ROOT
from api.web.forwarded import prefix
from api.web.problems import Problem

_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_HEADERS: Final = {"Cross-Origin-Resource-Policy": "same-origin", "X-Frame-Options": "DENY"}
_KEPT: Final = "public, max-age=31536000, immutable"


class _File(NamedTuple):
    content: bytes
    version: str
    media_type: str


def _load() -> dict[str, _File]:
    found = {}
    for one in files("api.console").joinpath("static").iterdir():
        kind = _TYPES.get(one.name.rpartition(".")[2])
        if kind is not None:
            content = one.read_bytes()
            found[one.name] = _File(content, hashlib.sha256(content).hexdigest()[:16], kind)
    return found


_FILES: Final = _load()


def static_url(request: Request, name: str) -> str:
    """Return the address of a file; raise KeyError if there is none."""
    return f"{prefix(request.scope)}{ROOT}/static/{_FILES[name].version}/{name}"


async def get_static(request: Request) -> Response:
    """Return a file."""
    found = _FILES.get(str(request.path_params["name"]))
    if found is None:
        raise Problem(404, "not_found", "There is no such file.")
    kept = request.path_params["version"] == found.version
    headers = _HEADERS | {"Cache-Control": _KEPT if kept else "no-store"}
    return Response(found.content, 200, headers, media_type=found.media_type)
