"""What a reverse proxy says of the address that the client used: X-Forwarded-Proto and X-Forwarded-Prefix.

Only the addresses of VIGIL_TRUSTED_PROXIES are believed. VIGIL_ROOT_PATH is the prefix of a proxy that sends none; a
request that still has this prefix in its path is served as if the proxy had removed it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from api.web.header_fields import header_values
from worker.settings import ROOT_PATH

_PREFIX: Final = "vigil.prefix"
_SCHEMES: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_MAX_PREFIX_PARTS: Final = 8
_MAX_PREFIX: Final = 512


class ForwardedMiddleware:
    """Sets the scheme of each request, and the prefix of its path outside."""

    def __init__(self, app: ASGIApp, trusted: Sequence[str], root_path: str) -> None:
        self._app, self._root_path = app, root_path
        networks = [ip_network(one, strict=False) for one in trusted]

        @lru_cache(maxsize=4096)
        def is_trusted(host: str) -> bool:
            try:
                address = ip_address(host.partition("%")[0])
            except ValueError:
                return False
            if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
                address = address.ipv4_mapped
            return any(address in network for network in networks)

        self._is_trusted = is_trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            root = scope[_PREFIX] = self._root_path
            client = scope.get("client")
            if client is not None and self._is_trusted(client[0]):
                _apply_headers(scope)
            if root and scope["path"].startswith(f"{root}/"):
                scope["path"] = scope["path"][len(root) :]
        await self._app(scope, receive, send)


def _apply_headers(scope: Scope) -> None:
    protocols, prefixes = header_values(scope, b"x-forwarded-proto"), header_values(scope, b"x-forwarded-prefix")
    if protocols:
        scope["scheme"] = scheme_of(",".join(protocols)) or scope["scheme"]
    if prefixes:
        prefix = prefix_of(",".join(prefixes))
        scope[_PREFIX] = scope[_PREFIX] if prefix is None else prefix


def scheme_of(sent: str) -> str | None:
    """Return http or https, as the client's own proxy named it (the first of the list), or None if it named neither."""
    return _SCHEMES.get(sent.partition(",")[0].strip().lower())


def prefix_of(sent: str) -> str | None:
    """Return the prefixes of all proxies joined, outermost first, without a last slash; None if one is invalid."""
    parts = [part.strip() for part in sent.split(",")]
    prefix = "".join(part.rstrip("/") for part in parts)
    if not any(parts) or len(parts) > _MAX_PREFIX_PARTS or len(prefix) > _MAX_PREFIX:
        return None
    return prefix if re.fullmatch(ROOT_PATH, prefix) else None


def prefix(scope: Scope) -> str:
    """Return what comes before the path outside, such as `/api/vigil`; empty without a prefix."""
    found: str = scope.get(_PREFIX, "")
    return found
