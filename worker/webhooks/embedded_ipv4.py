"""Finds the IPv4 address to which an IPv6 address leads: by mapping, by a tunnel, or by a translator (NAT64).

Pure. Where DNS64 serves a network that has IPv6 only, every receiver that has IPv4 only is seen as 64:ff9b::a.b.c.d.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final

from worker.settings import NAT64_PREFIX_LENGTHS

_COMPATIBLE: Final = IPv6Network("::/96")
_TEREDO: Final = IPv6Network("2001::/32")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_WELL_KNOWN_NAT64: Final = IPv6Network("64:ff9b::/96")
_LOCAL_NAT64: Final = IPv6Network("64:ff9b:1::/48")
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
_NO_ADDRESS: Final = 0
"""The first byte of 0.0.0.0/8, to which no packet is sent."""


def carried_ipv4(address: IPv6Address, nat64: Sequence[IPv6Network] = ()) -> tuple[IPv4Address, ...] | None:
    """Return the IPv4 addresses that packets to this address may reach; all of them must be allowed.

    Return () if it is written so that no translator reads it, and None if it leads to no IPv4 address. A Teredo address
    leads to two: its server and its client. In the prefix for local use (RFC 8215) a network chooses where the IPv4
    address stands; unless `nat64` says it, each place where one may stand counts.
    """
    own = [network for network in nat64 if address in network]
    if own:
        found = translated_ipv4(address, max(network.prefixlen for network in own))
        return () if found is None else (found,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address in _COMPATIBLE:
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    if address in _WELL_KNOWN_NAT64:
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    if address in _LOCAL_NAT64:
        lengths = [length for length in NAT64_PREFIX_LENGTHS if length >= _LOCAL_NAT64.prefixlen]
        places = [translated_ipv4(address, length) for length in lengths]
        return tuple(one for one in places if one is not None and one.packed[0] != _NO_ADDRESS)
    if address in _SIX_TO_FOUR:
        return (IPv4Address(int(address) >> 80 & 0xFFFF_FFFF),)
    if address in _TEREDO:
        return (IPv4Address(int(address) >> 64 & 0xFFFF_FFFF), IPv4Address(~int(address) & 0xFFFF_FFFF))
    return None


def isatap_ipv4(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address in an ISATAP interface identifier (RFC 5214), or None if it is not one.

    Such an identifier may stand behind any prefix, so the address itself is to be judged too.
    """
    identifier = int(address) & 0xFFFF_FFFF_FFFF_FFFF
    return IPv4Address(identifier & 0xFFFF_FFFF) if identifier >> 32 in _ISATAP else None


def translated_ipv4(address: IPv6Address, prefix_length: int) -> IPv4Address | None:
    """Return the IPv4 address behind a NAT64 prefix (RFC 6052, 2.2), or None if byte 8, which must be 0, is not.

    The bytes are those after the prefix without byte 8; translators ignore what follows.
    """
    packed = address.packed
    if packed[8]:
        return None
    behind = [packed[place] for place in range(prefix_length // 8, 16) if place != 8]  # noqa: PLR2004  bits 64 to 71
    return IPv4Address(bytes(behind[:4]))
