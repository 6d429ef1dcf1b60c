"""Record in the audit trail that a record which grants something was written: an API key, an app, a webhook endpoint.

The trail is signed, so `vigil audit verify --records` can tell a record that was planted, removed or set back to an
older value. A note holds a keyed digest of the record, never what is in it. Without master keys there are no notes:
then a record has no MAC either, and whoever writes to Redis is believed.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from arq.connections import ArqRedis

from worker.audit.chain import AuditRow, app_chain, canonical
from worker.clock import Clock
from worker.store.audit.trail import Trail
from worker.store.connection.kept_secrets import DIGEST, KeptSecrets
from worker.store.connection.pool import keyring_of

Kind = Literal["api_key", "app", "webhook_endpoint"]
WRITTEN: Final = "record.written"
DELETED: Final = "record.deleted"
RECORDS: Final = "vigil:records"
"""In the place of the app: the notes have a chain of their own, and no app has a name with a colon."""
BY_VIGIL: Final = "vigil"


class RecordNotes:
    """Writes the notes, and computes their digests."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._trail, self._secrets = Trail(redis, clock), KeptSecrets(redis, clock)
        self._enabled = keyring_of(redis).enabled

    async def written(
        self, kind: Kind, name: str, app: str, content: dict[str, Any], *, by: str, why: str = ""
    ) -> None:
        """Record that this record of the app is written now, before it is: a crash between the two plants nothing."""
        if self._enabled:
            digest = await self.digest(kind, name, content)
            await self._note(WRITTEN, by, why, of=app, kind=kind, name=name, digest=digest)

    async def deleted(self, kind: Kind, name: str, app: str, *, by: str) -> None:
        """Record that this record of the app is deleted now."""
        if self._enabled:
            await self._note(DELETED, by, "", of=app, kind=kind, name=name)

    async def digest(self, kind: Kind, name: str, content: dict[str, Any]) -> str:
        """Return the digest that a note holds of this record; it stays the same when master keys are rotated."""
        named = canonical({"kind": kind, "name": name, "content": content})
        return hmac.digest(await self._secrets.get(DIGEST), named, "sha256").hex()

    async def _note(self, act: str, by: str, why: str, **data: str) -> None:
        await self._trail.note(act, app=RECORDS, job_id=None, by=by, why=why, **data)


@dataclass(frozen=True, slots=True)
class RecordNote:
    """The newest note on a record: where it is in the trail, and the record's digest ("" = it was deleted)."""

    place: str
    app: str
    digest: str


async def latest_notes(redis: ArqRedis, clock: Clock) -> dict[tuple[str, str], RecordNote]:
    """Return the newest note on each record, by kind and name."""
    found: dict[tuple[str, str], RecordNote] = {}
    for row in await Trail(redis, clock).of_chain(app_chain(RECORDS)):
        read_note(row, found)
    return found


def read_note(row: AuditRow, into: dict[tuple[str, str], RecordNote]) -> None:
    """Enter the note that this audit record holds, if it holds one; later ones replace earlier ones."""
    if b'"type":"record.' not in row.record:
        return
    try:
        body = json.loads(row.record)
        data = body["data"]
        if body["type"] in (WRITTEN, DELETED):
            digest = data["digest"] if body["type"] == WRITTEN else ""
            into[data["kind"], data["name"]] = RecordNote(row.id, data["of"], digest)
    except (ValueError, LookupError, TypeError, RecursionError):
        return  # the verification of the trail names it
