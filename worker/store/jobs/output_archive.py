"""Writes large outputs to the object store and reads them from there.

`vigil:objects` has a line for each object before it is written, so that none is forgotten. Only what is sealed under
its job's own key goes there. While the store does not answer, calls fail at once for a few seconds after each that had
to wait, so that it delays nobody for long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeVar

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs.errors import ArchiveUnavailable, ContentDamaged, RecordUnreadable, StoreUnavailable
from worker.object_store.errors import ObjectStoreError, ObjectTooLarge
from worker.object_store.object_store import ObjectStore
from worker.object_store.opening import Patience, open_object_store
from worker.settings import Settings
from worker.store import keys
from worker.store.commands import Command
from worker.store.connection.job_keys import ciphers_for_writing
from worker.store.envelope import OUTPUT, JobCipher
from worker.store.errors import store_errors
from worker.store.jobs.archived_output import (
    HEAD_BYTES,
    NAME_BYTES,
    ObjectEntry,
    archived,
    fits,
    open_reference,
    place_of,
    seal_reference,
)
from worker.store.jobs.stored_job import OutputChange
from worker.telemetry.events import emit

T = TypeVar("T")
GRACE_MS: Final = 300_000
"""So long after it was begun, an object that no job refers to was not just being written."""
WRITE_S: Final = 3.0
READ_S: Final = 5.0
MOVE_S: Final = 15.0
_REST_S: Final = 10.0
_FIRST_TRY: Final = 0.6  # of the time for a write
_MAX_AT_ONCE: Final = 16


class OutputArchive:
    """The outputs of jobs in the object store."""

    def __init__(self, open_store: Callable[[], ObjectStore], least: int, clock: Clock | None = None) -> None:
        """`open_store` is called on first use, and again if it failed. `least`: smaller outputs stay in Redis."""
        self._open, self.least = open_store, least
        self._store: ObjectStore | None = None
        self.write_seconds, self.read_seconds = WRITE_S, READ_S
        self._clock = clock or Clock()
        self._rests: dict[str, float] = {}  # until when what is not tried again
        self._places = asyncio.Semaphore(_MAX_AT_ONCE)

    async def write(
        self,
        redis: ArqRedis,
        cipher: JobCipher,
        job_id: str,
        sealed: bytes,
        digest: str,
        *,
        seconds: float | None = None,
    ) -> tuple[ObjectEntry, bytes]:
        """Write a sealed output; return its object, and what is to stand in Redis in its place.

        Raises ArchiveUnavailable after `seconds` at the latest, StoreUnavailable. The object is deleted later
        unless the job refers to it.
        """
        one = archived(self._clock.random_bytes(NAME_BYTES), sealed, digest)
        entry = ObjectEntry(job_id, one.name)
        self._refuse_while_resting("write")
        async with store_errors("note an object of the archive", keys.OUTPUT_OBJECTS):
            await redis.zadd(keys.OUTPUT_OBJECTS, {entry.member: to_ms(self._clock.now()) + GRACE_MS})
        began, limit = self._clock.monotonic(), seconds or self.write_seconds

        async def put(store: ObjectStore) -> bool:
            try:
                async with asyncio.timeout(limit * _FIRST_TRY):
                    return await store.put_if_absent(entry.object_name, sealed)
            except TimeoutError:  # perhaps it is there: again under the same name
                return await store.put_if_absent(entry.object_name, sealed)

        written = await self._call("write", limit, put, job_id)
        if not written:  # nobody else has this name
            raise ArchiveUnavailable("the archive holds another object of this name")
        emit("output.archived", job_id=job_id, size_bytes=len(sealed), seconds=self._clock.monotonic() - began)
        return entry, seal_reference(cipher, one)

    async def read(self, cipher: JobCipher, job_id: str, reference: bytes, *, seconds: float | None = None) -> bytes:
        """Return the sealed output to which a stored output refers.

        Raises ArchiveUnavailable, and ContentDamaged if its object is missing or was changed.
        """
        one = open_reference(cipher, job_id, reference)
        name = ObjectEntry(job_id, one.name).object_name
        try:
            found = await self._call(
                "read", seconds or self.read_seconds, lambda store: store.get(name, one.size), job_id
            )
        except ObjectTooLarge:
            raise ContentDamaged(job_id, OUTPUT) from None
        if found is None or not fits(one, found):
            raise ContentDamaged(job_id, OUTPUT)
        return found

    async def delete(self, entry: ObjectEntry) -> None:
        """Delete an object. Raises ArchiveUnavailable, also where the bucket is write-once."""
        await self._call("delete", self.read_seconds, lambda store: store.delete(entry.object_name), entry.job_id)

    def forget_failures(self) -> None:
        """Try again at once what has failed just now."""
        self._rests.clear()

    def _refuse_while_resting(self, what: str) -> None:
        if self._rests.get(what, 0.0) > time.monotonic():
            raise ArchiveUnavailable(f"the archive did not {what} what it was asked to, just now")

    async def _call(self, what: str, seconds: float, call: Callable[[ObjectStore], Awaitable[T]], job_id: str) -> T:
        """Return what the call gives. Raises ArchiveUnavailable within `seconds`, and ObjectTooLarge."""
        self._refuse_while_resting(what)
        code = "unreachable"
        try:
            async with asyncio.timeout(seconds), self._places:
                if self._store is None:
                    self._store = self._open()
                return await call(self._store)
        except ObjectTooLarge:
            raise
        except ObjectStoreError as error:
            code = error.code
        except TimeoutError:
            pass
        if code == "unreachable":
            self._rests[what] = time.monotonic() + _REST_S
        emit("archive.failed", job_id=job_id, what=what, code=code)
        raise ArchiveUnavailable(f"the archive could not {what} an output: {code}", refused=code == "access_denied")


def output_archive_from(settings: Settings) -> OutputArchive | None:
    """Return the archive of the settings, or None without one."""
    address = settings.archive_address
    if address is None:
        return None
    patience = Patience(connect=WRITE_S, request=MOVE_S, total=MOVE_S)
    return OutputArchive(
        lambda: open_object_store(address, settings.archive_keys, patience), settings.archive_output_bytes
    )


def archive_of(redis: ArqRedis) -> OutputArchive | None:
    """Return the archive of outputs of this client, or None if it has none."""
    found: OutputArchive | None = vars(redis).get("output_archive")
    return found


async def archive_output(redis: ArqRedis, output: OutputChange) -> OutputChange:
    """Do what `Jobs.archive_output` says."""
    archive = archive_of(redis)
    if archive is None or output.sealed is None or output.size <= archive.least:
        return output
    job_id = output.job_id
    try:
        cipher = (await ciphers_for_writing(redis, [job_id]))[job_id]
        if not cipher.header:  # what is not sealed under a key of its own does not leave Redis
            return output
        _, reference = await archive.write(redis, cipher, job_id, output.sealed, output.digest)
    except (StoreUnavailable, RecordUnreadable, ContentDamaged) as error:
        emit("output.kept", job_id=job_id, size_bytes=output.size, code=type(error).__name__)
        return replace(output, is_late=True)
    return replace(output, sealed=reference)


async def due_object_commands(redis: ArqRedis, job_id: str) -> list[Command]:
    """Return what a commit that deletes the job's output must run, so that its object in the archive goes at once."""
    if archive_of(redis) is None:
        return []  # whoever has the archive finds it a little later
    key = keys.job_output(job_id)
    async with store_errors("read the output", key):
        place = place_of(await redis.getrange(key, 0, HEAD_BYTES - 1))
    return [] if place is None else [("ZADD", keys.OUTPUT_OBJECTS, "XX", 0, ObjectEntry(job_id, place[0]).member)]
