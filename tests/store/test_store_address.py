"""The address of Redis: every part is read as it was meant, and each wrong one is named without showing a value."""

from __future__ import annotations

import contextlib
from pathlib import PurePosixPath
from urllib.parse import quote

import pytest
from hypothesis import given, strategies as st

from worker.redis_address import Address, AddressError, parse, socket_address
from worker.store.connection.pool import connect

WRONG = [
    ("redis://:hunter/2@db:6379/0", "password", "%2F"),
    ("redis://:hunter?2@db:6379/0", "password", "%3F"),
    ("redis://:hunter#2@db:6379/0", "password", "%23"),
    ("redis://:hunter@2@db:6379/0", "password", "%40"),
    ("redis://hunter/2:x@db:6379/0", "user name", "%2F"),
    ("redis://:hunter%2@db:6379/0", "password", "%25"),
    ("redis://:hunter%ff@db:6379/0", "password", "UTF-8"),
    ("redis://:hunter 2@db:6379/0", "space", "%20"),
    ("redis://db:0", "port", "1 to 65535"),
    ("redis://db:65536/0", "port", "1 to 65535"),
    ("redis://db:٣٣/0", "port", "1 to 65535"),
    ("redis://db:/0", "port", "1 to 65535"),
    ("redis://db:six/0", "port", "1 to 65535"),
    ("redis://:hunter2:6379", "host is missing", "host:6379"),
    ("redis://::1:6379/0", "host is missing", "host:6379"),
    ("redis://fe80::1/0", "colon", "brackets"),
    ("redis://[::1/0", "brackets", "[::1]:6379"),
    ("redis://[::1]6379/0", "brackets", "[::1]:6379"),
    ("redis://", "host is missing", "host:6379"),
    ("redis:///0", "host is missing", "host:6379"),
    ("redis://user:hunter2@/0", "host is missing", "host:6379"),
    ("redis://db%2F/0", "host", "host name"),
    ("redis://db,other/0", "host", "host name"),
    ("redis://db/abc", "database", "such as /0"),
    ("redis://db/0/", "database", "such as /0"),
    ("redis://db/-1", "database", "such as /0"),
    ("redis://db/0?db=1", "database is given twice", "leave one out"),
    ("redis://db?foo=bar", "?foo=", "known: client_name"),
    ("redis://db?foo", "?foo=", "known: client_name"),
    ("redis://db?", "behind the ?", "%3F"),
    ("redis://db?db=one", "?db=", "number"),
    ("redis://db?db=1&db=2", "?db=", "twice"),
    ("redis://db?socket_timeout=0", "?socket_timeout=", "seconds"),
    ("redis://db?ssl_ca_certs=/ca.pem", "?ssl_ca_certs=", "rediss://"),
    ("rediss://db?ssl_cert_reqs=maybe", "?ssl_cert_reqs=", "none, optional or required"),
    ("redis://db?password=hunter2", "?password=", "known"),
    ("redis://db/0#part", "#", "%23"),
    ("unix://", "path of the socket", "begin with /"),
    ("unix://run/redis.sock", "path of the socket", "begin with /"),
    ("unix:///run/redis.sock#1", "#", "%23"),
    ("unix:///run/redis.sock?foo=bar", "?foo=", "known"),
    ("redis+sentinel://one/service", "sentinel", "host:26379"),
    ("redis+sentinel://one:26379,two/service", "sentinel", "host:26379"),
    ("redis+sentinel://one:26379", "service", "missing"),
    ("redis+sentinel://one:26379/", "service", "missing"),
    ("redis+sentinel://one:26379/service/abc", "database", "such as /0"),
    ("redis+sentinel://one:26379/service/", "database", "such as /0"),
    ("redis+sentinel://one:99999/service", "port", "1 to 65535"),
    ("redis+sentinel://:hunter/2@one:26379/service", "password", "%2F"),
    ("redis+sentinel://one:1/s?sentinel_password=hunter%2", "?sentinel_password=", "%25"),
    ("redis+sentinel://one:1/s?sentinel_password=", "?sentinel_password=", "no value"),
    ("redis://one?sentinel_password=hunter2", "?sentinel_password=", "redis+sentinel://"),
    ("redis+sentinel://one:1/s?ssl_ca_certs=/ca.pem", "?ssl_ca_certs=", "rediss+sentinel://"),
    ("redis+cluster://one/tag", "node", "host:7000"),
    ("redis+cluster://one:7000", "hash tag", "letters, digits"),
    ("redis+cluster://one:7000/", "hash tag", "letters, digits"),
    ("redis+cluster://one:7000/{hunter}", "hash tag", "letters, digits"),
    ("redis+cluster://one:7000/tag/0", "hash tag", "letters, digits"),
    ("redis+cluster://one:7000/tag?db=1", "one database", "?db="),
    ("redis+cluster://one:7000/tag?ssl_ca_certs=/ca.pem", "?ssl_ca_certs=", "rediss+cluster://"),
    ("redis+cluster://:hunter/2@one:7000/tag", "password", "%2F"),
    ("http://db:6379", "must begin with", "rediss://"),
    ("redis:/db:6379", "must begin with", "rediss://"),
    ("db:6379", "must begin with", "rediss://"),
]


