"""The desk of one run: the record as it stands, and the one way in which this run writes to it.

Knows how facts become commits and how an end is told whole; decides nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from worker.jobs import events as ev
from worker.jobs.deadline import deadline_of
from worker.jobs.errors import ContentTooLarge, StoreFull, StoreUnavailable
from worker.jobs.events import EventDraft
from worker.jobs.record import Job, Usage
from worker.jobs.states import UNDER_WAY, Outcome
from worker.safety import event_mapping, signals as sg
from worker.store.commands import Command
from worker.store.connection.capacity import ALWAYS_TAKEN, largest_argument
from worker.store.jobs.stored_job import ClaimedJob
from worker.tasks.execution.active_attempts import ActiveAttempts
from worker.tasks.execution.context import RunContext
from worker.tasks.execution.unstored_change import RetryWait, ends, without_content
from worker.telemetry.events import emit

_NOTHING: Final[dict[str, Any]] = {
    "output_text": None,
    "output": [],
    "refusal": None,
    "draft": None,
    "provider_messages": {},
}

_TOO_LARGE_AFTER = 3  # times that a large write was lost while a small one passed
AGAIN = 0.25
"""Seconds between two tries while Redis is away."""


class RunRecorder:
    """`job` is the record after our last commit; `done` is True once the job is settled, waits, or was handed over."""

    def __init__(
        self, shop: RunContext, held: ClaimedJob, say: Callable[[int], None], wake: Callable[[], None]
    ) -> None:
        self.shop, self.job, self.token, self.generation = shop, held.job, held.token, held.generation
        self.attempts = ActiveAttempts(shop, held, say, wake)
        self.gated, self.pause = held.gated, held.pause
        self.done = False
        self._content: dict[str, Any] | None = None

    async def commit(self, said: Sequence[EventDraft], writes: Sequence[Command] = ()) -> None:
        """The facts are on record, with what follows from them. While Redis is away it tries on: only Redis can say
        that the lease is lost.

        Content that Redis does not take, or not before the deadline, is left out, and an answer ends as a failure that
        says so.
        """
        if not said:
            return
        patience, lost, left_out = RetryWait(self.shop.clock), 0, False
        while True:
            try:
                self.job = await self._change(said, writes)
                break
            except ContentTooLarge as error:
                fault: ContentTooLarge | StoreUnavailable = error
            except StoreUnavailable as error:
                fault = error
            full = isinstance(fault, StoreFull)
            lost = lost + 1 if not full and writes and await self._only_this_is_lost(writes) else 0
            late = full and self.until_deadline() <= 0
            if not left_out and (isinstance(fault, ContentTooLarge) or lost == _TOO_LARGE_AFTER or (late and writes)):
                size = fault.size if isinstance(fault, ContentTooLarge) else largest_argument(writes)
                emit("answer.too_large", size_bytes=size, reason="full" if late else "too_large")
                said, writes, left_out = self._without_content(said)
            elif isinstance(fault, StoreUnavailable):
                await patience.wait(fault, self.until_deadline())
            else:
                raise fault
        self.done = self.job.status not in UNDER_WAY

    async def _change(self, said: Sequence[EventDraft], writes: Sequence[Command]) -> Job:
        return await self.shop.jobs.change(
            self.job.id,
            lambda job: event_mapping.with_consequences(job, said),
            job=self.job,
            token=self.token,
            writes=lambda _: writes,
        )

    async def _only_this_is_lost(self, writes: Sequence[Command]) -> bool:
        """Whether a large write fails while small ones pass: a server that may not be asked for its bounds hangs up."""
        return largest_argument(writes) > ALWAYS_TAKEN and await self.shop.jobs.accepts_writes()

    def _without_content(self, said: Sequence[EventDraft]) -> tuple[list[EventDraft], list[Command], Literal[True]]:
        self._content = None  # it is read again: what we have in hand is not what is kept
        kept = without_content(said)
        return kept, [self.shop.jobs.delete_output_command(self.job.id)] if ends(kept) else [], True

    def until_deadline(self) -> float:
        """Seconds until the job's deadline; infinite when it has none."""
        deadline = deadline_of(self.job)
        return math.inf if deadline is None else (deadline.at - self.shop.clock.now()).total_seconds()

    async def content(self, **changes: Any) -> list[Command]:
        """The command that keeps what came back: output, refusal, draft, and the provider's words on errors."""
        if self._content is None and len(self.job.attempts) <= 1:
            self._content = dict(_NOTHING)  # nothing can have come back before
        while self._content is None:
            try:
                self._content = await self.shop.jobs.load_output(self.job.id) or dict(_NOTHING)
            except StoreUnavailable:
                await asyncio.sleep(AGAIN)
        self._content = {**self._content, **changes}
        while True:
            try:
                return [await self.shop.jobs.output_command(self.job.id, self._content)]
            except StoreUnavailable:
                await asyncio.sleep(AGAIN)

    async def message(self, number: int, words: str | None) -> list[Command]:
        """The command that keeps the provider's words on attempt `number`, if there were any."""
        if not words:
            return []
        await self.content()
        told = (self._content or {}).get("provider_messages", {})
        return await self.content(provider_messages={**told, str(number): words})

    async def look_again(self) -> None:
        """The record as it stands now: the API may have written to it."""
        while True:
            try:
                stored = await self.shop.jobs.load(self.job.id)
            except StoreUnavailable:
                await asyncio.sleep(AGAIN)
                continue
            self.job = stored.job if stored is not None else self.job
            return

    def said(self, number: int, signal: sg.Signal) -> list[EventDraft]:
        """The facts behind a signal; a check's come with the cursor, so that a resume goes on behind its notice."""
        fact = event_mapping.fact_of(signal, self.shop.clock.now())
        reader = self.attempts.readers.get(number)
        if fact is None or reader is None:
            return []
        said: list[EventDraft] = [(fact, None if isinstance(fact, ev.AccountFlagged) else number)]
        if isinstance(fact, ev.CheckStarted | ev.CheckEnded) and reader.text.safe and reader.watch.sequence is not None:
            said.append((ev.AttemptUpdated(sequence=reader.watch.sequence), number))
        return said

    def stop(
        self, outcome: Outcome, numbers: Sequence[int] | None = None, used: Mapping[int, Usage] | None = None
    ) -> list[EventDraft]:
        """The facts that end these attempts (all, by default) by our own doing. A block that one of them was already
        told of stays a block, and is the last fact (promise P2). `used`: what the provider has said of their usage.
        """
        said: list[EventDraft] = []
        blocked: list[EventDraft] = []
        for number, signal in self.attempts.stop(outcome, numbers):
            if isinstance(signal, sg.AttemptEnded):
                now, verdict = self.shop.clock.now(), signal.verdict
                if verdict.usage is None and used and number in used:
                    verdict = replace(verdict, usage=used[number])
                done = event_mapping.attempt_finished(self.shop.catalogue, self.job.attempt(number), verdict, now)
                said.append((done, number))
                if signal.verdict.block is not None:
                    blocked = [(event_mapping.block_fact(signal.verdict.block), number)]
            else:
                said += self.said(number, signal)
        return said + blocked

    async def settle(self, said: list[EventDraft], end: ev.Fact, writes: Sequence[Command] = ()) -> None:
        """Ends the job with `end`, or as blocked when an attempt turned out to be; the provider is told to stop."""
        blocked = any(isinstance(fact, ev.Blocked) for fact, _ in said)
        kept = [*writes]
        if self.job.draft_attempt is not None:
            kept += await self.content(draft=None)
        await self.commit(said if blocked else [*said, (end, None)], kept)
        await self.attempts.cancel_upstream()
