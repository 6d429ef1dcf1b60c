"""Parses the address of Redis, strictly, for every scheme that Vigil accepts.

An error is one line that names the wrong part and says how to write it. It never shows a user name, a password or any
other value of the address.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from pathlib import Path, PurePath
from typing import Any, Final, Literal
from urllib.parse import quote, unquote_to_bytes

Scheme = Literal["redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"]

SHAPES: Final[Mapping[Scheme, str]] = {
    "redis": "redis://user:password@host:6379/0",
    "rediss": "rediss://user:password@host:6379/0",
    "unix": "unix:///run/redis.sock?db=0",
    "redis+sentinel": "redis+sentinel://user:password@host:26379,host:26379/service/0",
    "rediss+sentinel": "rediss+sentinel://user:password@host:26379,host:26379/service/0",
    "redis+cluster": "redis+cluster://user:password@host:7000,host:7001/tag",
    "rediss+cluster": "rediss+cluster://user:password@host:7000,host:7001/tag",
}
"""How an address of each scheme is written."""

_ESCAPES: Final = {"/": "%2F", "?": "%3F", "#": "%23", "@": "%40"}
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f]")
_HOST: Final = re.compile(r"[\w.-]{1,255}")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_DB: Final = re.compile(r"[0-9]{1,9}")
_OPTION: Final = re.compile(r"[A-Za-z_]{1,40}")
_TAG: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_DEFAULT_PORT, _MAX_PORT = 6379, 65_535
_SECONDS: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")


class AddressError(ValueError):
    """The address is invalid; the message names the part and how to write it, and shows no value."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address. `hosts` are the server's, the sentinels' or some nodes' of a cluster; `path` is a socket's.

    `tag`: the hash tag that all keys have in a cluster, without its braces.
    """

    scheme: Scheme
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    tag: str = ""
    sentinel_username: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)

    @property
    def encrypted(self) -> bool:
        """Whether connections are made with TLS."""
        return self.scheme.startswith("rediss")

    @property
    def through_sentinel(self) -> bool:
        """Whether sentinels say which server is the primary."""
        return self.scheme.endswith("+sentinel")

    @property
    def clustered(self) -> bool:
        """Whether the server is a cluster, of which one slot is used."""
        return self.scheme.endswith("+cluster")

    @property
    def local(self) -> bool:
        """Whether the server is on this machine, so that nothing crosses a network."""
        return all(host in {"127.0.0.1", "localhost", "::1"} for host, _ in self.hosts)


def parse(text: str) -> Address:
    """Return the parts of an address. Raises AddressError, which names the first one that is wrong."""
    head, mark, rest = text.partition("://")
    scheme = next((name for name in SHAPES if name == head.lower()), None)
    if not mark or scheme is None:
        raise AddressError(f"must begin with one of {', '.join(f'{name}://' for name in sorted(SHAPES))}")
    shape = SHAPES[scheme]
    if _UNPRINTABLE.search(text):
        raise AddressError("holds a space, a line break or a control character; write a space as %20")
    credentials, location = _split_credentials(rest, starts_with_path=scheme == "unix" and rest.startswith("/"))
    username, password = _user(credentials)
    if "#" in location:
        raise AddressError(f"holds a # where it has no meaning; write it as %23 ({shape})")
    place, has_query, query = location.partition("?")
    options = _options(query, scheme) if has_query else {}
    named, db = options.pop("db", None), 0
    match scheme:
        case "unix":
            found = Address("unix", path=_socket(place, shape))
        case "redis+cluster" | "rediss+cluster":
            names, _, tag = place.partition("/")
            if named is not None:
                raise AddressError("a cluster has one database only; leave ?db= out")
            if _TAG.fullmatch(tag) is None:
                raise AddressError(
                    "behind the nodes stands the hash tag of all keys, up to 64 letters, digits, dots, dashes and "
                    f"underscores ({shape})"
                )
            hosts = tuple(_host(name, shape, None, "node", 7000) for name in names.split(","))
            found = Address(scheme, hosts, tag=tag)
        case "redis+sentinel" | "rediss+sentinel":
            names, _, path = place.partition("/")
            service, _, number = path.partition("/")
            if not service:
                raise AddressError(f"the name of the service is missing behind the sentinels ({shape})")
            db = _database(number, "/" in path, named, shape)
            hosts = tuple(_host(name, shape, None, "sentinel") for name in names.split(","))
            found = Address(scheme, hosts, service=_unescaped(service, "the name of the service"))
        case _:
            name, slash, number = place.partition("/")
            db = _database(number, bool(slash and number), named, shape)
            found = Address("rediss" if scheme == "rediss" else "redis", (_host(name, shape, _DEFAULT_PORT, "host"),))
    sentinel_user = {name: options.pop(name, None) for name in _SENTINEL}
    return replace(found, db=db or named or 0, username=username, password=password, options=options, **sentinel_user)


def check_certificates(address: Address) -> None:
    """Load the files that the options of a rediss:// address name. Raises AddressError for one that can't be used."""
    options, context = address.options, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    certificate, key = options.get("ssl_certfile"), options.get("ssl_keyfile")
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        try:
            if path := options.get(name):
                Path(path).read_bytes()
        except (OSError, ValueError) as error:
            why = f" ({error.strerror})" if isinstance(error, OSError) else ""
            raise AddressError(f"the file of ?{name}= can't be read{why}; {_HINTS[name]}") from None
    try:
        if authority := options.get("ssl_ca_certs"):
            context.load_verify_locations(authority)
    except OSError:  # ssl.SSLError is one
        raise AddressError("the file of ?ssl_ca_certs= holds no certificate; it must be PEM") from None
    try:
        if certificate:
            context.load_cert_chain(certificate, key, password=lambda: "")
    except OSError:
        raise AddressError(
            "the files of ?ssl_certfile= and ?ssl_keyfile= are no certificate and its key; both must be PEM, the key "
            "without a password"
        ) from None


