"""Reads one attempt's events from the first byte to the last, over every reconnection.

Keeps the response's id and cursor; `reconnect` decides how to go on. It judges no content, and never sends the
prompt twice. A background response outlives its reader, a foreground stream does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple

from worker.jobs.states import Outcome
from worker.safety import classify
from worker.safety.stream import Closed, Created, Delta, Opened, Rejected, StreamError, StreamEvent, Terminal
from worker.upstream.answer import UpstreamAnswer
from worker.upstream.call import UpstreamCall
from worker.upstream.client import CancelResult, Provider
from worker.upstream.ending import BLOCK_SECONDS, DRAIN_SECONDS, last_batch, rest_after_block
from worker.upstream.out_of_reach import Reachability
from worker.upstream.reconnect import MISSING_SECONDS, ConnectionEnd, NextRequest, Reconnect
from worker.upstream.send_gate import SEND_GATE
from worker.upstream.tolerant_fields import MAX_ID_LENGTH


class ResumePoint(NamedTuple):
    """The position at which a response's reader died: resume after `sequence`."""

    response_id: str
    sequence: int | None


class Session:
    """The event source of one attempt. Iterate `batches()` once; always call `aclose()` afterwards."""

    def __init__(
        self,
        provider: Provider,
        call: UpstreamCall,
        resume_from: ResumePoint | None = None,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        poll_interval: float = 1.0,
        max_poll_interval: float = 5.0,
        poll_timeout: float = 30.0,
        missing_timeout: float = MISSING_SECONDS,
        identify_timeout: float = 2.0,
        expedite_delay: float = 1.0,
        drain_timeout: float = DRAIN_SECONDS,
        send_gate: asyncio.Future[None] | None = None,
    ) -> None:
        """`missing_timeout`: seconds for which a 404 must last before the response is lost; `poll_timeout` limits
        the body of a poll. `send_gate`: the call is prepared, but not sent before this is done. Raise ValueError if
        `resume_from` is given for a mode that can't resume.
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
            NextRequest.CREATE if resume_from is None else NextRequest.RESUME,
            poll_interval=poll_interval,
            max_poll_interval=max_poll_interval,
            missing_timeout=missing_timeout,
        )
        self._poll_timeout = poll_timeout
        self._identify_timeout, self._expedite_delay = identify_timeout, expedite_delay
        self._drain_timeout = drain_timeout  # after a failure that says nothing
        self._send_gate = send_gate
        self._id_known = asyncio.Event()
        self._answer: UpstreamAnswer | None = None
        self._requests = 0
        self._polling = False
        self._reading = False
        self._stopped = False
        self._terminal_seen = False  # the terminal event was seen
        self._state_wanted = False  # the stream was given up because it was silent, so the state is requested next
        self._reachability = Reachability()
        self._runs_in_background = False  # the call was answered with the state of a response that still runs
        self._bare_state_seen = False  # this connection sent the response's state in an event without a number
        self._look_task: asyncio.Task[None] | None = None
        self._look_now = asyncio.Event()

    # one long loop: a nested generator would add a cost to every delta
    async def batches(self) -> AsyncGenerator[list[StreamEvent], None]:  # noqa: C901, PLR0912, PLR0915
        """Yield batches of events in order. The last has a Terminal, a Rejected or a Closed, unless this was closed."""
        loop = asyncio.get_running_loop()
        SEND_GATE.set(self._send_gate)
        while not self._stopped:
            began, opened = loop.time(), None
            id_before, cursor_before = self.response_id, self.sequence
            floor = cursor_before if self._reconnect.next_request is not NextRequest.CREATE else None
            polling = self._reconnect.next_request is NextRequest.POLL
            self._bare_state_seen = False
            end: StreamEvent | None = None
            answer = self._answer = self._request()
            while end is None:
                self._reading = True
                try:
                    batch = await (self._poll(answer) if polling else answer.read())
                finally:
                    self._reading = False
                if not batch:
                    break
                first = batch[0]
                if type(first) is Delta and floor is None and (len(batch) == 1 or _only_deltas(batch)):
                    number = batch[-1].sequence  # type: ignore[union-attr]
                    if number is not None:
                        self.sequence = number  # the common case, the only one that must be cheap
                        yield batch
                        continue
                if type(first) is Opened:
                    opened = loop.time()
                passed, end = self._filter(batch, floor)
                if self._reachability.lost and any(type(event) is not Opened for event in passed):
                    self._reachability.record_success()
                if not self._terminal_seen and any(map(_is_block, passed)):
                    yield await self._end_by_block(passed, answer, end)
                    return
                if self._terminal_seen:
                    yield await last_batch(passed, answer, self._look_once(), self._drain_timeout)
                    return
                if floor is not None and self.sequence != floor:
                    floor = None  # what is replayed comes first
                if passed:
                    yield passed
            await answer.aclose()
            if self._stopped:
                return
            if not self.outlives:
                yield [end or Closed("clean")]
                return
            if self._look_now.is_set() and end is None and not polling:
                end = Closed("cut", "hurried", opened=True)  # closed from here; the response is read on
            now = loop.time()
            progress = self.sequence != cursor_before or self.response_id != id_before
            snapshot = self._bare_state_seen and not polling and self.sequence == cursor_before
            step = self._step(ConnectionEnd(end, progress, (opened or now) - began, now - (opened or now), snapshot))
            if not isinstance(step, float):
                yield [step]
                return
            await self._pause(step, cut_short=not self._reconnect.provider_asked)
            self._look_now.clear()

    async def _end_by_block(
        self, passed: list[StreamEvent], answer: UpstreamAnswer, end: StreamEvent | None
    ) -> list[StreamEvent]:
        """Return the last events of a response whose block is known: nothing that may follow can delay it for long."""
        rest: list[StreamEvent] = []
        if end is None:
            rest, end = self._filter(await rest_after_block(answer, BLOCK_SECONDS), None)
        await answer.aclose()
        return [*passed, *rest] if self._terminal_seen else [*passed, *rest, end or Closed("clean")]

    def _step(self, ended: ConnectionEnd) -> float | StreamEvent:
        step = self._reconnect.after(ended)
        if ended.end is None or ended.progress or ended.snapshot:
            self._reachability.record_success()
        elif isinstance(step, float):
            self._reachability.record_failure(ended.opening + step)
        if self._state_wanted:
            self._state_wanted = False
            self._reconnect.request_state()
        return step

    @property
    def outlives(self) -> bool:
        """Return whether the response goes on without this connection and can be read over another one."""
        return self._background and self.response_id is not None

    @property
    def _background(self) -> bool:
        """Return whether the response runs in the background: as requested, or as the answer showed."""
        return self._call.mode == "background" or self._runs_in_background

    def expedite(self) -> None:
        """Look at a response that is reported to be over.

        If its end does not come in a moment, a connection that may be dead is replaced by a new one, and a pause that
        the provider did not ask for is cut short. Only a background response can be read again.
        """
        self._schedule_look(self._expedite_delay)

    def reconnect(self) -> None:
        """Give up the connection and request the response's state; a pause is not cut short.

        For a stream that was silent for too long, or that sent an error which may not be the response's.
        """
        if (
            self._reading and self._reconnect.next_request is not NextRequest.POLL
        ):  # a poll gets the state and is limited
            self._state_wanted = True
            self._schedule_look(0.0)

    def _schedule_look(self, after: float) -> None:
        if self.outlives and self._look_task is None:
            self._look_task = asyncio.create_task(self._look_after(after), name="hurry")

    async def _look_after(self, after: float) -> None:
        await asyncio.sleep(after)
        self._look_task = None
        if self._stopped or self._terminal_seen:
            return
        self._look_now.set()
        if self._reading and self._answer is not None:
            await self._answer.aclose()

    async def _poll(self, answer: UpstreamAnswer) -> list[StreamEvent]:
        try:
            async with asyncio.timeout(self._poll_timeout):
                return await answer.read()
        except TimeoutError:
            return [Closed("cut", "TimeoutError")]

    async def _pause(self, seconds: float, *, cut_short: bool) -> None:
        """Wait; `expedite` ends the wait unless the provider asked for it."""
        if not cut_short:
            await self._sleep(seconds)
            return
        pause = asyncio.ensure_future(self._sleep(seconds))
        woken = asyncio.ensure_future(self._look_now.wait())
        try:
            await asyncio.wait({pause, woken}, return_when=asyncio.FIRST_COMPLETED)
            if pause.done():
                pause.result()
        finally:
            for task in (pause, woken):
                task.cancel()
            await asyncio.gather(pause, woken, return_exceptions=True)

    async def cancel(self) -> CancelResult:
        """Stop the response upstream (a foreground stream: by closing it), and return whether it took effect.

        A pending `batches()` ends; whether it still shows the terminal event of the cancelled response is open.
        """
        if not self._background:
            await self.aclose()
            return CancelResult(took_effect=True)
        if self.response_id is None:
            await self._wait_for_id()
        if self.response_id is None:
            await self.aclose()
            return CancelResult(took_effect=False)  # sent, but its id is unknown: it may run on unreachable
        self._stopped = True
        try:
            return await self._provider.cancel(self.response_id, self._request_id("c"))
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connection without cancelling: a background response runs on and can be resumed."""
        self._stopped = True
        if self._look_task is not None:
            self._look_task.cancel()
        if self._answer is not None:
            await self._answer.aclose()

    def _request(self) -> UpstreamAnswer:
        if self._reconnect.next_request is NextRequest.CREATE or self.response_id is None:
            return self._provider.open(self._call)
        if self._reconnect.next_request is NextRequest.RESUME:
            return self._provider.resume(self.response_id, self.sequence, self._request_id("r"))
        return self._provider.open_poll(self.response_id, self._request_id("p"))

    def _look_once(self) -> Callable[[], UpstreamAnswer] | None:
        """Return the poll for a background response that has ended, or None if a poll showed the end already."""
        response_id = self.response_id
        if not self._background or response_id is None or self._reconnect.next_request is NextRequest.POLL:
            return None
        return lambda: self._provider.open_poll(response_id, self._request_id("p"))

    def _request_id(self, letter: str) -> str:
        """Return a new request id that begins with the attempt's id."""
        self._requests += 1
        return f"{self._call.client_request_id}.{letter}{self._requests}"

    def _filter(self, batch: list[StreamEvent], floor: int | None) -> tuple[list[StreamEvent], StreamEvent | None]:
        """Return the events to pass on and the end of the connection, if it came; update the cursor and the id."""
        passed: list[StreamEvent] = []
        end: StreamEvent | None = None
        for sent in batch:
            event, kind = sent, type(sent)
            if self._terminal_seen:
                passed.append(event)  # `last_batch` decides what of it counts
                continue
            if kind is Rejected or kind is Closed:
                answered = self._reconnect.next_request is NextRequest.POLL and event == Closed("clean")
                end = end if answered else event
                continue
            if kind is Opened and not self._count_reopening():
                continue
            if isinstance(sent, Created | Terminal):
                if not self._learn_id_from(sent):
                    return passed, Closed("bad_id")
                event = self._with_first_id(sent)
            elif self._is_about_the_look(sent):
                end = Closed("bad_json", "Fault")
                continue
            number: int | None = getattr(event, "sequence", None)
            self._bare_state_seen = self._bare_state_seen or (kind is Created and number is None)
            if number is not None:
                if floor is not None and number <= floor:
                    continue  # a resumed stream may repeat events
                self.sequence = number
            passed.append(event)
            self._terminal_seen = kind is Terminal
        return passed, end

    def _with_first_id(self, event: Created | Terminal) -> Created | Terminal:
        """Return the event with the response's first id; flag an answer that came with another one."""
        other = event.response_id not in (None, self.response_id)
        event = event._replace(response_id=self.response_id)
        if other and isinstance(event, Terminal):
            return event._replace(flags=(*event.flags, "response_id_changed"))
        return event

    def _count_reopening(self) -> bool:
        """Return whether this opening counts as progress: each resumption does, and the first of the polls."""
        if self._reconnect.next_request is NextRequest.CREATE:
            return True
        progress = not self._polling
        self._polling = self._reconnect.next_request is NextRequest.POLL
        self.resumed += progress
        return progress

    def _learn_id_from(self, event: Created | Terminal) -> bool:
        """Record the response's id; return False if it is too long to be kept.

        The first id stays, because some gateways give a response another one in each answer.
        """
        if self.response_id is not None:
            return True
        if type(event) is Created:
            self._runs_in_background = event.is_snapshot and self._call.mode != "chat"
            self._reconnect.in_background = event.background or self._runs_in_background
        if event.response_id is None:
            return True
        if len(event.response_id) > MAX_ID_LENGTH:
            return False
        self.response_id = event.response_id
        self._id_known.set()
        return True

    def _is_about_the_look(self, event: StreamEvent) -> bool:
        """Return whether an error concerns the request, not the response, whose own errors are numbered."""
        looking = self._reconnect.next_request is not NextRequest.CREATE
        return looking and isinstance(event, StreamError) and event.sequence is None and not _is_block(event)

    async def _wait_for_id(self) -> None:
        """Wait briefly for the response's id: without it the response can't be cancelled and would run up a cost."""
        try:
            async with asyncio.timeout(self._identify_timeout):
                if self._reading:
                    await self._id_known.wait()
                elif self._answer is not None:
                    while self.response_id is None and (batch := await self._answer.read()):
                        self._filter(batch, None)
        except TimeoutError:
            pass


def _is_block(event: StreamEvent) -> bool:
    """Return whether an error event inside the stream has the code of a block."""
    return type(event) is StreamError and classify.fault(event).outcome is Outcome.BLOCKED


def _only_deltas(batch: list[StreamEvent]) -> bool:
    for event in batch:  # noqa: SIM110  for each delta of every stream: a generator would cost more than it looks at
        if type(event) is not Delta or event.sequence is None:
            return False
    return True
