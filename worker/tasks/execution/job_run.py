"""One wake-up of one job, from the claim until this worker lets go: read the inbox, commit, decide.

The only loop that drives attempts. Whatever happens arrives as a message in one inbox, so nothing here races with
itself; every change is one commit, fenced by the lease. Must not import Redis or the provider's SDK: the recorder and
the attempts stand in between.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta

from worker.jobs import events as ev
from worker.jobs.billed import bill_of
from worker.jobs.deadline import deadline_of
from worker.jobs.errors import AlreadySettled, ContentDamaged, Failure, LeaseLost, RecordUnreadable, StoreUnavailable
from worker.jobs.events import EventDraft
from worker.jobs.states import DELIVERED, UNDER_WAY, Outcome, Purpose, ScheduledReason
from worker.safety import classify, event_mapping, messages, retry, signals as sg
from worker.safety.connection_cuts import repeated_cuts
from worker.safety.end_causes import expiry_error
from worker.store.connection.capacity import ALWAYS_TAKEN
from worker.store.jobs.stored_job import ClaimedJob, OutputChange
from worker.store.values import report_unreadable
from worker.tasks.account_connections import AccountConnection
from worker.tasks.execution.active_attempts import ActiveAttempts, check_to_resume
from worker.tasks.execution.attempt_start import AttemptStarter
from worker.tasks.execution.context import RunContext
from worker.tasks.execution.delay_rule import DelayRule
from worker.tasks.execution.holds import hold_for_account, hold_for_key, interrupt_checks, resumable_attempts
from worker.tasks.execution.inbox import Control, Inbox, Message, ResponseEnded, SignalsReady
from worker.tasks.execution.run_recorder import RunRecorder
from worker.tasks.execution.settlement import settle
from worker.telemetry.events import emit, event_context
from worker.telemetry.internal_errors import report_internal_error
from worker.telemetry.job_events import trace_id
from worker.telemetry.tracing import processing


class JobRun:
    """One wake-up of a job. `await run()` returns when the job is settled, waits, or has another holder."""

    def __init__(self, context: RunContext, claimed: ClaimedJob) -> None:
        self._context, self._claimed = context, claimed
        self._inbox = Inbox()
        self._recorder = RunRecorder(context, claimed)
        self._attempts = ActiveAttempts(context, claimed, self._inbox)
        self._starter = AttemptStarter(context, claimed, self._recorder, self._attempts)
        self._delay = DelayRule(context, self._recorder, self._attempts, self._starter)
        self._draining = False

    def notify(self, message: Message) -> None:
        """Put a message into the run's inbox."""
        self._inbox.put(message)

    # -- the loop

    async def __call__(self) -> None:
        """Run the job as far as it goes. Raises nothing but CancelledError."""
        job, worker_id = self._recorder.job, self._context.worker_id
        waited = (self._context.clock.now() - (job.next_attempt_at or job.created_at)).total_seconds()
        with (
            event_context(job_id=job.id, app=job.app, worker=worker_id, trace_id=trace_id(job.trace)),
            processing(job, self._claimed.generation, max(0.0, waited), worker_id),
        ):
            await self._run()

    async def _run(self) -> None:
        claimed, job_id = self._claimed, self._recorder.job.id
        self._context.leases.add(job_id, claimed.token, self._inbox)
        try:
            if claimed.unreadable:
                await self._leave_unreadable(claimed.unreadable)
                return
            await self._hold_without_account()
            if not self._recorder.done:
                await self._begin()
            while not self._recorder.done:
                await self._step(await self._messages())
        except LeaseLost:
            emit("lease.lost", job_id=job_id, generation=claimed.generation)
        except AlreadySettled as settled:
            emit("job.settled_elsewhere", job_id=job_id, status=settled.status)
        except RecordUnreadable as error:
            report_unreadable(error)
            await self._give_up("record_unreadable")
        except ContentDamaged:
            emit("content.damaged", job_id=job_id)
            await self._give_up("content_unreadable")
        except Exception as error:  # noqa: BLE001  an internal error must not leave the job without an end
            report_internal_error("run.broke", error, job_id=job_id)
            await self._give_up()
        finally:
            self._context.leases.release(job_id, claimed.token)
            await self._attempts.close()

    async def _messages(self) -> list[Message]:
        """Return what is in the inbox; wait for the next message, the next tick or the deadline if it is empty."""
        now = self._context.clock.monotonic()
        wait = min(min(self._attempts.next_tick(), self._delay.at) - now, self._recorder.seconds_to_deadline())
        first = await self._inbox.get(wait)
        if first is None:
            self._attempts.tick()
            return self._inbox.drain()
        return [first, *self._inbox.drain()]

    async def _step(self, messages: list[Message]) -> None:
        """Commit the facts behind these messages, carry out the requests among them, and decide what is next."""
        recorder = self._recorder
        drafts: list[EventDraft] = []
        for message in messages:
            if isinstance(message, SignalsReady):
                drafts = await self._observe(message.number, drafts)
            else:
                await recorder.commit(await self._delay.with_plan(drafts))
                drafts = []
                await self._handle(message)
            if recorder.done:
                return
        await recorder.commit(await self._delay.with_plan(drafts))
        if self._draining and self._can_hand_over():
            await self._hand_over()
        elif recorder.seconds_to_deadline() <= 0:
            await self._expire()
        else:
            await self._delay.apply()

    async def _observe(self, number: int, drafts: list[EventDraft]) -> list[EventDraft]:
        """Take the signals of attempt `number`; return `drafts` with their facts, [] once all are committed."""
        reader = self._attempts.readers.get(number)
        for signal in reader.take() if reader is not None else ():
            if isinstance(signal, sg.AttemptEnded):
                await self._attempt_ended(number, signal.verdict, drafts)
                return []
            if isinstance(signal, sg.ResponseKnown) and signal.rate_limits is not None:
                self._recorder.tell(self._starter.pacing.answered(number, signal.rate_limits))
            self._delay.observe(number, signal)
            drafts += self._attempts.drafts_of(number, signal)
        return drafts

    async def _handle(self, message: ResponseEnded | Control) -> None:
        match message:
            case ResponseEnded(response_id):
                self._attempts.check_now(response_id)
            case Control.CANCEL:
                await self._cancel()
            case Control.OFFER:
                await self._recorder.reload()
            case Control.DRAIN:
                self._draining = True
            case Control.INTERRUPT:
                await self._interrupt()
            case Control.READER_CHANGED:
                error = self._attempts.error()
                if error is not None:
                    raise error
            case Control.LEASE_LOST:
                raise LeaseLost(self._recorder.job.id)
            case Control.UNKNOWN:
                emit("control.unknown", job_id=self._recorder.job.id)

    # -- beginning

    async def _hold_without_account(self) -> None:
        """Hold a job whose response runs with an account that this worker does not have, unless the job must end.

        It runs on at the provider; the job is looked at again later, less and less often.
        """
        recorder, job, context = self._recorder, self._recorder.job, self._context
        absent = [a.account for a in resumable_attempts(job) if context.accounts.named(a.account) is None]
        if absent and job.cancel_requested_at is None and recorder.seconds_to_deadline() > 0:
            emit("account.missing", job_id=job.id, account=absent[0])
            await recorder.commit(hold_for_account(job, context.clock.now(), absent[0]))

    async def _begin(self) -> None:
        """Resume what an earlier holder left running, else start the next attempt; or end a job that may not go on."""
        recorder, job, context = self._recorder, self._recorder.job, self._context
        holder = {"worker": context.worker_id, "generation": self._claimed.generation}
        drafts: list[EventDraft] = [(ev.Rescued(**holder) if job.status in UNDER_WAY else ev.Started(**holder), None)]
        late = recorder.seconds_to_deadline() <= 0
        resumable = [a.number for a in resumable_attempts(job) if context.accounts.named(a.account) is not None]
        for attempt in job.open_attempts:
            check = check_to_resume(job, attempt.number)
            if attempt.number not in resumable:
                tokens = await self._attempts.estimate_tokens(attempt.number)
                drafts += event_mapping.abort_attempt(job, attempt.number, Outcome.LOST, tokens, context.catalogue)
            elif check is not None and check.ended_at is not None:
                drafts.append((event_mapping.restart_check(check), attempt.number))
        if not resumable and not late and job.cancel_requested_at is None:
            if job.open_attempts:  # what a lost attempt has cost counts before another one is made
                await recorder.commit(drafts)
                drafts = []
            await self._starter.start_next(drafts, after_lost=bool(job.open_attempts))
            return
        if late and job.status not in UNDER_WAY and not resumable:
            drafts = drafts[1:]  # it never started: its queue deadline has passed
        await recorder.commit(drafts)
        for number in resumable:
            await self._attempts.resume(recorder.job, recorder.job.attempt(number))
        if job.cancel_requested_at is not None:
            await self._cancel()
        elif late:
            await self._expire()
        else:
            await self._delay.apply()

    # -- ending

    async def _attempt_ended(self, number: int, verdict: sg.AttemptVerdict, drafts: list[EventDraft]) -> None:
        """Settle the job after an attempt has ended, or go on with its other attempt, or try again."""
        recorder, job, context = self._recorder, self._recorder.job, self._context
        now = context.clock.now()
        reader = await self._attempts.finish(number)
        drafts = [
            *drafts,
            (event_mapping.attempt_finished(context.catalogue, job, number, verdict, now), number),
        ]
        recorder.tell(self._starter.pacing.ended(number, verdict))
        account = context.accounts.named(job.attempt(number).account)
        if account is not None:
            account.access.observe(job.attempt(number).model, verdict)
            await self._update_circuit(account, verdict.failure)
        output = await recorder.add_provider_message(number, await self._attempts.provider_message(job, reader))
        if verdict.block is not None:
            drafts += _without_block(self._attempts.stop(recorder.job, Outcome.CANCELLED))
            await settle(recorder, self._attempts, drafts, event_mapping.block_fact(verdict.block), output)
        elif verdict.outcome not in DELIVERED:
            failure = verdict.failure or Failure(verdict.outcome, "cancelled_upstream", "provider")
            await self._attempt_failed(number, failure, drafts, output, output_seen=verdict.first_output_seen)
        elif job.attempt(number).purpose is Purpose.DRAFT and self._attempts.readers:
            draft = event_mapping.answer_of(verdict, str(reader.text))["output_text"]
            ready = ev.DraftReady(model=verdict.served_model or job.attempt(number).model)
            await recorder.commit([*drafts, (ready, number)], await recorder.update_content(draft=draft))
        else:
            await self._deliver(number, verdict, drafts, str(reader.text))

    async def _deliver(self, number: int, verdict: sg.AttemptVerdict, drafts: list[EventDraft], text: str) -> None:
        """Complete the job with this attempt's answer, unless the other attempt turns out to be blocked."""
        recorder, job, now = self._recorder, self._recorder.job, self._context.clock.now()
        stopped = self._attempts.stop(recorder.job, Outcome.CANCELLED)
        if stopped and isinstance(stopped[-1][0], ev.Blocked):
            await settle(recorder, self._attempts, [*drafts, *stopped], stopped[-1][0])
            return
        end = event_mapping.completion(job, self._context.catalogue, number, verdict, now)
        output: OutputChange | None = None
        if isinstance(end[-1][0], ev.Completed):
            answer = event_mapping.answer_of(verdict, text)
            output = await recorder.update_content(**answer)  # with the superseded draft, if there is one
            if job.draft_attempt is not None and output.size > ALWAYS_TAKEN:
                output = await recorder.update_content(**answer, draft=None)  # it must not cost the answer its place
        elif job.draft_attempt is not None:
            output = await recorder.update_content(draft=None)
        await recorder.commit([*drafts, *stopped, *end], output)
        await self._attempts.cancel_upstream()

    async def _update_circuit(self, account: AccountConnection, failure: Failure | None) -> None:
        """Open the account's circuit if it is at fault; close it if this trial of it met no such fault."""
        circuit = account.circuit
        try:
            if failure is not None and failure.scope == "account":
                if await circuit.trip(self._recorder.job.id, failure.code, failure.provider):
                    emit("circuit.opened", account=account.name, code=failure.code, scope=circuit.scope)
            elif self._starter.trial == account.name:
                emit("circuit.closed", account=account.name, count=await circuit.close(), scope=circuit.scope)
                self._starter.trial = None
        except StoreUnavailable:
            pass  # the next job that meets the fault opens it; a trial ends by its time limit

    async def _attempt_failed(
        self, number: int, failure: Failure, drafts: list[EventDraft], output: OutputChange | None, *, output_seen: bool
    ) -> None:
        """Go on after an attempt without an answer: the other attempt, another model, a retry later, or the end."""
        recorder, job, context = self._recorder, self._recorder.job, self._context
        others = [n for n in self._attempts.readers if job.attempt(n).purpose is not Purpose.DRAFT]
        if others or (job.attempt(number).purpose is Purpose.DRAFT and self._attempts.readers):
            await recorder.commit(drafts, output)  # the other attempt decides
            return
        checked = event_mapping.check_signalled(job, number, drafts)
        if checked and not classify.names_cause(failure):
            failure = classify.after_check(failure)
        tried = retry.counted([a.outcome for a in job.attempts])
        now, denied = context.clock.now(), context.accounts.denied(job.app)
        substitute = event_mapping.access_fallback(
            job,
            context.catalogue,
            failure,
            output_seen=output_seen,
            now=now,
            denied=denied,
            effort=self._attempts.shape.effort,
        )
        drafts += self._attempts.stop(recorder.job, Outcome.CANCELLED)  # a draft, if there is one
        if isinstance(drafts[-1][0], ev.Blocked):
            await settle(recorder, self._attempts, drafts, drafts[-1][0], output)
        elif failure.scope in retry.HELD_SCOPES and retry.resend_forbidden(failure, output_seen, checked) is None:
            await recorder.commit([*drafts, self._starter.hold_after(failure, number)], output)
        elif substitute is not None and tried < job.policy.max_attempts:
            model = substitute.disclosure.served_model
            await self._starter.start([*drafts, (substitute, number)], model, Purpose.FALLBACK, "access_denied")
        else:
            cuts = repeated_cuts(event_mapping.attempts_after(job, number, drafts, now))
            again = retry.decide(
                tried,
                job.policy.max_attempts,
                failure,
                output_seen,
                context.clock.random(),
                context.clock.monotonic(),
                None,  # a deadline ends the job as expired, whatever it waits for
                earlier_same_code=sum(1 for a in job.attempts if a.error is not None and a.error.code == failure.code),
                check_signalled=checked,
                repeated_cuts=cuts.times if cuts is not None else 0,
            )
            if isinstance(again, retry.GiveUp):
                end = ev.Failed(error=messages.final_error(failure, again.reason, cuts))
                await settle(recorder, self._attempts, drafts, end, output)
                return
            until = context.clock.now() + timedelta(seconds=again.seconds)
            await recorder.commit([*drafts, (ev.Scheduled(reason=ScheduledReason.BACKOFF, until=until), None)], output)

    async def _cancel(self) -> None:
        """End the job as cancelled, with every attempt, and ask the provider to stop."""
        recorder = self._recorder
        error = messages.job_error("cancelled")
        under_way = bool(self._attempts.readers)
        used = await self._attempts.cancel_and_get_usage()
        drafts = self._attempts.stop(recorder.job, Outcome.CANCELLED, used=used)
        bill = bill_of(event_mapping.preview(recorder.job, drafts, self._context.clock.now()).attempts)
        end = ev.Cancelled(upstream_under_way=under_way, **bill, error=error)
        await settle(recorder, self._attempts, drafts, end)

    async def _expire(self) -> None:
        """End the job because its deadline has passed."""
        recorder, deadline = self._recorder, deadline_of(self._recorder.job)
        which = deadline.kind if deadline else "run_deadline"
        drafts = self._attempts.stop(recorder.job, Outcome.TIMED_OUT)
        for attempt in recorder.job.open_attempts:
            if attempt.number not in self._attempts.readers:
                drafts += event_mapping.abort_attempt(
                    recorder.job, attempt.number, Outcome.TIMED_OUT, 0, self._context.catalogue
                )
        end = ev.Expired(deadline=which, error=expiry_error(recorder.job, which))
        await settle(recorder, self._attempts, drafts, end)

    # -- letting go

    def _can_hand_over(self) -> bool:
        """Return whether another worker can resume every response where it is now."""
        attempts = [self._recorder.job.attempt(number) for number in self._attempts.readers]
        return all(a.mode == "background" and a.response_id for a in attempts)

    async def _hand_over(self) -> None:
        """Let go at a shutdown: the responses go on upstream, and the next holder resumes them. No attempt is lost."""
        recorder = self._recorder
        await self._context.flusher.flush()
        drafts = interrupt_checks(recorder.job)
        drafts += self._attempts.cursor_drafts()
        await recorder.commit([*drafts, (ev.Interrupted(worker=self._context.worker_id), None)])

    async def _interrupt(self) -> None:
        """Let go now that the time to drain is over: what can't be handed over is stopped and runs again, uncounted."""
        if self._can_hand_over():
            await self._hand_over()
        else:
            drafts = self._attempts.stop(self._recorder.job, Outcome.INTERRUPTED)
            end = ev.Interrupted(worker=self._context.worker_id)
            await settle(self._recorder, self._attempts, drafts, end)

    async def _leave_unreadable(self, reason: str) -> None:
        """Let go of a job whose request can't be read here.

        If the key is missing, the job waits, longer each time: another worker may have the key; a running job is left
        to such a worker by letting its lease run out. If the content was changed, the job fails.
        """
        job = self._recorder.job
        if reason == "damaged":
            await self._give_up("content_unreadable")
        elif job.status not in UNDER_WAY:
            await self._recorder.commit([hold_for_key(job, self._context.clock.now())])

    async def _give_up(self, code: str = "internal_error") -> None:
        """Fail the job after an internal error, if that can still be written."""
        for catalogue in (self._context.catalogue, None):  # computing the cost may be what raised
            with contextlib.suppress(Exception):
                drafts: list[EventDraft] = []
                for attempt in self._recorder.job.open_attempts:
                    drafts += event_mapping.abort_attempt(
                        self._recorder.job, attempt.number, Outcome.LOST, 0, catalogue
                    )
                await self._recorder.commit([*drafts, (ev.Failed(error=messages.job_error(code)), None)])
                await self._attempts.cancel_upstream()  # its cost is not recorded any more
                return


def _without_block(drafts: list[EventDraft]) -> list[EventDraft]:
    """Return the facts without a second block: the first one ends the job."""
    return [(fact, number) for fact, number in drafts if not isinstance(fact, ev.Blocked)]
