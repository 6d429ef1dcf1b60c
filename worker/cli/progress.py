"""What a line of progress needs to know of a job, told by its events alone. Pure; unknown events change nothing."""

from __future__ import annotations

from typing import Any, Final

from worker.client import Event
from worker.jobs import events as ev
from worker.jobs.states import Status

Shown = dict[str, Any]
"""A job in the API's words, as far as `show.sentence` reads it."""

_FREE: Final = {"reason": None, "hold": None, "next_attempt_at": None}


def after(job: Shown, event: Event) -> Shown:
    """The job after this event; the first event starts from nothing."""
    at, data = event.raw.get("at"), event.data
    match event.type:
        case ev.Queued.TYPE:
            asked = data.get("requested_model")
            return {"id": event.job_id, "status": Status.QUEUED, "created_at": at, "requested_model": asked}
        case ev.Scheduled.TYPE:
            hold = {"reason": data["hold_reason"]} if data.get("hold_reason") else None
            waiting = {"reason": data.get("reason"), "hold": hold, "next_attempt_at": data.get("until")}
            return job | {"status": Status.SCHEDULED, **waiting}
        case ev.Released.TYPE | ev.Interrupted.TYPE:
            return job | {"status": Status.QUEUED, **_FREE}
        case ev.Started.TYPE:
            return job | {"status": Status.RUNNING, "started_at": job.get("started_at") or at, **_FREE}
        case ev.AttemptStarted.TYPE:
            new = {"number": event.attempt, "started_at": at, **data}
            return job | {"attempts": [*(job.get("attempts") or []), new]}
        case ev.CheckStarted.TYPE | ev.CheckUpdated.TYPE | ev.CheckEnded.TYPE:
            return _checked(job, event)
        case ev.OfferMade.TYPE:
            return job | {"offer": data}
        case ev.OfferAccepted.TYPE | ev.OfferExpired.TYPE:
            return job | {"offer": None}
        case _ if event.terminal:
            return job | {"status": event.type.removeprefix("job.")}
        case _:
            return job


def _checked(job: Shown, event: Event) -> Shown:
    checks = list((job.get("safety") or {}).get("checks") or [])
    if event.type == ev.CheckStarted.TYPE:
        checks.append({"attempt": event.attempt, "started_at": event.raw.get("at"), **event.data})
    for place, check in enumerate(checks):
        if check["attempt"] == event.attempt and not check.get("ended_at"):
            ended = {"ended_at": event.raw.get("at")} if event.type == ev.CheckEnded.TYPE else {}
            checks[place] = check | event.data | ended
    running = any(not check.get("ended_at") for check in checks)
    return job | {"safety": {"checks": checks}, "status": Status.CHECKING if running else Status.RUNNING}
