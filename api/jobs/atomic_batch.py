"""Submits the jobs of a batch together: all of them are accepted, or none is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from api.jobs.earlier_items import names_state
from api.jobs.request_digests import digests_of
from api.jobs.submission import JobRequest, new_job_of
from api.runtime.context import AppContext
from api.runtime.name_check import RequestNames
from api.schema.requests import BatchItem
from api.web.problems import Fault, Problem, bad_field, fault, problem_of
from api.web.rate_limit_headers import quota_of
from api.web.validation import validate
from worker.clock import to_ms
from worker.jobs import ids
from worker.jobs.errors import Refused
from worker.store.admission.rate_limit import RateMeter
from worker.store.apps import ApiKey
from worker.store.jobs.batch_creation import MAX_JOBS, JobOfBatchRefused
from worker.store.jobs.stored_job import NewJob, StoredJob
from worker.telemetry.tracing import publishing

_MAX_FAULTS: Final = 20
_PREFIX: Final = "grp"


class Sender(NamedTuple):
    """Who sends the batch, and how: its key, the meter of its app, the address that it used, and its trace."""

    key: ApiKey
    meter: RateMeter
    base: str
    trace: dict[str, str]
    idempotency_key: str | None
    named_group: str | None
    """The group that the batch names, if it does."""


def group_id(context: AppContext, app: str, given: str | None, idempotency_key: str | None) -> str:
    """Return the id of the batch's group: the given one, else the same one for each try with an idempotency key."""
    if given is not None:
        return given
    if idempotency_key is None:
        return ids.new_id(_PREFIX, to_ms(context.clock.now()), context.clock.random_bytes(ids.RANDOM_BYTES))
    return f"{_PREFIX}_{hashlib.sha256(f'{app} {idempotency_key}'.encode()).hexdigest()[:26]}"


def item_key(sender_key: str | None, item: BatchItem, index: int) -> str | None:
    """Return the idempotency key of a job of a batch: its own, else one derived from the batch's."""
    return item.idempotency_key or (f"{sender_key}/{index}" if sender_key is not None else None)


async def submit_whole(
    context: AppContext, sender: Sender, sent: Sequence[object], sizes: Sequence[int], names: RequestNames, group: str
) -> list[tuple[StoredJob, bool]]:
    """Return each job, and whether it existed already; all are durable then.

    Raises a Problem that names the jobs that are refused, and what `Jobs.submit_all` raises; then none was accepted.
    """
    _refuse_too_many(len(sent), sender.meter, quota_of(context.settings, sender.key).waiting or 0)
    items = _validated(sent, sender.idempotency_key)
    found, new = dict[int, tuple[StoredJob, bool]](), dict[int, NewJob]()
    with publishing(sender.trace) as (trace, published):
        for index, (item, size) in enumerate(zip(items, sizes, strict=True)):
            try:
                one = await _repeated_or_new(context, sender, item, size, index, names, trace, group)
            except (Problem, Refused) as error:
                raise _of_batch([(index, problem_of(error))], len(items)) from None
            if isinstance(one, StoredJob):
                found[index] = one, True
            else:
                new[index] = one
        try:
            made = await context.jobs.submit_all(list(new.values())) if new else []
        except JobOfBatchRefused as error:
            raise _of_batch([(list(new)[error.index], problem_of(error.refused))], len(items)) from None
        found |= zip(new, made, strict=True)
        published(found[0][0].job.id)
    return [found[index] for index in range(len(items))]


async def _repeated_or_new(
    context: AppContext,
    sender: Sender,
    item: BatchItem,
    size: int,
    index: int,
    names: RequestNames,
    trace: dict[str, str],
    group: str,
) -> StoredJob | NewJob:
    """Return the job to create, or the one of an earlier request if what that continued may have changed since."""
    key, idem = sender.key, item_key(sender.idempotency_key, item, index)
    digests = await digests_of(context, key.app, item, size, repeatable=idem is not None, group=sender.named_group)
    if idem is not None and names_state(item):
        repeated = await context.jobs.find_repeated(key.app, idem, digests.request)
        if repeated is not None:
            return repeated
    request = JobRequest(key, item, digests, trace, sender.meter, sender.base, idem, names=names, group=group)
    return await new_job_of(context, request, trace)


def _refuse_too_many(count: int, meter: RateMeter, waiting: int) -> None:
    """Raise a Problem (422) for a batch that can't be accepted at once, however long its app waits.

    `waiting`: how many jobs of the app may wait, 0 = any number.
    """
    if count > MAX_JOBS:
        raise bad_field("jobs", f"has {count} jobs; all_or_nothing takes at most {MAX_JOBS}")
    if meter.rate.interval_us and count > meter.rate.capacity:
        most = meter.rate.capacity
        raise bad_field("jobs", f"has {count} jobs, but the app's rate limit takes {most} at once: send fewer")
    if waiting and count > waiting:
        raise bad_field("jobs", f"has {count} jobs, but only {waiting} of the app may wait: send fewer")


def _validated(sent: Sequence[object], sender_key: str | None) -> list[BatchItem]:
    """Return the jobs; raise a Problem that names all invalid ones."""
    items, refused, used = list[BatchItem](), list[tuple[int, Problem]](), dict[str, int]()
    for index, one in enumerate(sent):
        try:
            item = validate(BatchItem, one)
            idem = item_key(sender_key, item, index)
            if idem is not None and used.setdefault(idem, index) != index:
                raise bad_field("idempotency_key", f"is that of job {used[idem]} too")
            items.append(item)
        except Problem as problem:
            refused.append((index, problem))
    if refused:
        raise _of_batch(refused, len(sent))
    return items


def _of_batch(refused: Sequence[tuple[int, Problem]], count: int) -> Problem:
    """Return the problem of a batch of which these jobs are refused, with pointers into the batch."""
    index, first = refused[0]
    errors: list[Fault] = []
    for number, problem in refused:
        found = problem.errors or [fault("", problem.detail, problem.code)]
        errors += [{**one, "pointer": f"/jobs/{number}{one['pointer']}"} for one in found]
    detail = f"None of the {count} jobs was accepted, because job {index} is refused: {first.detail}"
    return Problem(first.status, first.code, detail, errors[:_MAX_FAULTS], headers=first.headers)
