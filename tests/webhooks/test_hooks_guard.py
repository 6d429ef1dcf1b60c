"""The guard: which addresses may be named, which may be called. Every refusal has its reason."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from forbidden_urls import FORBIDDEN
from hypothesis import example, given, strategies as st

from worker.jobs.errors import Refused
from worker.settings import Settings
from worker.webhooks.addresses import address_allowed
from worker.webhooks.embedded_ipv4 import translated_ipv4
from worker.webhooks.guard import AddressBlocked, AddressPolicy, check_url, check_webhook_url, resolve_allowed

PUBLIC, DEVELOPMENT = AddressPolicy(), AddressPolicy(allow_private=True)
ROWS = [(url, reason) for reason, urls in FORBIDDEN.items() for url in urls]


def test_the_table_is_long_enough():
    assert len(ROWS) >= 80


@pytest.mark.parametrize(("url", "reason"), ROWS, ids=[f"{reason}-{n}" for n, (_, reason) in enumerate(ROWS)])
def test_forbidden_addresses_are_422_with_the_reason(url, reason):
    with pytest.raises(Refused) as refused:
        check_url(url, PUBLIC)
    assert (refused.value.status, refused.value.code) == (422, f"webhook_url_{reason}")
    assert refused.value.detail.endswith(".")
    assert len(url) < 10 or url not in refused.value.detail


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        ("https://app.example", "https://app.example/"),
        ("HTTPS://APP.EXAMPLE:443/A?b=c", "https://app.example/A?b=c"),
        ("https://app.example:8443/hooks", "https://app.example:8443/hooks"),
        ("https://app.example/%0d%0aX?q=%00", "https://app.example/%0d%0aX?q=%00"),
        ("https://app.example/é", "https://app.example/%C3%A9"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://BÜCHER.example/", "https://xn--bcher-kva.example/"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://a_b.example/?x", "https://a_b.example/?x"),
        ("https://app.example?x=http://127.0.0.1/", "https://app.example/?x=http://127.0.0.1/"),
        ("https://app.example/@127.0.0.1", "https://app.example/@127.0.0.1"),
        ("https://" + "a" * 63 + ".example/", "https://" + "a" * 63 + ".example/"),
    ],
)
def test_allowed_addresses_have_one_spelling_and_keep_it(url, stored):
    checked = check_url(url, PUBLIC)
    assert checked.text == stored
    assert check_url(stored, PUBLIC) == checked


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/x", "http://localhost:9/", "http://[::1]:9/", "https://10.1.2.3/", "http://api/"]
)
def test_development_lifts_scheme_port_and_range_rules(url):
    assert check_url(url, DEVELOPMENT).text.startswith("http")


@pytest.mark.parametrize(
    "url",
    [
        *("http://user@127.0.0.1/", "http://127.0.0.1/#x", "http://127.0.0.1/\n", "http://0x7f.1/", "http://127.1/"),
        *("ftp://127.0.0.1/", "http://169.254.169.254/", "http://0.0.0.0/", "http://[fe80::1]/", "http://224.0.0.1/"),
        *("http://168.63.129.16/", "http://[fd00:ec2::254]/", "http://[::ffff:a9fe:a9fe]/"),
    ],
)
def test_development_lifts_nothing_else(url):
    with pytest.raises(Refused):
        check_url(url, DEVELOPMENT)


def test_the_ports_come_from_the_settings():
    settings = Settings(_env_file=None, webhook_ports="9443")
    assert check_webhook_url("https://app.example:9443/", settings) == "https://app.example:9443/"
    with pytest.raises(Refused):
        check_webhook_url("https://app.example/", settings)


REFUSED = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254 169.254.0.1
169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1
198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16
100.100.100.200 :: ::1 ::2 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:127.0.0.1
64:ff9b::10.0.0.1 64:ff9b:1::1 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:10::1
2001:20::1 2001:db8::1 2002:7f00:1::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0
fec0::1 ff02::1 ff0e::1 2606:4700:4700::1111%1 not-an-address 127.1 0x7f.0.0.1
""".split()  # noqa: SIM905  a table
ALLOWED = """
1.1.1.1 8.8.8.8 93.184.216.34 192.88.98.1 192.88.100.1 168.63.129.17 ::ffff:8.8.8.8 2606:4700:4700::1111 2a00:1450::1
64:ff9b::8.8.8.8 2002:808:808::1
""".split()  # noqa: SIM905  a table


