"""Sums of what the partitions of a deployment say of themselves. Pure: each function takes one answer per partition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Final

from worker.safety.account import Counts, FamilyCounts, judge_account, judge_family
from worker.safety.notices import SafetyNotice
from worker.store.admission.circuit_breaker import OpenCircuit
from worker.store.admission.pace_state import MeterView, PacingView, WaitingView
from worker.store.admission.pauses import Pause
from worker.store.provider.account_state import AccountState
from worker.store.provider.request_counts import EndCounts, RequestBucket, RequestCounts
from worker.store.stats.app_counts import MAX_APPS, AppCounts
from worker.store.stats.metrics import ScaleDemand
from worker.store.stats.queue_depth import QueueDepths
from worker.store.stats.worker_registry import WorkerHeartbeat
from worker.telemetry.metrics import Sample

_PER_STORE: Final = "vigil_redis_"
_LARGEST: Final = frozenset(
    {
        "vigil_queue_oldest_age_seconds",
        "vigil_workers_alive",
        "vigil_workers_draining",
        "vigil_worker_slots_alive",
        "vigil_access_ok",
        "vigil_last_probe_timestamp_seconds",
        "vigil_circuits",
    }
)
"""Metrics that each partition gives for the whole: every worker reports to all of them, an account is one for all."""
_STATES: Final = ("normal", "elevated", "widened")


def queues(found: Sequence[QueueDepths]) -> QueueDepths:
    """Return the jobs of all by state, and the age of the oldest queued one."""
    ages = [one.oldest_queued_seconds for one in found if one.oldest_queued_seconds is not None]
    return QueueDepths(
        queued=sum(one.queued for one in found),
        scheduled=sum(one.scheduled for one in found),
        running=sum(one.running for one in found),
        checking=sum(one.checking for one in found),
        oldest_queued_seconds=max(ages, default=None),
    )


def names(found: Iterable[Sequence[str]]) -> list[str]:
    """Return all names once, in order."""
    return sorted({name for some in found for name in some})


def app_counts(found: Sequence[tuple[list[AppCounts], int]]) -> tuple[list[AppCounts], int]:
    """Return (the counts of the first apps by name, how many apps there are); an app is in one partition."""
    rows = sorted((one for some, _ in found for one in some), key=lambda one: one.app)
    return rows[:MAX_APPS], sum(count for _, count in found)


def workers(found: Iterable[Sequence[WorkerHeartbeat]]) -> list[WorkerHeartbeat]:
    """Return each worker once: it reports to every partition, and to each what runs of it."""
    out: dict[str, WorkerHeartbeat] = {}
    for one in (worker for some in found for worker in some):
        known = out.get(one["id"])
        out[one["id"]] = one if known is None else _one_worker(known, one)
    return [out[name] for name in sorted(out)]


def _one_worker(first: WorkerHeartbeat, second: WorkerHeartbeat) -> WorkerHeartbeat:
    circuits = [*first.get("circuits", []), *second.get("circuits", [])]
    merged: WorkerHeartbeat = {
        **first,
        "running": first["running"] + second["running"],
        "beat_at": max(first["beat_at"], second["beat_at"]),
        "draining": first["draining"] or second["draining"],
    }
    return {**merged, "circuits": list(dict.fromkeys(circuits))} if circuits else merged


def demand(found: Sequence[ScaleDemand], alive: Sequence[WorkerHeartbeat]) -> ScaleDemand:
    """Return the slots that would be busy now in all; `alive`: each worker once."""
    serving = [one for one in alive if not one.get("draining")]
    return ScaleDemand(
        wanted=sum(one.wanted for one in found),
        ready=sum(one.ready for one in found),
        running=sum(one.running for one in found),
        held=sum(one.held for one in found),
        workers=len(serving),
        slots=sum(one.get("slots", 0) for one in serving),
        held_back="circuit_open" if all(one.held_back for one in found) else None,
    )


def samples(found: Mapping[str, Sequence[Sample]]) -> list[Sample]:
    """Return the metrics of all, given by partition: those of a store with its name as a label, others summed."""
    out: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for partition, rows in found.items():
        for name, labels, value in rows:
            own = {**labels, "partition": partition} if name.startswith(_PER_STORE) else labels
            place = (name, tuple(sorted(own.items())))
            known = out.get(place)
            if known is None:
                out[place] = value
            elif name in _LARGEST or name == "vigil_account_state":
                out[place] = max(known, value)
            else:
                out[place] = known + value
    return _worst_state([(name, dict(labels), value) for (name, labels), value in out.items()])


def _worst_state(rows: Sequence[Sample]) -> list[Sample]:
    """Return the rows with one state of each account: the worst that a partition sees."""
    worst: dict[str, str] = {}
    for name, labels, value in rows:
        if name == "vigil_account_state" and value:
            account = labels["provider_account"]
            worst[account] = max(worst.get(account, "normal"), labels["account"], key=_STATES.index)
    return [
        (name, labels, worst.get(labels["provider_account"]) == labels["account"])
        if name == "vigil_account_state"
        else (name, labels, value)
        for name, labels, value in rows
    ]


def circuits(found: Iterable[Sequence[OpenCircuit]]) -> list[OpenCircuit]:
    """Return each circuit that is not closed in a partition, once; as open if it is that in one."""
    out: dict[str, OpenCircuit] = {}
    for one in (circuit for some in found for circuit in some):
        if one["scope"] not in out or one["state"] == "open":
            out[one["scope"]] = one
    return [out[scope] for scope in sorted(out)]


def pauses(found: Iterable[Sequence[Pause]]) -> list[Pause]:
    """Return each pause once: one of everything, of an app or of a model is in every partition."""
    out: dict[str, Pause] = {}
    for one in (pause for some in found for pause in some):
        out.setdefault(one.scope, one)
    return list(out.values())


def pacing(found: Sequence[PacingView]) -> PacingView:
    """Return of each account and model the meter that called last, for each learns by itself, and all that waits."""
    meters: dict[tuple[str, str], MeterView] = {}
    for one in (meter for some in found for meter in some["meters"]):
        place = (one["account"], one["model"])
        known = meters.get(place)
        if known is None or _at(one) > _at(known):
            meters[place] = one
    waiting: dict[tuple[str, str, str], WaitingView] = {}
    for row in (row for some in found for row in some["waiting"]):
        name = (row["reason"], row["account"] or "", row["model"] or "")
        before = waiting.get(name)
        times = [at for at in (row["next_at"], before and before["next_at"]) if at]
        jobs = row["jobs"] + (before["jobs"] if before is not None else 0)
        waiting[name] = {**row, "jobs": jobs, "next_at": min(times, default=None)}
    return {
        "meters": [meters[place] for place in sorted(meters)],
        "waiting": [waiting[name] for name in sorted(waiting)],
    }


def _at(meter: MeterView) -> float:
    return meter["last_call_at"].timestamp() if meter["last_call_at"] is not None else 0.0


def accounts(found: Sequence[Mapping[str, AccountState]]) -> dict[str, AccountState]:
    """Return the state of each account, judged by what all partitions counted together."""
    return {name: _account([some[name] for some in found]) for name in found[0]}


def _account(found: Sequence[AccountState]) -> AccountState:
    families: dict[str, FamilyCounts] = {}
    for name, (counts, _) in (row for one in found for row in one.families.items()):
        known = families.get(name, FamilyCounts())
        families[name] = FamilyCounts(
            known.hour + counts.hour,
            known.half_hour + counts.half_hour,
            known.before + counts.before,
            known.end_users + counts.end_users,  # an end user is of an app, which is in one partition
        )
    judged = {name: (counts, judge_family(counts)) for name, counts in sorted(families.items())}
    by_id: dict[str, SafetyNotice] = {}
    for notice in (notice for one in found for notice in one.notices):
        if not by_id.get(notice.id, notice).jobs:  # the partition that has the job knows most
            by_id[notice.id] = notice
    notices = sorted(by_id.values(), key=lambda notice: notice.received_at, reverse=True)
    verdict = judge_account({name: one for name, (_, one) in judged.items()}, Counter(one.type for one in notices))
    tallies = [one.tally for one in found]
    tally = RequestCounts(
        hour=_by_model(one.hour for one in tallies),
        half_hour=_by_model(one.half_hour for one in tallies),
        before=_by_model(one.before for one in tallies),
        ends=_ends(one.ends for one in tallies),
    )
    return AccountState(verdict, judged, notices, tally)


def _by_model(found: Iterable[Mapping[str, Counts]]) -> dict[str, Counts]:
    out: dict[str, Counts] = {}
    for model, counts in (row for one in found for row in one.items()):
        out[model] = out.get(model, Counts()) + counts
    return out


def _ends(found: Iterable[EndCounts]) -> EndCounts:
    return reduce(lambda one, other: EndCounts(*(a + b for a, b in zip(one, other, strict=True))), found, EndCounts())


def history(found: Iterable[Sequence[RequestBucket]]) -> list[RequestBucket]:
    """Return the counts of all in each bucket, oldest first."""
    out: dict[object, RequestBucket] = {}
    for one in (bucket for some in found for bucket in some):
        known = out.get(one.at)
        out[one.at] = (
            one
            if known is None
            else RequestBucket(one.at, known.requests + one.requests, _ends((known.ends, one.ends)))
        )
    return sorted(out.values(), key=lambda one: one.at)
