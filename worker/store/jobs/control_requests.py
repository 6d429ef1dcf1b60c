"""Requests of an app to whoever runs its job: cancel it, or continue on the offered model.

Each request is one commit: its event, the field `ctl` of the job, which the holder of the lease reads at its next
renewal, and a message on the control channel, which it reads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from worker.jobs import events as ev
from worker.jobs.billed import bill_of
from worker.jobs.errors import Refused
from worker.jobs.events import EventDraft
from worker.jobs.offer_terms import terms_digest
from worker.jobs.record import Job
from worker.jobs.states import UNDER_WAY, Outcome, Status
from worker.safety import messages
from worker.store import channels, keys
from worker.store.commands import Command
from worker.store.jobs.repository import Jobs

ControlRequest = Literal["cancel", "offer"]


class JobControl:
    """Requests to the holders of jobs."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def request_cancel(self, job_id: str, by: str) -> tuple[Job, bool]:
        """Return (the job, whether an upstream call was under way); `by` is the id of the API key.

        A waiting job is cancelled at once, the holder of a running one is requested to stop it, and a settled job is
        left as it is. A second request changes nothing.
        """

        def decide(job: Job) -> Sequence[EventDraft]:
            if job.settled or job.cancel_requested_at is not None:
                return []
            if job.status in UNDER_WAY or (job.open_attempts and job.status is Status.QUEUED):
                return [(ev.CancelRequested(by=by), None)]
            error = messages.job_error("cancelled")
            left = [(ev.AttemptFinished(outcome=Outcome.CANCELLED), a.number) for a in job.open_attempts]
            ended = [a.evolve(outcome=Outcome.CANCELLED) if a.outcome is None else a for a in job.attempts]
            end = ev.Cancelled(upstream_under_way=bool(left), **bill_of(ended), error=error, by=by)
            return [*left, (end, None)]

        job = await self._jobs.change(job_id, decide, writes=_unless_settled("cancel"))
        return job, await self._upstream_under_way(job)

    async def accept_offer(self, job_id: str, model: str | None, by: str) -> Job:
        """Accept the open offer of `model`, or of any model if it is None, and return the job.

        Raises Refused when the job has no such offer, and always after a block (promise P2).
        """

        def decide(job: Job) -> Sequence[EventDraft]:
            if job.status is Status.BLOCKED:
                detail = "The provider withheld this job's content; it is not tried again on any model."
                raise Refused("blocked", detail)
            if job.offer is None or model not in {None, job.offer.model}:
                detail = "The job has no open offer of this model; its field `offer` shows one while it is open."
                raise Refused("no_offer", detail)
            offer, digest = job.offer, terms_digest(job, job.offer)
            consent = ev.OfferAccepted(
                model=offer.model, by=by, policy_version=offer.policy_version, terms_digest=digest
            )
            return [(consent, None)]

        return await self._jobs.change(job_id, decide, writes=_unless_settled("offer"))

    async def _upstream_under_way(self, job: Job) -> bool:
        if job.status is Status.CANCELLED:
            trail = await self._jobs.trail(job.id)  # the last event need not be this one: content is removed later
            ends = [event for event in trail if event["type"] == ev.Cancelled.TYPE]
            return any(bool(event["data"].get("upstream_under_way")) for event in ends)
        return not job.settled and bool(job.open_attempts)


def control_commands(job_id: str, request: ControlRequest) -> list[Command]:
    """Return the commands that keep the request for the next renewal of the lease, and send it to the holder now."""
    return [("HSET", keys.job(job_id), "ctl", request), ("PUBLISH", channels.CONTROL, job_id)]


def _unless_settled(request: ControlRequest) -> Callable[[Job], list[Command]]:
    return lambda after: [] if after.settled else control_commands(after.id, request)
