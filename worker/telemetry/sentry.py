"""Sends spans, issues and check-ins to Sentry, as a subscriber of `events`. The only importer of its SDK.

None of the SDK's integrations is on: each of them reads what it wraps (bodies, arguments, frames, exceptions), and
`sentry_scrubbing` lets nothing through that it does not name. Spans are streamed, so what a worker did before it was
killed has been sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final

import sentry_sdk
from sentry_sdk import traces
from sentry_sdk.traces import StreamedSpan

from worker.clock import Clock
from worker.jobs.record import Job
from worker.settings import Settings
from worker.telemetry import events, internal_errors, sentry_issues, sentry_scrubbing, tracing
from worker.telemetry.tracing import CALLER, Carrier, SetJobId

_DESTINATION: Final = "vigil"
_CHECKIN_INTERVAL_S: Final = 60.0
_FLUSH_TIMEOUT_S: Final = 2.0
_SERVER_ERROR: Final = 500
_MONITORS: Final = {"sweep.done": "vigil-sweeper", "worker.beat": "vigil-worker"}
_MONITOR: Final[Any] = {
    "schedule": {"type": "interval", "value": 1, "unit": "minute"},
    "checkin_margin": 2,
    "max_runtime": 2,
    "failure_issue_threshold": 1,
    "recovery_threshold": 1,
    "timezone": "UTC",
}
_COLLECT_NOTHING: Final[dict[str, Any]] = {
    "user_info": False,
    "cookies": {"mode": "off"},
    "http_headers": {"request": {"mode": "off"}, "response": {"mode": "off"}},
    "http_bodies": [],
    "url_query_params": {"mode": "off"},
    "graphql": {"document": False, "variables": False},
    "gen_ai": {"inputs": False, "outputs": False},
    "database_query_data": False,
    "queues": False,
    "stack_frame_variables": False,
    "frame_context_lines": 0,
}
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
_NOT_ERRORS: Final = frozenset(
    {"completed", "refused", "incomplete", "blocked", "substituted", "cancelled", "interrupted"}
)
"""Outcomes that are no error of the call: answers, blocks, and what Vigil ended itself."""


class _Run:
    """Holds the spans of one run: its own, and one for each attempt that is open."""

    def __init__(self, root: StreamedSpan) -> None:
        self.root, self.open, self.ended = root, dict[int, StreamedSpan](), ""

    def attempt_started(self, fields: Mapping[str, Any]) -> None:
        """Start the span of an attempt that is called, or resumed where an earlier holder left it."""
        model = sentry_scrubbing.identifier_or_other(fields["model"])
        self.open[fields["attempt"]] = traces.start_span(
            f"responses {model}",
            attributes={
                "sentry.op": "gen_ai.responses",
                "gen_ai.operation.name": "responses",
                "gen_ai.system": "openai",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": model,
                "vigil.attempt": fields["attempt"],
                "vigil.purpose": str(fields.get("purpose", "resumed")),
            },
            parent_span=self.root,
            active=False,
        )

    def attempt_finished(self, fields: Mapping[str, Any]) -> None:
        """End the span of an attempt."""
        span = self.open.pop(fields["attempt"], None)
        if span is None:
            return
        for field, attribute in _ATTEMPT_ATTRIBUTES.items():
            if field in fields:
                span.set_attribute(
                    attribute,
                    sentry_scrubbing.identifier_or_other(fields[field]) if field in _IDENTIFIERS else fields[field],
                )
        if "input_tokens" in fields:
            span.set_attribute("gen_ai.usage.total_tokens", fields["input_tokens"] + fields.get("output_tokens", 0))
        outcome, code = str(fields["outcome"]), fields.get("code")
        reason = f"{outcome}:{sentry_scrubbing.identifier_or_other(code)}" if code else outcome
        span.set_attribute("gen_ai.response.finish_reasons", [reason])
        span.set_attribute("model.substituted", fields.get("served", fields["model"]) != fields["model"])
        if outcome not in _NOT_ERRORS:
            span.status = traces.SpanStatus.ERROR
        span.end()

    def end(self, how: str, *, error: bool = False) -> None:
        """Note how the run ends."""
        self.ended = how
        if error:
            self.root.status = traces.SpanStatus.ERROR

    def close(self) -> None:
        """End all spans that are open, whatever ended the run."""
        for span in self.open.values():
            span.set_attribute("gen_ai.response.finish_reasons", [f"left:{self.ended or 'unknown'}"])
            span.set_attribute("safety.outcome", self.ended or "unknown")
            span.end()
        self.open.clear()
        self.root.set_attribute("vigil.ended", self.ended or "unknown")
        self.root.end()


class _Spans:
    """Records spans with Sentry's SDK."""

    @contextlib.contextmanager
    def serving(self, name: str, carrier: Mapping[str, str]) -> Iterator[None]:
        with _continued(carrier):
            route = name.partition(" ")[2]
            fields = {"http.request.method": "POST", "http.route": route, "sentry.segment.name.source": "route"}
            span = traces.start_span(name, {"sentry.op": "http.server", **fields}, parent_span=None)
            try:
                yield
            finally:
                span.end()

    @contextlib.contextmanager
    def publishing(self, carrier: Mapping[str, str]) -> Iterator[tuple[Carrier, SetJobId]]:
        with contextlib.ExitStack() as stack:
            if traces.get_current_span() is None:
                stack.enter_context(_continued(carrier))
            attributes: dict[str, Any] = {
                "sentry.op": "queue.publish",
                "messaging.system": "redis",
                "messaging.operation.type": "send",
                "messaging.destination.name": _DESTINATION,
            }
            span = stack.enter_context(traces.start_span("queue.publish", attributes, active=False))
            scope = sentry_sdk.get_current_scope()
            headers = dict(scope.iter_trace_propagation_headers(span=span))
            caller = {CALLER: carrier[CALLER]} if CALLER in carrier else {}
            yield {**headers, **caller}, lambda job_id: span.set_attribute("messaging.message.id", job_id)

    @contextlib.contextmanager
    def processing(self, job: Job, generation: int, waited: float, worker: str) -> Iterator[None]:
        attributes: dict[str, Any] = {
            "sentry.op": "queue.process",
            "sentry.segment.name.source": "task",
            "messaging.system": "redis",
            "messaging.operation.type": "process",
            "messaging.destination.name": _DESTINATION,
            "messaging.message.id": job.id,
            "messaging.message.receive.latency": round(waited * 1000, 3),
            "messaging.message.retry.count": generation - 1,
            "vigil.app": sentry_issues.digest(job.app),
            "vigil.worker": worker,
        }
        with _continued(job.trace):
            run = _Run(traces.start_span("vigil.run", attributes, parent_span=None))
            token = _run.set(run)
            try:
                yield
            except BaseException:
                run.end(run.ended or "cancelled", error=True)
                raise
            finally:
                run.close()
                _run.reset(token)

    @contextlib.contextmanager
    def delivering(self, carrier: Mapping[str, str], about: Mapping[str, object]) -> Iterator[None]:
        attributes: dict[str, Any] = {
            "sentry.op": "http.client",
            "sentry.segment.name.source": "task",
            "http.request.method": "POST",
            "messaging.message.id": str(about.get("job_id", "")),
            "vigil.receiver": sentry_issues.digest(about.get("host", "")),
        }
        with _continued(carrier), traces.start_span("webhook.deliver", attributes, parent_span=None):
            yield


