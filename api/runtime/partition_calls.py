"""Ask all partitions at once: who does not answer in time is left out and named, and not asked again for a moment."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from api.runtime.store_deadline import with_timeout
from worker.clock import Clock
from worker.jobs.errors import StoreUnavailable
from worker.store.connection.store_watch import StoreWatch

T = TypeVar("T")
_TIMEOUT_S: Final = 0.8
"""For one answer: less than a request may wait for Redis in total."""
_SKIPPED_S: Final = 2.0


class Member(NamedTuple):
    """A partition by its name, and what watches its store."""

    name: str
    watch: StoreWatch


class PartitionCalls:
    """Calls to every partition of this process."""

    def __init__(self, members: Sequence[Member], clock: Clock) -> None:
        self._members, self._clock = members, clock
        self._skipped_until = dict.fromkeys((one.name for one in members), -math.inf)

    @property
    def names(self) -> list[str]:
        return [one.name for one in self._members]

    def away(self) -> dict[str, str]:
        """Return why the partitions that can't be used now can't, by name."""
        now = self._clock.monotonic()
        reasons = {one.name: one.watch.reason for one in self._members if not one.watch.answers}
        slow = {name: "Redis took too long" for name, until in self._skipped_until.items() if until > now}
        return slow | reasons

    async def answers(self, works: Mapping[str, Callable[[], Awaitable[T]]]) -> dict[str, T]:
        """Return what each partition that answers says, in order. Raises StoreUnavailable if none does."""
        away = self.away()
        called = [name for name in works if name not in away] or list(works)
        found = await asyncio.gather(*(self._one(name, works[name]) for name in called), return_exceptions=True)
        out: dict[str, T] = {}
        failure: BaseException | None = None
        for name, one in zip(called, found, strict=True):
            if isinstance(one, StoreUnavailable):
                failure = one
            elif isinstance(one, BaseException):
                raise one
            else:
                out[name] = one
        if not out:
            raise failure or StoreUnavailable("No partition answers")
        return out

    async def everywhere(self, what: str, works: Mapping[str, Callable[[], Awaitable[T]]]) -> dict[str, T]:
        """Return what each partition says. Raises StoreUnavailable, which names those where it was not done."""
        found = await asyncio.gather(*(self._one(name, work) for name, work in works.items()), return_exceptions=True)
        out: dict[str, T] = {}
        failed: dict[str, StoreUnavailable] = {}
        for name, one in zip(works, found, strict=True):
            if isinstance(one, StoreUnavailable):
                failed[name] = one
            elif isinstance(one, BaseException):
                raise one
            else:
                out[name] = one
        if failed:
            done = f"done in {', '.join(out)}, " if out else ""
            reason = next(iter(failed.values())).reason
            raise StoreUnavailable(f"{what}: {done}not in {', '.join(failed)}; send it again", reason)
        return out

    async def _one(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        try:
            answer = await with_timeout(_TIMEOUT_S, work())
        except StoreUnavailable:
            self._skipped_until[name] = self._clock.monotonic() + _SKIPPED_S
            raise
        self._skipped_until[name] = -math.inf
        return answer


async def first_found(calls: Sequence[Awaitable[T | None]]) -> tuple[int, T] | None:
    """Return (the number of the first call that finds something, what it finds) as soon as one does; None if none does.

    Raises the error of a call only if no other finds it: what was looked for may be there.
    """
    tasks = {asyncio.ensure_future(call): number for number, call in enumerate(calls)}
    failure: BaseException | None = None
    try:
        waiting = set(tasks)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.exception() is not None:
                    failure = task.exception()
                elif (found := task.result()) is not None:
                    return tasks[task], found
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if failure is not None:
        raise failure
    return None
