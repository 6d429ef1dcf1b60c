"""The checks of `vigil doctor` for the models file: which one is used, whether its prices are fresh, what ends soon."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Final

from worker.cli.doctor.check import DoctorCheck
from worker.cli.rendering import clean
from worker.jobs.catalogue import Catalogue
from worker.settings import Settings

MAX_AGE: Final = timedelta(days=60)
"""Prices that nobody has checked for longer than this are a warning."""
_ENDS_SOON: Final = timedelta(days=14)
_SHUTS_DOWN_SOON: Final = timedelta(days=90)
_UPDATE: Final = "`vigil models update FILE` installs a newer file"


def model_checks(settings: Settings, now: datetime) -> Iterator[DoctorCheck]:
    """Check the models file."""
    catalogue = settings.catalogue()
    names = ", ".join(map(clean, catalogue.models))
    yield DoctorCheck("models", "ok", f"{len(catalogue.models)} models: {names}; from {settings.catalogue_path}")
    yield price_check(catalogue, now)
    if shutting := sorted(_shutting_down({m.id: m.shutdown_date for m in catalogue.models.values()}, now.date())):
        yield DoctorCheck("shutdown", "warning", "; ".join(shutting), "move the apps that use them to another model")


def price_check(catalogue: Catalogue, now: datetime) -> DoctorCheck:
    """Warn about prices that are old, have ended or will soon end without a row that follows."""
    old: list[str] = []
    ending: list[str] = []
    priced = 0
    for model in catalogue.models.values():
        row = model.row(now)
        if row is None:
            continue
        priced += 1
        if row.checked_on is not None and now.date() - row.checked_on > MAX_AGE:
            old.append(f"{clean(model.id)} ({row.checked_on})")
        if row is model.prices[-1] and row.end is not None and row.end - now < _ENDS_SOON:
            verb = "ended" if row.end <= now else "ends"
            ending.append(f"that of {clean(model.id)} {verb} on {row.end:%Y-%m-%d}")
    faults = [f"last checked over {MAX_AGE.days} days ago: {', '.join(old)}"] if old else []
    faults += [f"a row is the last known one and {'; '.join(ending)}"] if ending else []
    if faults:
        fix = f"read the provider's prices and correct the rows; {_UPDATE}"
        return DoctorCheck("prices", "warning", "; ".join(faults), fix)
    return DoctorCheck("prices", "ok", f"the prices of {priced} models are fresh, and none ends soon")


def shutdown_check(listed: dict[str, date | None], known: set[str], today: date) -> DoctorCheck | None:
    """Return a warning about known models that the provider will shut down soon, or None."""
    soon = sorted(_shutting_down({name: day for name, day in listed.items() if name in known}, today))
    if not soon:
        return None
    return DoctorCheck("shutdown", "warning", "; ".join(soon), "move the apps that use them to another model")


def _shutting_down(days: dict[str, date | None], today: date) -> Iterator[str]:
    for name, day in days.items():
        if day is not None and day - today <= _SHUTS_DOWN_SOON:
            yield f"{clean(name)} {'shuts' if day >= today else 'shut'} down on {day}"
