"""Turns what people call an end user into the safety identifier under which Vigil knows it."""

from __future__ import annotations

import re
from typing import Final

from worker.clock import Clock
from worker.settings import Settings
from worker.store.connection.kept_secrets import IDENTIFIER, KeptSecrets, safety_identifier
from worker.store.connection.pool import Redis

_IDENTIFIER: Final = re.compile(r"[0-9a-f]{64}")


async def identifier(redis: Redis, settings: Settings, app: str, end_user: str) -> str:
    """Return the safety identifier of the app's end user; what looks like one already stays as it is."""
    if _IDENTIFIER.fullmatch(end_user):
        return end_user
    given = settings.identifier_secret
    secrets = KeptSecrets(redis, Clock(), {IDENTIFIER: given.get_secret_value().encode()} if given else {})
    return safety_identifier(await secrets.get(IDENTIFIER), app, end_user)
