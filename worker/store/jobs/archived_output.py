"""What Redis holds of an output that is in the archive: where it is there, and digests that only this output has.

The layout, which takes the place of the output in its key:

    6 | name 16 | size 8 | nonce 12 | ciphertext

The object is the sealed output as Redis would hold it. Its name is random, so nobody can guess it and no two writers
share one; name and size are the associated data of the ciphertext, so neither can be exchanged. The plain name lets
whoever has no key tell which object a job refers to.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final, NamedTuple

from worker.jobs import ids
from worker.jobs.errors import ContentDamaged
from worker.store import codec
from worker.store.envelope import OUTPUT, JobCipher

FOLDER: Final = "outputs"
NAME_BYTES: Final = 16
_KIND: Final = b"6"
_HEAD: Final = struct.Struct(f"!c{NAME_BYTES}sQ")
HEAD_BYTES: Final = _HEAD.size
"""So many first bytes of a stored output say whether it is in the archive, and where."""
_GONE: Final = "-"


class ArchivedOutput(NamedTuple):
    """An output in the archive. `name`: 32 hex digits. `size`: bytes of its object. `digest`: the keyed digest of the
    output as the audit trail has it, "" if that has none; `sealed_digest`: SHA-256 of the object.
    """

    name: str
    size: int
    digest: str
    sealed_digest: str


class ObjectEntry(NamedTuple):
    """A line of `vigil:objects`. `gone`: no job refers to the object, so that it can be deleted."""

    job_id: str
    name: str
    gone: bool = False

    @property
    def member(self) -> str:
        """Return the line as it is stored."""
        return f"{_GONE if self.gone else ''}{self.job_id}/{self.name}"

    @property
    def object_name(self) -> str:
        """Return the name of the object in the archive."""
        return f"{FOLDER}/{self.job_id}/{self.name}"


def entry_of(member: str) -> ObjectEntry | None:
    """Return a line of `vigil:objects`, or None if it is none."""
    job_id, _, name = member.removeprefix(_GONE).partition("/")
    return ObjectEntry(job_id, name, member.startswith(_GONE)) if ids.is_job_id(job_id) and _is_name(name) else None


def archived(name: bytes, sealed: bytes, digest: str) -> ArchivedOutput:
    """Return what is to be known of a sealed output that will be in the archive under this name."""
    return ArchivedOutput(name.hex(), len(sealed), digest, hashlib.sha256(sealed).hexdigest())


def fits(one: ArchivedOutput, sealed: bytes) -> bool:
    """Return whether an object is the one that was written."""
    return len(sealed) == one.size and hashlib.sha256(sealed).hexdigest() == one.sealed_digest


def seal_reference(cipher: JobCipher, one: ArchivedOutput) -> bytes:
    """Return what stands in Redis in the place of the output."""
    head = _HEAD.pack(_KIND, bytes.fromhex(one.name), one.size)
    return head + cipher.seal_bytes(_field(one.name, one.size), codec.pack([one.digest, one.sealed_digest]))


def open_reference(cipher: JobCipher, job_id: str, raw: bytes) -> ArchivedOutput:
    """Return where an output is in the archive. Raises ContentDamaged."""
    where = place_of(raw)
    if where is None or not cipher.header:  # without a key no output is in the archive
        raise ContentDamaged(job_id, OUTPUT)
    name, size = where
    try:
        digest, sealed_digest = codec.unpack(cipher.unseal_bytes(_field(name, size), raw[HEAD_BYTES:]))
        return ArchivedOutput(name, size, str(digest), str(sealed_digest))
    except (ValueError, TypeError):
        raise ContentDamaged(job_id, OUTPUT) from None


def is_archived(raw: bytes | None) -> bool:
    """Return whether a stored output is in the archive; `raw`: all of it or its first bytes."""
    return raw is not None and raw[:1] == _KIND


def place_of(raw: bytes | None) -> tuple[str, int] | None:
    """Return (name, size) of the object that a stored output refers to, or None; `raw`: HEAD_BYTES of it or more."""
    if raw is None or not is_archived(raw) or len(raw) < HEAD_BYTES:
        return None
    _, name, size = _HEAD.unpack_from(raw)
    return name.hex(), int(size)


def _field(name: str, size: int) -> str:
    return f"{OUTPUT}:{name}:{size}"


def _is_name(text: str) -> bool:
    return len(text) == 2 * NAME_BYTES and set(text) <= set("0123456789abcdef")
