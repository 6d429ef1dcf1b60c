"""Compare what Redis holds of one job with its audit records: the record, the list of events. Pure.

The audit trail is signed and holds each event whole, so the record that Vigil wrote can be computed from it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from worker.audit.chain import AuditRow
from worker.jobs import fold
from worker.jobs.errors import VigilError
from worker.jobs.events import Event
from worker.jobs.record import Job

_EVENT: Final = ("seq", "type", "at", "job_id", "attempt", "data")
_IGNORED: Final = frozenset({"optional"})  # fields of other releases: no event holds them
OUTPUT_DIGEST: Final = "output_digest"
HOLD, RELEASE = "audit.hold", "audit.release"


def bodies_of(rows: Iterable[AuditRow]) -> list[dict[str, Any]]:
    """Return the audit records as JSON values, without those that are none: the trail's verification names them."""
    found = []
    for row in rows:
        try:
            body = json.loads(row.record)
        except (ValueError, RecursionError):
            continue
        if isinstance(body, dict):
            found.append(body)
    return found


def events_of(bodies: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the events that these audit records hold, without the notes among them."""
    return [{name: body.get(name) for name in _EVENT} for body in bodies if isinstance(body.get("seq"), int)]


def is_whole(events: Sequence[Mapping[str, Any]]) -> bool:
    """Return True when there are events, from the first on and without a gap."""
    return bool(events) and [event["seq"] for event in events] == list(range(1, len(events) + 1))


def replay(events: Sequence[dict[str, Any]]) -> Job | None:
    """Return the record that these events give, or None if this release can't say."""
    try:
        return fold.replay(Event.load(event) for event in events)
    except (VigilError, ValueError, LookupError, TypeError):
        return None


def record_differences(record: Job, expected: Job) -> list[str]:
    """Return the names of the record's fields that are not what its audit records give."""
    if record == expected:
        return []
    here, there = record.model_dump(mode="json"), expected.model_dump(mode="json")
    return [name for name in here if name not in _IGNORED and here[name] != there[name]]


def event_differences(stored: Sequence[Mapping[str, Any]], audited: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one text for each event that differs: the job's list of events against its audit records."""
    listed, known = {event["seq"]: event for event in stored}, {event["seq"]: event for event in audited}
    found = [f"event {seq} is missing" for seq in sorted(known.keys() - listed.keys())]
    found += [f"event {seq} has no audit record" for seq in sorted(listed.keys() - known.keys())]
    for seq in sorted(listed.keys() & known.keys()):
        names = [name for name in _EVENT if listed[seq].get(name) != known[seq].get(name)]
        if names:
            found.append(f"event {seq} differs in {', '.join(names)}")
    return found


def last_output_digest(bodies: Sequence[Mapping[str, Any]]) -> tuple[bool, str | None]:
    """Return (whether an audit record says what the answer is, its digest or None if it was deleted)."""
    for body in reversed(bodies):
        if OUTPUT_DIGEST in body:
            return True, body[OUTPUT_DIGEST]
    return False, None


def is_held(bodies: Iterable[Mapping[str, Any]]) -> bool | None:
    """Return whether a legal hold is in force by these audit records of its job or app; None if they say nothing."""
    return holds_of(bodies).get(None)


def holds_of(bodies: Iterable[Mapping[str, Any]]) -> dict[str | None, bool]:
    """Return whether holds are in force by these audit records: that of their job or app by None, those of its end
    users by safety identifier.
    """
    found: dict[str | None, bool] = {}
    for body in bodies:
        if body.get("type") in (HOLD, RELEASE):
            found[(body.get("data") or {}).get("safety_identifier")] = body["type"] == HOLD
    return found
