"""Secrets that Vigil makes for itself once and keeps in Redis, unless the settings give them; and what they sign.

All processes on one Redis share them, so an identifier or a digest made by one can be compared by another.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Final

from arq.connections import ArqRedis

from worker.audit.chain import canonical
from worker.clock import Clock
from worker.jobs.errors import RecordUnreadable
from worker.store import keys
from worker.store.connection.errors import store_errors
from worker.store.connection.pool import keyring_of
from worker.store.values import read

IDENTIFIER: Final = "identifier"
DIGEST: Final = "digest"
_LENGTH: Final = 32


class KeptSecrets:
    """The kept secrets, read once per process."""

    def __init__(self, redis: ArqRedis, clock: Clock, given: Mapping[str, bytes] | None = None) -> None:
        self._redis, self._clock, self._known = redis, clock, dict(given or {})
        self._keyring = keyring_of(redis)

    async def get(self, name: str) -> bytes:
        """The secret of this name: given, kept, or made and kept now."""
        known = self._known.get(name)
        if known is not None:
            return known
        key, own = keys.secret(name), secret_name(name)
        async with store_errors("keep a secret", key):
            sealed = self._keyring.seal_text(own, self._clock.dice(_LENGTH).hex())
            await self._redis.set(key, sealed, nx=True)
            kept: bytes | None = await self._redis.get(key)
        found = read(key, kept or b"", lambda raw: bytes.fromhex(self._keyring.unseal_text(own, raw.decode())))
        if len(found) != _LENGTH:  # never a new one by itself: identifiers and digests would no longer be the same
            raise RecordUnreadable(key, "wrong_shape")
        self._known[name] = found
        return self._known[name]


def secret_name(name: str) -> str:
    """The name under which a secret is sealed."""
    return f"secret:{name}"


def safety_identifier(secret: bytes, app: str, end_user: str) -> str:
    """The name under which the provider knows an app's end user: 64 hex digits that can't be turned back."""
    return hmac.digest(secret, f"{app}\0{end_user}".encode(), "sha256").hex()


def input_digest(secret: bytes, asked: Mapping[str, Any]) -> str:
    """A keyed digest of {model, input, instructions, params}: proves a match and can't be guessed from."""
    return hmac.digest(secret, canonical(dict(asked)), "sha256").hex()
