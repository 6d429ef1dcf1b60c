"""The trace of a job, from the submit over the worker to the webhook. Does nothing unless a tracer is installed.

Five blocks: a request is served, a job is published, a run processes it and commits, a message is delivered. Without a
tracer each costs one comparison. Attributes of a span come from the events that are emitted inside. Must not import
Sentry's SDK: `sentry_tracer.py` is the tracer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final, Protocol

from worker.jobs.record import Job

Carrier = dict[str, str]
"""Trace headers to pass on: `sentry-trace`, `baggage`; `caller` if the trace is the app's own: the header it sent."""

CALLER: Final = "caller"
TRACEPARENT: Final = "traceparent"
SetJobId = Callable[[str], None]


class Tracer(Protocol):
    """Records spans."""

    def serving(self, name: str, carrier: Mapping[str, str]) -> AbstractContextManager[None]:
        """Trace an API request, in the trace that it came with."""
        ...

    def publishing(self, carrier: Mapping[str, str]) -> AbstractContextManager[tuple[Carrier, SetJobId]]:
        """Trace a submit; yields (the carrier to store with the job, a function that takes the job's id)."""
        ...

    def processing(self, job: Job, generation: int, waited: float, worker: str) -> AbstractContextManager[None]:
        """Trace one run of a job, in the trace of its submit."""
        ...

    def committing(self) -> AbstractContextManager[None]:
        """Trace one commit of a run."""
        ...

    def delivering(self, carrier: Mapping[str, str], about: Mapping[str, object]) -> AbstractContextManager[None]:
        """Trace one try of a webhook message."""
        ...


_tracer: Tracer | None = None


def install(tracer: Tracer | None) -> None:
    """Record spans with this tracer from now on; None: with none."""
    global _tracer  # noqa: PLW0603
    _tracer = tracer


def serving(name: str, carrier: Callable[[], Mapping[str, str]]) -> AbstractContextManager[None]:
    """Return a block that traces an API request."""
    return _tracer.serving(name, carrier()) if _tracer is not None else contextlib.nullcontext()


def publishing(carrier: Carrier) -> AbstractContextManager[tuple[Carrier, SetJobId]]:
    """Return a block that traces a submit; without a tracer the caller's trace is passed on as it came."""
    started = {CALLER: "1", **carrier} if carrier else {}
    if _tracer is None:
        return contextlib.nullcontext((started, _ignore_job_id))
    return _tracer.publishing(started)


def processing(job: Job, generation: int, waited: float, worker: str) -> AbstractContextManager[None]:
    """Return a block that traces one run of a job."""
    return _tracer.processing(job, generation, waited, worker) if _tracer is not None else contextlib.nullcontext()


def committing() -> AbstractContextManager[None]:
    """Return a block that traces one commit of the run that it is in."""
    return _tracer.committing() if _tracer is not None else contextlib.nullcontext()


def delivering(carrier: Mapping[str, str], **about: object) -> AbstractContextManager[None]:
    """Return a block that traces one try of a message."""
    return _tracer.delivering(carrier, about) if _tracer is not None else contextlib.nullcontext()


def for_receiver(carrier: Mapping[str, str]) -> dict[str, str]:
    """Return the trace header to send with a webhook: only an app that sent its own trace gets it back, as it sent it.

    A trace of ours is not sent, because the receiver's tracer would take over our sampling; nor is baggage, which names
    our release and project.
    """
    trace, caller = carrier.get("sentry-trace", ""), carrier.get(CALLER)
    if not trace or not caller:
        return {}
    if caller == TRACEPARENT:
        return {TRACEPARENT: f"00-{trace[:49]}-0{trace[50:] or 0}"}
    return {"sentry-trace": trace}


def _ignore_job_id(_: str) -> None:
    pass
