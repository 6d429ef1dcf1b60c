"""The attempts of one run that are under way: started, resumed after a crash, stopped.

Builds the call from the record and the request, and turns what a reader observed into facts. Decides nothing and
commits nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from worker.jobs import events as ev
from worker.jobs.errors import RecordUnreadable
from worker.jobs.events import EventDraft
from worker.jobs.record import Attempt, Check, Job, Usage
from worker.jobs.request_references import find_references
from worker.jobs.request_shape import RequestShape, shape_of, with_output_limit
from worker.jobs.states import CheckEnd, Outcome
from worker.safety import event_mapping, signals as sg
from worker.safety.provider_message import ProviderMessage, compare_message, strings_in
from worker.safety.silence import suspect_after
from worker.safety.watch import AttemptWatch
from worker.safety.watch_limits import CHARACTERS_PER_TOKEN
from worker.store.jobs.output_chunks import OutputChunk
from worker.store.jobs.stored_job import ClaimedJob
from worker.store.values import report_unreadable
from worker.tasks.execution.context import RunContext
from worker.tasks.execution.inbox import Inbox
from worker.tasks.execution.output_buffer import OutputBuffer
from worker.tasks.execution.stream_reader import StreamReader
from worker.tasks.store_retry import retry_store
from worker.telemetry.events import emit
from worker.upstream.call import Mode, UpstreamCall
from worker.upstream.session import ResumePoint, Session

_MAX_COMPARED_INLINE: Final = 64 * 1024  # characters; comparing more would hold up the other streams
_CANCEL_TIMEOUT_S: Final = 2.0  # how long a cancelled job waits for the provider to say what it cost


class ActiveAttempts:
    """Readers by attempt number."""

    def __init__(self, context: RunContext, claimed: ClaimedJob, inbox: Inbox) -> None:
        self._context, self._inbox = context, inbox
        self._job_id, self._token, self._request = claimed.job.id, claimed.token, claimed.input
        self.readers: dict[int, StreamReader] = {}
        self.shape = RequestShape()
        """What the request's price depends on; known once `request` has returned it."""
        self._closing: set[asyncio.Task[Any]] = set()

    async def request(self) -> dict[str, Any] | None:
        """Return the input, instructions and params of the job; None if they are gone.

        They came with the claim, or are read now; waits while Redis is unavailable.
        """
        if self._request is None:
            self._request = await retry_store(lambda: self._context.jobs.load_input(self._job_id))
        if self._request is not None and self.shape.bytes_input == 0:
            self.shape = shape_of(self._request)
        return self._request

    # -- starting

    def start(self, job: Job, attempt: Attempt, request: dict[str, Any], go: asyncio.Future[None]) -> None:
        """Prepare the call of an attempt; it is sent when `go` is done, that is when the intent is on record."""
        self._open(job, attempt, request, self._buffer(attempt.number), None, go)

    async def resume(self, job: Job, attempt: Attempt) -> None:
        """Continue reading a background response that an earlier holder began; never creates a second one."""
        known = {"model": attempt.model, "mode": attempt.mode, "account": attempt.account}
        emit("attempt.taken_up", job_id=job.id, attempt=attempt.number, **known)
        request = await self.request() or {"input": ""}
        text = self._buffer(attempt.number)
        chunks, complete = await self._stored_chunks(attempt.number)
        text.restore(chunks)
        cursor = text.sequence
        if complete and (text.length or attempt.first_output_at is None) and attempt.sequence is not None:
            cursor = max(cursor, attempt.sequence)  # otherwise the provider sends again what was lost of the text
        self._open(job, attempt, request, text, cursor)

    async def names_state(self) -> bool:
        """Return whether the request names something that the provider keeps, such as a file of one account."""
        request = await self.request()
        if request is None:
            return False
        found = await asyncio.to_thread(find_references, request.get("params") or {}, request["input"])
        return found is None or bool(found.names)

    async def estimate_tokens(self, number: int) -> int:
        """Return about how many tokens a lost attempt had put out: its stored text, at four characters a token."""
        chunks, _ = await self._stored_chunks(number)
        return math.ceil(sum(len(chunk.text) for chunk in chunks) / CHARACTERS_PER_TOKEN)

    async def _stored_chunks(self, number: int) -> tuple[list[OutputChunk], bool]:
        """Return (the attempt's stored text, whether all of it could be read)."""
        try:
            return await retry_store(lambda: self._context.chunks.read_checked(self._job_id, number))
        except RecordUnreadable as error:
            report_unreadable(error)
            return [], False

    def _buffer(self, number: int) -> OutputBuffer:
        return OutputBuffer(self._job_id, number, self._token, self._context.flusher.dirty)

    def _open(
        self,
        job: Job,
        attempt: Attempt,
        request: dict[str, Any],
        text: OutputBuffer,
        cursor: int | None,
        go: asyncio.Future[None] | None = None,
    ) -> None:
        context, params = self._context, request.get("params") or {}
        account = context.accounts.named(attempt.account)
        if account is None:  # the run has looked before
            raise RuntimeError(f"there is no account {attempt.account}")
        limit = attempt.terms.max_output_tokens if attempt.terms is not None else None
        call = UpstreamCall(
            model=attempt.model,
            mode=cast("Mode", attempt.mode),  # as it was begun, whatever the settings say now
            client_request_id=attempt.client_request_id,
            input=request["input"],
            instructions=request.get("instructions"),
            params=params if limit is None else with_output_limit(params, limit),
            safety_identifier=job.safety_identifier,
            store=job.store,
        )
        seen = cursor if cursor is not None and cursor >= 0 else None
        resume = ResumePoint(attempt.response_id, seen) if cursor is not None and attempt.response_id else None
        silence = job.policy.on_delay.silence_seconds or context.limits.suspect_after
        if silence and job.silence_is_measured:
            measured = context.durations.latest().silences(context.catalogue, attempt.model)
            silence = suspect_after(measured, silence)
        watch = AttemptWatch(
            attempt.model,
            checked=context.catalogue.checked(attempt.model),
            now=context.clock.monotonic(),
            limits=replace(context.limits, suspect_after=silence),
            aliases=context.catalogue.aliases,
            service_tier=attempt.terms.service_tier if attempt.terms is not None else None,
            cursor=seen,
            event_seen=attempt.first_event_at is not None,
            output_seen=attempt.first_output_at is not None,
            check=check_to_resume(job, attempt.number),
            resumed=attempt.resumed,
        )
        session = Session(account.provider, call, resume, sleep=context.clock.sleep, send_gate=go)
        now = context.clock.monotonic
        reader = StreamReader(attempt.number, session, watch, text, self._inbox, now, context.reading)
        self.readers[attempt.number] = reader
        reader.start()

    # -- reading

    def next_tick(self) -> float:
        """Return the monotonic time at which `tick` must be called next."""
        return min((r.next_tick() for r in self.readers.values()), default=math.inf)

    def tick(self) -> None:
        """Inform every watch that time has passed."""
        for reader in self.readers.values():
            reader.tick()

    def check_now(self, response_id: str) -> None:
        """Make the reader of this response ask for its state: a webhook says that it has ended."""
        for reader in self.readers.values():
            if reader.session.response_id == response_id:
                reader.session.expedite()

    def error(self) -> BaseException | None:
        """Return the exception that ended a reader by surprise, if there is one: an internal error."""
        return next((r.error for r in self.readers.values() if r.error is not None), None)

    def drafts_of(self, number: int, signal: sg.Signal) -> list[EventDraft]:
        """Return the facts behind a signal.

        Those of a check come with the cursor, so that a resumed stream continues behind the notice of the check.
        """
        fact = event_mapping.fact_of(signal, self._context.clock.now())
        reader = self.readers.get(number)
        if fact is None or reader is None:
            return []
        drafts: list[EventDraft] = [(fact, None if isinstance(fact, ev.AccountFlagged) else number)]
        if isinstance(fact, ev.CheckStarted | ev.CheckEnded):
            drafts += self._cursor_draft(number, reader)
        return drafts

    def cursor_drafts(self) -> list[EventDraft]:
        """Return the facts that record how far each stream has been read."""
        return [draft for number, reader in self.readers.items() for draft in self._cursor_draft(number, reader)]

    def _cursor_draft(self, number: int, reader: StreamReader) -> list[EventDraft]:
        if not reader.text.safe or reader.watch.sequence is None:
            return []  # text before the cursor is not in Redis yet
        return [(ev.AttemptUpdated(sequence=reader.watch.sequence), number)]

    # -- ending

    def stop(
        self,
        job: Job,
        outcome: Outcome,
        numbers: Sequence[int] | None = None,
        used: Mapping[int, Usage] | None = None,
    ) -> list[EventDraft]:
        """Stop these attempts (default: all) and return the facts that end them.

        If the provider had already blocked one of them, it stays blocked, and that is the last fact (promise P2).
        `used`: the usage that the provider has reported, by attempt.
        """
        drafts: list[EventDraft] = []
        blocked: list[EventDraft] = []
        for number in list(self.readers) if numbers is None else numbers:
            for signal in self.readers[number].stop(outcome):
                if not isinstance(signal, sg.AttemptEnded):
                    drafts += self.drafts_of(number, signal)
                    continue
                now, verdict = self._context.clock.now(), signal.verdict
                if verdict.usage is None and used and number in used:
                    verdict = replace(verdict, usage=used[number])
                finished = event_mapping.attempt_finished(self._context.catalogue, job, number, verdict, now)
                drafts.append((finished, number))
                if signal.verdict.block is not None:
                    blocked = [(event_mapping.block_fact(signal.verdict.block), number)]
        return drafts + blocked

    async def finish(self, number: int) -> StreamReader:
        """Close the connection of an attempt that has ended, and return its reader."""
        reader = self.readers.pop(number)
        self._context.flusher.forget(reader.text)
        await reader.close()
        return reader

    async def provider_message(self, job: Job, reader: StreamReader) -> ProviderMessage | None:
        """Return the provider's words on the error of an attempt, compared with what the job asked and was answered."""
        if reader.message is None:
            return None
        request = await self.request()
        running = [text for one in (reader, *self.readers.values()) for text in one.answer_texts]
        ended = [a.number for a in job.attempts if a.outcome is not None and a.first_output_at is not None]
        stored = [chunk.text for number in ended for chunk in (await self._stored_chunks(number))[0]]
        sources = None if request is None else [*strings_in(request), *running, "".join(stored)]
        if sources is not None and sum(map(len, sources)) > _MAX_COMPARED_INLINE:
            return await asyncio.to_thread(compare_message, reader.message, sources)
        return compare_message(reader.message, sources)

    def discard(self, number: int) -> None:
        """Ask the provider to stop an attempt that we have ended, in the background while the job goes on."""
        reader = self.readers.pop(number)
        self._context.flusher.forget(reader.text)
        task = asyncio.create_task(_cancel_and_close(reader))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def cancel_and_get_usage(self) -> dict[int, Usage]:
        """Ask the provider to stop all attempts; return the usage that it answers with within a moment, by attempt."""
        tasks = {n: asyncio.create_task(reader.cancel_upstream()) for n, reader in self.readers.items()}
        if tasks:
            await asyncio.wait(tasks.values(), timeout=_CANCEL_TIMEOUT_S)
        answers = {n: task.result() for n, task in tasks.items() if task.done()}
        self._closing.update(task for task in tasks.values() if not task.done())
        return {n: answer.usage for n, answer in answers.items() if answer.usage is not None}

    async def cancel_upstream(self) -> None:
        """Ask the provider to stop all attempts, and wait for its answers."""
        for number in list(self.readers):
            self.discard(number)
        if self._closing:
            await asyncio.wait(self._closing)

    async def close(self) -> None:
        """Close all connections; what runs upstream goes on."""
        for number in list(self.readers):
            await self.finish(number)
        if self._closing:
            await asyncio.wait(self._closing)


async def _cancel_and_close(reader: StreamReader) -> None:
    await reader.cancel_upstream()
    await reader.close()


def check_to_resume(job: Job, number: int) -> Check | None:
    """Return the attempt's check that was open when its last holder let go; the provider need not signal it again."""
    checks = [c for c in job.checks if c.attempt == number]
    if checks and (checks[-1].ended_at is None or checks[-1].ended_by is CheckEnd.INTERRUPTED):
        return checks[-1]
    return None
