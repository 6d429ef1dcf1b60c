"""Which event moves which metric: a subscriber of `events`, as a table. Nothing is counted anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from worker.jobs.states import DELIVERED, Outcome
from worker.telemetry import events
from worker.telemetry.metrics import REGISTRY, MetricsRegistry
from worker.telemetry.sentry_issues import ISSUES

Fields = Mapping[str, Any]
_FAULTS: Final = tuple(name for name, issue in ISSUES.items() if issue.bug)
_FINE: Final = {outcome.value for outcome in DELIVERED} | {
    Outcome.BLOCKED.value,
    Outcome.CANCELLED.value,
    Outcome.SUBSTITUTED.value,
    Outcome.INTERRUPTED.value,
}
"""Outcomes that are no error of an upstream call."""


def _submitted(book: MetricsRegistry, fields: Fields) -> None:
    book.count("vigil_jobs_submitted_total", model=fields["model"])


def _started(book: MetricsRegistry, fields: Fields) -> None:
    book.observe("vigil_job_wait_seconds", fields["wait_seconds"])


def _scheduled(book: MetricsRegistry, fields: Fields) -> None:
    if fields["reason"] == "hold":
        book.count("vigil_jobs_held_total")


def _settled(book: MetricsRegistry, fields: Fields) -> None:
    model, status = fields["model"], fields["status"]
    book.count("vigil_jobs_finished_total", status=status, model=model)
    if "seconds" in fields:
        book.observe("vigil_job_run_seconds", fields["seconds"], status=status)
    if fields.get("refused"):
        book.count("vigil_jobs_refused_total", model=model)
    if "disclosed" in fields:
        served = {"requested": model, "served": fields.get("served"), "disclosed": fields["disclosed"]}
        book.count("vigil_model_requested_served_total", **served)


def _blocked(book: MetricsRegistry, fields: Fields) -> None:
    book.count("vigil_blocks_total", category=fields["category"], code=fields["code"], model=fields["model"])


def _substituted(book: MetricsRegistry, fields: Fields) -> None:
    why = {"reason": fields["reason"], "decided_by": fields["decided_by"]}
    book.count("vigil_substitutions_total", requested=fields["model"], **why)
    if fields["reason"] == "access_denied":
        book.count("vigil_fallbacks_total", requested=fields["model"], served=fields["served"])


def _check_started(book: MetricsRegistry, fields: Fields) -> None:
    book.count("vigil_checks_total", evidence=fields["evidence"], model=fields["model"])


def _check_ended(book: MetricsRegistry, fields: Fields) -> None:
    book.observe("vigil_check_seconds", fields["seconds"], evidence=fields["evidence"])


def _attempt(book: MetricsRegistry, fields: Fields) -> None:
    model, outcome = fields["model"], fields["outcome"]
    book.count("vigil_attempts_total", outcome=outcome, model=model)
    book.observe("vigil_attempt_seconds", fields["seconds"], model=model)
    if "ttft_seconds" in fields:
        book.observe("vigil_ttft_seconds", fields["ttft_seconds"], model=model)
    if outcome not in _FINE:
        book.count("vigil_upstream_errors_total", code=fields.get("code") or outcome)
    for direction in ("input", "cached_input", "output", "reasoning"):
        tokens = fields.get(f"{direction}_tokens")
        if tokens:
            book.count("vigil_tokens_total", tokens, direction=direction, model=fields.get("served") or model)
    if fields.get("cost_usd"):
        book.count("vigil_cost_usd_total", fields["cost_usd"], model=fields.get("served") or model)
    if fields.get("resumed"):
        book.count("vigil_stream_resumes_total", fields["resumed"])


def _mended(book: MetricsRegistry, fields: Fields) -> None:
    book.count("vigil_answers_mended_total", flag=fields["what"])


def _webhook(book: MetricsRegistry, fields: Fields) -> None:
    book.count("vigil_webhook_attempts_total", result=fields["result"])
    book.observe("vigil_webhook_seconds", fields["seconds"])
    if fields["result"] == "delivered":
        book.observe("vigil_webhook_lag_seconds", fields["lag_seconds"])


def _worker_started(book: MetricsRegistry, fields: Fields) -> None:
    book.set("vigil_worker_slots", fields["slots"])
    book.set("vigil_worker_draining", 0)


def _worker_draining(book: MetricsRegistry, _: Fields) -> None:
    book.set("vigil_worker_draining", 1)


def _worker_beat(book: MetricsRegistry, fields: Fields) -> None:
    book.set("vigil_worker_inflight", fields["count"])
    book.set("vigil_loop_lag_seconds", fields["lag_seconds"])


def _store_changed(book: MetricsRegistry, _: Fields) -> None:
    book.set("vigil_store_changed", 1)


def _store_known(book: MetricsRegistry, _: Fields) -> None:
    book.set("vigil_store_changed", 0)


def _answered(book: MetricsRegistry, fields: Fields) -> None:
    book.count("vigil_http_requests_total", status_class=f"{fields['http_status'] // 100}xx")


def _dropped(book: MetricsRegistry, fields: Fields) -> None:
    book.count("vigil_telemetry_dropped_total", what=fields["what"])


def _unreadable(book: MetricsRegistry, fields: Fields) -> None:
    book.count("vigil_records_unreadable_total", kind=fields["what"])


def _one(name: str) -> Callable[[MetricsRegistry, Fields], None]:
    return lambda book, _: book.count(name)


HANDLERS: Final[dict[str, Callable[[MetricsRegistry, Fields], None]]] = {
    "job.submitted": _submitted,
    "job.started": _started,
    "job.scheduled": _scheduled,
    "job.settled": _settled,
    "job.blocked": _blocked,
    "job.rescued": _one("vigil_jobs_rescued_total"),
    "job.interrupted": _one("vigil_jobs_interrupted_total"),
    "model.substituted": _substituted,
    "check.started": _check_started,
    "check.ended": _check_ended,
    "attempt.finished": _attempt,
    "answer.mended": _mended,
    "lease.lost": _one("vigil_lease_lost_total"),
    "webhook.tried": _webhook,
    "webhook.exhausted": _one("vigil_webhook_dead_total"),
    "worker.started": _worker_started,
    "worker.draining": _worker_draining,
    "worker.beat": _worker_beat,
    "store.away": _one("vigil_store_away_total"),
    "store.changed": _store_changed,
    "store.known": _store_known,
    "api.answered": _answered,
    "telemetry.dropped": _dropped,
    "record.unreadable": _unreadable,
    "record.set_aside": _one("vigil_jobs_set_aside_total"),
    **{name: _one("vigil_run_faults_total") for name in _FAULTS},
}
"""The mapping."""


def observe(name: str, fields: Fields) -> None:
    """The metrics of this process have moved."""
    HANDLERS[name](REGISTRY, fields)


events.subscribe(observe, HANDLERS)
