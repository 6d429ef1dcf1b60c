"""The guard of outgoing webhooks: which addresses may be named at all, and to which one a connection may be opened.

Read once by one parser; what it gives is judged, stored and dialled, never the caller's own spelling. Names are judged
again, by the addresses they resolve to, each time a connection is opened. Refused means a code and one plain sentence.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import httpx2
from pydantic import HttpUrl, TypeAdapter

from worker.jobs.errors import Refused
from worker.settings import Settings
from worker.webhooks.addresses import address_allowed

Resolver = Callable[[str], Awaitable[Sequence[str]]]
"""A name -> every address it has, as text; OSError when it has none."""

LONGEST: Final = 2048
_URL: Final = TypeAdapter(HttpUrl)
_UNFIT: Final = re.compile(r"[\x00-\x20\x7f-\xa0\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\\]")
_PARTS: Final = re.compile(r"(?i:https?)://(?P<authority>[^/?#]+)(?:[/?][^#]*)?(?P<fragment>#.*)?", re.DOTALL)
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_LONGEST_HOST: Final = 253
_INSIDE: Final = frozenset(
    {"local", "internal", "localhost", "localdomain", "onion", "lan", "home", "corp", "intranet", "private", "arpa"}
)
"""Last labels of names that never lead to the public internet."""


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What this installation allows."""

    ports: frozenset[int] = frozenset({443, 8443})
    allow_private: bool = False

    @classmethod
    def of(cls, settings: Settings) -> AddressPolicy:
        """As the settings say."""
        return cls(frozenset(settings.webhook_ports), settings.webhook_allow_private)


@dataclass(frozen=True, slots=True)
class CheckedUrl:
    """An address that may be called: `text` is the one spelling that is stored and dialled."""

    text: str
    scheme: str
    host: str
    port: int

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{self.scheme}://{self.host}:{self.port}"


class AddressBlocked(OSError):
    """No address of this name may be called, or it has none: told apart nowhere, or we'd be a port scanner."""


def check_webhook_url(text: str, settings: Settings) -> str:
    """The spelling to store; Refused (422) with the reason for an address that webhooks may not call."""
    return judge_url(text, AddressPolicy.of(settings)).text


def judge_url(text: str, policy: AddressPolicy) -> CheckedUrl:
    """The address, read strictly; Refused (422) with the reason. Looks nothing up."""
    authority = _authority(text)
    try:
        url = _URL.validate_python(text)
    except ValueError:
        raise _no("webhook_url_malformed", "A webhook's address is not a valid URL.") from None
    host, port = url.host or "", url.port or 0
    _judge_spelling(authority, host, url.unicode_host() or "")
    _judge_host(host, policy)
    if not policy.allow_private:
        if url.scheme != "https":
            raise _no("webhook_url_scheme", "Webhooks are sent over https only.")
        if port not in policy.ports:
            allowed = ", ".join(str(one) for one in sorted(policy.ports))
            raise _no("webhook_url_port", f"Webhooks are sent to port {allowed} only.")
    canonical = str(url)
    if len(canonical) > LONGEST:
        raise _no("webhook_url_too_long", f"A webhook's address has at most {LONGEST} characters.")
    _judge_reading(canonical)
    return CheckedUrl(canonical, url.scheme, host, port)


def _authority(text: str) -> str:
    """What stands between https:// and the path, of text that is fit to be read at all."""
    if len(text) > LONGEST:
        raise _no("webhook_url_too_long", f"A webhook's address has at most {LONGEST} characters.")
    if _UNFIT.search(text):
        raise _no("webhook_url_characters", "A webhook's address holds no spaces, control characters or backslashes.")
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise _no("webhook_url_malformed", "A webhook's address begins with https:// and a host.")
    if "@" in parts["authority"]:
        raise _no("webhook_url_credentials", "A webhook's address carries no user name and no password.")
    if parts["fragment"] is not None:
        raise _no("webhook_url_fragment", "A webhook's address has no #fragment.")
    return parts["authority"]


def _judge_spelling(authority: str, host: str, readable: str) -> None:
    """What was sent is what is read: no octal, short or full-width numbers, no dots that only look like one."""
    sent = authority if authority.endswith("]") else re.sub(r":\d*$", "", authority)
    if sent.lower() not in {host, readable}:
        raise _no("webhook_url_spelling", "The host of a webhook's address is spelt so that it reads as another one.")


def _judge_reading(canonical: str) -> None:
    """The client that will send must be able to read it: its rules for international names are stricter."""
    try:
        read = httpx2.URL(canonical).host
    except (httpx2.InvalidURL, ValueError):
        read = ""
    if not read:
        raise _no("webhook_url_host", "The host of a webhook's address is not a host name.")


def _judge_host(host: str, policy: AddressPolicy) -> None:
    literal = _literal(host)
    if literal is not None:
        if not policy.allow_private:
            raise _no("webhook_url_ip_address", "A webhook's address names its host; IP addresses are not called.")
        if not address_allowed(literal, allow_private=True):
            raise _no("webhook_url_address", "This address is never called.")
        return
    labels = host.split(".")
    if len(host) > _LONGEST_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise _no("webhook_url_host", "The host of a webhook's address is not a host name.")
    if not policy.allow_private and (len(labels) == 1 or labels[-1] in _INSIDE):
        raise _no("webhook_url_private_host", "The host of a webhook's address is not a public name.")


def _literal(host: str) -> str | None:
    """The IP address that a host is, or None for a name."""
    bare = host.removeprefix("[").removesuffix("]")
    try:
        ip_address(bare)
    except ValueError:
        return None
    return bare


async def resolve_and_judge(host: str, resolver: Resolver, policy: AddressPolicy) -> list[str]:
    """The addresses to connect to, after one lookup; Blocked when there is none or when any of them is refused."""
    literal = _literal(host)
    if literal is not None:
        if not policy.allow_private or not address_allowed(literal, allow_private=True):
            raise AddressBlocked(host)
        return [literal]
    found = list(dict.fromkeys(await resolver(host)))
    if not found or not all(address_allowed(one, allow_private=policy.allow_private) for one in found):
        raise AddressBlocked(host)
    return found


def _no(code: str, detail: str) -> Refused:
    return Refused(code, detail, 422)