@contextlib.contextmanager
def _continued(carrier: Mapping[str, str]) -> Iterator[None]:
    """Make spans inside belong to the carrier's trace, or to a new one: never to that of the previous job."""
    with sentry_sdk.isolation_scope():
        if carrier.get("sentry-trace"):
            traces.continue_trace({key: carrier[key] for key in ("sentry-trace", "baggage") if key in carrier})
        else:
            traces.new_trace()
        yield


def _on_run_event(name: str, fields: Mapping[str, Any]) -> None:
    """Add an event of a run to its spans."""
    run = _run.get()
    if run is not None:
        match name:
            case "attempt.started" | "attempt.taken_up":
                run.attempt_started(fields)
            case "attempt.finished":
                run.attempt_finished(fields)
            case "job.settled":
                run.end(str(fields["status"]), error=fields["status"] in ("failed", "expired"))
                run.root.set_attribute("vigil.status", run.ended)
            case "run.broke":
                run.end("broke", error=True)
            case _:
                run.end(str(fields.get("reason") or name.rpartition(".")[2]), error=name == "lease.lost")


def _on_request_event(name: str, fields: Mapping[str, Any]) -> None:
    """Add an event of a request or a webhook try to its span."""
    span = traces.get_current_span()
    if span is None:
        return
    status = fields.get("http_status")
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if status is not None and name == "api.answered" and status >= _SERVER_ERROR:
        span.status = traces.SpanStatus.ERROR
    if name == "webhook.tried":
        span.set_attribute("vigil.result", fields["result"])
        span.set_attribute("vigil.lag_seconds", fields["lag_seconds"])
        if fields["result"] == "failed":
            span.status = traces.SpanStatus.ERROR


