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
from worker.store import codec, compression, keys
from worker.store.jobs.queue import RANK_STEP, RANKS
from worker.store.jobs.trail_rows import unfolded
from worker.store.record_mac import UNVERIFIED, RecordMacs, split
from worker.store.values import read, report_unreadable

_MAX_REMOVAL_ROUNDS: Final = 20  # rounds of removing unknown fields
_EVENT: Final = ("seq", "type", "at", "job_id", "attempt", "data")
_UNKNOWN: Final = "unknown"
_KEYLESS: Final = frozenset(
    one.TYPE for one in (ev.Scheduled, ev.Released, ev.CancelRequested, ev.Cancelled, ev.Expired)
)


def record_tag(macs: RecordMacs, job_id: str, version: int, raw: bytes, *, verified: bool = True) -> bytes:
    """Return what is stored beside a record to tell that Vigil wrote it: its version and its tag.

    `verified`: False for a record made from one that could not be checked. It gets no tag, which would vouch for that
    one; who has the key checks its events instead.
    """
    if not macs.enabled:
        return b""
    return b"%d %b" % (version, macs.tag(keys.job(job_id), raw) if verified else UNVERIFIED)


def read_job(macs: RecordMacs, job_id: str, raw: bytes | None, tag: bytes | None, version: bytes | None = None) -> Job:
    """Decode the record of this job. `tag`: the field `mac` beside it.

    Raises RecordUnreadable, also for a record that Vigil did not write, for that of another job, or of another version
    than the one stored beside it (it could never be changed).
    """
    key = keys.job(job_id)
    if raw and macs.enabled:
        tagged, space, tag_of_record = (tag or b"").partition(b" ")
        missing = not tag or (space and _is_older(raw, tagged))
        macs.check(key, key, raw, None if missing else tag_of_record or b"?")
    return read_unchecked(job_id, raw, version)


def read_unchecked(job_id: str, raw: bytes | None, version: bytes | None = None) -> Job:
    """Decode the record without its tag, whose key is not here: nothing of its content may be opened."""
    key = keys.job(job_id)
    job = read(key, record_json(job_id, raw or b""), codec.load_job)
    if job.id != job_id or (version is not None and version != str(job.version).encode()):
        raise RecordUnreadable(keys.job(job_id), "wrong_shape")
    return job


def record_json(job_id: str, raw: bytes) -> bytes:
    """Return the JSON of a record, compressed or not. Raises RecordUnreadable."""
    try:
        return compression.expand(raw)
    except compression.UnknownDictionary:
        raise RecordUnreadable(keys.job(job_id), "newer") from None
    except ValueError:
        raise RecordUnreadable(keys.job(job_id), "not_json") from None


def is_of_newer_dictionary(job_id: str, raw: bytes | None) -> bool:
    """Return whether only a newer release can read anything of this record, which is a settled job's."""
    try:
        return compression.is_compressed(raw or b"") and record_json(job_id, raw or b"") == b""
    except RecordUnreadable as error:
        return error.why == "newer"


def missing_key(macs: RecordMacs, tag: bytes | None) -> str | None:
    """Return the name of the master key that the field `mac` of a job needs and that is not here, or None."""
    return macs.missing_key((tag or b"").partition(b" ")[2])


def _is_older(raw: bytes, tagged: bytes) -> bool:
    """Return True when the tag is another version's: a release without tags wrote the record since, so it has none."""
    try:
        return int(tagged) != json.loads(compression.expand(raw))["version"]  # type: ignore[no-any-return]
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def salvage(job_id: str, raw: bytes) -> Job | None:
    """Return the record without the fields that this release does not know; None when that leaves no valid one."""
    try:
        body = json.loads(compression.expand(raw))
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


def stored_event(macs: RecordMacs, job_id: str, wire: dict[str, Any]) -> bytes:
    """Return the event as the job's list of events stores it."""
    return macs.attach(event_name(job_id), codec.dump_event(wire))


def parse_events(
    macs: RecordMacs, job_id: str, rows: Iterable[bytes], *, keyless_too: bool = False
) -> list[dict[str, Any]]:
    """The events of this job that can be read and that Vigil wrote, by seq.

    `keyless_too`: also those without a MAC of a key that is here, if a process writes them for a job that it can't
    read: they end the job or let it wait, so a forged one gains nothing.
    """
    found: dict[int, dict[str, Any]] = {}
    for row in unfolded(rows):
        try:
            body = json.loads(split(row)[0])
            try:
                macs.detach(keys.trail(job_id), event_name(job_id), row)
            except RecordUnreadable as error:
                if not keyless_too or error.why == "wrong_mac" or body.get("type") not in _KEYLESS:
                    report_unreadable(error)
                    continue
            if isinstance(body["seq"], int) and isinstance(body["data"], dict) and isinstance(body["type"], str):
                found[body["seq"]] = {name: body[name] for name in _EVENT}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
    return [found[seq] for seq in sorted(found)]


def event_name(job_id: str) -> str:
    """Return the name under which each event of the job has its MAC; its `seq` is inside."""
    return f"event:{job_id}"


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
