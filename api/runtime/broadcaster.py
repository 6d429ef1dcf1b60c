"""One Redis subscription per process, distributed to everyone who waits for a job or watches its text.

Each watcher has a bounded buffer. A change only sets a flag in it, so changes can't overflow it; text can, and then the
watcher is notified that it missed some and has to read it again. Must not know HTTP nor what a change means.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from worker.jobs.errors import ContentDamaged
from worker.store import channels
from worker.store.connection.pool import Redis, keyring_of
from worker.store.connection.subscriber import Subscriber
from worker.store.jobs.output_chunks import OutputChunk, parse_message

_MAX_CHUNKS: Final = 512
_MAX_CHARACTERS: Final = 512 * 1024


class Notification(NamedTuple):
    """What has happened since a watcher's last notification."""

    changed: bool = False
    status: str | None = None
    """The new status; None with `changed`: not known, read the job."""
    chunks: tuple[tuple[int, OutputChunk], ...] = ()
    """New text, each with the number of its attempt."""
    missed: bool = False
    """Text may be missing: read it again."""
    closing: bool = False


class Watcher:
    """The buffer of one watcher of one job."""

    def __init__(self, *, text: bool) -> None:
        self.text = text
        self._pending = asyncio.Event()
        self._clear()

    def _clear(self) -> None:
        self._status: str | None = None
        self._changed, self._missed, self._closing = False, False, False
        self._chunks: list[tuple[int, OutputChunk]] = []
        self._size = 0

    def mark_changed(self, status: str | None) -> None:
        """Record a commit; None: there may have been one, and the status is not known."""
        self._changed, self._status = True, status
        self._pending.set()

    def add_chunk(self, attempt: int, chunk: OutputChunk) -> None:
        """Add text; drop all unread text and mark it as missed when there is too much."""
        self._size += len(chunk.text)
        if len(self._chunks) >= _MAX_CHUNKS or self._size > _MAX_CHARACTERS:
            self.mark_missed()
            return
        self._chunks.append((attempt, chunk))
        self._pending.set()

    def mark_missed(self) -> None:
        """Record that text may have been lost on the way."""
        self._missed, self._chunks, self._size = True, [], 0
        self._pending.set()

    def close(self) -> None:
        """Record that the process ends."""
        self._closing = True
        self._pending.set()

    def take(self) -> bool:
        """Return whether anything happened since the last call, without waiting."""
        pending = self._pending.is_set()
        self._pending.clear()
        self._clear()
        return pending

    async def next(self, seconds: float) -> Notification | None:
        """Return what happened since the last call; wait up to `seconds` for it, then return None."""
        if not self._pending.is_set():
            try:
                async with asyncio.timeout(max(0.0, seconds)):
                    await self._pending.wait()
            except TimeoutError:
                return None
        notification = Notification(self._changed, self._status, tuple(self._chunks), self._missed, self._closing)
        self._pending.clear()
        self._clear()
        return notification


class Broadcaster:
    """All watchers of this process."""

    def __init__(self, redis: Redis) -> None:
        self._keyring = keyring_of(redis)
        self._watchers: dict[str, set[Watcher]] = {}
        self._subscriber = Subscriber(redis, self._on_message, self._on_subscribed)
        self._subscriber.subscribe(channels.CHANGED)
        self._task: asyncio.Task[None] | None = None
        self.closing = False

    def start(self) -> None:
        """Start to listen."""
        self._task = asyncio.create_task(self._subscriber.run(), name="vigil-broadcaster")

    async def stop(self) -> None:
        """Close all watchers and stop listening."""
        self.close_watchers()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def close_watchers(self) -> None:
        """Notify all watchers, and those that come later, that the process ends."""
        self.closing = True
        for watcher in self._all_watchers():
            watcher.close()

    @contextlib.contextmanager
    def watch(self, job_id: str, *, text: bool = False) -> Iterator[Watcher]:
        """Give a buffer of what happens to the job from now on; with `text`, of its output too."""
        watcher = Watcher(text=text)
        self._watchers.setdefault(job_id, set()).add(watcher)
        if text:
            self._subscriber.subscribe(channels.output_chunks_of(job_id))
        if self.closing:
            watcher.close()
        try:
            yield watcher
        finally:
            left = self._watchers[job_id]
            left.discard(watcher)
            if not left:
                del self._watchers[job_id]
            if text and not any(one.text for one in left):
                self._subscriber.unsubscribe(channels.output_chunks_of(job_id))

    def _all_watchers(self) -> list[Watcher]:
        return [watcher for watchers in self._watchers.values() for watcher in watchers]

    def _on_message(self, channel: str, message: bytes) -> None:
        if channel == channels.CHANGED:
            job_id, _, rest = message.decode(errors="replace").partition(" ")
            for watcher in self._watchers.get(job_id, ()):
                watcher.mark_changed(rest.rpartition(" ")[2])
            return
        watchers = [w for w in self._watchers.get(message.partition(b":")[0].decode(), ()) if w.text]
        if watchers:
            self._distribute_chunk(message, watchers)

    def _distribute_chunk(self, message: bytes, watchers: list[Watcher]) -> None:
        job_id = message.partition(b":")[0].decode()
        cipher = self._keyring.cached(job_id)
        if cipher is None and self._keyring.enabled:
            cipher = self._keyring.ephemeral(job_id)  # it opens nothing: reading the text looks the job's key up
        try:
            _, attempt, chunk = parse_message(message, cipher)
        except (ContentDamaged, ValueError):
            for watcher in watchers:
                watcher.mark_missed()
            return
        for watcher in watchers:
            watcher.add_chunk(attempt, chunk)

    def _on_subscribed(self, channel: str) -> None:
        """Mark everything as missed that may have been published while there was no subscription."""
        if channel == channels.CHANGED:
            for watcher in self._all_watchers():
                watcher.mark_changed(None)
            return
        for watcher in self._watchers.get(channels.job_of(channel), ()):
            if watcher.text:
                watcher.mark_missed()
