"""Read the seals that are in the archive: those in Redis go on from there."""

from __future__ import annotations

from arq.connections import ArqRedis

from worker.audit.seals import Seal
from worker.store.archive.archive_state import ArchiveStates
from worker.store.archive.attached import archive_of


async def archived_seals(redis: ArqRedis) -> list[Seal]:
    """Return the seals of all segments that are not over, in order. Raises ArchiveDamaged, ArchiveUnavailable.

    After a segment that a hold kept, those between it and the first that is not over are missing: it is left out.
    """
    archive, state = archive_of(redis), await ArchiveStates(redis).get()
    if archive is None or state is None or not state.has_left:
        return []
    found: list[Seal] = []
    start = await archive.first_entry_at(state.removed, state.entry) + 1 if state.retention else 1
    async for entry in archive.entries(start, state.entry):
        if entry.kind == "segment":
            found += (await archive.segment(entry)).seals
    return found
