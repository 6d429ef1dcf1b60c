"""One subscription per process, fanned out to everyone who waits for a job or watches its text.

Each watcher has a bounded box. A change is only a mark on it, so it can't overflow; text can, and then the watcher is
told that it missed some and reads again. Must not know HTTP or what a change means.
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

_MOST_PIECES: Final = 512
_MOST_CHARACTERS: Final = 512 * 1024


class Notification(NamedTuple):
    """What a watcher finds in its box. `status` None with `changed`: unknown, read. `missed`: read the text again."""

    changed: bool = False
    status: str | None = None
    pieces: tuple[tuple[int, OutputChunk], ...] = ()
    missed: bool = False
    closing: bool = False


class Watcher:
    """One waiter's box."""

    def __init__(self, *, text: bool) -> None:
        self.text = text
        self._full = asyncio.Event()
        self._clear()

    def _clear(self) -> None:
        self._status: str | None = None
        self._changed, self._missed, self._closing = False, False, False
        self._pieces: list[tuple[int, OutputChunk]] = []
        self._size = 0

    def change(self, status: str | None) -> None:
        """A commit happened; None = perhaps, and we don't know which."""
        self._changed, self._status = True, status
        self._full.set()

    def piece(self, attempt: int, piece: OutputChunk) -> None:
        """More text; too much of it unread is dropped and owned up to."""
        self._size += len(piece.text)
        if len(self._pieces) >= _MOST_PIECES or self._size > _MOST_CHARACTERS:
            self.miss()
            return
        self._pieces.append((attempt, piece))
        self._full.set()

    def miss(self) -> None:
        """Text may have passed unheard."""
        self._missed, self._pieces, self._size = True, [], 0
        self._full.set()

    def close(self) -> None:
        """The process ends."""
        self._closing = True
        self._full.set()

    async def next(self, seconds: float) -> Notification | None:
        """What came since the last time, waiting for it up to `seconds`; None when nothing came."""
        if not self._full.is_set():
            try:
                async with asyncio.timeout(max(0.0, seconds)):
                    await self._full.wait()
            except TimeoutError:
                return None
        note = Notification(self._changed, self._status, tuple(self._pieces), self._missed, self._closing)
        self._full.clear()
        self._clear()
        return note


class Broadcaster:
    """All watchers of this process."""

    def __init__(self, redis: Redis) -> None:
        self._keyring = keyring_of(redis)
        self._watchers: dict[str, set[Watcher]] = {}
        self._texts = 0
        self._listener = Subscriber(redis, self._heard, self._resumed)
        self._listener.subscribe(channels.CHANGED)
        self._task: asyncio.Task[None] | None = None
        self.closing = False

    def start(self) -> None:
        """Listens from now on."""
        self._task = asyncio.create_task(self._listener.run(), name="vigil-hub")

    async def stop(self) -> None:
        """Everyone who waits has been told, and nothing is heard any more."""
        self.farewell()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def farewell(self) -> None:
        """Whoever waits stops waiting: the process is about to end."""
        self.closing = True
        for watcher in self._everyone():
            watcher.close()

    @contextlib.contextmanager
    def watch(self, job_id: str, *, text: bool = False) -> Iterator[Watcher]:
        """A box that fills with what happens to the job from now on."""
        watcher = Watcher(text=text)
        self._watchers.setdefault(job_id, set()).add(watcher)
        self._count(text)
        if self.closing:
            watcher.close()
        try:
            yield watcher
        finally:
            self._watchers[job_id].discard(watcher)
            if not self._watchers[job_id]:
                del self._watchers[job_id]
            self._count(-text)

    def _count(self, step: int) -> None:
        self._texts += step
        if step and self._texts:
            self._listener.subscribe(channels.OUTPUT_CHUNKS)
        elif step:
            self._listener.unsubscribe(channels.OUTPUT_CHUNKS)

    def _everyone(self) -> list[Watcher]:
        return [watcher for watchers in self._watchers.values() for watcher in watchers]

    def _heard(self, channel: str, message: bytes) -> None:
        if channel == channels.CHANGED:
            job_id, _, rest = message.decode(errors="replace").partition(" ")
            for watcher in self._watchers.get(job_id, ()):
                watcher.change(rest.rpartition(" ")[2])
            return
        watchers = [w for w in self._watchers.get(message.partition(b":")[0].decode(), ()) if w.text]
        if watchers:
            self._piece(message, watchers)

    def _piece(self, message: bytes, watchers: list[Watcher]) -> None:
        box = self._keyring.cached(message.partition(b":")[0].decode())
        try:
            _, attempt, piece = parse_message(message, box)
        except (ContentDamaged, ValueError):  # or the job's key is not remembered any more: reading finds it again
            for watcher in watchers:
                watcher.miss()
            return
        for watcher in watchers:
            watcher.piece(attempt, piece)

    def _resumed(self, channel: str) -> None:
        """What was said before this moment may have passed unheard."""
        for watcher in self._everyone():
            if channel == channels.CHANGED:
                watcher.change(None)
            elif watcher.text:
                watcher.miss()