@pytest.mark.parametrize("text", REFUSED)
def test_refused_ranges(text):
    assert not address_allowed(text)


@pytest.mark.parametrize("text", ALLOWED)
def test_public_addresses(text):
    assert address_allowed(text)


@given(st.ip_addresses(v=4))
@example(IPv4Address("127.0.0.1"))
def test_an_address_that_is_allowed_is_public_by_the_library_too(address):
    if address_allowed(str(address)):
        assert address.is_global
        assert not any((address.is_multicast, address.is_loopback, address.is_link_local, address.is_reserved))
    mapped = f"::ffff:{address}"
    assert address_allowed(mapped) == address_allowed(str(address)), "mapped is judged as what it maps"


@given(st.ip_addresses(v=6))
@example(IPv6Address("2002::1"))
def test_no_allowed_ipv6_address_hides_a_forbidden_ipv4_one(address):
    if address_allowed(str(address)):
        hidden = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        assert all(address_allowed(str(one)) for one in hidden if one is not None)
        assert any(hidden) or leads_to_ipv4(address) or ip_address("2000::") <= address < ip_address("4000::")


def leads_to_ipv4(address: IPv6Address) -> bool:
    return any(address in IPv6Network(text) for text in ("::/96", "64:ff9b::/96", "64:ff9b:1::/48"))


def embedded(prefix: str, address: IPv4Address) -> IPv6Address:
    """What DNS64 makes of an address (RFC 6052, 2.2), written from the RFC's table."""
    network, v4 = IPv6Network(prefix), int(address)
    before = {32: 0, 40: 8, 48: 16, 56: 24, 64: 32, 96: 32}[network.prefixlen]  # bits of it before bits 64 to 71
    if network.prefixlen == 96:
        return IPv6Address(int(network.network_address) | v4)
    if network.prefixlen == 64:
        return IPv6Address(int(network.network_address) | v4 << 24)
    width = 64 - network.prefixlen
    high, low = v4 >> (32 - width), v4 & ((1 << (32 - width)) - 1)
    assert 32 - width == before
    return IPv6Address(int(network.network_address) | high << 64 | low << (56 - before))


RFC_6052 = [  # the table of section 2.4
    ("2001:db8::/32", "2001:db8:c000:221::"),
    ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
    ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
    ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
    ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
    ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
]


@pytest.mark.parametrize(("prefix", "text"), RFC_6052)
def test_the_table_of_rfc_6052_is_read(prefix, text):
    assert embedded(prefix, IPv4Address("192.0.2.33")) == IPv6Address(text)
    assert translated_ipv4(IPv6Address(text), IPv6Network(prefix).prefixlen) == IPv4Address("192.0.2.33")


TRANSLATED = ["64:ff9b::/96", "64:ff9b:1:7::/64", "64:ff9b:1::/48", "fd00:64::/96", *(prefix for prefix, _ in RFC_6052)]


@given(st.ip_addresses(v=4), st.sampled_from(TRANSLATED), st.booleans())
@example(IPv4Address("8.8.8.8"), "64:ff9b:1::/48", False)
@example(IPv4Address("10.0.0.1"), "fd00:64::/96", False)
@example(IPv4Address("169.254.169.254"), "fd00:64::/96", True)
def test_a_translated_address_is_judged_as_what_it_leads_to(address, prefix, private):
    one = AddressPolicy(allow_private=private, nat64=(IPv6Network(prefix),))
    assert one.allows(str(embedded(prefix, address))) == address_allowed(str(address), allow_private=private)


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
@example(IPv4Address("8.8.8.8"), IPv4Address("127.0.0.1"))
@example(IPv4Address("8.8.8.8"), IPv4Address("1.1.1.1"))
def test_tunnels_and_old_forms_are_judged_as_what_they_lead_to(server, client):
    good = [address_allowed(str(one)) for one in (server, client)]
    assert address_allowed(str(IPv6Address(int(client)))) == good[1], "IPv4-compatible"
    assert address_allowed(str(IPv6Address(0x2002 << 112 | int(client) << 80 | 1))) == good[1], "6to4"
    teredo = IPv6Address(0x20010000 << 96 | int(server) << 64 | ~int(client) & 0xFFFF_FFFF)
    assert address_allowed(str(teredo)) == all(good)
    for identifier in (0x00005EFE, 0x02005EFE):
        inner = identifier << 32 | int(client)
        assert address_allowed(str(IPv6Address(0x26064700 << 96 | inner))) == good[1], "ISATAP"
        assert not address_allowed(str(IPv6Address(0xFE80 << 112 | inner))), "link-local stays refused"


