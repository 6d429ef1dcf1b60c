"""Starts the attempts of one run: pauses, the account and its circuit, the intent on record, then the call.

A crash between intent and call leaves a trace. A job that may not call is held, and has not started. The store refuses
the intent of a job whose end user is in quarantine, and that ends the job.
"""

from __future__ import annotations

import asyncio
import contextlib

from worker.jobs import events as ev
from worker.jobs.errors import EndUserQuarantined, Failure, VigilError
from worker.jobs.events import EventDraft
from worker.jobs.record import DisclosureReason
from worker.jobs.states import Outcome, Purpose
from worker.safety import event_mapping, messages, retry
from worker.safety.cost_cap import left_of_cap, plan_call
from worker.store.admission.circuit_breaker import CallPermission
from worker.store.admission.pacing import model_of_next_call
from worker.store.jobs.stored_job import ClaimedJob
from worker.tasks.account_connections import AccountConnection
from worker.tasks.execution.active_attempts import ActiveAttempts
from worker.tasks.execution.call_pacing import CallPacing
from worker.tasks.execution.context import RunContext
from worker.tasks.execution.holds import hold_for_circuit, hold_for_deployment, hold_for_pause
from worker.tasks.execution.run_recorder import RunRecorder
from worker.tasks.execution.settlement import settle
from worker.tasks.quarantine_end import quarantine_drafts
from worker.tasks.store_retry import retry_store


