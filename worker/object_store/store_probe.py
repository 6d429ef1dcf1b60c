"""Tries out what an object store does with an object of its own: whether it is written once, and may be deleted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from worker.object_store.errors import AccessDenied
from worker.object_store.object_store import ObjectStore

PROBE: Final = "vigil-probe"
_FIRST, _SECOND = b"written by vigil doctor\n", b"this must not replace it\n"


@dataclass(frozen=True, slots=True)
class ProbedStore:
    """What a store did. `writes_once`: it did not replace an object that was there; `deletes`: what became of it."""

    writes_once: bool
    deletes: Literal["deleted", "refused", "versions"]


async def probe_store(store: ObjectStore) -> ProbedStore:
    """Return what the store does; one small object may stay. Raises ObjectStoreError when it can't be used."""
    await store.put_if_absent(PROBE, _FIRST)
    writes_once = not await store.put_if_absent(PROBE, _SECOND)
    found = await store.head(PROBE)
    if found is not None and found.version is not None:
        return ProbedStore(writes_once, "versions")  # deleting it would leave one more version each time
    try:
        await store.delete(PROBE)
    except AccessDenied:
        return ProbedStore(writes_once, "refused")
    return ProbedStore(writes_once, "deleted")