@pytest.mark.parametrize("length", [48, 56, 64, 96])
@pytest.mark.parametrize("inner", ["10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.1.1"])
def test_in_the_prefix_for_local_use_an_address_is_refused_wherever_it_may_stand(length, inner):
    """Nothing says where the network puts the IPv4 address, and translators ignore what follows it."""
    plain = embedded(f"64:ff9b:1::/{length}", IPv4Address(inner))
    assert not address_allowed(str(plain))
    if length < 96:
        assert not address_allowed(str(IPv6Address(int(plain) | 0x0808))), "with a public one in its suffix"
    assert address_allowed("64:ff9b:1::8.8.8.8")


def test_a_network_s_own_prefix_is_private_until_it_is_named():
    assert not address_allowed("2001:db8:64::8.8.8.8")
    own = Settings(_env_file=None, webhook_nat64_prefixes="2001:db8:64::/96, fd00:64::/96")
    policy = AddressPolicy.of(own)
    assert [policy.allows(f"{net}::{v4}") for net in ("2001:db8:64", "fd00:64") for v4 in ("8.8.8.8", "10.0.0.1")] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("text", ["2001:db8::/33", "10.0.0.0/8", "2001:db8::1/96", "x", "2001:db8:0:0:ff00::/96"])
def test_a_prefix_that_no_translator_can_have_is_a_fault_of_the_settings(text):
    with pytest.raises(ValueError, match="RFC 6052"):
        Settings(_env_file=None, webhook_nat64_prefixes=text)


async def test_behind_dns64_a_receiver_with_ipv4_only_is_reached_at_submit_and_at_connect():
    both = Names(["64:ff9b::8.8.8.8"])
    assert await resolve_allowed("app.example", both, PUBLIC) == ["64:ff9b::8.8.8.8"]
    with pytest.raises(AddressBlocked):
        await resolve_allowed("app.example", Names(["64:ff9b::8.8.8.8", "64:ff9b::7f00:1"]), PUBLIC)
    with pytest.raises(Refused):
        check_url("http://[64:ff9b::a9fe:a9fe]/", DEVELOPMENT)


class Names:
    """A resolver that knows these answers, in turn, and counts."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.queries = list(answers), []

    async def __call__(self, host: str, app: str = "") -> list[str]:
        self.queries.append(host)
        return self.answers[min(len(self.queries), len(self.answers)) - 1]


async def test_every_address_must_be_allowed():
    assert await resolve_allowed("app.example", Names(["8.8.8.8", "1.1.1.1", "8.8.8.8"]), PUBLIC) == [
        "8.8.8.8",
        "1.1.1.1",
    ]
    for answer in ([], ["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["8.8.8.8", "::1"], ["8.8.8.8", "fe80::1%eth0"]):
        with pytest.raises(AddressBlocked):
            await resolve_allowed("app.example", Names(answer), PUBLIC)


METADATA = """
168.63.129.16 100.100.100.200 192.0.0.192 169.254.170.2 ::ffff:169.254.169.254
fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:c1::a9fe:a9fe fd00:42::42
""".split()  # noqa: SIM905  a table


async def test_development_still_refuses_metadata_and_multicast():
    assert await resolve_allowed("dev.example", Names(["127.0.0.1"]), DEVELOPMENT) == ["127.0.0.1"]
    for address in ("169.254.169.254", "224.0.0.1", "0.0.0.0", "255.255.255.255", *METADATA):  # noqa: S104
        answer = ["127.0.0.1", address]
        with pytest.raises(AddressBlocked):
            await resolve_allowed("dev.example", Names(answer), DEVELOPMENT)


async def test_literals_are_never_looked_up():
    names = Names(["8.8.8.8"])
    assert await resolve_allowed("127.0.0.1", names, DEVELOPMENT) == ["127.0.0.1"]
    assert await resolve_allowed("[::1]", names, DEVELOPMENT) == ["::1"]
    with pytest.raises(AddressBlocked):
        await resolve_allowed("8.8.8.8", names, PUBLIC)
    assert names.queries == []
