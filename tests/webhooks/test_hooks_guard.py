"""The guard: which addresses may be named, which may be called. Every refusal has its reason."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from forbidden_urls import FORBIDDEN
from hypothesis import example, given, strategies as st

from worker.jobs.errors import Refused
from worker.settings import Settings
from worker.webhooks.addresses import address_allowed
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
64:ff9b::10.0.0.1 64:ff9b::8.8.8.8 64:ff9b:1::1 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:10::1
2001:20::1 2001:db8::1 2002:7f00:1::1 2002:808:808::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%eth0
fec0::1 ff02::1 ff0e::1 2606:4700:4700::1111%1 not-an-address 127.1 0x7f.0.0.1
""".split()  # noqa: SIM905  a table
ALLOWED = """
1.1.1.1 8.8.8.8 93.184.216.34 192.88.98.1 192.88.100.1 168.63.129.17 ::ffff:8.8.8.8 2606:4700:4700::1111 2a00:1450::1
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
def test_no_allowed_ipv6_address_hides_an_ipv4_one(address):
    if address_allowed(str(address)) and address.ipv4_mapped is None:
        assert address.is_global
        assert address.teredo is None
        assert address.sixtofour is None
        assert ip_address("2000::") <= address < ip_address("4000::")


class Names:
    """A resolver that knows these answers, in turn, and counts."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.queries = list(answers), []

    async def __call__(self, host: str) -> list[str]:
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
