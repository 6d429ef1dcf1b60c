"""Keep notes of operators on an end user, such as what an appeal said: sealed, bounded, for as long as the ledger.

Whoever calls this records it in the audit trail, with who wrote the note and how long it is; its text is here alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from arq.connections import ArqRedis

from worker.clock import Clock, from_ms, to_ms
from worker.jobs import ids
from worker.jobs.errors import ContentDamaged, ContentNotSealed, KeyMissing, Refused
from worker.store import keys
from worker.store.admission.quarantine import LEDGER_TTL_S
from worker.store.connection.pool import keyring_of
from worker.store.connection.wrong_types import set_aside_wrong_types
from worker.store.errors import store_errors

MAX_NOTES: Final = 50
MAX_NOTE: Final = 2_000
"""Notes on one end user, and characters of each."""


@dataclass(frozen=True, slots=True)
class AppealNote:
    """A note; `text` is None where it can't be read."""

    at: datetime
    by: str
    text: str | None


class AppealNotes:
    """The notes in Redis, by end user."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._keyring = redis, clock, keyring_of(redis)

    async def add(self, app: str, end_user: str, text: str, *, by: str) -> None:
        """Keep a note. Raises Refused for one that is too long, and where there are enough."""
        if not 0 < len(text) <= MAX_NOTE:
            raise Refused("invalid_note", f"A note has 1 to {MAX_NOTE} characters.", 422)
        name = await self._key(app, end_user)
        async with store_errors("keep a note", name):
            if await self._redis.hlen(name) >= MAX_NOTES:
                raise Refused("too_many_notes", f"An end user has at most {MAX_NOTES} notes.", 409)
            now = to_ms(self._clock.now())
            note_id = ids.new_id("note", now, self._clock.random_bytes(ids.RANDOM_BYTES))
            sealed = self._keyring.seal_named(note_name(app, end_user, note_id), {"at": now, "by": by, "text": text})
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(name, note_id, sealed)
                pipe.expire(name, LEDGER_TTL_S)
                await pipe.execute()

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
