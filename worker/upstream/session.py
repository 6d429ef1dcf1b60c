"""One attempt's events from its first byte to its last, over every reconnection.

Knows one response and its cursor; how to go on is `reconnect`'s choice. Judges no content, and never sends the
prompt twice. A background response outlives its reader, a foreground stream does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple

from worker.safety.stream import Closed, Created, Delta, Opened, Rejected, StreamEvent, Terminal
from worker.upstream.answer import Answer
from worker.upstream.call import Call
from worker.upstream.client import Cancelled, Provider
from worker.upstream.ending import LISTEN_SECONDS, last_batch, parted
from worker.upstream.hold import GO
from worker.upstream.reconnect import Ended, Reconnect, Way


class ResumePoint(NamedTuple):
    """Where a response stood when its reader died: go on after `sequence`."""

    response_id: str
    sequence: int | None


class Session:
    """The event source of one attempt. Read `batches()` once; `aclose()` when done, whatever happened."""

    def __init__(
        self,
        provider: Provider,
        call: Call,
        resume_from: ResumePoint | None = None,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        poll_first: float = 1.0,
        poll_most: float = 5.0,
        give_up_after: float = 60.0,
        identify_within: float = 2.0,
        hurry_after: float = 1.0,
        listen_for: float = LISTEN_SECONDS,
        go: asyncio.Future[None] | None = None,
    ) -> None:
        """`give_up_after` bounds the seconds of failed reconnections in a row; ValueError when nothing can resume.

        `go`: the call is not sent before it is done, though it is prepared.
        """
        if resume_from is not None and call.mode != "background":
            raise ValueError("only a background response can be resumed")
        self.response_id: str | None = resume_from.response_id if resume_from else None
        self.sequence: int | None = resume_from.sequence if resume_from else None
        self.resumed = 0
        self._provider = provider
        self._call = call
        self._sleep = sleep
        self._reconnect = Reconnect(
            Way.CREATE if resume_from is None else Way.RESUME,
            poll_first=poll_first,
            poll_most=poll_most,
            give_up_after=give_up_after,
        )
        self._identify_within, self._hurry_after = identify_within, hurry_after
        self._listen_for = listen_for  # after a failure that says nothing
        self._go = go
        self._named = asyncio.Event()
        self._answer: Answer | None = None
        self._requests = 0
        self._polling = False
        self._reading = False
        self._stopped = False
        self._over = False  # the terminal event was seen
        self._hurried: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    # one loop and long: a generator inside a generator would cost every delta
    async def batches(self) -> AsyncGenerator[list[StreamEvent], None]:  # noqa: C901, PLR0912
        """Batches of events in order. The last holds a Terminal, a Rejected or a Closed, unless we hung up."""
        loop = asyncio.get_running_loop()
        GO.set(self._go)
        while not self._stopped:
            began, opened, progress = loop.time(), None, False
            floor = self.sequence if self._reconnect.way is Way.RESUME else None
            end: StreamEvent | None = None
            answer = self._answer = self._request()
            while end is None:
                self._reading = True
                try:
                    batch = await answer.read()
                finally:
                    self._reading = False
                if not batch:
                    break
                first = batch[0]
                if type(first) is Delta and floor is None and len(batch) == 1 and first.sequence is not None:
                    self.sequence = first.sequence  # the usual case, and the only one that must be cheap
                    progress = True
                    yield batch
                    continue
                if type(first) is Opened:
                    opened = loop.time()
                kept, end = self._sift(batch, floor)
                if self._over:
                    before, terminal, after = parted(kept)
                    if before:
                        yield before  # what follows may have to wait
                    yield await last_batch(terminal, after, answer, self._look_once(), self._listen_for)
                    return
                if any(type(event) is Created or getattr(event, "sequence", None) is not None for event in kept):
                    progress = True
                if floor is not None and self.sequence != floor:
                    floor = None  # what is replayed comes first
                if kept:
                    yield kept
            await answer.aclose()
            if self._stopped:
                return
            if self._call.mode != "background" or self.response_id is None:
                yield [end or Closed("clean")]
                return
            if self._woken.is_set() and end is None and self._reconnect.way is not Way.POLL:
                end = Closed("cut", "hurried", opened=True)  # it was we who hung up: the response is read on
            now = loop.time()
            step = self._reconnect.after(Ended(end, progress, (opened or now) - began, now - (opened or now)))
            if not isinstance(step, float):
                yield [step]
                return
            if step:
                await self._rest(step)
            self._woken.clear()

    def hurry(self) -> None:
        """Somebody says that the response is over: if its end is not here in a moment, a connection that may be dead is
        given up for a new one, and a pause is cut short. Only a background response can be read again.
        """
        if self._call.mode == "background" and self.response_id is not None and self._hurried is None:
            self._hurried = asyncio.create_task(self._look_anew(), name="hurry")

    async def _look_anew(self) -> None:
        await asyncio.sleep(self._hurry_after)
        self._hurried = None
        if self._stopped or self._over:
            return
        self._woken.set()
        if self._reading and self._answer is not None:
            await self._answer.aclose()

    async def _rest(self, seconds: float) -> None:
        """A pause, which `hurry` ends."""
        pause = asyncio.ensure_future(self._sleep(seconds))
        woken = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait({pause, woken}, return_when=asyncio.FIRST_COMPLETED)
            if pause.done():
                pause.result()
        finally:
            for task in (pause, woken):
                task.cancel()
            await asyncio.gather(pause, woken, return_exceptions=True)

    async def cancel(self) -> Cancelled:
        """Stop the response upstream (a foreground stream: by hanging up), close, and say whether it took effect.

        A pending `batches()` ends; whether it still shows the terminal event of the cancelled response is open.
        """
        if self._call.mode != "background":
            await self.aclose()
            return Cancelled(took_effect=True)
        if self.response_id is None:
            await self._learn_id()
        if self.response_id is None:
            await self.aclose()
            return Cancelled(took_effect=False)  # sent but never named: it may run on, and nobody can reach it
        self._stopped = True
        try:
            return await self._provider.cancel(self.response_id, self._request_id("c"))
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Hang up at once, without cancelling: a background response runs on for whoever resumes it."""
        self._stopped = True
        if self._hurried is not None:
            self._hurried.cancel()
        if self._answer is not None:
            await self._answer.aclose()

    def _request(self) -> Answer:
        if self._reconnect.way is Way.CREATE or self.response_id is None:
            return self._provider.open(self._call)
        if self._reconnect.way is Way.RESUME:
            return self._provider.resume(self.response_id, self.sequence, self._request_id("r"))
        return self._provider.polled(self.response_id, self._request_id("p"))

    def _look_once(self) -> Callable[[], Answer] | None:
        """How to see a background response that has ended, unless it was seen so already."""
        response_id = self.response_id
        if self._call.mode != "background" or response_id is None or self._reconnect.way is Way.POLL:
            return None
        return lambda: self._provider.polled(response_id, self._request_id("p"))

    def _request_id(self, letter: str) -> str:
        """Each request has an id of its own, recognisable as one of this attempt's."""
        self._requests += 1
        return f"{self._call.client_request_id}.{letter}{self._requests}"

    def _sift(self, batch: list[StreamEvent], floor: int | None) -> tuple[list[StreamEvent], StreamEvent | None]:
        """The events to pass on, and the end of the connection if it is there; keeps the cursor and the id."""
        kept: list[StreamEvent] = []
        end: StreamEvent | None = None
        for event in batch:
            kind = type(event)
            if self._over:
                kept.append(event)  # what still counts of it, `last_batch` says
                continue
            if kind is Rejected or kind is Closed:
                answered = self._reconnect.way is Way.POLL and event == Closed("clean")
                end = None if answered else event
                continue
            if kind is Opened and not self._count_reopening():
                continue
            if (kind is Created or kind is Terminal) and self.response_id is None:
                self._name(event)
            number: int | None = getattr(event, "sequence", None)
            if number is not None:
                if floor is not None and number <= floor:
                    continue  # a resumed stream may say again what we have
                self.sequence = number
            kept.append(event)
            self._over = kind is Terminal
        return kept, end

    def _count_reopening(self) -> bool:
        """Whether this opening is news: each resumption is, and the first of the polls."""
        if self._reconnect.way is Way.CREATE:
            return True
        news = not self._polling
        self._polling = self._reconnect.way is Way.POLL
        self.resumed += news
        return news

    def _name(self, event: StreamEvent) -> None:
        if isinstance(event, Created | Terminal) and event.response_id is not None:
            self.response_id = event.response_id
            self._named.set()

    async def _learn_id(self) -> None:
        """Wait a moment for the response's id: without it nothing can be cancelled, and it would run and cost."""
        try:
            async with asyncio.timeout(self._identify_within):
                if self._reading:
                    await self._named.wait()
                elif self._answer is not None:
                    while self.response_id is None and (batch := await self._answer.read()):
                        self._sift(batch, None)
        except TimeoutError:
            pass
