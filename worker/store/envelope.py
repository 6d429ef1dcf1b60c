"""Encrypt content with AES-256-GCM under a random key per job, which is wrapped under a master key.

The layout of a sealed value, by its first byte (`1` is plain JSON, see codec):

    2 | nonce 12 | ciphertext                                    content of a job, under the job's key
    3 | kid 4 | nonce 12 | wrapped key 48 | nonce 12 | ciphertext   the same, together with the wrapped key of the job
    5 | length 4 | a sealed value | …                               an input with long strings (media.py)
    4 | kid 4 | nonce 12 | ciphertext                            what belongs to no job, under a key derived for that
    6 | name 16 | size 8 | nonce 12 | ciphertext                    which object an output is (archived_output.py)

With master keys nothing plain opens: whoever can write to Redis could put it there. `accept_plain` is for the time in
which values are left that are older than the keys; what has a key of its own opens nothing plain even then.

The associated data names app, job and field, so a ciphertext that was moved to another place does not decrypt. A master
key is named by the first bytes of its SHA-256 (kid); for each app it wraps with HKDF(master, salt = app).
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from worker.clock import Clock
from worker.jobs.errors import ContentDamaged, ContentNotSealed, KeyMissing
from worker.store import codec
from worker.store.record_mac import RecordMacs

PRIVATE, INPUT, OUTPUT = "private", "asked", "answer"
"""Fields of a job, as the associated data names them (so the texts never change); three more are made below."""

_OF_JOB, _WITH_KEY, _NAMED = b"2", b"3", b"4"
_KID, _NONCE, _KEY, _TAG = 4, 12, 32, 16
_HEADER: Final = _KID + _NONCE + _KEY + _TAG
_SEALED_TEXT: Final = "sealed:"
_MAX_CACHED_CIPHERS: Final = 10_000
_MAX_CACHED_APPS: Final = 1_000


def text_field(attempt: int | str) -> str:
    """Return the field of an attempt's chunks of text; their order is inside, as offsets."""
    return f"text:{attempt}"


def body_field(message_id: str) -> str:
    """Return the field of a webhook message's body."""
    return f"body:{message_id}"


def tries_field(message_id: str) -> str:
    """Return the field of a webhook message's receipts: a receiver may quote the message in its response."""
    return f"tries:{message_id}"


def kid_of(key: bytes) -> bytes:
    """Return the name of a master key, which reveals nothing of it."""
    return hashlib.sha256(b"vigil master key\0" + key).digest()[:_KID]


def _aad(*parts: str) -> bytes:
    return "\0".join(("v1", *parts)).encode()


class JobCipher:
    """One job's cipher. Without a key it stores content plain, and reads plain content if `accept_plain`."""

    __slots__ = ("_accept_plain", "_app", "_cipher", "_job_id", "_names", "_random", "header")

    def __init__(
        self,
        app: str,
        job_id: str,
        random_bytes: Callable[[int], bytes],
        key: bytes = b"",
        header: bytes = b"",
        *,
        accept_plain: bool = True,
    ) -> None:
        self._app, self._job_id, self._random, self.header = app, job_id, random_bytes, header
        self._cipher = AESGCM(key) if key else None
        self._accept_plain = accept_plain and not key
        self._names: dict[str, bytes] = {}

    def seal(self, field: str, value: Any) -> bytes:
        """Encrypt content of the job."""
        if self._cipher is None:
            return codec.seal(value)
        nonce = self._random(_NONCE)
        return _OF_JOB + nonce + self._cipher.encrypt(nonce, codec.pack(value), self._name(field))

    def seal_with_key(self, field: str, value: Any) -> bytes:
        """Encrypt content and put the wrapped key before it, so that it can be read on its own."""
        sealed = self.seal(field, value)
        return sealed if self._cipher is None else _WITH_KEY + self.header + sealed[1:]

    def unseal(self, field: str, raw: bytes | None) -> Any:
        """Decrypt content; return None when there is none. Raises ContentDamaged, ContentNotSealed."""
        if not raw:
            return None
        if codec.is_plain(raw):
            if not self._accept_plain:
                raise ContentNotSealed(self._job_id, field)
            return _unseal_plain(self._job_id, field, raw)
        start = {_OF_JOB: 1, _WITH_KEY: 1 + _HEADER}.get(raw[:1])
        if self._cipher is None or start is None:
            raise ContentDamaged(self._job_id, field)
        try:
            return codec.unpack(
                self._cipher.decrypt(raw[start : start + _NONCE], raw[start + _NONCE :], self._name(field))
            )
        except (InvalidTag, ValueError):
            raise ContentDamaged(self._job_id, field) from None

    def seal_bytes(self, field: str, raw: bytes) -> bytes:
        """Encrypt bytes of the job's content; without a key they stay as they are."""
        if self._cipher is None:
            return raw
        nonce = self._random(_NONCE)
        return nonce + self._cipher.encrypt(nonce, raw, self._name(field))

    def unseal_bytes(self, field: str, raw: bytes) -> bytes:
        """Decrypt bytes of the job's content. Raises ContentDamaged."""
        if self._cipher is None:
            return raw
        try:
            return self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], self._name(field))
        except (InvalidTag, ValueError):
            raise ContentDamaged(self._job_id, field.partition(":")[0]) from None

    def _name(self, field: str) -> bytes:
        name = self._names.get(field)
        if name is None:
            name = self._names[field] = _aad(self._app, self._job_id, field)
        return name


