"""Every metric of Vigil: the one table that alerting rules, dashboards and the runbook are written against.

Base units (seconds, bytes, US dollars), `_total` for what only rises, labels with few values: a label takes what its
row in LABELS allows, anything else counts as "other". Numbers of a process are in its own registry; those of the whole
deployment (`source="store"`) are read from Redis at each scrape, by the API alone, so with several APIs take `max`.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from worker.jobs.account_name import DEFAULT_ACCOUNT
from worker.jobs.record import BlockCategory, DecidedBy, DisclosureReason
from worker.jobs.states import TERMINAL, Evidence, Outcome
from worker.jobs.view_schema import WaitReason
from worker.safety.access import AccessStatus
from worker.safety.codes import CODES
from worker.safety.messages import MESSAGES
from worker.safety.output import REPAIR_FLAGS

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OTHER: Final = "other"

_FAST: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_LONG: Final = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)

_SLOW: Final = (*_FAST, 600, 1800, 7200, 21_600, 86_400)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter has no use

Kind = Literal["counter", "gauge", "histogram"]
Source = Literal["process", "store"]


@dataclass(frozen=True, slots=True)
class Metric:
    """Describes one metric: what it counts, its labels, the bounds of a histogram, where its numbers come from."""

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    source: Source = "process"


MODELS: Final = "the models of models.toml"
ACCOUNTS: Final = "the accounts at the provider"
LABELS: Final[dict[str, frozenset[str] | str]] = {
    "model": MODELS,
    "requested": MODELS,
    "served": MODELS,
    "status": frozenset(TERMINAL),
    "outcome": frozenset(Outcome),
    "evidence": frozenset(Evidence),
    "category": frozenset(get_args(BlockCategory)),
    "code": frozenset(CODES) | frozenset(MESSAGES),
    "reason": frozenset(get_args(DisclosureReason)),
    "decided_by": frozenset(get_args(DecidedBy)),
    "disclosed": frozenset({"not_needed", "yes", "no"}),
    "direction": frozenset({"input", "cached_input", "output", "reasoning"}),
    "result": frozenset({"delivered", "failed", "gone", "exhausted"}),
    "state": frozenset({"queued", "scheduled", "running", "checking"}),
    "account": frozenset({"unknown", "normal", "elevated", "widened"}),
    "provider_account": ACCOUNTS,
    "access": frozenset(get_args(AccessStatus)),
    "circuit": frozenset({"open", "half_open"}),
    "waits_for": frozenset(get_args(WaitReason)),
    "what": frozenset({"event", "field"}),
    "limit": frozenset({"jobs_waiting", "bytes_held", "memory_held", "memory"}),
    "flag": REPAIR_FLAGS,
    "kind": "the kinds of keys, as worker/store/keys.py names them",
    "work": frozenset({"write", "read", "delete"}),
    "status_class": frozenset({"1xx", "2xx", "3xx", "4xx", "5xx"}),
    "version": "of Vigil",
    "python": "of the interpreter",
}
"""The values of each label; a description where they are not known before the process starts."""

METRICS: Final[dict[str, Metric]] = {
    # jobs, counted by whichever process commits the event
    "vigil_jobs_submitted_total": Metric("counter", "Jobs accepted.", ("model",)),
    "vigil_submits_refused_total": Metric(
        "counter", "Submits refused because a quota of the app, or the memory of Redis, is used up.", ("limit",)
    ),
    "vigil_jobs_finished_total": Metric("counter", "Jobs settled, by terminal status.", ("status", "model")),
    "vigil_jobs_refused_total": Metric("counter", "Completed jobs that the model refused to answer.", ("model",)),
    "vigil_job_wait_seconds": Metric("histogram", "From submission to the first start.", (), _LONG),
    "vigil_job_run_seconds": Metric("histogram", "From the first start to the end.", ("status",), _LONG),
    "vigil_jobs_rescued_total": Metric("counter", "Jobs taken over from a dead worker."),
    "vigil_jobs_interrupted_total": Metric("counter", "Jobs handed over at a worker's shutdown."),
    "vigil_jobs_held_total": Metric("counter", "Times that a job began to wait for a circuit or a pause."),
    "vigil_lease_lost_total": Metric("counter", "Runs that lost their lease to another worker."),
    "vigil_run_faults_total": Metric("counter", "Runs, sweeps and requests that failed with an internal error."),
    # attempts
    "vigil_attempts_total": Metric(
        "counter", "Upstream calls that ended, by outcome.", ("outcome", "model", "provider_account")
    ),
    "vigil_attempt_seconds": Metric("histogram", "From the call to its end.", ("model",), _LONG),
    "vigil_ttft_seconds": Metric("histogram", "From the call to the first output.", ("model",), _SLOW),
    "vigil_upstream_errors_total": Metric(
        "counter", "Attempts that gave no answer, by the error's code.", ("code", "provider_account")
    ),
    "vigil_stream_resumes_total": Metric("counter", "Reconnections to a running response."),
    "vigil_answers_mended_total": Metric(
        "counter", "Answers in which something had to be replaced or left out, by the attempt's flag.", ("flag",)
    ),
    "vigil_tokens_total": Metric("counter", "Tokens as the provider counted them.", ("direction", "model")),
    "vigil_cost_usd_total": Metric("counter", "What attempts cost, in US dollars.", ("model", "provider_account")),
    # safety
    "vigil_checks_total": Metric("counter", "Safety checks that began, by evidence.", ("evidence", "model")),
    "vigil_check_seconds": Metric("histogram", "How long safety checks took.", ("evidence",), _LONG),
    "vigil_blocks_total": Metric("counter", "Jobs whose content was withheld.", ("category", "code", "model")),
    "vigil_substitutions_total": Metric(
        "counter", "Another model takes over: why, and who decided.", ("requested", "reason", "decided_by")
    ),
    "vigil_fallbacks_total": Metric("counter", "Substitutions after an access denial.", ("requested", "served")),
    "vigil_model_requested_served_total": Metric(
        "counter", "Completed jobs by requested and served model.", ("requested", "served", "disclosed")
    ),
    # webhooks
    "vigil_webhook_attempts_total": Metric("counter", "Tries to deliver a message.", ("result",)),
    "vigil_webhook_seconds": Metric("histogram", "How long tries took.", (), _FAST),
    "vigil_webhook_lag_seconds": Metric("histogram", "From the event to its delivery.", (), _SLOW),
    "vigil_webhook_dead_total": Metric("counter", "Messages that were given up."),
    # a process
    "vigil_worker_inflight": Metric("gauge", "Jobs that run in this worker."),
    "vigil_worker_slots": Metric("gauge", "Jobs that may run in this worker."),
    "vigil_worker_draining": Metric("gauge", "1 while this worker drains."),
    "vigil_loop_lag_seconds": Metric("gauge", "How late this process's event loop was at its last beat."),
    "vigil_store_away_total": Metric("counter", "Times that Redis was found to be away by a sweep."),
    "vigil_store_changed": Metric("gauge", "1 while Redis is not the store that this process knew."),
    "vigil_http_requests_total": Metric("counter", "Requests that the API answered.", ("status_class",)),
    "vigil_records_unreadable_total": Metric("counter", "Stored values found unreadable, by kind of key.", ("kind",)),
    "vigil_jobs_set_aside_total": Metric("counter", "Jobs that failed because their record can't be read."),
    "vigil_telemetry_dropped_total": Metric("counter", "Events and fields that no table lists.", ("what",)),
    "vigil_build_info": Metric("gauge", "Always 1.", ("version", "python")),
    "vigil_outputs_archived_total": Metric("counter", "Large outputs that were written to the archive."),
    "vigil_archive_failures_total": Metric("counter", "Calls for outputs that the archive did not answer.", ("work",)),
    # the whole deployment, from Redis
    "vigil_redis_up": Metric("gauge", "1 when Redis answered this scrape.", (), (), "store"),
    "vigil_queue_depth": Metric("gauge", "Jobs in the queue.", ("state",), (), "store"),
    "vigil_queue_oldest_age_seconds": Metric("gauge", "Age of the oldest job ready to run; 0 = none.", (), (), "store"),
    "vigil_workers_alive": Metric("gauge", "Workers with a heartbeat within a minute.", (), (), "store"),
    "vigil_workers_draining": Metric("gauge", "Those of them that drain.", (), (), "store"),
    "vigil_worker_slots_alive": Metric("gauge", "Jobs that the workers alive may run.", (), (), "store"),
    "vigil_migrations_left": Metric("gauge", "Migrations of the store that are not done.", (), (), "store"),
    "vigil_older_processes": Metric("gauge", "Processes of older releases that they wait for.", (), (), "store"),
    "vigil_limit_waiting_jobs": Metric(
        "gauge", "Jobs that a limit keeps from calling their model.", ("waits_for",), (), "store"
    ),
    "vigil_outputs_waiting": Metric(
        "gauge", "Large outputs that stay in Redis until the archive takes them.", (), (), "store"
    ),
    "vigil_circuits": Metric(
        "gauge", "Circuits of provider accounts that are not closed.", ("circuit", "provider_account"), (), "store"
    ),
    "vigil_account_state": Metric(
        "gauge", "1 for the state the provider's account is in.", ("account", "provider_account"), (), "store"
    ),
    "vigil_access_ok": Metric(
        "gauge", "1 = may be called, 0 = may not; absent = unknown.", ("model", "provider_account"), (), "store"
    ),
    "vigil_last_probe_timestamp_seconds": Metric(
        "gauge", "When access was last probed.", ("model", "provider_account"), (), "store"
    ),
    "vigil_audit_unarchived_seconds": Metric(
        "gauge", "Age of the oldest sealed audit record that is not archived, with an archive.", (), (), "store"
    ),
    "vigil_redis_used_memory_bytes": Metric("gauge", "Memory that Redis uses.", (), (), "store"),
    "vigil_redis_used_memory_ratio": Metric("gauge", "The same to maxmemory; absent = no limit.", (), (), "store"),
    "vigil_redis_persistence_ok": Metric("gauge", "1 = its last write to disk went well.", (), (), "store"),
}  # fmt: skip

Labels = Mapping[str, str]
_PARTITION: Final = "partition"
Sample = tuple[str, Labels, float]
"""(metric, its labels, its value), as read from Redis."""


class MetricsRegistry:
    """Holds the metrics of this process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._models: frozenset[str] = frozenset()
        self._accounts = frozenset({DEFAULT_ACCOUNT})
        self._aliases: Mapping[str, str] = {}
        self._metrics: dict[str, Any] = {}
        self._children: dict[tuple[object, ...], Any] = {}  # only those whose labels need no mapping, so there are few
        makers: dict[Kind, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
        for name, row in METRICS.items():
            if row.source == "process":
                more: dict[str, Any] = {"buckets": row.buckets} if row.kind == "histogram" else {}
                self._metrics[name] = makers[row.kind](name, row.help, row.labels, registry=self.registry, **more)

    def set_models(self, models: Collection[str], aliases: Mapping[str, str] | None = None) -> None:
        """Give these models labels of their own; every other one counts as "other"."""
        self._models, self._aliases = frozenset(models), dict(aliases or {})
        self._children.clear()

    def set_accounts(self, accounts: Collection[str]) -> None:
        """Give these accounts labels of their own; every other one counts as "other"."""
        self._accounts = frozenset(accounts)
        self._children.clear()

    def value(self, label: str, value: object) -> str:
        """Return the value as the label takes it."""
        text, allowed = str(value), LABELS[label]
        if allowed is MODELS:
            text = self._aliases.get(text, text)
            return text if text in self._models else OTHER
        if allowed is ACCOUNTS:
            return text if text in self._accounts else OTHER
        return text if isinstance(allowed, str) or text in allowed else OTHER

    def _of(self, name: str, labels: Mapping[str, object]) -> Any:
        key = (name, *labels.items())
        child = self._children.get(key)
        if child is None:
            values = {label: self.value(label, labels[label]) for label in METRICS[name].labels}
            child = self._metrics[name].labels(**values) if values else self._metrics[name]
            if values == labels:
                self._children[key] = child
        return child

    def count(self, name: str, amount: float = 1, **labels: object) -> None:
        """Add `amount` to the counter."""
        self._of(name, labels).inc(amount)

    def observe(self, name: str, value: float, **labels: object) -> None:
        """Add an observation to the histogram."""
        self._of(name, labels).observe(max(0.0, value))

    def set(self, name: str, value: float, **labels: object) -> None:
        """Set the gauge to `value`."""
        self._of(name, labels).set(value)

    def text(self, samples: Iterable[Sample] = ()) -> bytes:
        """Return the exposition of this process's metrics and of `samples` from Redis."""
        return generate_latest(self.registry) + generate_latest(cast("CollectorRegistry", _StoreSamples(samples, self)))


class _StoreSamples(Collector):
    """Presents samples read from Redis as prometheus-client collects them.

    Those of one store of several have the name that operators gave it as one more label.
    """

    def __init__(self, samples: Iterable[Sample], registry: MetricsRegistry) -> None:
        self._samples, self._registry = tuple(samples), registry

    def collect(self) -> Iterator[Family]:
        families: dict[str, GaugeMetricFamily] = {}
        for name, labels, value in self._samples:
            row = METRICS[name]
            partition = [labels[_PARTITION]] if _PARTITION in labels else []
            own = (*row.labels, *([_PARTITION] if partition else []))
            family = families.setdefault(name, GaugeMetricFamily(name, row.help, labels=own))
            values = [self._registry.value(label, labels[label]) for label in row.labels]
            family.add_metric([*values, *partition], value)
        yield from families.values()


REGISTRY: Final = MetricsRegistry()
"""The registry of this process."""


def set_build_info(version: str) -> None:
    """Set the metric that names the running version."""
    REGISTRY.set("vigil_build_info", 1, version=version, python=platform.python_version())
