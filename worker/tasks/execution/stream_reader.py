"""Reads one attempt's stream while it runs: keeps its text, and has the watch judge every other event.

The hot path of Vigil: a delta goes from the socket to the text without leaving this file. Whatever has a meaning for
the job goes as a signal into the run's inbox. Must not know the record, the policy or Redis, to stay that cheap.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable
from typing import Final

from worker.jobs.states import Outcome
from worker.safety import codes
from worker.safety.provider_message import strings_in
from worker.safety.signals import Signal
from worker.safety.stream import (
    CallDone,
    Closed,
    Delta,
    ItemDone,
    PartDone,
    Rejected,
    StreamError,
    StreamEvent,
    Terminal,
)
from worker.safety.watch import AttemptWatch
from worker.tasks.execution.inbox import Control, Inbox, SignalsReady
from worker.tasks.execution.output_buffer import OutputBuffer
from worker.tasks.execution.reading_pace import ReadingPace
from worker.upstream.client import CancelResult
from worker.upstream.session import Session

_CANCEL_TIMEOUT_S: Final = 5.0
_MAX_OTHER_CHARACTERS: Final = 64 * 1024


class StreamReader:
    """Feeds one session to its watch and its text."""

    def __init__(
        self,
        number: int,
        session: Session,
        watch: AttemptWatch,
        text: OutputBuffer,
        inbox: Inbox,
        now: Callable[[], float],
        pace: ReadingPace,
    ) -> None:
        self.number, self.session, self.watch, self.text = number, session, watch, text
        self._inbox, self._now, self._pace = inbox, now, pace
        self.message: str | None = None  # the provider's own words on the error that counts: content, never recorded
        self._message_weight = -1
        self._other_texts: deque[str] | None = None  # the newest output that is no text: reasoning, arguments, refusals
        self._other_length = 0
        self._signals: list[Signal] = []
        self._cancelling: asyncio.Task[CancelResult] | None = None
        self._task: asyncio.Task[None] | None = None
        self._awaited = math.inf

    def start(self) -> None:
        """Begin to read. The inbox gets SignalsReady when there is something to `take` (lastly `AttemptEnded`), and
        READER_CHANGED when the reader has stopped or the next tick came nearer.
        """
        self._task = asyncio.create_task(self._read(), name=f"read {self.text!r}")
        self._task.add_done_callback(lambda _: self._inbox.put(Control.READER_CHANGED))

    async def _read(self) -> None:
        self._pace.streams += 1
        try:
            await self._read_all()
        finally:
            self._pace.streams -= 1

    async def _read_all(self) -> None:
        watch, text, now, pace = self.watch, self.text, self._now, self._pace
        async with contextlib.aclosing(self.session.batches()) as batches:
            async for batch in batches:
                at, only_text = now(), True
                for event in batch:
                    if type(event) is Delta and event.kind == "text" and event.text:
                        found = watch.delta(event.sequence, at, len(event.text))
                        if found is None:
                            text.add(event.sequence, event.text)
                        elif found == "signals":
                            only_text = False
                            text.add(event.sequence, event.text)
                            self._emit(watch.take_signals())
                    else:
                        only_text = False
                        self._keep_words(event)
                        self._emit(watch.feed(event, at))
                        if watch.next_tick() < self._awaited:
                            self._inbox.put(Control.READER_CHANGED)
                if watch.verdict is not None:
                    return
                if only_text and pace.in_slices and not text.watched:
                    await pace.rest()
        self._emit(watch.feed(Closed("clean"), now()))  # a session that just stops has given no terminal event

    def _keep_words(self, event: StreamEvent) -> None:
        """Keep the message of the error that tells most, and the output that it may quote and that `text` has not."""
        if isinstance(event, StreamError | Terminal | Rejected) and event.problem is not None:
            reason = event.incomplete_reason if isinstance(event, Terminal) else None
            weight = codes.weight(event.problem, reason)
            if event.problem.message and weight > self._message_weight:
                self.message, self._message_weight = event.problem.message, weight
        match event:
            case Delta() | PartDone():
                self._keep_other(event.text)
            case CallDone():
                self._keep_other(event.arguments)
            case ItemDone():
                self._keep_other(" ".join(strings_in(event.item)))
            case Terminal() if event.output and event.status != "completed":
                self._keep_other(" ".join(strings_in(event.output)))
            case _:
                pass

    def _keep_other(self, piece: str) -> None:
        if self._other_texts is None:
            self._other_texts = deque()
        piece = piece[-_MAX_OTHER_CHARACTERS:]
        self._other_texts.append(piece)
        self._other_length += len(piece)
        while self._other_length > _MAX_OTHER_CHARACTERS:
            self._other_length -= len(self._other_texts.popleft())

    @property
    def answer_texts(self) -> list[str]:
        """Return what the attempt has put out: its text, and the newest of everything else."""
        return [str(self.text), "".join(self._other_texts or ())]

    def _emit(self, signals: list[Signal]) -> None:
        if signals:
            self._signals += signals
            self._inbox.put(SignalsReady(self.number))

    def take(self) -> list[Signal]:
        """Return the signals since the last call, in order."""
        signals, self._signals = self._signals, []
        return signals

    def next_tick(self) -> float:
        """Return the monotonic time at which `tick` must be called; READER_CHANGED follows if it comes nearer."""
        self._awaited = self.watch.next_tick()
        return self._awaited

    def tick(self) -> None:
        """Inform the watch that time has passed.

        A response that outlives its connection is not given up for silence, nor for an error event that nothing
        followed: its state is requested, and it is read on over another connection.
        """
        now = self._now()
        if self.session.outlives and self.watch.is_overdue(now):
            self.watch.extend(now)
            self.session.reconnect()
        self._emit(self.watch.tick(now))

    def stop(self, outcome: Outcome) -> list[Signal]:
        """End the attempt with this outcome; return the signals since the last `take`, lastly `AttemptEnded`."""
        return [*self.take(), *self.watch.stop(outcome)]

    async def cancel_upstream(self) -> CancelResult:
        """Ask the provider to stop working on the response, once; take a few seconds at most, raise nothing."""
        if self._cancelling is None:
            self._cancelling = asyncio.create_task(self._cancel(), name=f"cancel {self.text!r}")
        return await asyncio.shield(self._cancelling)

    async def _cancel(self) -> CancelResult:
        try:
            async with asyncio.timeout(_CANCEL_TIMEOUT_S):
                return await self.session.cancel()  # while it reads, which may be about to learn the response's id
        except TimeoutError:
            return CancelResult(took_effect=False)
        finally:
            await self._stop_reading()

    async def close(self) -> None:
        """Stop reading and close the connection; the response may go on upstream."""
        await self._stop_reading()
        await self.session.aclose()

    async def _stop_reading(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def error(self) -> BaseException | None:
        """The exception that ended the reading by surprise, which is an internal error; None if there is none."""
        task = self._task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None
