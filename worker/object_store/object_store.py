"""Keeps objects: whole values under names that are written once, in a bucket of S3, Google or Azure, or in a folder.

Every call ends within its patience, tries again what may be tried again, and raises an ObjectStoreError else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStore as Client

from worker.object_store.address import StoreAddress, is_name
from worker.object_store.errors import RAISED, ObjectStoreError, ObjectTooLarge, says_bucket_missing, translated

T = TypeVar("T")
_CHUNK_BYTES: Final = 256 * 1024
_LISTED: Final = 500
_BACKOFF_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a store says of an object. `version`: of a bucket that keeps versions, else None."""

    name: str
    size: int
    modified: datetime
    version: str | None = None


class ObjectStore:
    """One store; every name is below the prefix of its address. Use it in one event loop."""

    def __init__(self, client: Client, address: StoreAddress, *, seconds: float, tries: int) -> None:
        """`seconds`: how long a call may take in all, with `tries` of a write whose answer was lost."""
        self._client, self.address = client, address
        self._seconds, self._tries = seconds, tries

    async def put_if_absent(self, name: str, content: bytes) -> bool:
        """Write an object unless one of that name is there; return whether the one that is there has this content.

        When it returns, the object outlasts a crash of the store. A write whose answer was lost is tried again.
        """
        what = f"write {_checked(name)}"
        for _ in range(self._tries - 1):
            try:
                return await self._create(what, name, content)
            except ObjectStoreError as error:
                if error.code != "unreachable":
                    raise
            await asyncio.sleep(_BACKOFF_S)
        return await self._create(what, name, content)

    async def _create(self, what: str, name: str, content: bytes) -> bool:
        async def create() -> bool:
            try:
                await obstore.put_async(self._client, name, content, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

        if await self._call(what, create):
            await self._flush(name)
            return True
        there = await self.get(name, max(1, len(content)), too_large=b"")
        if there == content:
            await self._flush(name)  # an earlier try may have ended before that
        return there == content

    async def put(self, name: str, content: bytes) -> None:
        """Write an object, in the place of one that has that name."""
        what = f"write {_checked(name)}"
        await self._call(what, lambda: obstore.put_async(self._client, name, content, use_multipart=False))
        await self._flush(name)

    async def get(self, name: str, max_bytes: int, *, too_large: bytes | None = None) -> bytes | None:
        """Return the content of an object, or None if there is none of that name.

        A larger one is not read: it raises ObjectTooLarge, or gives `too_large`.
        """
        what = f"read {_checked(name)}"

        async def read() -> bytes | None:
            found = await obstore.get_async(self._client, name)
            if found.meta["size"] > max_bytes:
                return too_large
            return bytes(await found.bytes_async())

        content, missing = await self._found(what, read)
        if content is None and not missing:
            raise ObjectTooLarge(what, f"larger than {max_bytes:,} bytes")
        return content

    async def chunks(self, name: str) -> AsyncIterator[bytes]:
        """Yield the content of an object in chunks of about 256 kB; nothing if there is none of that name.

        Each chunk has the time of a call of its own. Raises ObjectStoreError also when the content ends too early.
        """
        what = f"read {_checked(name)}"
        found, _ = await self._found(what, lambda: obstore.get_async(self._client, name))
        if found is None:
            return
        size, read = int(found.meta["size"]), 0
        parts = found.stream(min_chunk_size=_CHUNK_BYTES).__aiter__()
        while (part := await self._call(what, lambda: anext(parts, None))) is not None:
            read += len(part)
            yield bytes(part)
        if read != size:
            raise translated(what, TimeoutError())

    async def head(self, name: str) -> StoredObject | None:
        """Return what the store says of an object, or None if there is none of that name."""
        meta, _ = await self._found(f"look for {_checked(name)}", lambda: obstore.head_async(self._client, name))
        return None if meta is None else _stored(meta)

    async def list_page(self, folder: str, after: str = "", limit: int = _LISTED) -> list[StoredObject]:
        """Return the first objects of a folder whose whole names sort after `after`, in the order of their names.

        Fewer than `limit` are the last. A folder of this machine is read whole for each page, a bucket is not.
        """
        what = f"list {_checked(folder)}"

        async def read() -> list[Any]:
            rows: list[Any] = []
            listed = obstore.list(self._client, folder, offset=after or None, chunk_size=limit).__aiter__()
            while (part := await anext(listed, None)) is not None:
                rows += part
                if len(rows) >= limit and self.address.scheme != "file":
                    break  # buckets list in the order of names
            return rows

        rows, _ = await self._found(what, read)
        found = [_stored(row) for row in rows or () if row["path"] > after and is_name(row["path"])]
        return sorted(found, key=lambda one: one.name)[:limit]

    async def delete(self, name: str) -> None:
        """Delete an object; nothing happens if there is none. Raises AccessDenied where the bucket is write-once."""
        await self._found(f"delete {_checked(name)}", lambda: obstore.delete_async(self._client, name))

    async def _found(self, what: str, call: Callable[[], Awaitable[T]]) -> tuple[T | None, bool]:
        """Return (what a call gives, False), or (None, True) if the object is missing."""

        async def unless_missing() -> tuple[T | None, bool]:
            try:
                return await call(), False
            except FileNotFoundError as error:
                if says_bucket_missing(error):
                    raise
                return None, True

        return await self._call(what, unless_missing)

    async def _call(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        failed: ObjectStoreError
        try:
            async with asyncio.timeout(self._seconds):
                return await call()
        except ObjectStoreError:
            raise
        except RAISED as error:
            failed = translated(what, error)
        raise failed  # outside of the block: what the client said must not hang on it

    async def _flush(self, name: str) -> None:
        """Bring a file of this machine to its disk, with its name; buckets answer only then."""
        if self.address.scheme != "file":
            return

        async def flush() -> None:
            await asyncio.to_thread(_flush_file, self.address.folder, name)

        await self._call(f"write {name}", flush)


def _flush_file(folder: str, name: str) -> None:
    parts = name.split("/")
    for depth in range(len(parts), -1, -1):  # the file, then each folder up to the store's
        descriptor = os.open("/".join([folder, *parts[:depth]]), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _stored(meta: Any) -> StoredObject:
    return StoredObject(str(meta["path"]), int(meta["size"]), meta["last_modified"], meta.get("version"))


def _checked(name: str) -> str:
    """Return the name. Raises ValueError if no object may have it: names come from Vigil, never from callers."""
    if not is_name(name):
        raise ValueError("an object has a name of letters, digits and . _ = - between slashes")
    return name
