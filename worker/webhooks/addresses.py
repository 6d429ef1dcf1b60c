"""Decides which IP addresses a webhook may reach: public ones, and none that leads into a private network.

Pure. `ipaddress.is_global` alone is not enough: it calls multicast, NAT64, 6to4 and the platform channel of a cloud
global (measured), and its answers change between Python releases.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from worker.webhooks.embedded_ipv4 import carried_ipv4, isatap_ipv4

_V4_FORBIDDEN: Final = tuple(
    IPv4Network(text)
    for text in (
        "168.63.129.16/32",  # Azure's platform channel
        "192.88.99.0/24",  # 6to4 relays
        "192.0.0.0/24",  # protocol assignments
        "100.64.0.0/10",  # shared by carriers
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_V6_UNIQUE_LOCAL: Final = IPv6Network("fc00::/7")
_V6_ALLOCATED: Final = IPv6Network("2000::/3")
_V6_FORBIDDEN: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # benchmarking, ORCHID and other protocol assignments
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_V4_ALWAYS_FORBIDDEN: Final = tuple(
    IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "169.254.0.0/16", "255.255.255.255/32"),
        *("168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32"),  # Azure, Alibaba, Oracle
    )
)
_V6_METADATA: Final = tuple(
    IPv6Network(text)
    for text in (
        "fd00:ec2::/32",  # AWS: metadata, credentials, name servers, clock
        "fd20:ce::254/128",  # Google
        "fd00:c1::a9fe:a9fe/128",  # Oracle
        "fd00:42::42/128",  # Scaleway
    )
)


def address_allowed(text: str, *, allow_private: bool = False, nat64: Sequence[IPv6Network] = ()) -> bool:
    """Return whether a connection to this address may be opened.

    `allow_private` admits loopback and private ranges, but never metadata services, link-local, multicast, broadcast or
    the unspecified address. `nat64`: the network's own prefixes of NAT64, beside the well-known one. An IPv6 address
    that leads to an IPv4 one is allowed exactly if that one is.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv4Address):
        return _v4(address, allow_private=allow_private)
    if address.scope_id is not None:
        return False
    if allow_private and address.is_loopback:  # ::1 would be the IPv4-compatible 0.0.0.1
        return True
    carried = carried_ipv4(address, nat64)
    if carried is not None:
        return bool(carried) and all(_v4(one, allow_private=allow_private) for one in carried)
    inner = isatap_ipv4(address)
    if inner is not None and not _v4(inner, allow_private=allow_private):
        return False
    return _v6(address, allow_private=allow_private)


def _v4(address: IPv4Address, *, allow_private: bool) -> bool:
    if address.is_multicast or any(address in network for network in _V4_ALWAYS_FORBIDDEN):
        return False
    if allow_private:
        return True
    return address.is_global and not any(address in network for network in _V4_FORBIDDEN)


def _v6(address: IPv6Address, *, allow_private: bool) -> bool:
    if allow_private and address in _V6_UNIQUE_LOCAL:
        return not any(address in network for network in _V6_METADATA)
    if address not in _V6_ALLOCATED or any(address in network for network in _V6_FORBIDDEN):
        return False
    return address.is_global and not address.is_multicast
