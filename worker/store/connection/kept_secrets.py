"""Create and store the secrets that the settings do not give; derive identifiers and digests with them.

All processes on one Redis share them, so identifiers and digests made by different processes can be compared.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Final

from arq.connections import ArqRedis

from worker.audit.chain import canonical, canonical_pieces
from worker.clock import Clock
from worker.jobs.errors import RecordUnreadable
from worker.store import codec, keys
from worker.store.connection.pool import keyring_of
from worker.store.errors import store_errors
from worker.store.values import read

IDENTIFIER: Final = "identifier"
DIGEST: Final = "digest"
_LENGTH: Final = 32


class KeptSecrets:
    """The stored secrets, read once per process."""

    def __init__(self, redis: ArqRedis, clock: Clock, given: Mapping[str, bytes] | None = None) -> None:
        self._redis, self._clock, self._known = redis, clock, dict(given or {})
        self._keyring = keyring_of(redis)

    def known(self, name: str) -> bytes | None:
        """Return the secret of this name, or None if this process has not read it yet."""
        return self._known.get(name)

    async def get(self, name: str) -> bytes:
        """Return the secret of this name: given, stored, or created now."""
        known = self.known(name)
        if known is not None:
            return known
        key, sealed_as = keys.secret(name), secret_name(name)
        async with store_errors("keep a secret", key):
            stored: bytes | None = await self._redis.get(key)
            if stored is None:  # a full Redis takes no SET, but still gives what it has
                sealed = self._keyring.seal_text(sealed_as, self._clock.random_bytes(_LENGTH).hex())
                await self._redis.set(key, sealed, nx=True)
                stored = await self._redis.get(key)
        found = read(key, stored or b"", lambda raw: bytes.fromhex(self._keyring.unseal_text(sealed_as, raw.decode())))
        if len(found) != _LENGTH:  # never replaced by a new one: identifiers and digests would change
            raise RecordUnreadable(key, "wrong_shape")
        self._known[name] = found
        return self._known[name]


def secret_name(name: str) -> str:
    """Return the name under which a secret is sealed."""
    return f"secret:{name}"


def safety_identifier(secret: bytes, app: str, end_user: str) -> str:
    """Return the name under which the provider knows an app's end user: 64 hex digits, not reversible."""
    return hmac.digest(secret, f"{app}\0{end_user}".encode(), "sha256").hex()


def input_digest(secret: bytes, request: Mapping[str, Any], *, large: bool = False) -> str:
    """Return a keyed digest of {model, input, instructions, params}: it proves a match and reveals nothing.

    `large`: the request may be; then the work is cut into short calls, and the result is the same.
    """
    if not large:
        return hmac.digest(secret, canonical(dict(request)), "sha256").hex()
    digest = hmac.new(secret, digestmod="sha256")
    for piece in canonical_pieces(dict(request)):
        digest.update(piece)
    return digest.hexdigest()


def output_digest(secret: bytes, content: Mapping[str, Any]) -> str:
    """Return a keyed digest of an answer as it is stored: it proves a match and reveals nothing."""
    return hmac.digest(secret, b"output\0" + codec.pack(content), "sha256").hex()
