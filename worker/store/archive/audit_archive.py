"""Reads the archive of the trail: entries of its manifest and segments, and writes both, each under a name of its own.

A few of what was read last are kept, because pages of a search follow each other.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable
from typing import Final, TypeVar

from worker.audit.archive_entry import (
    MANIFEST,
    MAX_ENTRY_BYTES,
    ArchiveEntry,
    BadEntry,
    entry_name,
    number_of,
    parse_entry,
)
from worker.audit.chain import stream_id
from worker.audit.segments import MAX_OBJECT_BYTES, BadSegment, Segment, object_digest, read_segment
from worker.jobs.errors import StoreUnavailable
from worker.object_store.errors import ObjectStoreError
from worker.object_store.object_store import ObjectStore

K = TypeVar("K")
V = TypeVar("V")
_ENTRIES_KEPT: Final = 2_000
_SEGMENTS_KEPT: Final = 3
_AT_ONCE: Final = 8


class ArchiveUnavailable(StoreUnavailable):
    """The archive can't answer; the trail that is only there can't be read now."""


class ArchiveDamaged(StoreUnavailable):
    """An object of the archive is missing or is not what was written; `vigil audit verify` names it."""


class AuditArchive:
    """The archive of one trail."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._entries: OrderedDict[int, ArchiveEntry] = OrderedDict()
        self._segments: OrderedDict[str, Segment] = OrderedDict()

    @property
    def address(self) -> str:
        """Return the address of its store, which holds no key."""
        return str(self._store.address)

    async def raw_entry(self, number: int) -> bytes | None:
        """Return the line of an entry as it is stored, or None if there is none."""
        return await self._call(self._store.get(entry_name(number), MAX_ENTRY_BYTES, too_large=b""))

    async def raw_segment(self, entry: ArchiveEntry) -> bytes | None:
        """Return the object of a segment as it is stored, or None if there is none."""
        return await self._call(self._store.get(entry.name, MAX_OBJECT_BYTES, too_large=b""))

    async def entry(self, number: int) -> ArchiveEntry | None:
        """Return an entry, or None if there is none. Raises ArchiveDamaged for one that can't be read."""
        found = self._entries.get(number)
        if found is None:
            line = await self.raw_entry(number)
            if line is None:
                return None
            try:
                found = parse_entry(line)
            except BadEntry:
                raise ArchiveDamaged("read the archive", f"manifest entry {number} can't be read") from None
            _keep(self._entries, number, found, _ENTRIES_KEPT)
        return found

    async def entries(self, low: int, high: int) -> AsyncIterator[ArchiveEntry]:
        """Yield the entries of these numbers, both included. Raises ArchiveDamaged when one is missing."""
        for start in range(low, high + 1, _AT_ONCE):
            numbers = range(start, min(high, start + _AT_ONCE - 1) + 1)
            for number, entry in zip(numbers, await asyncio.gather(*map(self.entry, numbers)), strict=True):
                if entry is None:
                    raise ArchiveDamaged("read the archive", f"manifest entry {number} is missing")
                yield entry

    async def numbers_after(self, number: int) -> AsyncIterator[list[int]]:
        """Yield the numbers of the entries that are there behind this one, in order, by pages."""
        name = entry_name(number)
        while page := await self._call(self._store.list_page(MANIFEST, name)):
            yield [found for one in page if (found := number_of(one.name)) is not None]
            name = page[-1].name

    async def segment(self, entry: ArchiveEntry) -> Segment:
        """Return a segment. Raises ArchiveDamaged if it is missing or not what the entry names."""
        found = self._segments.get(entry.name)
        if found is None:
            content = await self.raw_segment(entry)
            if content is None:
                raise ArchiveDamaged("read the archive", f"{entry} is missing")
            if object_digest(content) != entry.body["digest"]:
                raise ArchiveDamaged("read the archive", f"{entry} is not what was written")
            try:
                found = await asyncio.to_thread(read_segment, content)
            except BadSegment as error:
                raise ArchiveDamaged("read the archive", f"{entry}: {error}") from None
        _keep(self._segments, entry.name, found, _SEGMENTS_KEPT)
        return found

    async def first_entry_at(self, place: str, newest: int) -> int:
        """Return the number of the first entry, up to the newest, that goes as far as this record or farther.

        newest + 1 if none does.
        """
        low, high, wanted = 1, newest + 1, stream_id(place)
        while low < high:
            middle = (low + high) // 2
            entry = await self.entry(middle)
            if entry is None:
                raise ArchiveDamaged("read the archive", f"manifest entry {middle} is missing")
            low, high = (low, middle) if stream_id(entry.last) >= wanted else (middle + 1, high)
        return low

    def end_user_of(self, job_id: str) -> tuple[bool, str | None]:
        """Return (whether a segment that was read lately says it, the end user of the job)."""
        for segment in self._segments.values():
            if job_id in segment.end_users:
                return True, segment.end_users[job_id]
        return False, None

    async def put_segment(self, entry: ArchiveEntry, content: bytes) -> None:
        """Write the object of a segment; its name holds its digest, so it may be written again."""
        if not await self._call(self._store.put_if_absent(entry.name, content)):
            raise ArchiveDamaged("write to the archive", f"{entry.name} is there with another content")

    async def put_entry(self, entry: ArchiveEntry) -> bool:
        """Write an entry unless there is one of its number; return whether it is there now."""
        return await self._call(self._store.put_if_absent(entry_name(entry.number), entry.line))

    def forget(self, entry: ArchiveEntry) -> None:
        """Read the segment from its object the next time."""
        self._segments.pop(entry.name, None)

    async def remove_segment(self, entry: ArchiveEntry) -> bool:
        """Delete the object of a segment; return False where the bucket lets nobody delete."""
        self._segments.pop(entry.name, None)
        try:
            await self._store.delete(entry.name)
        except ObjectStoreError as error:
            if error.code == "access_denied":
                return False
            raise ArchiveUnavailable("delete from the archive", error.reason) from None
        return True

    async def _call(self, call: Awaitable[V]) -> V:
        failed: ArchiveUnavailable
        try:
            return await call
        except ObjectStoreError as error:
            failed = ArchiveUnavailable(f"the archive {self.address}", error.reason)
        raise failed


def _keep(kept: OrderedDict[K, V], key: K, value: V, limit: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > limit:
        kept.popitem(last=False)
