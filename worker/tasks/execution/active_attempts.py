"""The attempts of one run that are under way: opened, taken up after a crash, stopped.

Knows how a call is built from the record and what was asked; decides nothing and commits nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from worker.jobs.errors import RecordUnreadable, StoreUnavailable
from worker.jobs.record import Attempt, Check, Job, Usage
from worker.jobs.states import CheckEnd, Outcome
from worker.safety.signals import Signal
from worker.safety.watch import AttemptWatch
from worker.store.jobs.output_chunks import OutputChunk
from worker.store.jobs.stored_job import ClaimedJob
from worker.store.values import report_unreadable
from worker.tasks.execution.context import RunContext
from worker.tasks.execution.output_buffer import OutputBuffer
from worker.tasks.execution.stream_reader import StreamReader
from worker.telemetry.events import emit
from worker.upstream.call import Mode, UpstreamCall
from worker.upstream.session import ResumePoint, Session

Say = Callable[[int], None]
_CHARACTERS_A_TOKEN = 4
_CANCEL_ANSWER = 2.0  # seconds for which a cancelled job waits to hear what it cost
_AGAIN = 0.25  # seconds between two questions to a Redis that is away


class ActiveAttempts:
    """Readers by attempt number."""

    def __init__(self, shop: RunContext, held: ClaimedJob, say: Say, wake: Callable[[], None]) -> None:
        self._shop, self._job_id, self._token, self._say, self._wake = shop, held.job.id, held.token, say, wake
        self._asked = held.input
        self.readers: dict[int, StreamReader] = {}
        self._leaving: set[asyncio.Task[Any]] = set()

    async def asked(self) -> dict[str, Any] | None:
        """What is asked of the model: it came with the claim, or is read; waits for a Redis that is away."""
        while self._asked is None:
            try:
                return await self._shop.jobs.load_input(self._job_id)
            except StoreUnavailable:
                await asyncio.sleep(_AGAIN)
        return self._asked

    def start(self, job: Job, attempt: Attempt, asked: dict[str, Any], go: asyncio.Future[None]) -> None:
        """Prepares the call of an attempt; it is sent when `go` is done, that is when the intent is on record."""
        self._read(job, attempt, asked, self._text(attempt.number), None, go)

    async def take_up(self, job: Job, attempt: Attempt) -> None:
        """Goes on with a background response that an earlier holder began: never a second create."""
        emit("attempt.taken_up", job_id=job.id, attempt=attempt.number, model=attempt.model, mode=attempt.mode)
        asked = await self.asked() or {"input": ""}
        text = self._text(attempt.number)
        pieces, whole = await self._pieces(attempt.number)
        text.restore(pieces)
        cursor = text.sequence
        if whole and (text.length or attempt.first_output_at is None) and attempt.sequence is not None:
            cursor = max(cursor, attempt.sequence)  # else the provider tells what was lost of the text again
        self._read(job, attempt, asked, text, cursor)

    async def kept_tokens(self, number: int) -> int:
        """About how many tokens a lost attempt had put out: what was kept of its text, at four characters each."""
        pieces, _ = await self._pieces(number)
        return math.ceil(sum(len(piece.text) for piece in pieces) / _CHARACTERS_A_TOKEN)

    async def _pieces(self, number: int) -> tuple[list[OutputChunk], bool]:
        """(what was kept of the attempt's text, whether all of that can be read)."""
        while True:
            try:
                return await self._shop.pieces.read_checked(self._job_id, number)
            except RecordUnreadable as error:
                report_unreadable(error)
                return [], False
            except StoreUnavailable:
                await asyncio.sleep(_AGAIN)

    def _text(self, number: int) -> OutputBuffer:
        return OutputBuffer(self._job_id, number, self._token, self._shop.flusher.dirty)

    def _read(
        self,
        job: Job,
        attempt: Attempt,
        asked: dict[str, Any],
        text: OutputBuffer,
        cursor: int | None,
        go: asyncio.Future[None] | None = None,
    ) -> None:
        shop = self._shop
        call = UpstreamCall(
            model=attempt.model,
            mode=cast("Mode", attempt.mode),  # as it was begun, whatever the settings say now
            client_request_id=attempt.client_request_id,
            input=asked["input"],
            instructions=asked.get("instructions"),
            params=asked.get("params") or {},
            safety_identifier=job.safety_identifier,
            store=job.store,
        )
        seen = cursor if cursor is not None and cursor >= 0 else None
        resume = ResumePoint(attempt.response_id, seen) if cursor is not None and attempt.response_id else None
        silence = job.policy.on_delay.silence_seconds or shop.limits.suspect_after
        watch = AttemptWatch(
            attempt.model,
            checked=shop.catalogue.checked(attempt.model),
            now=shop.clock.monotonic(),
            limits=replace(shop.limits, suspect_after=silence),
            aliases=shop.catalogue.aliases,
            cursor=seen,
            output_seen=attempt.first_output_at is not None,
            check=check_to_go_on(job, attempt.number),
            resumed=attempt.resumed,
        )
        session = Session(shop.provider, call, resume, sleep=shop.clock.sleep, send_gate=go)
        reader = StreamReader(attempt.number, session, watch, text, self._say, shop.clock.monotonic)
        self.readers[attempt.number] = reader
        reader.start(self._wake)

    def next_tick(self) -> float:
        """The monotonic time at which some watch must be told that time has passed."""
        return min((r.next_tick() for r in self.readers.values()), default=math.inf)

    def tick(self) -> None:
        """Tells every watch that time has passed."""
        for reader in self.readers.values():
            reader.tick()

    def hurry(self, response_id: str) -> None:
        """Somebody says that this response is over: whoever reads it makes sure."""
        for reader in self.readers.values():
            if reader.session.response_id == response_id:
                reader.session.expedite()

    def broke(self) -> BaseException | None:
        """What ended some reading by surprise: a fault of ours."""
        return next((r.broke for r in self.readers.values() if r.broke is not None), None)

    def stop(self, outcome: Outcome, numbers: Sequence[int] | None = None) -> list[tuple[int, Signal]]:
        """Ends these (all, by default) by our own doing; the signals that this gave, each attempt's `Ended` last."""
        chosen = list(self.readers) if numbers is None else numbers
        return [(number, signal) for number in chosen for signal in self.readers[number].stop(outcome)]

    async def finish(self, number: int) -> StreamReader:
        """The reader of an attempt that has ended, its connection closed."""
        reader = self.readers.pop(number)
        self._shop.flusher.forget(reader.text)
        await reader.close()
        return reader

    def discard(self, number: int) -> None:
        """The attempt has ended by our own doing: the provider is told to stop while the job goes on."""
        reader = self.readers.pop(number)
        self._shop.flusher.forget(reader.text)
        task = asyncio.create_task(_cancel_and_close(reader))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def used_when_cancelled(self) -> dict[int, Usage]:
        """What the provider says was used, by attempt, where it answers the request to stop within a moment."""
        asked = {n: asyncio.create_task(reader.cancel_upstream()) for n, reader in self.readers.items()}
        if asked:
            await asyncio.wait(asked.values(), timeout=_CANCEL_ANSWER)
        answers = {n: task.result() for n, task in asked.items() if task.done()}
        self._leaving.update(task for task in asked.values() if not task.done())
        return {n: answer.usage for n, answer in answers.items() if answer.usage is not None}

    async def cancel_upstream(self) -> None:
        """The provider was asked to stop working on all of them."""
        for number in list(self.readers):
            self.discard(number)
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def close(self) -> None:
        """No connection is left; what runs upstream goes on."""
        for number in list(self.readers):
            await self.finish(number)
        if self._leaving:
            await asyncio.wait(self._leaving)


async def _cancel_and_close(reader: StreamReader) -> None:
    await reader.cancel_upstream()
    await reader.close()


def check_to_go_on(job: Job, number: int) -> Check | None:
    """The attempt's check that ran when its last holder let go; the provider need not signal it again."""
    mine = [c for c in job.checks if c.attempt == number]
    if mine and (mine[-1].ended_at is None or mine[-1].ended_by is CheckEnd.INTERRUPTED):
        return mine[-1]
    return None
