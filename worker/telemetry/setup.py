"""Starts telemetry in a process: log, metrics and Sentry subscribe to events; metrics learn the names of models."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version

from worker.provider_accounts import provider_accounts
from worker.settings import Settings
from worker.telemetry import job_ends, log, metrics, metrics_subscriber

_SENTRY = "worker.telemetry.sentry"
SUBSCRIBERS = (log, metrics_subscriber)
"""These subscribe when they are imported."""


def start_telemetry(settings: Settings) -> None:
    """Send the events of this process to the log, the metrics and, if a DSN is set, Sentry; once is enough."""
    catalogue = settings.catalogue()
    metrics.REGISTRY.set_models(catalogue.models, catalogue.aliases)
    families = {name: model.family for name, model in catalogue.models.items()}
    job_ends.set_families({**families, **{alias: families[name] for alias, name in catalogue.aliases.items()}})
    metrics.REGISTRY.set_accounts(provider_accounts(settings).by_name)
    metrics.set_build_info(version("vigil-queue"))
    if settings.sentry_dsn is not None:
        importlib.import_module(_SENTRY).start(settings)  # without a DSN not even the import is paid for


def stop_telemetry() -> None:
    """Flush what is queued for Sentry, before the process ends."""
    if _SENTRY in sys.modules:
        sys.modules[_SENTRY].stop()
