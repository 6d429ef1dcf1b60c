"""Puts telemetry together for a process that acts: who listens to events, which models metrics may name."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version

from worker.settings import Settings
from worker.telemetry import log, metrics, metrics_subscriber

_SENTRY = "worker.telemetry.sentry"
LISTENERS = (log, metrics_subscriber)
"""They subscribe when they are imported."""


def start_telemetry(settings: Settings) -> None:
    """From now on logs, metrics and, if there is a DSN, Sentry hear of what this process tells; once is enough."""
    catalogue = settings.catalogue()
    metrics.REGISTRY.know(catalogue.models, catalogue.aliases)
    metrics.set_build_info(version("vigil-queue"))
    if settings.sentry_dsn is not None:
        importlib.import_module(_SENTRY).start(settings)  # who has no DSN pays nothing, not even the import


def stop_telemetry() -> None:
    """The process is about to end: what is on its way to Sentry has had its moment to leave."""
    if _SENTRY in sys.modules:
        sys.modules[_SENTRY].stop()