def _on_issue(name: str, fields: Mapping[str, Any]) -> None:
    if not sentry_issues.ISSUES[name].bug and sentry_issues.applies(name, fields):  # a bug is sent with its exception
        _send(name, fields, {"logentry": {"message": sentry_issues.title(name, fields)}})


def _on_internal_error(name: str, error: BaseException, fields: dict[str, object]) -> None:
    tagged = {**fields, "error": type(error).__name__, "at": internal_errors.error_location(error)}
    _send(name, tagged, {"exception": sentry_scrubbing.exception(error)})


def _send(name: str, fields: Mapping[str, Any], body: dict[str, Any]) -> None:
    mark = {"fingerprint": sentry_issues.fingerprint(name, fields), "tags": sentry_issues.tags(name, fields)}
    sentry_sdk.capture_event({"level": sentry_issues.ISSUES[name].level, "platform": "python", **mark, **body})  # type: ignore[typeddict-item]


class _Checkins:
    """Sends one check-in a minute for each monitor, which the first one creates; Sentry alerts when they stop."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._last = clock, dict[str, float]()

    def send(self, name: str, _: Mapping[str, Any]) -> None:
        """Send a check-in, unless one was sent within the minute."""
        now = self._clock.monotonic()
        if now - self._last.get(name, -_CHECKIN_INTERVAL_S) >= _CHECKIN_INTERVAL_S:
            self._last[name] = now
            sentry_sdk.crons.capture_checkin(
                monitor_slug=_MONITORS[name], status="ok", duration=0, monitor_config=_MONITOR
            )


_RUN_EVENTS: Final = (
    "attempt.started",
    "attempt.taken_up",
    "attempt.finished",
    "job.settled",
    "job.scheduled",
    "job.interrupted",
    "job.settled_elsewhere",
    "lease.lost",
    "run.broke",
)
_started: list[events.EventHandler] = []


def start(settings: Settings, clock: Clock | None = None) -> None:
    """Subscribe Sentry to the events of this process; do nothing without a DSN, or if it is subscribed."""
    if settings.sentry_dsn is None or _started:
        return
    sentry_sdk.init(
        dsn=settings.sentry_dsn.get_secret_value(),
        environment=settings.sentry_environment,
        release=settings.sentry_release,
        traces_sample_rate=settings.sentry_traces_sample_rate,
        trace_lifecycle="stream",
        default_integrations=False,
        auto_enabling_integrations=False,
        data_collection=_COLLECT_NOTHING,  # type: ignore[arg-type]
        max_request_body_size="never",
        include_local_variables=False,
        include_source_context=False,
        max_breadcrumbs=0,
        attach_stacktrace=False,
        auto_session_tracking=False,
        enable_backpressure_handling=False,
        trace_propagation_targets=[],
        server_name="",
        before_send=lambda event, _: sentry_scrubbing.event(event),  # type: ignore[arg-type, return-value]
        before_send_span=lambda span, _: sentry_scrubbing.span(span),  # type: ignore[arg-type, return-value]
        before_breadcrumb=lambda *_: None,
        before_send_log=lambda *_: None,
        before_send_metric=lambda *_: None,
    )
    checkins = _Checkins(clock or Clock())
    request_events = ("webhook.tried", "api.answered")
    handlers = (
        (_on_run_event, _RUN_EVENTS),
        (_on_request_event, request_events),
        (_on_issue, sentry_issues.ISSUES),
        (checkins.send, _MONITORS),
    )
    for handler, names in handlers:
        events.subscribe(handler, names)
        _started.append(handler)
    internal_errors.add_capture(_on_internal_error)
    tracing.install(_Spans())


def stop() -> None:
    """Unsubscribe Sentry and flush what is queued."""
    if not _started:
        return
    tracing.install(None)
    internal_errors.remove_capture(_on_internal_error)
    while _started:
        events.unsubscribe(_started.pop())
    sentry_sdk.get_client().close(timeout=_FLUSH_TIMEOUT_S)
