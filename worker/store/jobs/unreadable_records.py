"""Recover what is known of a job whose record or events can't be read. Pure.

A record is read strictly: a field that this release does not know may mean anything, and is not guessed. What is
recovered here serves to show a job and to settle it, never to run it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from worker.clock import from_ms
from worker.jobs import events as ev, fold, ids
from worker.jobs.errors import RecordUnreadable, VigilError
from worker.jobs.record import Job
from worker.jobs.spec import Policy, Priority
from worker.jobs.states import Status
from worker.store import codec, keys
from worker.store.jobs.queue import RANK_STEP, RANKS
from worker.store.values import read

_MAX_REMOVAL_ROUNDS: Final = 20  # rounds of removing unknown fields
_EVENT: Final = ("seq", "type", "at", "job_id", "attempt", "data")
_UNKNOWN: Final = "unknown"


def read_job(job_id: str, raw: bytes, version: bytes | None = None) -> Job:
    """Decode the record of this job. Raises RecordUnreadable, also for the record of another job, or of another version
    than the one stored beside it (it could never be changed).
    """
    job = read(keys.job(job_id), raw or b"", codec.load_job)
    if job.id != job_id or (version is not None and version != str(job.version).encode()):
        raise RecordUnreadable(keys.job(job_id), "wrong_shape")
    return job


def salvage(job_id: str, raw: bytes) -> Job | None:
    """Return the record without the fields that this release does not know; None when that leaves no valid one."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    for _ in range(_MAX_REMOVAL_ROUNDS):
        try:
            job = Job.model_validate_json(json.dumps(body))
        except ValidationError as error:
            if not _remove_unknown(body, error):
                return None
        except (ValueError, RecursionError):
            return None
        else:
            return job if job.id == job_id else None
    return None


def _remove_unknown(body: Any, error: ValidationError) -> bool:
    """Remove unknown fields from the body; return False when something else is wrong with it."""
    for row in error.errors(include_input=False, include_url=False, include_context=False):
        *path, last = row["loc"] or ("",)
        here = body
        try:
            for step in path:
                here = here[step]
            if row["type"] == "extra_forbidden":
                del here[last]
            elif last == "schema_number":
                here[last] = 1
            else:
                return False
        except (LookupError, TypeError):
            return False
    return True


def parse_events(rows: Iterable[bytes]) -> list[dict[str, Any]]:
    """The events that can be read, by seq."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        try:
            body = json.loads(row)
            if isinstance(body["seq"], int) and isinstance(body["data"], dict) and isinstance(body["type"], str):
                found[body["seq"]] = {name: body[name] for name in _EVENT}
        except (ValueError, LookupError, TypeError, RecursionError):
            continue
    return [found[seq] for seq in sorted(found)]


def is_complete(events: list[dict[str, Any]]) -> bool:
    """Return True when there are events, from the first on and without a gap."""
    return bool(events) and [one["seq"] for one in events] == list(range(1, len(events) + 1))


def replay_events(job_id: str, events: list[dict[str, Any]]) -> Job | None:
    """Return the record that a job's events give; None when they have gaps or can't be parsed."""
    if not is_complete(events):
        return None
    try:
        job = fold.replay(ev.Event.load(body) for body in events)
    except (VigilError, ValueError, LookupError, TypeError):
        return None
    return job if job.id == job_id else None


def minimal_record(job_id: str, known: Mapping[str, bytes | None], first: Mapping[str, Any] | None) -> Job | None:
    """Return a record made of the fields that scripts read and the first audit record; None without an app."""
    first_data = dict((first or {}).get("data") or {})
    stops = (known.get("stops") or b"").decode(errors="replace").split("\0")
    app = (known.get("app") or b"").decode(errors="replace") or str((first or {}).get("app") or "")
    model = next((one.removeprefix("pause:model:") for one in stops if one.startswith("pause:model:")), None)
    person = next((one.removeprefix("pause:end_user:") for one in stops if one.startswith("pause:end_user:")), None)
    if not app:
        return None
    events = first_data.get("webhook_events")
    return Job(
        id=job_id,
        version=1,
        app=app,
        key_id=str(first_data.get("key_id") or _UNKNOWN),
        requested_model=model or str(first_data.get("requested_model") or _UNKNOWN),
        policy=Policy(),
        priority=_priority(known.get("rank")),
        safety_identifier=person or first_data.get("safety_identifier"),
        input_digest=None,
        not_before=None,
        webhook_events=tuple(str(name) for name in events) if isinstance(events, list) else (),
        created_at=from_ms(ids.time_ms(job_id)),
        status=Status.QUEUED,
    )


def _priority(rank: bytes | None) -> Priority:
    try:
        number = int(float(rank or b"")) // RANK_STEP
    except (ValueError, OverflowError):
        return "default"
    names: dict[int, Priority] = {RANKS["high"]: "high", RANKS["low"]: "low"}
    return names.get(number, "default")
