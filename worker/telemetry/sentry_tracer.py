"""Records traces with Sentry's SDK, as transactions with child spans: the format that every Sentry reads.

    POST /v1/jobs      http.server     └ queue.publish, whose ids the job's record carries
    vigil.run          queue.task      └ queue.process   └ gen_ai.responses, one per attempt · db, one per commit
    webhook.deliver    queue.task      └ http.client

One trace has them all, whichever processes they ran in. A transaction is sent when it ends, so a worker that is killed
loses those of its runs: the next holder's says that it took the job over. Only `sentry.py` may import this.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final

import sentry_sdk
from sentry_sdk.tracing import Span, Transaction

from worker.jobs.record import Job
from worker.telemetry.sentry_issues import digest, identifier_or_other
from worker.telemetry.tracing import CALLER, Carrier, SetJobId

_DESTINATION: Final = "vigil"
_run: ContextVar[_Run | None] = ContextVar("vigil_run", default=None)
_ATTEMPT_ATTRIBUTES: Final = {
    "served": "gen_ai.response.model",
    "input_tokens": "gen_ai.usage.input_tokens",
    "cached_input_tokens": "gen_ai.usage.input_tokens.cached",
    "output_tokens": "gen_ai.usage.output_tokens",
    "reasoning_tokens": "gen_ai.usage.output_tokens.reasoning",
    "ttft_seconds": "gen_ai.response.time_to_first_token",
    "check_seconds": "safety.check.seconds",
    "outcome": "safety.outcome",
    "request_id": "openai.request_id",
    "http_status": "http.response.status_code",
    "code": "vigil.code",
    "cost_usd": "vigil.cost_usd",
    "resumed": "vigil.resumed",
}
_IDENTIFIERS: Final = frozenset({"served", "request_id", "code", "outcome"})
_ATTEMPT_STATUS: Final = {
    **dict.fromkeys(("completed", "refused", "incomplete", "blocked"), "ok"),
    **dict.fromkeys(("substituted", "cancelled", "interrupted"), "cancelled"),
    **dict.fromkeys(("rate_limited", "quota_exhausted"), "resource_exhausted"),
    **dict.fromkeys(("overloaded", "connect_failed", "stream_cut"), "unavailable"),
    **dict.fromkeys(("idle_timeout", "timed_out"), "deadline_exceeded"),
    **dict.fromkeys(("bad_request", "context_too_long"), "invalid_argument"),
    "access_denied": "permission_denied",
    "auth_failed": "unauthenticated",
    "lost": "data_loss",
}
"""Sentry's status of an attempt by its outcome, else "internal_error". A block is an answer, what Vigil ended itself is
cancelled: neither counts as a failure in Sentry.
"""
_RUN_STATUS: Final = {
    "failed": "internal_error",
    "expired": "deadline_exceeded",
    "cancelled": "cancelled",
    "lost": "aborted",
    "broke": "internal_error",
}
"""Sentry's status of a run by how it ended, else "ok"."""


class _Run:
    """Holds the spans of one run: its own, and one for each attempt that is open."""

    def __init__(self, transaction: Transaction, process: Span) -> None:
        self._transaction, self.process = transaction, process
        self._attempts: dict[int, Span] = {}
        self.ended = ""

    def attempt_started(self, fields: Mapping[str, Any]) -> None:
        """Start the span of an attempt that is called, or resumed where an earlier holder left it."""
        model = identifier_or_other(fields["model"])
        span = self.process.start_child(op="gen_ai.responses", name=f"responses {model}")
        span.update_data(
            {
                "gen_ai.operation.name": "responses",
                "gen_ai.system": "openai",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": model,
                "vigil.attempt": fields["attempt"],
                "vigil.purpose": str(fields.get("purpose", "resumed")),
            }
        )
        self._attempts[fields["attempt"]] = span

    def attempt_finished(self, fields: Mapping[str, Any]) -> None:
        """End the span of an attempt."""
        span = self._attempts.pop(fields["attempt"], None)
        if span is None:
            return
        for field, attribute in _ATTEMPT_ATTRIBUTES.items():
            if field in fields:
                value = fields[field]
                span.set_data(attribute, identifier_or_other(value) if field in _IDENTIFIERS else value)
        if "input_tokens" in fields:
            span.set_data("gen_ai.usage.total_tokens", fields["input_tokens"] + fields.get("output_tokens", 0))
        outcome, code = str(fields["outcome"]), fields.get("code")
        reason = f"{outcome}:{identifier_or_other(code)}" if code else outcome
        span.set_data("gen_ai.response.finish_reasons", [reason])
        span.set_data("model.substituted", fields.get("served", fields["model"]) != fields["model"])
        span.set_status(_ATTEMPT_STATUS.get(outcome, "internal_error"))
        span.finish()

    def note(self, attribute: str, value: object) -> None:
        """Add an attribute to the run's span."""
        self.process.set_data(attribute, value)

    def close(self) -> None:
        """End all spans that are open, whatever ended the run, and send them."""
        ended = self.ended or "unknown"
        status = _RUN_STATUS.get(ended, "ok")
        for span in self._attempts.values():
            span.set_data("gen_ai.response.finish_reasons", [f"left:{ended}"])
            span.set_data("safety.outcome", ended)
            span.set_status("aborted" if ended == "lost" else "cancelled")
            span.finish()
        self._attempts.clear()
        self.note("vigil.ended", ended)
        for one in (self.process, self._transaction):
            one.set_status(status)
            one.finish()


