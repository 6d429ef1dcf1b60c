"""Guards outgoing webhooks: checks which URLs may be registered, and to which addresses a connection may be opened.

A URL is parsed once; the parsed form is checked, stored and called, never the caller's own spelling. Names are checked
again, by the addresses that they resolve to, each time a connection is opened. Refused has a code and one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_address
from typing import Final

import httpx2
from pydantic import AnyHttpUrl, HttpUrl, TypeAdapter

from worker.jobs.errors import Refused
from worker.settings import Settings
from worker.webhooks.addresses import address_allowed

Resolver = Callable[[str, str], Awaitable[Sequence[str]]]
"""Returns every address of a name as text, looked up for an app; raises OSError if it has none."""

MAX_URL_LENGTH: Final = 2048
MAX_FETCHED_URL_LENGTH: Final = 8192
"""Of a webhook's URL, and of one that the provider opens: those may be signed."""
_URL: Final = TypeAdapter(HttpUrl)
_FETCHED_URL: Final = TypeAdapter(AnyHttpUrl)  # longer than HttpUrl may be
_FORBIDDEN_CHARACTERS: Final = re.compile(
    r"[\x00-\x20\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\\]"
)
_PARTS: Final = re.compile(r"(?i:https?)://(?P<authority>[^/?#]+)(?:[/?][^#]*)?(?P<fragment>#.*)?", re.DOTALL)
_FETCHED: Final = re.compile(
    r"(?i:https?)://(?:(?P<user>[^/?#]*)@)?(?P<host>\[[^/?#@\[\]]*\]|[^/?#@:\[\]]+)(?::\d*)?(?:[/?#].*)?", re.DOTALL
)
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_MAX_HOST_LENGTH: Final = 253
_MAX_LABEL_LENGTH: Final = 63
_PRIVATE_LABELS: Final = frozenset(
    {"local", "internal", "localhost", "localdomain", "onion", "lan", "home", "corp", "intranet", "private", "arpa"}
)
"""Last labels of names that are never public."""


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The ports and addresses that this installation allows."""

    ports: frozenset[int] = frozenset({443, 8443})
    allow_private: bool = False
    nat64: tuple[IPv6Network, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> AddressPolicy:
        """Return the policy of the settings."""
        nat64 = tuple(IPv6Network(text) for text in settings.webhook_nat64_prefixes)
        return cls(frozenset(settings.webhook_ports), settings.webhook_allow_private, nat64)

    def allows(self, address: str) -> bool:
        """Return whether a connection to this address may be opened."""
        return address_allowed(address, allow_private=self.allow_private, nat64=self.nat64)


@dataclass(frozen=True, slots=True)
class CheckedUrl:
    """A URL that may be called; `text` is the form that is stored and called."""

    text: str
    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> str:
        """Return scheme, host and port as one text."""
        return f"{self.scheme}://{self.host}:{self.port}"


class AddressBlocked(OSError):
    """No address of this name may be called, or it has none; never told apart, as that would reveal private hosts."""


def check_webhook_url(text: str, settings: Settings) -> str:
    """Return the URL in the form to store; raise Refused (422) if webhooks may not call it."""
    return check_url(text, AddressPolicy.of(settings)).text


def check_url(text: str, policy: AddressPolicy) -> CheckedUrl:
    """Parse and check a URL strictly, without a DNS lookup; raise Refused (422) with the reason."""
    authority = _authority(text)
    try:
        url = _URL.validate_python(text)
    except ValueError:
        raise _refused("webhook_url_malformed", "A webhook's address is not a valid URL.") from None
    host, port = url.host or "", url.port or 0
    _check_spelling(authority, host, url.unicode_host() or "")
    _check_host(host, policy)
    if not policy.allow_private:
        if url.scheme != "https":
            raise _refused("webhook_url_scheme", "Webhooks are sent over https only.")
        if port not in policy.ports:
            allowed = ", ".join(str(one) for one in sorted(policy.ports))
            raise _refused("webhook_url_port", f"Webhooks are sent to port {allowed} only.")
    canonical = str(url)
    if len(canonical) > MAX_URL_LENGTH:
        raise _refused("webhook_url_too_long", f"A webhook's address has at most {MAX_URL_LENGTH} characters.")
    _check_client_reads_it(canonical)
    return CheckedUrl(canonical, url.scheme, host, port)


def _authority(text: str) -> str:
    """Return the authority, the part between https:// and the path; raise Refused for unsafe text."""
    if len(text) > MAX_URL_LENGTH:
        raise _refused("webhook_url_too_long", f"A webhook's address has at most {MAX_URL_LENGTH} characters.")
    if _FORBIDDEN_CHARACTERS.search(text):
        raise _refused(
            "webhook_url_characters", "A webhook's address must not have spaces, control characters or backslashes."
        )
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise _refused("webhook_url_malformed", "A webhook's address begins with https:// and a host.")
    if "@" in parts["authority"]:
        raise _refused("webhook_url_credentials", "A webhook's address must not have a user name or a password.")
    if parts["fragment"] is not None:
        raise _refused("webhook_url_fragment", "A webhook's address has no #fragment.")
    return parts["authority"]


