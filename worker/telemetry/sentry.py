"""Sends traces, issues and check-ins to Sentry, as a subscriber of `events`. It and its tracer alone import the SDK.

None of the SDK's integrations is on: each of them reads what it wraps (bodies, arguments, frames, exceptions), and
`sentry_scrubbing` lets nothing through that it does not name. The SDK sends from a thread of its own and drops what
does not fit into its queue, so a Sentry that is slow or away delays no job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import sentry_sdk

from worker.clock import Clock
from worker.settings import Settings
from worker.telemetry import events, internal_errors, sentry_issues, sentry_scrubbing, sentry_tracer, tracing
from worker.telemetry.incidents import INCIDENTS, IncidentReport, Occurrence

_CHECKIN_INTERVAL_S: Final = 60.0
_FLUSH_TIMEOUT_S: Final = 2.0
_ABNORMAL: Final = ("failed", "expired")
_RUNBOOK: Final = "ops/runbook/{}.md"
_CLOCK: Final = Clock()
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


def _on_issue(name: str, fields: Mapping[str, Any]) -> None:
    cause, issue = sentry_issues.EVENTS[name]
    if not issue.bug and sentry_issues.applies(name, fields):  # a bug is reported with its exception
        _add(name, cause, fields)


def _on_end(_: str, fields: Mapping[str, Any]) -> None:
    if fields["status"] in _ABNORMAL:
        INCIDENTS.note_end()


def _on_internal_error(name: str, error: BaseException, fields: dict[str, object]) -> None:
    described = {**fields, "error": type(error).__name__, "at": internal_errors.error_location(error)}
    _add(name, name, described, sentry_scrubbing.exception(error))


def _add(name: str, cause: str, fields: Mapping[str, Any], exception: dict[str, Any] | None = None) -> None:
    span = sentry_sdk.get_current_span()
    trace = {} if span is None else {"trace_id": span.trace_id, "span_id": span.span_id}
    occurrence = Occurrence(sentry_issues.tags(name, fields), trace, exception)
    INCIDENTS.add(sentry_issues.group_of(cause, fields), occurrence, _CLOCK.monotonic())


def _send(report: IncidentReport) -> None:
    """Send one event for all occurrences that the report stands for."""
    cause, found = sentry_issues.cause_of(report.group), report.occurrence
    issue = sentry_issues.CAUSES[cause]
    event: dict[str, Any] = {
        "level": issue.level,
        "platform": "python",
        "fingerprint": sentry_issues.fingerprint(report.group),
        "tags": {"vigil.event": "job.settled", **found.tags, "vigil.cause": cause},
        "contexts": {
            "incident": {
                "count": report.count,
                "suppressed": report.count - 1,
                "number": report.number + 1,
                "runbook": _RUNBOOK.format(issue.page),
            },
            **({"trace": dict(found.trace)} if found.trace else {}),
        },
    }
    if found.exception is not None:
        event["exception"] = found.exception
    else:
        event["logentry"] = {"message": sentry_issues.title(report.group) or cause}
    sentry_sdk.capture_event(event)  # type: ignore[arg-type]


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
        trace_lifecycle="static",
        stream_gen_ai_spans=False,
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
        before_send_transaction=lambda event, _: sentry_scrubbing.transaction(event),  # type: ignore[arg-type, return-value]
        before_breadcrumb=lambda *_: None,
        before_send_log=lambda *_: None,
        before_send_metric=lambda *_: None,
    )
    checkins = _Checkins(clock or Clock())
    handlers = (
        (sentry_tracer.on_run_event, sentry_tracer.RUN_EVENTS),
        (sentry_tracer.on_request_event, sentry_tracer.REQUEST_EVENTS),
        (_on_issue, sentry_issues.EVENTS),
        (_on_end, ("job.settled",)),
        (checkins.send, _MONITORS),
    )
    for handler, names in handlers:
        events.subscribe(handler, names)
        _started.append(handler)
    internal_errors.add_capture(_on_internal_error)
    INCIDENTS.install(_send)
    tracing.install(sentry_tracer.SentryTracer())


def stop() -> None:
    """Unsubscribe Sentry and flush what is queued."""
    if not _started:
        return
    tracing.install(None)
    internal_errors.remove_capture(_on_internal_error)
    while _started:
        events.unsubscribe(_started.pop())
    INCIDENTS.report_all(_CLOCK.monotonic())
    INCIDENTS.install(None)
    sentry_sdk.get_client().close(timeout=_FLUSH_TIMEOUT_S)