class SentryTracer:
    """Records spans; the protocol is `tracing.Tracer`."""

    @contextlib.contextmanager
    def serving(self, name: str, carrier: Mapping[str, str]) -> Iterator[None]:
        """Trace an API request, in the trace that it came with."""
        with _transaction(carrier, name, "http.server", "route") as transaction:
            transaction.update_data({"http.request.method": "POST", "http.route": name.partition(" ")[2]})
            yield

    @contextlib.contextmanager
    def publishing(self, carrier: Mapping[str, str]) -> Iterator[tuple[Carrier, SetJobId]]:
        """Trace a submit."""
        with contextlib.ExitStack() as stack:
            parent = sentry_sdk.get_current_span()
            if parent is None:  # a rerun, for example: its route has no transaction
                parent = stack.enter_context(_transaction(carrier, "vigil.submit", "queue.submit", "task"))
            span = parent.start_child(op="queue.publish", name="queue.publish")
            span.update_data(
                {
                    "messaging.system": "redis",
                    "messaging.operation.type": "send",
                    "messaging.destination.name": _DESTINATION,
                }
            )
            caller = {CALLER: carrier[CALLER]} if CALLER in carrier else {}
            try:
                yield (
                    {**dict(span.iter_headers()), **caller},
                    lambda job_id: span.set_data("messaging.message.id", job_id),
                )
            finally:
                span.finish()

    @contextlib.contextmanager
    def processing(self, job: Job, generation: int, waited: float, worker: str) -> Iterator[None]:
        """Trace one run of a job, in the trace of its submit."""
        with _transaction(job.trace, "vigil.run", "queue.task", "task") as transaction:
            process = transaction.start_child(op="queue.process", name="queue.process")
            process.update_data(
                {
                    "messaging.system": "redis",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": _DESTINATION,
                    "messaging.message.id": job.id,
                    "messaging.message.receive.latency": round(waited * 1000, 3),
                    "messaging.message.retry.count": generation - 1,
                    "vigil.app": digest(job.app),
                    "vigil.worker": worker,
                }
            )
            run = _Run(transaction, process)
            token = _run.set(run)
            try:
                yield
            except BaseException:
                run.ended = run.ended or "cancelled"
                raise
            finally:
                run.close()
                _run.reset(token)

    @contextlib.contextmanager
    def committing(self) -> Iterator[None]:
        """Trace one commit of a run."""
        run = _run.get()
        if run is None:
            yield
            return
        span = run.process.start_child(op="db", name="commit")
        span.set_data("db.system", "redis")
        try:
            yield
        finally:
            span.finish()

    @contextlib.contextmanager
    def delivering(self, carrier: Mapping[str, str], about: Mapping[str, object]) -> Iterator[None]:
        """Trace one try of a webhook message."""
        with _transaction(carrier, "webhook.deliver", "queue.task", "task") as transaction:
            with transaction.start_child(op="http.client", name="POST webhook") as span:
                span.update_data(
                    {
                        "http.request.method": "POST",
                        "messaging.message.id": str(about.get("job_id", "")),
                        "vigil.receiver": digest(about.get("host", "")),
                    }
                )
                yield
            transaction.set_status(span.status or "ok")


@contextlib.contextmanager
def _transaction(carrier: Mapping[str, str], name: str, op: str, source: str) -> Iterator[Transaction]:
    """Record a transaction in the carrier's trace, or in a new one: never in that of the previous job."""
    with sentry_sdk.isolation_scope():
        headers = {key: carrier[key] for key in ("sentry-trace", "baggage") if key in carrier}
        continued = sentry_sdk.continue_trace(headers, op=op, name=name, source=source)
        with sentry_sdk.start_transaction(continued) as transaction:
            assert isinstance(transaction, Transaction)  # noqa: S101  only stream mode returns another type
            yield transaction


def on_run_event(name: str, fields: Mapping[str, Any]) -> None:
    """Add an event of a run to its spans."""
    run = _run.get()
    if run is not None:
        match name:
            case "attempt.started" | "attempt.taken_up":
                run.attempt_started(fields)
            case "attempt.finished":
                run.attempt_finished(fields)
            case "job.rescued":
                run.note("vigil.rescued", value=True)
            case "job.settled":
                run.ended = str(fields["status"])
                run.note("vigil.status", run.ended)
            case "run.broke":
                run.ended = "broke"
            case _:
                run.ended = str(fields.get("reason") or name.rpartition(".")[2])


def on_request_event(name: str, fields: Mapping[str, Any]) -> None:
    """Add an event of a request or a webhook try to its span."""
    span = sentry_sdk.get_current_span()
    if span is None:
        return
    if fields.get("http_status") is not None:
        span.set_http_status(fields["http_status"])
    if name == "webhook.tried":
        span.set_data("vigil.result", fields["result"])
        span.set_data("vigil.lag_seconds", fields["lag_seconds"])
        if fields["result"] == "failed" and span.status in (None, "ok"):
            span.set_status("unavailable")


RUN_EVENTS: Final = (
    "attempt.started",
    "attempt.taken_up",
    "attempt.finished",
    "job.rescued",
    "job.settled",
    "job.scheduled",
    "job.interrupted",
    "job.settled_elsewhere",
    "lease.lost",
    "run.broke",
)
REQUEST_EVENTS: Final = ("webhook.tried", "api.answered")