def _check_spelling(authority: str, host: str, readable: str) -> None:
    """Refuse a host that is parsed as another one: octal, short or full-width numbers, lookalikes of dots."""
    sent = authority if authority.endswith("]") else re.sub(r":\d*$", "", authority)
    if sent.lower() not in {host, readable}:
        raise _refused(
            "webhook_url_spelling", "The host of a webhook's address is written so that it parses as another host."
        )


def _check_client_reads_it(canonical: str) -> None:
    """Refuse a URL that the sending client can't parse: its rules for international names are stricter."""
    try:
        read = httpx2.URL(canonical).host
    except (httpx2.InvalidURL, ValueError):
        read = ""
    if not read:
        raise _refused("webhook_url_host", "The host of a webhook's address is not a host name.")


def _check_host(host: str, policy: AddressPolicy) -> None:
    literal = _literal_ip(host)
    if literal is not None:
        if not policy.allow_private:
            raise _refused("webhook_url_ip_address", "A webhook's address must have a host name, not an IP address.")
        if not policy.allows(literal):
            raise _refused("webhook_url_address", "Webhooks are never sent to this address.")
        return
    labels = host.split(".")
    if not _is_host_name(labels):
        raise _refused("webhook_url_host", "The host of a webhook's address is not a host name.")
    if not policy.allow_private and (len(labels) == 1 or labels[-1] in _PRIVATE_LABELS):
        raise _refused("webhook_url_private_host", "The host of a webhook's address is not a public name.")


def _is_host_name(labels: Sequence[str]) -> bool:
    """Return whether labels make a name: 253 characters at most, and 63 in each."""
    length = sum(map(len, labels)) + len(labels) - 1
    return length <= _MAX_HOST_LENGTH and all(_LABEL.fullmatch(label) for label in labels)


def _literal_ip(host: str) -> str | None:
    """Return the IP address that a host is, or None for a name."""
    bare = host.removeprefix("[").removesuffix("]")
    try:
        ip_address(bare)
    except ValueError:
        return None
    return bare


async def resolve_allowed(host: str, resolver: Resolver, policy: AddressPolicy, app: str = "") -> list[str]:
    """Look a host up once for an app and return its addresses; raise AddressBlocked if any is refused or none found."""
    literal = _literal_ip(host)
    if literal is not None:
        if not policy.allow_private or not policy.allows(literal):
            raise AddressBlocked(host)
        return [literal]
    found = list(dict.fromkeys(await resolver(host, app)))
    if not found or not all(policy.allows(one) for one in found):
        raise AddressBlocked(host)
    return found


def _refused(code: str, detail: str) -> Refused:
    return Refused(code, detail, 422)


def host_of_fetched_url(text: str, policy: AddressPolicy) -> str | None:
    """Return the host name of a URL that the provider will open for an app; None for an address or a `data:` URL.

    Raises Refused (422) for one that leads, or may be read as leading, into a private network or to a metadata service.
    """
    if text[:5].lower() == "data:":
        return None
    if len(text) > MAX_FETCHED_URL_LENGTH:
        raise _not_allowed(f"It has more than {MAX_FETCHED_URL_LENGTH} characters.")
    parts = _FETCHED.fullmatch(text)
    if parts is None or _FORBIDDEN_CHARACTERS.search(text):
        raise _not_allowed("It must be an http:// or https:// URL without spaces, or a data: URL.")
    try:
        url = _FETCHED_URL.validate_python(text)
    except ValueError:
        raise _not_allowed("It is not a valid URL.") from None
    host, sent = (url.host or "").lower(), parts["host"].lower()
    if parts["user"] and "@" in parts["user"]:
        raise _not_allowed("It must have at most one user name.")
    if sent not in {host, (url.unicode_host() or "").lower()}:
        raise _not_allowed("Its host is written so that it may be read as another one.")
    name = check_fetched_host(host, policy)
    if name is not None and not _is_host_name(name.split(".")):
        raise _not_allowed("Its host is not a host name.")
    return name


def check_fetched_host(host: str, policy: AddressPolicy) -> str | None:
    """Return the host if it is a name; None if it is an address that may be reached. Raises Refused (422)."""
    if len(host.removesuffix(".")) > _MAX_HOST_LENGTH or any(len(one) > _MAX_LABEL_LENGTH for one in host.split(".")):
        raise _not_allowed("Its host is longer than a name may be: 253 characters, and 63 between two dots.")
    literal = _literal_ip(host)
    if literal is not None:
        if not policy.allows(literal):
            raise _not_allowed("It leads to a private, reserved or metadata address.")
        return None
    labels = host.lower().removesuffix(".").split(".")
    if not policy.allow_private and (len(labels) == 1 or labels[-1] in _PRIVATE_LABELS or labels[-1].isdigit()):
        raise _not_allowed("Its host is not a public name.")
    return ".".join(labels)


def _not_allowed(why: str) -> Refused:
    return Refused("url_not_allowed", f"The provider must not be sent to this address. {why}", 422)
