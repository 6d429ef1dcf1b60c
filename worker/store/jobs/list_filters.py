"""The filters of a list of jobs: what they are, which indexes they need, and whether a job fits them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from worker.jobs import ids
from worker.jobs.record import Job
from worker.store import keys
from worker.store.jobs.search_terms import (
    CODE,
    GROUP,
    RERUN,
    SERVED,
    codes_of,
    indexes_of_terms,
    metadata_term,
    value_term,
)
from worker.store.jobs.stored_job import StoredJob


@dataclass(frozen=True, slots=True)
class ListFilters:
    """The filters of a list; a job must fit all of them.

    `created_after` is inclusive, `created_before` exclusive.
    """

    statuses: tuple[str, ...] = ()  # one of them; () = any
    model: str | None = None  # as requested
    served_model: str | None = None
    code: str | None = None  # of the error or the block, Vigil's own or the provider's
    safety_identifier: str | None = None
    metadata: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # pairs, each of which the job must have
    request_id: str | None = None  # the provider's, of any attempt
    response_id: str | None = None  # the provider's, of any attempt; or the job's own in the OpenAI-compatible API
    rerun_root: str | None = None  # the first job of a series of reruns, which is not itself one of them
    group: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    @property
    def names_provider_id(self) -> bool:
        """Return whether a filter names a request or a response, so that at most a few jobs can fit."""
        return self.request_id is not None or self.response_id is not None


def indexes_of(app: str, filters: ListFilters, secret: bytes) -> list[list[str]]:
    """Return groups of indexes: a job that fits is in at least one index of each group.

    `secret`: for the digests of metadata; not used without it.
    """
    groups = [[keys.index(app, "status", status) for status in dict.fromkeys(filters.statuses)]]
    if filters.safety_identifier is not None:
        groups.append([keys.index(app, "user", filters.safety_identifier)])
    if filters.model is not None:
        groups.append([keys.index(app, "model", filters.model)])
    terms = [metadata_term(secret, app, key, value) for key, value in filters.metadata]
    if filters.served_model is not None:
        terms.append(value_term(SERVED, filters.served_model))
    if filters.rerun_root is not None:
        terms.append(value_term(RERUN, filters.rerun_root))
    if filters.group is not None:
        terms.append(value_term(GROUP, filters.group))
    if filters.code is not None:
        terms.append(value_term(CODE, filters.code))
    groups += [[name] for name in indexes_of_terms(app, " ".join(terms).encode())]
    return [group for group in groups if group] or [[keys.index(app)]]


def fits(stored: StoredJob, app: str, filters: ListFilters) -> bool:
    """Return whether the job is the app's and fits all filters but those of its time of creation."""
    job = stored.job
    return (
        job.app == app
        and (not filters.statuses or job.status in filters.statuses)
        and (filters.model is None or job.requested_model == filters.model)
        and (filters.served_model is None or job.served_model == filters.served_model)
        and (filters.code is None or filters.code in codes_of(job))
        and (filters.safety_identifier is None or job.safety_identifier == filters.safety_identifier)
        and (filters.rerun_root is None or job.rerun_root == filters.rerun_root)
        and (filters.group is None or job.group == filters.group)
        and (not filters.metadata or _has_metadata(stored, filters))
        and _has_ids(job, filters)
    )


def _has_metadata(stored: StoredJob, filters: ListFilters) -> bool:
    metadata = stored.private.get("metadata") or {}
    return all(key in metadata and metadata[key] == value for key, value in filters.metadata)


def _has_ids(job: Job, filters: ListFilters) -> bool:
    request, response = filters.request_id, filters.response_id
    return (request is None or any(one.request_id == request for one in job.attempts)) and (
        response is None
        or any(one.response_id == response for one in job.attempts)
        or (response != job.id and ids.job_id_of(response) == job.id)
    )
