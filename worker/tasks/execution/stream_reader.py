"""One attempt while it runs: reads the provider's stream, keeps its text, lets the watch judge it.

The hot path of Vigil: a delta goes from the socket to the text without leaving this file. Everything that means
something goes as a signal into the run's inbox. Must not know: the record, the policy, Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable

from worker.jobs.states import Outcome
from worker.safety.signals import Signal
from worker.safety.stream import Closed, Delta, Rejected, StreamError, Terminal
from worker.safety.watch import AttemptWatch
from worker.tasks.execution.output_buffer import OutputBuffer
from worker.upstream.client import CancelResult
from worker.upstream.session import Session

_CANCEL_SECONDS = 5.0


class StreamReader:
    """Pumps one session into its watch and its text."""

    def __init__(
        self,
        number: int,
        session: Session,
        watch: AttemptWatch,
        text: OutputBuffer,
        say: Callable[[int], None],
        now: Callable[[], float],
    ) -> None:
        self.number, self.session, self.watch, self.text = number, session, watch, text
        self._say, self._now = say, now
        self.message: str | None = None  # the provider's own words on an error: for the app alone, never recorded
        self._untold: list[Signal] = []
        self._cancelling: asyncio.Task[CancelResult] | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake: Callable[[], None] = lambda: None
        self._awaited = math.inf

    def start(self, wake: Callable[[], None]) -> None:
        """Begins to read; `say` tells that there is something to `take`, lastly `Ended`.

        `wake`: look at me again (I stopped, or the next tick came nearer).
        """
        self._wake = wake
        self._task = asyncio.create_task(self._pump(), name=f"read {self.text!r}")
        self._task.add_done_callback(lambda _: wake())

    async def _pump(self) -> None:
        watch, text, now = self.watch, self.text, self._now
        async with contextlib.aclosing(self.session.batches()) as batches:
            async for batch in batches:
                at = now()
                for event in batch:
                    if type(event) is Delta and event.kind == "text" and event.text:
                        heard = watch.delta(event.sequence, at)
                        if heard is None:
                            text.add(event.sequence, event.text)
                        elif heard == "signals":
                            text.add(event.sequence, event.text)
                            self._tell(watch.take_signals())
                    else:
                        if isinstance(event, StreamError | Terminal | Rejected) and event.problem is not None:
                            self.message = event.problem.message or self.message
                        self._tell(watch.feed(event, at))
                        if watch.next_tick() < self._awaited:
                            self._wake()
                if watch.verdict is not None:
                    return
        self._tell(watch.feed(Closed("clean"), now()))  # a session that just stops has said nothing of the end

    def _tell(self, signals: list[Signal]) -> None:
        if signals:
            self._untold += signals
            self._say(self.number)

    def take(self) -> list[Signal]:
        """The signals that nobody has heard yet, in order."""
        untold, self._untold = self._untold, []
        return untold

    def next_tick(self) -> float:
        """The monotonic time at which `tick` must be called; whoever asks is woken if it comes nearer."""
        self._awaited = self.watch.next_tick()
        return self._awaited

    def tick(self) -> None:
        """Tells the watch that time has passed. A response that outlives its connection is not given up for silence, or
        for an error event that nothing followed: its state is asked for, and it is read on over another connection.
        """
        now = self._now()
        if self.session.outlives and self.watch.is_overdue(now):
            self.watch.extend(now)
            self.session.reconnect()
        self._tell(self.watch.tick(now))

    def stop(self, outcome: Outcome) -> list[Signal]:
        """Ends the attempt by our own doing: all that nobody has heard yet, lastly `Ended`."""
        return [*self.take(), *self.watch.stop(outcome)]

    def _halt(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def cancel_upstream(self) -> CancelResult:
        """Asks the provider to stop working on it, once; never takes longer than a few seconds, never raises."""
        if self._cancelling is None:
            self._cancelling = asyncio.create_task(self._cancel(), name=f"cancel {self.text!r}")
        return await asyncio.shield(self._cancelling)

    async def _cancel(self) -> CancelResult:
        try:
            async with asyncio.timeout(_CANCEL_SECONDS):
                return await self.session.cancel()  # beside the reading, which may be about to learn the response's id
        except TimeoutError:
            return CancelResult(took_effect=False)
        finally:
            await self._rest()

    async def close(self) -> None:
        """Nothing is read any more and the connection is gone; the response may go on upstream."""
        await self._rest()
        await self.session.aclose()

    async def _rest(self) -> None:
        self._halt()
        if self._task is not None:
            await asyncio.wait([self._task])

    @property
    def broke(self) -> BaseException | None:
        """What ended the reading by surprise: a fault of ours."""
        task = self._task
        return task.exception() if task is not None and task.done() and not task.cancelled() else None