def socket_address(path: PurePath) -> str:
    """Return the address of a server that listens on this socket, whatever characters its path has."""
    return f"unix://{quote(str(path))}"


def _split_credentials(rest: str, *, starts_with_path: bool) -> tuple[str, str]:
    """Return (user and password, all that follows). User and password are all before the last @."""
    if starts_with_path:
        return "", rest
    credentials, _, location = rest.rpartition("@")
    for mark, written in _ESCAPES.items():
        if mark in credentials:
            part = "password" if mark in credentials.partition(":")[2] else "user name"
            raise AddressError(
                f"the {part} (all up to the last @ is user and password) holds a raw {mark}; write it as {written}, "
                "and a % as %25"
            )
    return credentials, location


def _user(credentials: str) -> tuple[str | None, str | None]:
    name, _, secret = credentials.partition(":")
    return _unescaped(name, "the user name") or None, _unescaped(secret, "the password") or None


def _unescaped(text: str, part: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise AddressError(f"{part} holds a raw %; write it as %25")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise AddressError(f"{part} is not UTF-8 once its %XX are read") from None


def _host(text: str, shape: str, default_port: int | None, what: str, usual_port: int = 26379) -> tuple[str, int]:
    """Return host and port; the port may be left out if there is a default."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        try:
            IPv6Address(host)
        except ValueError:
            closed = ""
        if not closed or (rest and not rest.startswith(":")):
            raise AddressError(f"the {what} in brackets is no IPv6 address; write [::1]:6379 ({shape})")
        colon, port = rest[:1], rest[1:]
    else:
        host, colon, port = text.partition(":")
        if not host:
            raise AddressError(f"the {what} is missing ({shape})")
        if ":" in port:
            raise AddressError(
                f"the {what} has more than one colon; write an IPv6 address in brackets, such as [::1]:6379, and "
                f"a password is followed by @ ({shape})"
            )
        if _HOST.fullmatch(host) is None:
            raise AddressError(f"the {what} is no host name or address ({shape})")
    if not colon and default_port is not None:
        return host, default_port
    if not colon:
        raise AddressError(f"a {what} has no port; write each as host:{usual_port} ({shape})")
    if _PORT.fullmatch(port) is None or not 0 < int(port) <= _MAX_PORT:
        raise AddressError(f"the port must be a number from 1 to 65535 ({shape})")
    return host, int(port)


def _socket(place: str, shape: str) -> str:
    path = _unescaped(place, "the path of the socket")
    if not path.startswith("/") or path == "/" or "\0" in path:
        raise AddressError(f"the path of the socket must begin with / and name a file ({shape})")
    return path


def _database(number: str, given: bool, named: int | None, shape: str) -> int:
    if not given:
        return 0
    if _DB.fullmatch(number) is None:
        raise AddressError(f"the database (behind the last /) must be a number such as /0 ({shape})")
    if named is not None:
        raise AddressError("the database is given twice: behind the / and as ?db=; leave one out")
    return int(number)


def _options(query: str, scheme: str) -> dict[str, Any]:
    readers = (
        _COMMON | (_TLS if scheme.startswith("rediss") else {}) | (_SENTINEL if scheme.endswith("+sentinel") else {})
    )
    found: dict[str, Any] = {}
    for pair in query.split("&"):
        name, _, raw = pair.partition("=")
        shown = f"?{name}=" if _OPTION.fullmatch(name) else "an option behind the ?"
        if name not in readers:
            hint = "write a ? in a password as %3F; " if not _OPTION.fullmatch(name) else ""
            if name in _TLS:
                hint = "it needs rediss://, rediss+sentinel:// or rediss+cluster://; "
            if name in _SENTINEL:
                hint = "it needs redis+sentinel:// or rediss+sentinel://; "
            raise AddressError(f"{shown} is not known; {hint}known: {', '.join(sorted(readers))}")
        if name in found:
            raise AddressError(f"{shown} is given twice; leave one out")
        value = readers[name](_unescaped(raw, shown))
        if value is None:
            raise AddressError(f"{shown} has {'a wrong' if raw else 'no'} value; {_HINTS[name]}")
        found[name] = value
    return found


def _number(maximum: int) -> Callable[[str], int | None]:
    return lambda raw: int(raw) if _DB.fullmatch(raw) and int(raw) <= maximum else None


def _seconds(raw: str) -> float | None:
    return float(raw) if _SECONDS.fullmatch(raw) and float(raw) > 0 else None


def _one_of(*values: str) -> Callable[[str], str | None]:
    return lambda raw: raw if raw in values else None


def _flag(raw: str) -> bool | None:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(raw.lower())


def _text(raw: str) -> str | None:
    return raw or None


def _protocol(raw: str) -> int | None:
    return int(raw) if raw in {"2", "3"} else None


def _name(raw: str) -> str | None:
    return raw if raw and all("!" <= letter <= "~" for letter in raw) else None


_COMMON: Final[dict[str, Callable[[str], Any]]] = {
    "db": _number(999_999_999),
    "client_name": _name,
    "protocol": _protocol,
    "socket_timeout": _seconds,
    "socket_connect_timeout": _seconds,
    "health_check_interval": _seconds,
}
_TLS: Final[dict[str, Callable[[str], Any]]] = {
    "ssl_cert_reqs": _one_of("none", "optional", "required"),
    "ssl_ca_certs": _text,
    "ssl_certfile": _text,
    "ssl_keyfile": _text,
    "ssl_check_hostname": _flag,
}
_SENTINEL: Final[dict[str, Callable[[str], Any]]] = {"sentinel_username": _text, "sentinel_password": _text}
_HINTS: Final[dict[str, str]] = {
    "db": "write the number of a database",
    "client_name": "write letters and digits without spaces",
    "protocol": "write 2 or 3",
    "socket_timeout": "write a number of seconds",
    "socket_connect_timeout": "write a number of seconds",
    "health_check_interval": "write a number of seconds",
    "ssl_cert_reqs": "write none, optional or required",
    "ssl_ca_certs": "write the path of a file",
    "ssl_certfile": "write the path of a file",
    "ssl_keyfile": "write the path of a file",
    "ssl_check_hostname": "write true or false",
    "sentinel_username": "write the name of a user of the sentinels",
    "sentinel_password": "write its password at the sentinels",
}
