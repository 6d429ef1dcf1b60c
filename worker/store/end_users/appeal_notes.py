"""Read the notes of operators on an end user that releases before appeals were cases have written (see `appeals.py`).

They are sealed, and go 90 days after the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from arq.connections import ArqRedis

from worker.clock import from_ms
from worker.jobs.errors import ContentDamaged, ContentNotSealed, KeyMissing
from worker.store import keys
from worker.store.connection.pool import keyring_of
from worker.store.connection.wrong_types import set_aside_wrong_types
from worker.store.errors import store_errors


@dataclass(frozen=True, slots=True)
class AppealNote:
    """A note; `text` is None where it can't be read."""

    at: datetime
    by: str
    text: str | None


class AppealNotes:
    """The notes in Redis, by end user."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis, self._keyring = redis, keyring_of(redis)

    async def of(self, app: str, end_user: str) -> list[AppealNote]:
        """Return the notes on the app's end user, newest first."""
        name = await self._key(app, end_user)
        async with store_errors("read the notes", name):
            rows = await self._redis.hgetall(name)
        found = {note_id.decode(errors="replace"): raw for note_id, raw in rows.items()}
        return [self._note(app, end_user, note_id, found[note_id]) for note_id in sorted(found, reverse=True)]

    def _note(self, app: str, end_user: str, note_id: str, raw: bytes) -> AppealNote:
        try:
            body: dict[str, Any] = self._keyring.unseal_named(note_name(app, end_user, note_id), raw)
            return AppealNote(from_ms(int(body["at"])), str(body["by"]), str(body["text"]))
        except (KeyMissing, ContentDamaged, ContentNotSealed, ValueError, LookupError, TypeError):
            return AppealNote(from_ms(0), "", None)

    async def _key(self, app: str, end_user: str) -> str:
        name = keys.appeal_notes(app, end_user)
        await set_aside_wrong_types(self._redis, {name: "hash"})
        return name


def note_name(app: str, end_user: str, note_id: str) -> str:
    """Return the name under which a note is sealed."""
    return f"appeal:{app}:{end_user}:{note_id}"
