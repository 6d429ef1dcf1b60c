"""Short-lived tokens for one job, for a browser that must not have the app's API key: it reads that job, nothing else.

A token is not stored. It is signed with a secret of the deployment over its job, the app, the key that made it and the
time of its end, so every API process checks it alike, and it ends with its key.
"""

from __future__ import annotations

import base64
import hmac
import re
from datetime import datetime
from typing import Final

from api.runtime.key_cache import KeyCache
from worker.clock import Clock, from_ms, to_ms
from worker.store.apps import ApiKey
from worker.store.connection.kept_secrets import KeptSecrets

PREFIX: Final = "vgt_"
_SIGNED_AS: Final = "job-token"  # the name of the kept secret, and what it signs
_TOKEN: Final = re.compile(r"vgt_([0-9a-f]{12})\.([0-9A-Za-z]{1,64})\.([A-Za-z0-9_-]{43})")
_KEY_PREFIX: Final = "key_"


class JobTokens:
    """Makes and checks tokens."""

    def __init__(self, secrets: KeptSecrets, keys: KeyCache, clock: Clock) -> None:
        self._secrets, self._keys, self._clock = secrets, keys, clock

    async def create(self, job_id: str, key: ApiKey, seconds: int) -> tuple[str, datetime]:
        """Return a token for the job that lasts for so long, and when it ends."""
        expires = to_ms(self._clock.now()) + seconds * 1000
        signature = await self._signature(job_id, key, expires)
        return f"{PREFIX}{expires:012x}.{key.id.removeprefix(_KEY_PREFIX)}.{signature}", from_ms(expires)

    async def find(self, token: str, job_id: str) -> ApiKey | None:
        """Return the live key that made this token for this job; None if the token is not valid or is over."""
        parts = _TOKEN.fullmatch(token)
        if parts is None or int(parts[1], 16) <= to_ms(self._clock.now()):
            return None
        key = await self._keys.find_by_id(_KEY_PREFIX + parts[2])
        if key is None:
            return None
        expected = await self._signature(job_id, key, int(parts[1], 16))
        return key if hmac.compare_digest(expected, parts[3]) else None

    async def _signature(self, job_id: str, key: ApiKey, expires: int) -> str:
        signed = "\0".join((_SIGNED_AS, key.app, job_id, key.id, str(expires))).encode()
        digest = hmac.digest(await self._secrets.get(_SIGNED_AS), signed, "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
