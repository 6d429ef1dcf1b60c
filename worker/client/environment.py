"""Where the client connects and with which key: its arguments, else VIGIL_URL and VIGIL_API_KEY."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from .errors import Misconfigured

DEFAULT_URL: Final = "http://127.0.0.1:8700"


def connection_settings(url: str | None, key: str | SecretStr | None) -> tuple[str, SecretStr]:
    """Return (URL without /v1, key). Raise Misconfigured if there is no key or the URL is not an HTTP one."""
    address = (url or _variable("VIGIL_URL") or DEFAULT_URL).rstrip("/").removesuffix("/v1")
    if not is_http_url(address):
        raise Misconfigured(f"the address must be an http:// or https:// one such as {DEFAULT_URL}")
    secret = SecretStr(_variable("VIGIL_API_KEY")) if key is None else SecretStr(key) if isinstance(key, str) else key
    if not secret.get_secret_value():
        raise Misconfigured("no API key: pass `key` or set VIGIL_API_KEY; `vigil keys create --app NAME` makes one")
    return address, secret


def is_http_url(url: str) -> bool:
    """Return whether the URL has the scheme http or https, and a host."""
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:  # brackets that hold no IPv6 address
        return False


def _variable(name: str) -> str:
    """Return the environment variable, in any case of letters, or ""."""
    environ = os.environ
    return environ.get(name) or next((value for other, value in environ.items() if other.upper() == name), "")
