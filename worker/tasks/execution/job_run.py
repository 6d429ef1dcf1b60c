"""One wake-up of one job, from the claim until it lets go: open the stream, hear the watch, commit, decide.

The only loop that drives attempts. What happens comes as notes into one inbox, so nothing here races with itself;
every change is one commit, fenced by the lease. Must not know: Redis, JSON of the provider, HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from datetime import timedelta

from worker.jobs import events as ev
from worker.jobs.deadline import deadline_of
from worker.jobs.errors import AlreadySettled, ContentDamaged, Failure, LeaseLost, RecordUnreadable, StoreUnavailable
from worker.jobs.events import EventDraft
from worker.jobs.states import DELIVERED, UNDER_WAY, CheckEnd, Outcome, Purpose, ScheduledReason
from worker.safety import event_mapping, messages, retry, signals as sg
from worker.safety.cuts import repeated_cuts
from worker.store.commands import Command
from worker.store.jobs.stored_job import ClaimedJob
from worker.store.provider.safety_notices import RESPONSE_ENDED
from worker.store.values import report_unreadable
from worker.tasks.execution.active_attempts import check_to_go_on
from worker.tasks.execution.attempt_start import AttemptStarter
from worker.tasks.execution.context import RunContext
from worker.tasks.execution.delay_rule import DelayRule
from worker.tasks.execution.lease_renewal import LOST
from worker.tasks.execution.run_recorder import RunRecorder
from worker.telemetry.events import about, emit
from worker.telemetry.internal_errors import broke
from worker.telemetry.job_events import trace_id
from worker.telemetry.tracing import processing

CANCEL, OFFER, DRAIN, INTERRUPT = "cancel", "offer", "drain", "interrupt"
_LOCKED, _LONGEST_LOCKED = 60.0, 1800.0
_LOOK = "look"  # a reader stopped, or its next tick came nearer

Note = int | str
"""Attempt n has something to say, or a word of control."""


class JobRun:
    """The state of one wake-up. `await run()` returns when the job is settled, waits, or is someone else's."""

    def __init__(self, shop: RunContext, held: ClaimedJob) -> None:
        self._shop = shop
        self._inbox: asyncio.Queue[Note] = asyncio.Queue()
        self._desk = RunRecorder(shop, held, self._inbox.put_nowait, lambda: self.tell(_LOOK))
        self._opening = AttemptStarter(self._desk)
        self._delay = DelayRule(self._desk, self._opening)
        self._draining = False
        self._unreadable = held.unreadable

    def tell(self, word: str) -> None:
        """A word of control: CANCEL, OFFER, DRAIN, INTERRUPT, or the lease's LOST."""
        self._inbox.put_nowait(word)

    # -- the loop

    async def __call__(self) -> None:
        """Runs the job as far as it goes. Raises nothing but CancelledError."""
        desk, job = self._desk, self._desk.job
        waited = (self._shop.clock.now() - (job.next_attempt_at or job.created_at)).total_seconds()
        with (
            about(job_id=job.id, app=job.app, worker=self._shop.worker_id, trace_id=trace_id(job.trace)),
            processing(job, desk.generation, max(0.0, waited), self._shop.worker_id),
        ):
            await self._through()

    async def _through(self) -> None:
        desk, job_id = self._desk, self._desk.job.id
        self._shop.leases.hold(job_id, desk.token, self.tell)
        try:
            if self._unreadable:
                await self._leave_locked()
                return
            await self._begin()
            while not desk.done:
                await self._step(await self._notes())
        except LeaseLost:
            emit("lease.lost", job_id=job_id, generation=desk.generation)
        except AlreadySettled as settled:
            emit("job.settled_elsewhere", job_id=job_id, status=settled.status)
        except RecordUnreadable as error:
            report_unreadable(error)
            await self._give_up("record_unreadable")
        except ContentDamaged:
            emit("content.damaged", job_id=job_id)
            await self._give_up("content_unreadable")
        except Exception as error:  # noqa: BLE001  a fault of ours must not leave the job in the air
            broke("run.broke", error, job_id=job_id)
            await self._give_up()
        finally:
            self._shop.leases.release(job_id, desk.token)
            await desk.attempts.close()

    async def _notes(self) -> list[Note]:
        """What has come in; waits for the next note or the next time that matters."""
        now = self._shop.clock.monotonic()
        wait = min(min(self._desk.attempts.next_tick(), self._delay.at) - now, self._desk.until_deadline())
        notes: list[Note] = []
        try:
            async with asyncio.timeout(max(0.0, wait) if math.isfinite(wait) else None):
                notes.append(await self._inbox.get())
        except TimeoutError:
            self._desk.attempts.tick()
        while not self._inbox.empty():
            notes.append(self._inbox.get_nowait())
        return notes

    async def _step(self, notes: list[Note]) -> None:
        """Commits what the notes say, and does what they ask."""
        desk = self._desk
        said: list[EventDraft] = []
        for note in notes:
            if isinstance(note, str):
                await desk.commit(said)
                said = []
                await self._obey(note)
            else:
                said = await self._hear(note, said)
            if desk.done:
                return
        await desk.commit(said)
        if self._draining and self._can_hand_over():
            await self._hand_over()
        elif desk.until_deadline() <= 0:
            await self._expire()
        else:
            await self._delay.ask()

    async def _hear(self, number: int, said: list[EventDraft]) -> list[EventDraft]:
        """What attempt `number` has to say: the facts that are not committed yet."""
        desk = self._desk
        reader = desk.attempts.readers.get(number)
        for signal in reader.take() if reader is not None else ():
            if isinstance(signal, sg.AttemptEnded):
                await self._ended(number, signal.verdict, said)
                return []
            self._delay.heard(number, signal)
            said += desk.said(number, signal)
        return said

    async def _obey(self, word: str) -> None:
        match word:
            case "cancel":
                await self._cancel()
            case "offer":
                await self._desk.look_again()
            case "drain":
                self._draining = True
            case "interrupt":
                await self._interrupt()
            case "look":
                broke = self._desk.attempts.broke()
                if broke is not None:
                    raise broke
            case _ if word.startswith(RESPONSE_ENDED):
                self._desk.attempts.hurry(word.removeprefix(RESPONSE_ENDED).strip())
            case _ if word == LOST:
                raise LeaseLost(self._desk.job.id)
            case _:
                emit("control.unknown", job_id=self._desk.job.id)

    # -- beginning

    async def _begin(self) -> None:
        """Takes up what an earlier holder left running, else opens the next attempt; or ends what may not go on."""
        desk, job, shop = self._desk, self._desk.job, self._shop
        who = {"worker": shop.worker_id, "generation": desk.generation}
        said: list[EventDraft] = [(ev.Rescued(**who) if job.status in UNDER_WAY else ev.Started(**who), None)]
        late = self._desk.until_deadline() <= 0
        goes_on = [a.number for a in job.open_attempts if a.mode == "background" and a.response_id]
        for attempt in job.open_attempts:
            check = check_to_go_on(job, attempt.number)
            if attempt.number not in goes_on:
                tokens = await desk.attempts.kept_tokens(attempt.number)
                said += event_mapping.abort_attempt(job, attempt.number, Outcome.LOST, tokens, shop.catalogue)
            elif check is not None and check.ended_at is not None:
                said.append((event_mapping.restart_check(check), attempt.number))
        if not goes_on and not late and job.cancel_requested_at is None:
            await self._opening.next(said)
            return
        if late and job.status not in UNDER_WAY and not goes_on:
            said = said[1:]  # it never started: the queue's deadline ends it
        await desk.commit(said)
        for number in goes_on:
            await desk.attempts.take_up(desk.job, desk.job.attempt(number))
        if job.cancel_requested_at is not None:
            await self._cancel()
        elif late:
            await self._expire()
        else:
            await self._delay.ask()

    # -- ending

    async def _ended(self, number: int, verdict: sg.AttemptVerdict, said: list[EventDraft]) -> None:
        """The attempt is over: the job settles, goes on with its other attempt, or tries again."""
        desk, job, catalogue, now = self._desk, self._desk.job, self._shop.catalogue, self._shop.clock.now()
        reader = await desk.attempts.finish(number)
        said = [*said, (event_mapping.attempt_finished(catalogue, job.attempt(number), verdict, now), number)]
        self._shop.access.heard(job.attempt(number).model, verdict)
        await self._tell_circuit(verdict.failure)
        words_of_it = await desk.message(number, reader.message)
        if verdict.block is not None:
            said += _without_block(desk.stop(Outcome.CANCELLED))
            await desk.settle(said, event_mapping.block_fact(verdict.block), words_of_it)
        elif verdict.outcome not in DELIVERED:
            failure = verdict.failure or Failure(verdict.outcome, "cancelled_upstream", "provider")
            await self._failed(number, failure, said, words_of_it, output_seen=verdict.first_output_seen)
        elif job.attempt(number).purpose is Purpose.DRAFT and desk.attempts.readers:
            draft = event_mapping.answer_of(verdict, str(reader.text))["output_text"]
            ready = ev.DraftReady(model=verdict.served_model or job.attempt(number).model)
            await desk.commit([*said, (ready, number)], await desk.content(draft=draft))
        else:
            await self._deliver(number, verdict, said, str(reader.text))

    async def _deliver(self, number: int, verdict: sg.AttemptVerdict, said: list[EventDraft], text: str) -> None:
        """The attempt's answer is the job's, unless the other attempt turns out to be blocked."""
        desk, job, catalogue, now = self._desk, self._desk.job, self._shop.catalogue, self._shop.clock.now()
        stopped = desk.stop(Outcome.CANCELLED)
        if stopped and isinstance(stopped[-1][0], ev.Blocked):
            await desk.settle([*said, *stopped], stopped[-1][0])
            return
        end = event_mapping.completion(job, catalogue, number, verdict, now)
        writes: list[Command] = []
        if isinstance(end[-1][0], ev.Completed):
            writes = await desk.content(**event_mapping.answer_of(verdict, text), draft=None)
        elif job.draft_attempt is not None:
            writes = await desk.content(draft=None)
        await desk.commit([*said, *stopped, *end], writes)
        await desk.attempts.cancel_upstream()

    async def _tell_circuit(self, failure: Failure | None) -> None:
        """An account at fault opens the circuit; a trial that met no such fault closes it."""
        circuit = self._shop.circuit
        try:
            if failure is not None and failure.scope == "account":
                if await circuit.trip(self._desk.job.id, failure.code):
                    emit("circuit.opened", code=failure.code, scope=circuit.scope)
            elif self._opening.trial:
                emit("circuit.closed", count=await circuit.close(), scope=circuit.scope)
                self._opening.trial = False
        except StoreUnavailable:
            pass  # the next job that meets the fault says it again; a trial's time runs out

    async def _failed(
        self, number: int, failure: Failure, said: list[EventDraft], kept: list[Command], *, output_seen: bool
    ) -> None:
        """No answer from this attempt: another one runs, stands in, comes later, or the job fails."""
        desk, job, shop = self._desk, self._desk.job, self._shop
        others = [n for n in desk.attempts.readers if job.attempt(n).purpose is not Purpose.DRAFT]
        if others or (job.attempt(number).purpose is Purpose.DRAFT and desk.attempts.readers):
            await desk.commit(said, kept)  # the other attempt decides
            return
        tried = retry.counted([a.outcome for a in job.attempts])
        now, denied = shop.clock.now(), shop.access.denied
        stand_in = event_mapping.access_fallback(
            job, shop.catalogue, failure, output_seen=output_seen, now=now, denied=denied
        )
        checked = event_mapping.check_signalled(job, number, said)
        said += desk.stop(Outcome.CANCELLED)  # a draft, if there is one
        if isinstance(said[-1][0], ev.Blocked):
            await desk.settle(said, said[-1][0], kept)
        elif failure.scope in retry.HELD_SCOPES and retry.resend_forbidden(failure, output_seen, checked) is None:
            await desk.commit([*said, self._opening.held_after(failure, number)], kept)
        elif stand_in is not None and tried < job.policy.max_attempts:
            model = stand_in.disclosure.served_model
            await self._opening.open([*said, (stand_in, number)], model, Purpose.FALLBACK, "access_denied")
        else:
            cuts = repeated_cuts(event_mapping.attempts_after(job, number, said, now))
            again = retry.decide(
                tried,
                job.policy.max_attempts,
                failure,
                output_seen,
                shop.clock.chance(),
                shop.clock.monotonic(),
                None,  # a deadline ends the job as expired, whatever it waits for
                earlier_same_code=sum(1 for a in job.attempts if a.error is not None and a.error.code == failure.code),
                check_signalled=checked,
                repeated_cuts=cuts.times if cuts is not None else 0,
            )
            if isinstance(again, retry.GiveUp):
                await desk.settle(said, ev.Failed(error=messages.final_error(failure, again.reason, cuts)), kept)
                return
            until = shop.clock.now() + timedelta(seconds=again.seconds)
            await desk.commit([*said, (ev.Scheduled(reason=ScheduledReason.BACKOFF, until=until), None)], kept)

    async def _cancel(self) -> None:
        """On request: ends every attempt, settles, and asks the provider to stop."""
        desk = self._desk
        billed = any(a.response_id for a in desk.job.attempts)
        error = messages.job_error("cancelled")
        under_way = bool(desk.attempts.readers)
        used = await desk.attempts.used_when_cancelled()
        end = ev.Cancelled(upstream_under_way=under_way, billed=billed, error=error)
        await desk.settle(desk.stop(Outcome.CANCELLED, used=used), end)

    async def _expire(self) -> None:
        """A deadline has passed."""
        desk, deadline = self._desk, deadline_of(self._desk.job)
        which = deadline.kind if deadline else "run_deadline"
        said = desk.stop(Outcome.TIMED_OUT)
        for attempt in desk.job.open_attempts:
            if attempt.number not in desk.attempts.readers:
                said += event_mapping.abort_attempt(
                    desk.job, attempt.number, Outcome.TIMED_OUT, 0, self._shop.catalogue
                )
        await desk.settle(said, ev.Expired(deadline=which, error=messages.job_error(which)))

    # -- letting go

    def _can_hand_over(self) -> bool:
        """True when another worker can take up every response where it stands."""
        attempts = [self._desk.job.attempt(number) for number in self._desk.attempts.readers]
        return all(a.mode == "background" and a.response_id for a in attempts)

    async def _hand_over(self) -> None:
        """Our own shutdown: the responses go on without us, and the next holder takes them up. No attempt is burnt."""
        desk = self._desk
        await self._shop.flusher.flush()
        said: list[EventDraft] = [
            (ev.CheckEnded(ended_by=CheckEnd.INTERRUPTED, repeats=check.repeats), check.attempt)
            for check in desk.job.open_checks
        ]
        for number, reader in desk.attempts.readers.items():
            if reader.text.safe and reader.watch.sequence is not None:
                said.append((ev.AttemptUpdated(sequence=reader.watch.sequence), number))
        await desk.commit([*said, (ev.Interrupted(worker=self._shop.worker_id), None)])

    async def _interrupt(self) -> None:
        """The time to drain is over: what can't be handed over is broken off and runs again; no attempt is counted."""
        if self._can_hand_over():
            await self._hand_over()
        else:
            await self._desk.settle(self._desk.stop(Outcome.INTERRUPTED), ev.Interrupted(worker=self._shop.worker_id))

    async def _leave_locked(self) -> None:
        """What was asked can't be read here. For want of a key the job waits, longer each time: another worker may have
        it, and one that runs already is left to it by lease. Content that was changed fails the job.
        """
        job, now = self._desk.job, self._shop.clock.now()
        if self._unreadable == "damaged":
            await self._give_up("content_unreadable")
        elif job.status not in UNDER_WAY:
            age = (now - job.created_at).total_seconds()
            until = now + timedelta(seconds=min(_LONGEST_LOCKED, max(_LOCKED, age / 4)))
            held = ev.Scheduled(
                reason=ScheduledReason.HOLD, until=until, hold_scope="encryption", hold_reason="encryption_key_missing"
            )
            await self._desk.commit([(held, None)])

    async def _give_up(self, code: str = "internal_error") -> None:
        """After a fault of ours: the job ends as failed and says so, if that can still be written."""
        for catalogue in (self._shop.catalogue, None):  # reckoning the costs may be what broke
            with contextlib.suppress(Exception):
                said: list[EventDraft] = []
                for attempt in self._desk.job.open_attempts:
                    said += event_mapping.abort_attempt(self._desk.job, attempt.number, Outcome.LOST, 0, catalogue)
                await self._desk.commit([*said, (ev.Failed(error=messages.job_error(code)), None)])
                await self._desk.attempts.cancel_upstream()  # nobody will read what it costs
                return


def _without_block(said: list[EventDraft]) -> list[EventDraft]:
    """The facts less a second block: the first one is the job's end already."""
    return [(fact, number) for fact, number in said if not isinstance(fact, ev.Blocked)]