@pytest.mark.parametrize(("text", "part", "cure"), WRONG)
def test_a_wrong_part_is_named_with_its_cure_and_no_value_is_shown(text: str, part: str, cure: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse(text)
    line = str(caught.value)
    assert part in line
    assert cure in line
    assert "hunter" not in line
    assert "\n" not in line


RIGHT = {
    "redis://db": Address("redis", (("db", 6379),)),
    "REDIS://db:1/": Address("redis", (("db", 1),)),
    "redis://api:p%2Fw@db:6380/7": Address("redis", (("db", 6380),), db=7, username="api", password="p/w"),
    "redis://:a:b[c]@my_host.x": Address("redis", (("my_host.x", 6379),), password="a:b[c]"),
    "redis://api@db": Address("redis", (("db", 6379),), username="api"),
    "rediss://[::1]:6380/0?ssl_cert_reqs=none": Address("rediss", (("::1", 6380),), options={"ssl_cert_reqs": "none"}),
    "redis://db?db=3&client_name=a": Address("redis", (("db", 6379),), db=3, options={"client_name": "a"}),
    "unix:///run/a@b%23/s?db=2": Address("unix", path="/run/a@b#/s", db=2),
    "unix://u:p@/run/s": Address("unix", path="/run/s", username="u", password="p"),
    "redis+sentinel://u:p@a:1,[::1]:2/main/4": Address(
        "redis+sentinel", (("a", 1), ("::1", 2)), service="main", db=4, username="u", password="p"
    ),
    "rediss+sentinel://a:1/main?sentinel_username=s&sentinel_password=%26%25+&ssl_ca_certs=/ca": Address(
        *("rediss+sentinel", (("a", 1),)),
        service="main",
        options={"ssl_ca_certs": "/ca"},
        sentinel_username="s",
        sentinel_password="&%+",
    ),
    "redis+cluster://u:p@a:1,[::1]:2/my-tag.1": Address(
        "redis+cluster", (("a", 1), ("::1", 2)), tag="my-tag.1", username="u", password="p"
    ),
    "rediss+cluster://a:1/t?ssl_ca_certs=/ca": Address(
        "rediss+cluster", (("a", 1),), tag="t", options={"ssl_ca_certs": "/ca"}
    ),
}


@pytest.mark.parametrize("text", RIGHT)
def test_every_part_is_read_as_it_was_meant(text: str) -> None:
    assert parse(text) == RIGHT[text]


def test_a_secret_is_not_in_its_repr() -> None:
    assert "p/w" not in repr(RIGHT["redis://api:p%2Fw@db:6380/7"])


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from(["redis", "rediss"]))
def test_any_user_and_password_can_be_written(user: str, password: str, scheme: str) -> None:
    found = parse(f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@db:6379/0")
    assert (found.username or "", found.password or "", found.hosts) == (user, password, (("db", 6379),))


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_named_fault(text: str) -> None:
    for start in (
        "",
        "redis://",
        "rediss://",
        "unix://",
        "unix:///",
        "redis+sentinel://",
        "redis+cluster://",
        "redis://:x@h/0?",
    ):
        with contextlib.suppress(AddressError):
            parse(start + text)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=30))
def test_a_socket_in_any_folder_has_an_address(name: str) -> None:
    path = PurePosixPath("/data") / f"x{name}" / "valkey.sock"
    assert parse(socket_address(path)).path == str(path)


async def test_what_is_written_with_escapes_is_what_the_server_hears(valkey_url: str) -> None:
    password = "a/b?c#d@e%f:g h"
    admin = connect(valkey_url)
    await admin.execute_command("ACL", "SETUSER", "odd/name", "on", f">{password}", "~*", "&*", "+@all")
    mark = "&" if "?" in valkey_url else "?"
    where = valkey_url.replace("://", f"://{quote('odd/name', safe='')}:{quote(password, safe='')}@", 1)
    client = connect(f"{where}{mark}client_name=odd")
    try:
        assert await client.execute_command("ACL WHOAMI") in {"odd/name", b"odd/name"}
    finally:
        await client.aclose()
        await admin.execute_command("ACL", "DELUSER", "odd/name")
        await admin.aclose()