class AttemptStarter:
    """Starts the attempts of one run; `trial`: the account whose open circuit this run tests, if it does."""

    def __init__(
        self, context: RunContext, claimed: ClaimedJob, recorder: RunRecorder, attempts: ActiveAttempts
    ) -> None:
        self._context, self._recorder, self._attempts = context, recorder, attempts
        self._open_circuits, self._pause = claimed.open_circuits, claimed.pause
        self.pacing = CallPacing(context.pace, claimed.charge)
        self.trial: str | None = None

    async def start_next(self, drafts: list[EventDraft], *, after_lost: bool = False) -> None:
        """Start the next attempt, on the model that was tried last; or hold the job, or end it after enough attempts.

        `after_lost`: an attempt of a dead worker was lost, so the attempts are counted before another one is made.
        A model that is known to be denied is not called: another one replaces it, or the job ends with that denial.
        """
        recorder, job, context = self._recorder, self._recorder.job, self._context
        if self._pause is not None:
            recorder.tell(self.pacing.unused())
            await recorder.commit([*_without_start(drafts), hold_for_pause(self._pause)])
            return
        if job.rerun_root is not None and await context.jobs.is_series_blocked(job):  # since this rerun was submitted
            await settle(recorder, self._attempts, drafts, ev.Failed(error=messages.job_error("rerun_blocked")))
            return
        tried = any(a.purpose not in (Purpose.RACE, Purpose.DRAFT) for a in job.attempts)
        model = model_of_next_call(job)
        denial = context.accounts.skipped(job.app, model)
        substitute = await self._substitute() if denial else None
        if denial and substitute is None:
            recorder.tell(self.pacing.unused())
            await settle(recorder, self._attempts, drafts, ev.Failed(error=messages.job_error(denial.code)))
            return
        account = await self._account_of(substitute.disclosure.served_model if substitute is not None else model)
        permission = await self._permission(account)
        if permission.state == "open":
            hold = hold_for_circuit(account, permission.reason, permission.provider)
            recorder.tell(self.pacing.unused())
            await recorder.commit([*_without_start(drafts), hold])
            return
        self.trial = account.name if permission.state == "trial" else None
        if after_lost and retry.counted([a.outcome for a in job.attempts]) >= job.policy.max_attempts:
            await recorder.commit([*drafts, (ev.Failed(error=messages.job_error("attempts_exhausted")), None)])
            return
        try:
            if substitute is not None:
                model = substitute.disclosure.served_model
                await self.start([*drafts, (substitute, None)], model, Purpose.FALLBACK, "access_denied")
            else:
                await self.start(drafts, model, Purpose.RETRY if tried else Purpose.ORIGINAL)
        except EndUserQuarantined:  # in quarantine since the claim, and the sweep has not cancelled the job yet
            await self._attempts.close()  # nothing was sent
            await recorder.commit([*_without_start(drafts), *quarantine_drafts(job)])

    async def start(
        self, drafts: list[EventDraft], model: str, purpose: Purpose, because: DisclosureReason | None = None
    ) -> None:
        """Record the intent and make the call; or fail the job before it costs more than its cap."""
        recorder, attempts, context = self._recorder, self._attempts, self._context
        job, request, fault = recorder.job, None, None
        account = await self._account_of(model)
        try:
            request = await attempts.request()
        except VigilError as error:
            fault = error  # raised once the intent is on record
        plan = plan_call(
            context.catalogue,
            model,
            attempts.shape,
            context.clock.now(),
            left=left_of_cap(job, drafts),
            regional=account.regional,
        )
        if request is not None and not plan.fits:
            stopped = attempts.stop(job, Outcome.CANCELLED)
            end = ev.Failed(error=messages.job_error("cost_limit"))
            recorder.tell(self.pacing.unused())
            await settle(recorder, attempts, [*drafts, *stopped], end)
            return
        number = len(job.attempts) + 1
        intent = ev.AttemptStarted(
            model=model,
            purpose=purpose,
            because=because,
            mode=account.mode,
            client_request_id=f"{job.id}-{number}",
            proxied=account.provider.proxy is not None,
            account=account.name,
            terms=plan.terms,
        )
        recorder.tell(self.pacing.begin(number, model, account.name, attempts.shape))
        go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        recording = asyncio.ensure_future(recorder.commit([*drafts, (intent, number)]))
        try:
            if request is not None:  # connect while the intent is written; nothing is sent before it is
                attempts.start(job, event_mapping.intended_attempt(intent, number, context.clock.now()), request, go)
        finally:
            await recording
        if fault is not None:
            raise fault
        go.set_result(None)
        if request is None:
            job = recorder.job
            ended = event_mapping.abort_attempt(job, number, Outcome.BAD_REQUEST, 0, context.catalogue)
            stopped = attempts.stop(job, Outcome.CANCELLED)
            end = ev.Failed(error=messages.job_error("content_unreadable"))
            await settle(recorder, attempts, [*stopped, *ended], end)

    async def _substitute(self) -> ev.ModelSubstituted | None:
        """Return the switch to the next model of the chain that is not denied and takes the request's effort."""
        context = self._context
        with contextlib.suppress(VigilError):  # a request that can't be read fails when its intent is on record
            await self._attempts.request()
        return event_mapping.next_in_chain(
            self._recorder.job,
            context.catalogue,
            context.accounts.denied(self._recorder.job.app),
            context.clock.now(),
            self._attempts.shape.effort,
        )

    async def _account_of(self, model: str) -> AccountConnection:
        """Return the account that a call of this model goes through.

        A request that names state of the provider stays with the account of its first attempt, which has that state.
        """
        context, job = self._context, self._recorder.job
        bound = context.accounts.of(job.app, model)
        if not job.attempts or job.attempts[0].account == bound.name:
            return bound
        first = context.accounts.named(job.attempts[0].account)
        return first if first is not None and await self._attempts.names_state() else bound

    def hold_after(self, failure: Failure, number: int) -> EventDraft:
        """Return the fact that the job waits after attempt `number` failed.

        It waits for the account's circuit; or, if only the deployment of its model is at fault, for a time of its own,
        so that jobs of other models go on.
        """
        job, context = self._recorder.job, self._context
        if failure.scope == "deployment":
            return hold_for_deployment(job, number, failure, context.clock.now(), context.clock.random())
        attempt = job.attempt(number)
        account = context.accounts.named(attempt.account) or context.accounts.of(job.app, attempt.model)
        return hold_for_circuit(account, failure.code, failure.provider)

    async def _permission(self, account: AccountConnection) -> CallPermission:
        """Return whether the account's circuit lets this job call; a claim says whether there is anything to ask."""
        if account.circuit.scope not in self._open_circuits:
            return CallPermission("closed")
        return await retry_store(lambda: account.circuit.gate(self._recorder.job.id))


def _without_start(drafts: list[EventDraft]) -> list[EventDraft]:
    """Return the facts without `Started`: a job that is held has not started."""
    return [draft for draft in drafts if not isinstance(draft[0], ev.Started)]
