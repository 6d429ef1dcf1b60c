"""A note on an end user, as releases wrote it before appeals were cases."""

from __future__ import annotations

from datetime import datetime

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs import ids
from worker.store import keys
from worker.store.connection.pool import keyring_of
from worker.store.end_users.appeal_notes import note_name
from worker.store.end_users.ledger_entries import LEDGER_TTL_S


async def write_appeal_note(
    redis: ArqRedis, at: datetime, app: str, end_user: str, text: str, *, by: str = "key_1"
) -> None:
    """Write a note on an app's end user."""
    note_id = ids.new_id("note", to_ms(at), Clock().random_bytes(ids.RANDOM_BYTES))
    body = {"at": to_ms(at), "by": by, "text": text}
    sealed = keyring_of(redis).seal_named(note_name(app, end_user, note_id), body)
    await redis.hset(keys.appeal_notes(app, end_user), note_id, sealed)
    await redis.expire(keys.appeal_notes(app, end_user), LEDGER_TTL_S)
