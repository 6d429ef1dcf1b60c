"""Updates the fields of a job that a progress line shows from its events. Pure; unknown events change nothing."""

from __future__ import annotations

from typing import Any, Final

from worker.client import Event
from worker.jobs import events as ev
from worker.jobs.states import Status

JobView = dict[str, Any]
"""The fields of the API's job that `rendering.job_summary` reads."""

_NOT_WAITING: Final = {"reason": None, "hold": None, "next_attempt_at": None}


def apply_event(job: JobView, event: Event) -> JobView:
    """Return the job after this event; the first event makes a new one."""
    at, data = event.raw.get("at"), event.data
    match event.type:
        case ev.Queued.TYPE:
            requested = data.get("requested_model")
            return {"id": event.job_id, "status": Status.QUEUED, "created_at": at, "requested_model": requested}
        case ev.Scheduled.TYPE:
            hold = {"reason": data["hold_reason"]} if data.get("hold_reason") else None
            waiting = {"reason": data.get("reason"), "hold": hold, "next_attempt_at": data.get("until")}
            return job | {"status": Status.SCHEDULED, **waiting}
        case ev.Released.TYPE | ev.Interrupted.TYPE:
            return job | {"status": Status.QUEUED, **_NOT_WAITING}
        case ev.Started.TYPE:
            return job | {"status": Status.RUNNING, "started_at": job.get("started_at") or at, **_NOT_WAITING}
        case ev.AttemptStarted.TYPE:
            new = {"number": event.attempt, "started_at": at, **data}
            return job | {"attempts": [*(job.get("attempts") or []), new]}
        case ev.CheckStarted.TYPE | ev.CheckUpdated.TYPE | ev.CheckEnded.TYPE:
            return _apply_check(job, event)
        case ev.OfferMade.TYPE:
            return job | {"offer": data}
        case ev.OfferAccepted.TYPE | ev.OfferExpired.TYPE:
            return job | {"offer": None}
        case _ if event.terminal:
            return job | {"status": event.type.removeprefix("job.")}
        case _:
            return job


def _apply_check(job: JobView, event: Event) -> JobView:
    checks = list((job.get("safety") or {}).get("checks") or [])
    if event.type == ev.CheckStarted.TYPE:
        checks.append({"attempt": event.attempt, "started_at": event.raw.get("at"), **event.data})
    for place, check in enumerate(checks):
        if check["attempt"] == event.attempt and not check.get("ended_at"):
            ended = {"ended_at": event.raw.get("at")} if event.type == ev.CheckEnded.TYPE else {}
            checks[place] = check | event.data | ended
    running = any(not check.get("ended_at") for check in checks)
    return job | {"safety": {"checks": checks}, "status": Status.CHECKING if running else Status.RUNNING}
