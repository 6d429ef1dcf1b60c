"""Refuses what a web page may make a browser send to the simulator: requests of another origin, and of a public name.

Pure. A page can't be kept from sending a POST with `text/plain` or a form to 127.0.0.1, and by pointing its own name
there (DNS rebinding) it even becomes the same origin; but then Host is that name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import ip_address

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE = frozenset({"same-origin", "none"})
_PRIVATE_LABELS = frozenset(
    {"localhost", "local", "internal", "test", "lan", "home", "corp", "intranet", "arpa", "svc"}
)
"""Last labels of names that nobody can register."""


def refusal(method: str, headers: Mapping[str, str], allowed_hosts: Collection[str]) -> str | None:
    """Return why a request is refused, or None; `allowed_hosts`: names beside addresses and private names."""
    host = headers.get("Host", "")
    if not _is_own_host(_name_of(host), allowed_hosts):
        return "The simulator is not called by this name; start it with --allowed-host to allow it."
    if method in _READS:
        return None
    origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
    if origin is not None and (origin.partition("://")[2] or "null").lower() != host.lower():
        return "Web pages of another origin may not call the simulator."
    if site is not None and site.lower() not in _OWN_SITE:
        return "Web pages of another site may not call the simulator."
    return None


def is_json(content_type: str) -> bool:
    """Return whether this is the content type of JSON, which no page can send to another origin without asking."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def is_loopback(host: str | None) -> bool:
    """Return whether a URL's host is this machine: an address in 127.0.0.0/8, ::1, or localhost."""
    if host is None:
        return False
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _name_of(host: str) -> str:
    """Return a Host header without its port."""
    bracketed = host.startswith("[")
    return (host.partition("]")[0].removeprefix("[") if bracketed else host.partition(":")[0]).lower()


def _is_own_host(name: str, allowed_hosts: Collection[str]) -> bool:
    """Return whether no web page can have this name: addresses, names of one label, private and allowed names."""
    try:
        ip_address(name)
    except ValueError:
        labels = name.rstrip(".").split(".")
        return len(labels) == 1 or labels[-1] in _PRIVATE_LABELS or name in allowed_hosts
    return True
