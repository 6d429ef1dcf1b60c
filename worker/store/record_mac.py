"""Compute and check the keyed MAC of records: with master keys, only who has one can write a record that counts.

A tag is `1.<kid>.<128 bits>` in hex: the version of this scheme, the name of the master key (envelope.kid_of), and
HMAC-SHA256 under a key derived from it for this purpose alone. The MAC is over the record's name, which says what it is
and whose, and over its bytes as they are stored; so a record that was moved or changed does not pass. A JSON object
carries its tag as its last member, which Lua and older releases can read or ignore; a job's hash carries the tag of its
record in a field of its own.

It can't tell an older value of the same record from the newest: `vigil audit verify --records` can. Without master keys
nothing is computed, and nothing checked. Pure.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from worker.jobs.errors import RecordUnreadable

UNVERIFIED: Final = b"-"
"""In the place of a tag: who wrote the record had not the key to check the one before it."""
_LABEL: Final = b"vigil record mac v1"
_KEY, _TAG = 32, 16
_FORM: Final = re.compile(rb"1\.([0-9a-f]{8})\.([0-9a-f]{32})")
_MEMBER: Final = re.compile(rb'(?:,|(?<=^\{))"mac":"(1\.[0-9a-f]{8}\.[0-9a-f]{32})"\}\Z')
_LONGEST_MEMBER: Final = 64  # bytes: the end of a record in which its tag is looked for


class RecordMacs:
    """The MAC keys of this process, one for each master key; the first makes new tags, all check."""

    def __init__(self, masters: Mapping[bytes, bytes], *, accept_missing: bool = False) -> None:
        """`accept_missing`: accept records without a tag, which are older than tags. A wrong tag is never accepted."""
        self._keys = {
            kid.hex().encode(): HKDF(SHA256(), _KEY, None, _LABEL).derive(master) for kid, master in masters.items()
        }
        self._first = next(iter(self._keys), b"")
        self.accept_missing = accept_missing or not masters

    def strict(self) -> RecordMacs:
        """Return the same keys, which accept no record without a tag."""
        other = RecordMacs({})
        other._keys, other._first, other.accept_missing = self._keys, self._first, not self._first
        return other

    @property
    def enabled(self) -> bool:
        """Return True when records get a tag."""
        return bool(self._first)

    def tag(self, name: str, content: bytes) -> bytes:
        """Return the tag of this content under this name; b"" without master keys."""
        return self._tag(self._first, name, content) if self._first else b""

    def check(self, key: str, name: str, content: bytes, tag: bytes | None) -> None:
        """Return if the tag is this content's; raise RecordUnreadable, which names `key`, if it is not."""
        if not self._first:
            return
        if not tag or tag == UNVERIFIED:
            if self.accept_missing:
                return
            raise RecordUnreadable(key, "no_mac")
        form = _FORM.fullmatch(tag)
        if form is None:
            raise RecordUnreadable(key, "wrong_mac")
        if form[1] not in self._keys:
            raise RecordUnreadable(key, "unknown_key")
        if not hmac.compare_digest(tag, self._tag(form[1], name, content)):
            raise RecordUnreadable(key, "wrong_mac")

    def attach(self, name: str, record: bytes | str) -> bytes:
        """Return the JSON object with its tag as its last member; unchanged without master keys."""
        raw = record.encode() if isinstance(record, str) else record
        if not self._first:
            return raw
        comma = b"" if raw == b"{}" else b","
        return b'%b%b"mac":"%b"}' % (raw[:-1], comma, self.tag(name, raw))

    def detach(self, key: str, name: str, raw: bytes) -> bytes:
        """Return the JSON object without its tag, once that was checked. Raises RecordUnreadable, which names `key`."""
        content, tag = split(raw)
        self.check(key, name, content, tag)
        return content

    def missing_key(self, tag: bytes | None) -> str | None:
        """Return the name of the master key that this tag needs and that is not here, or None."""
        form = _FORM.fullmatch(tag or b"")
        return form[1].decode() if self.enabled and form is not None and form[1] not in self._keys else None

    def needs_tag(self, tag: bytes | None) -> bool:
        """Return whether a record with this tag needs one under the first key: it has none, or another key's."""
        form = _FORM.fullmatch(tag or b"")
        return self.enabled and (form is None or form[1] != self._first)

    def _tag(self, kid: bytes, name: str, content: bytes) -> bytes:
        named = name.encode("utf-8", "surrogatepass")
        message = b"%d\0%b%b" % (len(named), named, content)
        return b"1.%b.%b" % (kid, hmac.digest(self._keys[kid], message, "sha256")[:_TAG].hex().encode())


def split(raw: bytes) -> tuple[bytes, bytes | None]:
    """Return (the JSON object without its tag, the tag or None)."""
    end = raw[-_LONGEST_MEMBER:]
    found = _MEMBER.search(end)
    if found is None:
        return raw, None
    return raw[: len(raw) - len(end) + found.start()] + b"}", found[1]
