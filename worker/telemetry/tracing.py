"""The trace of a job from the submit over the worker to the webhook, as the acting code sees it. Off unless installed.

Four blocks: a request is served, a job is published, a run processes it, a message is delivered. Without a tracer each
costs one test. What a span says comes from the events that are emitted inside. Must not know: Sentry.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final, Protocol

from worker.jobs.record import Job

Carrier = dict[str, str]
"""What crosses a border: `sentry-trace`, `baggage`; `caller` when it began with the app's own trace."""

CALLER: Final = "caller"
SetJobId = Callable[[str], None]


class Tracer(Protocol):
    """Whoever keeps spans."""

    def serving(self, name: str, carrier: Mapping[str, str]) -> AbstractContextManager[None]:
        """An API request, in the trace it came with."""
        ...

    def publishing(self, carrier: Mapping[str, str]) -> AbstractContextManager[tuple[Carrier, SetJobId]]:
        """A submit: (what goes with the job, to be told the job's id)."""
        ...

    def processing(self, job: Job, generation: int, waited: float, worker: str) -> AbstractContextManager[None]:
        """One run of a job, in the trace of its submit."""
        ...

    def delivering(self, carrier: Mapping[str, str], about: Mapping[str, object]) -> AbstractContextManager[None]:
        """One try of a webhook message."""
        ...


_tracer: Tracer | None = None


def install(tracer: Tracer | None) -> None:
    """Spans are kept by this one from now on; None = by nobody."""
    global _tracer  # noqa: PLW0603
    _tracer = tracer


def serving(name: str, carrier: Callable[[], Mapping[str, str]]) -> AbstractContextManager[None]:
    """A block that serves an API request."""
    return _tracer.serving(name, carrier()) if _tracer is not None else contextlib.nullcontext()


def publishing(carrier: Carrier) -> AbstractContextManager[tuple[Carrier, SetJobId]]:
    """A block that makes a job durable; without a tracer the caller's trace goes with it as it came."""
    began = {**carrier, CALLER: "1"} if carrier else {}
    if _tracer is None:
        return contextlib.nullcontext((began, _nothing))
    return _tracer.publishing(began)


def processing(job: Job, generation: int, waited: float, worker: str) -> AbstractContextManager[None]:
    """A block that runs a job."""
    return _tracer.processing(job, generation, waited, worker) if _tracer is not None else contextlib.nullcontext()


def delivering(carrier: Mapping[str, str], **about: object) -> AbstractContextManager[None]:
    """A block that sends a message once."""
    return _tracer.delivering(carrier, about) if _tracer is not None else contextlib.nullcontext()


def for_receiver(carrier: Mapping[str, str]) -> dict[str, str]:
    """The header that goes out with a webhook: only an app that brought its trace along gets it back.

    Nobody else's: a receiver's tracer would take over our sampling. No baggage: it names our release and project.
    """
    trace = carrier.get("sentry-trace", "")
    return {"sentry-trace": trace} if trace and carrier.get(CALLER) else {}


def _nothing(_: str) -> None:
    pass
