"""Updates the metrics from the events: a table of which event changes which metric. Nothing is counted elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from worker.jobs.states import DELIVERED, Outcome
from worker.telemetry import events
from worker.telemetry.metrics import REGISTRY, MetricsRegistry
from worker.telemetry.sentry_issues import EVENTS

Fields = Mapping[str, Any]
_INTERNAL_ERRORS: Final = tuple(name for name, (_, issue) in EVENTS.items() if issue.bug)
_NOT_ERRORS: Final = {outcome.value for outcome in DELIVERED} | {
    Outcome.BLOCKED.value,
    Outcome.CANCELLED.value,
    Outcome.SUBSTITUTED.value,
    Outcome.INTERRUPTED.value,
}
"""Outcomes that are not an error of the upstream call."""


def _submitted(metrics: MetricsRegistry, fields: Fields) -> None:
    metrics.count("vigil_jobs_submitted_total", model=fields["model"])


def _started(metrics: MetricsRegistry, fields: Fields) -> None:
    metrics.observe("vigil_job_wait_seconds", fields["wait_seconds"])


def _scheduled(metrics: MetricsRegistry, fields: Fields) -> None:
    if fields["reason"] == "hold":
        metrics.count("vigil_jobs_held_total")


def _settled(metrics: MetricsRegistry, fields: Fields) -> None:
    model, status = fields["model"], fields["status"]
    metrics.count("vigil_jobs_finished_total", status=status, model=model)
    if "seconds" in fields:
        metrics.observe("vigil_job_run_seconds", fields["seconds"], status=status)
    if fields.get("refused"):
        metrics.count("vigil_jobs_refused_total", model=model)
    if "disclosed" in fields:
        served = {"requested": model, "served": fields.get("served"), "disclosed": fields["disclosed"]}
        metrics.count("vigil_model_requested_served_total", **served)


def _blocked(metrics: MetricsRegistry, fields: Fields) -> None:
    metrics.count("vigil_blocks_total", category=fields["category"], code=fields["code"], model=fields["model"])


def _substituted(metrics: MetricsRegistry, fields: Fields) -> None:
    why = {"reason": fields["reason"], "decided_by": fields["decided_by"]}
    metrics.count("vigil_substitutions_total", requested=fields["model"], **why)
    if fields["reason"] == "access_denied":
        metrics.count("vigil_fallbacks_total", requested=fields["model"], served=fields["served"])


def _check_started(metrics: MetricsRegistry, fields: Fields) -> None:
    metrics.count("vigil_checks_total", evidence=fields["evidence"], model=fields["model"])


def _check_ended(metrics: MetricsRegistry, fields: Fields) -> None:
    metrics.observe("vigil_check_seconds", fields["seconds"], evidence=fields["evidence"])


def _attempt(metrics: MetricsRegistry, fields: Fields) -> None:
    model, outcome, account = fields["model"], fields["outcome"], fields["account"]
    metrics.count("vigil_attempts_total", outcome=outcome, model=model, provider_account=account)
    metrics.observe("vigil_attempt_seconds", fields["seconds"], model=model)
    if "ttft_seconds" in fields:
        metrics.observe("vigil_ttft_seconds", fields["ttft_seconds"], model=model)
    if outcome not in _NOT_ERRORS:
        metrics.count("vigil_upstream_errors_total", code=fields.get("code") or outcome, provider_account=account)
    for direction in ("input", "cached_input", "output", "reasoning"):
        tokens = fields.get(f"{direction}_tokens")
        if tokens:
            metrics.count("vigil_tokens_total", tokens, direction=direction, model=fields.get("served") or model)
    if fields.get("cost_usd"):
        served = fields.get("served") or model
        metrics.count("vigil_cost_usd_total", fields["cost_usd"], model=served, provider_account=account)
    if fields.get("resumed"):
        metrics.count("vigil_stream_resumes_total", fields["resumed"])


def _mended(metrics: MetricsRegistry, fields: Fields) -> None:
    metrics.count("vigil_answers_mended_total", flag=fields["what"])


def _webhook(metrics: MetricsRegistry, fields: Fields) -> None:
    metrics.count("vigil_webhook_attempts_total", result=fields["result"])
    metrics.observe("vigil_webhook_seconds", fields["seconds"])
    if fields["result"] == "delivered":
        metrics.observe("vigil_webhook_lag_seconds", fields["lag_seconds"])


def _worker_started(metrics: MetricsRegistry, fields: Fields) -> None:
    metrics.set("vigil_worker_slots", fields["slots"])
    metrics.set("vigil_worker_draining", 0)


def _worker_draining(metrics: MetricsRegistry, _: Fields) -> None:
    metrics.set("vigil_worker_draining", 1)


def _worker_beat(metrics: MetricsRegistry, fields: Fields) -> None:
    metrics.set("vigil_worker_inflight", fields["count"])
    metrics.set("vigil_loop_lag_seconds", fields["lag_seconds"])


def _store_changed(metrics: MetricsRegistry, _: Fields) -> None:
    metrics.set("vigil_store_changed", 1)


def _store_known(metrics: MetricsRegistry, _: Fields) -> None:
    metrics.set("vigil_store_changed", 0)


def _answered(metrics: MetricsRegistry, fields: Fields) -> None:
    metrics.count("vigil_http_requests_total", status_class=f"{fields['http_status'] // 100}xx")


def _dropped(metrics: MetricsRegistry, fields: Fields) -> None:
    metrics.count("vigil_telemetry_dropped_total", what=fields["what"])


def _unreadable(metrics: MetricsRegistry, fields: Fields) -> None:
    metrics.count("vigil_records_unreadable_total", kind=fields["what"])


def _queue_full(metrics: MetricsRegistry, fields: Fields) -> None:
    metrics.count("vigil_submits_refused_total", limit=fields["what"])


def _archive_failed(metrics: MetricsRegistry, fields: Fields) -> None:
    metrics.count("vigil_archive_failures_total", work=fields["what"])


def _counter(name: str) -> Callable[[MetricsRegistry, Fields], None]:
    return lambda metrics, _: metrics.count(name)


HANDLERS: Final[dict[str, Callable[[MetricsRegistry, Fields], None]]] = {
    "job.submitted": _submitted,
    "job.started": _started,
    "job.scheduled": _scheduled,
    "job.settled": _settled,
    "job.blocked": _blocked,
    "job.rescued": _counter("vigil_jobs_rescued_total"),
    "job.interrupted": _counter("vigil_jobs_interrupted_total"),
    "model.substituted": _substituted,
    "check.started": _check_started,
    "check.ended": _check_ended,
    "attempt.finished": _attempt,
    "answer.mended": _mended,
    "lease.lost": _counter("vigil_lease_lost_total"),
    "webhook.tried": _webhook,
    "webhook.exhausted": _counter("vigil_webhook_dead_total"),
    "worker.started": _worker_started,
    "worker.draining": _worker_draining,
    "worker.beat": _worker_beat,
    "store.away": _counter("vigil_store_away_total"),
    "store.changed": _store_changed,
    "store.known": _store_known,
    "queue.full": _queue_full,
    "api.answered": _answered,
    "telemetry.dropped": _dropped,
    "output.archived": _counter("vigil_outputs_archived_total"),
    "archive.failed": _archive_failed,
    "record.unreadable": _unreadable,
    "record.set_aside": _counter("vigil_jobs_set_aside_total"),
    **{name: _counter("vigil_run_faults_total") for name in _INTERNAL_ERRORS},
}
"""What each event does to the metrics."""


def observe(name: str, fields: Fields) -> None:
    """Update the metrics of this process."""
    HANDLERS[name](REGISTRY, fields)


events.subscribe(observe, HANDLERS)
