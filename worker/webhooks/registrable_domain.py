"""Names what one party controls: the domain that can be registered, by the Public Suffix List. Pure.

The list comes with the package, so nothing is fetched; its private part counts too, so that two apps hosted at
`a.github.io` and `b.github.io` are two parties. It takes 0.15 s to load, which the first use pays.
"""

from __future__ import annotations

from functools import cache, lru_cache
from ipaddress import IPv6Address, ip_address

from publicsuffixlist import PublicSuffixList

from worker.webhooks.guard import CheckedUrl


@lru_cache(maxsize=8192)
def registrable_domain(host: str) -> str:
    """Return a name's registrable domain, such as `shop.co.uk` of `api.shop.co.uk`; a public suffix is its own."""
    return _public_suffixes().privatesuffix(host) or host


def receiver_of(url: CheckedUrl) -> str:
    """Return the name of who receives what is sent to a URL: its registrable domain, else host and port.

    Addresses, names of one label and localhost are receivers by port; the loopback addresses are one host.
    """
    host = url.host.strip("[]")
    try:
        address = ip_address(host)
    except ValueError:
        if host == "localhost" or host.endswith(".localhost"):
            return f"localhost:{url.port}"
        return registrable_domain(host) if "." in host else f"{host}:{url.port}"
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return f"localhost:{url.port}" if address.is_loopback else f"{address}:{url.port}"


@cache
def _public_suffixes() -> PublicSuffixList:
    return PublicSuffixList()