class MasterKeyring:
    """The master keys of this process, and a cache of the ciphers of recent jobs."""

    def __init__(self, keys: Sequence[bytes] = (), clock: Clock | None = None, *, accept_plain: bool = False) -> None:
        """The first key encrypts, all decrypt; without keys new content is stored plain.

        `accept_plain`: also read plain content, and records without a MAC, although there are keys.
        """
        self.accepts_plain = accept_plain or not keys
        self.macs = RecordMacs({kid_of(key): key for key in keys}, accept_missing=accept_plain)
        self._masters = {kid_of(key): key for key in keys}
        self._random = (clock or Clock()).random_bytes
        self._cached: OrderedDict[str, JobCipher] = OrderedDict()
        self._wrapping = lru_cache(maxsize=_MAX_CACHED_APPS)(self._derive)
        self.first = kid_of(keys[0]) if keys else b""

    @classmethod
    def from_settings(cls, keys: Sequence[SecretStr], *, accept_plain: bool = False) -> MasterKeyring:
        """Make a keyring of the keys of the settings: urlsafe base64 of 32 bytes."""
        return cls([base64.urlsafe_b64decode(key.get_secret_value() + "==") for key in keys], accept_plain=accept_plain)

    @property
    def enabled(self) -> bool:
        """Return True when new content is encrypted."""
        return bool(self.first)

    # -- jobs

    def ephemeral(self, job_id: str) -> JobCipher:
        """Return a cipher for a job that no longer exists: what it encrypts can never be decrypted."""
        key = self._random(_KEY) if self.enabled else b""
        return JobCipher("", job_id, self._random, key, accept_plain=self.accepts_plain)

    def plain(self, app: str, job_id: str) -> JobCipher:
        """Return the cipher of a job without a key; it reads plain content only where that is accepted."""
        return JobCipher(app, job_id, self._random, accept_plain=self.accepts_plain)

    def new(self, app: str, job_id: str) -> JobCipher:
        """Create the cipher of a new job, with a key of its own, and remember it."""
        cipher = self.unremembered(app, job_id)
        return self._remember(job_id, cipher) if self.enabled else cipher

    def unremembered(self, app: str, job_id: str) -> JobCipher:
        """Create another cipher of a job, which counts only once its wrapped key is stored."""
        if not self.enabled:
            return self.plain(app, job_id)
        key = self._random(_KEY)
        return JobCipher(app, job_id, self._random, key, self._wrap(self.first, app, job_id, key))

    def open(self, app: str, job_id: str, field: str, raw: bytes | None) -> tuple[JobCipher, Any]:
        """Return (the job's cipher, the content) of a value with its wrapped key, or of a plain value.

        Raises KeyMissing, ContentDamaged, ContentNotSealed.
        """
        if not raw or codec.is_plain(raw):
            plain = self.plain(app, job_id)
            content = plain.unseal(field, raw)
            return (self._remember(job_id, plain) if self.enabled and field == PRIVATE else plain), content
        if raw[:1] != _WITH_KEY or len(raw) < 1 + _HEADER + _NONCE + _TAG:
            raise ContentDamaged(job_id, field)
        header, cipher = raw[1 : 1 + _HEADER], self._cached.get(job_id)
        if cipher is None or cipher.header != header:
            cipher = JobCipher(app, job_id, self._random, self._unwrap(app, job_id, header), header)
        content = cipher.unseal(field, raw)
        return (self._remember(job_id, cipher) if field == PRIVATE else cipher), content

    def cached(self, job_id: str) -> JobCipher | None:
        """The job's cipher, if this process has seen it lately."""
        return self._cached.get(job_id)

    def _remember(self, job_id: str, cipher: JobCipher) -> JobCipher:
        self._cached[job_id] = cipher
        self._cached.move_to_end(job_id)
        while len(self._cached) > _MAX_CACHED_CIPHERS:
            self._cached.popitem(last=False)
        return cipher

    def _wrap(self, kid: bytes, app: str, job_id: str, key: bytes) -> bytes:
        nonce = self._random(_NONCE)
        return kid + nonce + self._wrapping(kid, app).encrypt(nonce, key, _aad(app, job_id, "key"))

    def _unwrap(self, app: str, job_id: str, header: bytes) -> bytes:
        kid, nonce, wrapped = header[:_KID], header[_KID : _KID + _NONCE], header[_KID + _NONCE :]
        try:
            return self._wrapping(kid, app).decrypt(nonce, wrapped, _aad(app, job_id, "key"))
        except InvalidTag:
            raise ContentDamaged(job_id, "key") from None

    def _derive(self, kid: bytes, app: str) -> AESGCM:
        """Derive the key that wraps the keys of an app's jobs; "" is for what belongs to no job."""
        master = self._masters.get(kid)
        if master is None:
            raise KeyMissing(kid.hex())
        info = b"vigil job keys" if app else b"vigil own"
        return AESGCM(HKDF(SHA256(), _KEY, app.encode(), info).derive(master))

    # -- what belongs to no job: endpoints, secrets

    def seal_named(self, name: str, value: Any) -> bytes:
        """Encrypt a value that belongs to no job; it can be decrypted under the same `name` only."""
        if not self.enabled:
            return codec.seal(value)
        nonce = self._random(_NONCE)
        return (
            _NAMED
            + self.first
            + nonce
            + self._wrapping(self.first, "").encrypt(nonce, codec.pack(value), _aad("", name))
        )

    def unseal_named(self, name: str, raw: bytes | None) -> Any:
        """Decrypt such a value; return None when there is none. Raises KeyMissing, ContentDamaged, ContentNotSealed."""
        if not raw or codec.is_plain(raw):
            if raw and not self.accepts_plain:
                raise ContentNotSealed("", name.partition(":")[0])
            return _unseal_plain("", name.partition(":")[0], raw)
        if raw[:1] != _NAMED:
            raise ContentDamaged("", name.partition(":")[0])
        kid, nonce, rest = raw[1 : 1 + _KID], raw[1 + _KID : 1 + _KID + _NONCE], raw[1 + _KID + _NONCE :]
        try:
            return codec.unpack(self._wrapping(kid, "").decrypt(nonce, rest, _aad("", name)))
        except (InvalidTag, ValueError):
            raise ContentDamaged("", name.partition(":")[0]) from None

    def seal_text(self, name: str, text: str) -> str:
        """Encrypt a secret inside a larger plain value."""
        return _SEALED_TEXT + base64.b64encode(self.seal_named(name, text)).decode() if self.enabled else text

    def unseal_text(self, name: str, text: str) -> str:
        """Decrypt such a secret; return a plain one as it is where plain content is accepted.

        Raises KeyMissing, ContentDamaged, ContentNotSealed.
        """
        if not text.startswith(_SEALED_TEXT):
            if not self.accepts_plain:
                raise ContentNotSealed("", name.partition(":")[0])
            return text
        try:
            raw = base64.b64decode(text.removeprefix(_SEALED_TEXT), validate=True)
        except ValueError:
            raise ContentDamaged("", name.partition(":")[0]) from None
        return str(self.unseal_named(name, raw))

    # -- rotation of master keys

    def rewrap(self, app: str, job_id: str, raw: bytes) -> bytes:
        """Return the value with its key wrapped under the first master key; its content is not touched."""
        header = self._wrap(self.first, app, job_id, self._unwrap(app, job_id, raw[1 : 1 + _HEADER]))
        return _WITH_KEY + header + raw[1 + _HEADER :]


def _unseal_plain(job_id: str, field: str, raw: bytes | None) -> Any:
    """Decode plain content. Raises ContentDamaged."""
    try:
        return codec.unseal(raw)
    except ValueError:
        raise ContentDamaged(job_id, field) from None


def kid_in(raw: bytes) -> bytes | None:
    """Return the name of the master key that a value needs; None for one that needs none."""
    return raw[1 : 1 + _KID] if raw[:1] in {_WITH_KEY, _NAMED} else None


def kid_in_text(text: str) -> bytes | None:
    """Return the name of the master key that such a secret needs; None for a plain one."""
    return kid_in(base64.b64decode(text.removeprefix(_SEALED_TEXT))) if text.startswith(_SEALED_TEXT) else None
