"""The adapter to httpx2 that both clients share: its options, and the conversion of requests, responses and errors.

Not named `http.py`: tools that are run in this folder would import it in place of the standard library's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from pydantic import SecretStr

from .errors import Misconfigured
from .protocol import ConnectionLost, Reply
from .requests import ApiRequest

_CONNECT_TIMEOUT_S: Final = 5.0
_LOCAL_HOSTS: Final = {"127.0.0.1", "localhost", "::1"}
_NOT_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)


def client_options(url: str, key: SecretStr, agent: str) -> dict[str, Any]:
    """Return the arguments of the HTTP client. Raise Misconfigured if the key or the URL can't be sent."""
    secret = key.get_secret_value()
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise Misconfigured("the API key has characters that can't be sent")
    try:
        httpx2.URL(url)
    except (httpx2.InvalidURL, UnicodeError):
        raise Misconfigured("the address has characters that can't be sent") from None
    return {
        "base_url": url,
        "headers": {"Authorization": f"Bearer {secret}", "User-Agent": agent},
        "trust_env": (urlsplit(url).hostname or "") not in _LOCAL_HOSTS,  # a proxy can't reach this machine
    }


def http_request(http: httpx2.Client | httpx2.AsyncClient, request: ApiRequest[Any]) -> httpx2.Request:
    """Convert a request for the HTTP stack."""
    timeout = httpx2.Timeout(request.seconds, connect=_CONNECT_TIMEOUT_S)
    return http.build_request(
        request.method, request.path, content=request.body, headers=dict(request.headers), timeout=timeout
    )


def to_reply(response: httpx2.Response) -> Reply:
    """Convert a response whose body has been read."""
    return Reply(response.status_code, lower_case(response.headers), response.content)


def lower_case(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with their names in lower case."""
    return {name.lower(): value for name, value in headers.items()}


def connection_lost(error: httpx2.HTTPError | httpx2.StreamError) -> ConnectionLost:
    """Convert an exception of the HTTP stack."""
    slow = isinstance(error, httpx2.TimeoutException)
    return ConnectionLost(type(error).__name__, sent=not isinstance(error, _NOT_SENT), slow=slow)
