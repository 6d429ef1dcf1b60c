"""What both shells share: the settings of a connection, and what an exception of the HTTP stack means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.client.errors import Misconfigured
from worker.client.protocol import ConnectionLost, Reply
from worker.client.requests import ApiRequest

DEFAULT_URL: Final = "http://127.0.0.1:8700"
_CONNECT_SECONDS: Final = 5.0
_LOCAL: Final = {"127.0.0.1", "localhost", "::1"}
_NOT_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)


class ClientSettings(BaseSettings):
    """What a client reads of its environment; none of the server's settings has to be right for it."""

    model_config = SettingsConfigDict(
        env_prefix="VIGIL_", extra="ignore", frozen=True, hide_input_in_errors=True, env_ignore_empty=True
    )

    url: str | None = None
    api_key: SecretStr | None = None


def whereabouts(url: str | None, key: str | SecretStr | None) -> tuple[str, SecretStr]:
    """(address without /v1, key), from the arguments or VIGIL_URL and VIGIL_API_KEY; Misconfigured otherwise."""
    try:
        settings = ClientSettings()
    except ValidationError:
        raise Misconfigured("VIGIL_URL or VIGIL_API_KEY can't be read") from None
    address = (url or settings.url or DEFAULT_URL).rstrip("/").removesuffix("/v1")
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Misconfigured(f"the address must be an http:// or https:// one such as {DEFAULT_URL}")
    found = SecretStr(key) if isinstance(key, str) else key or settings.api_key
    if found is None or not found.get_secret_value():
        raise Misconfigured("no API key: pass `key` or set VIGIL_API_KEY; `vigil keys create --app NAME` makes one")
    return address, found


def manners(url: str, key: SecretStr, agent: str) -> dict[str, Any]:
    """The arguments of the HTTP client; Misconfigured when the key can't stand in a header."""
    secret = key.get_secret_value()
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise Misconfigured("the API key holds characters that can't be sent")
    try:
        httpx2.URL(url)
    except (httpx2.InvalidURL, UnicodeError):
        raise Misconfigured("the address holds characters that can't be sent") from None
    return {
        "base_url": url,
        "headers": {"Authorization": f"Bearer {secret}", "User-Agent": agent},
        "trust_env": (urlsplit(url).hostname or "") not in _LOCAL,  # a proxy can't reach our own machine
    }


def request(http: httpx2.Client | httpx2.AsyncClient, ask: ApiRequest[Any]) -> httpx2.Request:
    """The question as the HTTP stack wants it."""
    timeout = httpx2.Timeout(ask.seconds, connect=_CONNECT_SECONDS)
    return http.build_request(ask.method, ask.path, content=ask.body, headers=dict(ask.headers), timeout=timeout)


def reply(answer: httpx2.Response) -> Reply:
    """An answer that has been read."""
    return Reply(answer.status_code, lower(answer.headers), answer.content)


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers by lower-case name."""
    return {name.lower(): value for name, value in headers.items()}


def lost(error: httpx2.HTTPError | httpx2.StreamError) -> ConnectionLost:
    """What a failure of the HTTP stack means."""
    slow = isinstance(error, httpx2.TimeoutException)
    return ConnectionLost(type(error).__name__, sent=not isinstance(error, _NOT_SENT), slow=slow)
