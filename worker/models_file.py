"""Reads the models file anew when it changes or the process gets SIGHUP, without a restart; API and workers use it.

A file that can't be used changes nothing: the catalogue that was read before stays in force, and the fault is logged.
"""

from __future__ import annotations

import asyncio
import weakref
from pathlib import Path
from typing import Final

from worker.jobs.catalogue import Catalogue
from worker.jobs.errors import SettingsError
from worker.settings import Settings
from worker.telemetry.events import emit
from worker.telemetry.internal_errors import report_internal_error

_CHECK_INTERVAL_S: Final = 1.0
_MAX_REASON: Final = 300
_watches: weakref.WeakSet[ModelsFileWatch] = weakref.WeakSet()

FileState = tuple[Path, int, int, int] | None


class ModelsFileWatch:
    """Keeps one catalogue as its file is; whoever holds the catalogue sees the change."""

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self._settings, self._catalogue = settings, catalogue
        self._state: FileState = None  # unknown: the file may have changed since the catalogue was read
        _watches.add(self)

    async def run(self) -> None:
        """Read the file anew whenever it has changed, until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_INTERVAL_S)
            if self._file_state() != self._state:
                self.reload()

    def reload(self) -> None:
        """Read the file and replace the catalogue's content, if the file can be used."""
        self._state = self._file_state()
        try:
            newer = self._settings.catalogue()
        except SettingsError as error:
            emit("models.refused", reason=error.faults[0][:_MAX_REASON], count=len(error.faults))
        except Exception as error:  # noqa: BLE001  a file must not end the process
            report_internal_error("models.broke", error)
        else:
            same = (newer.models, newer.families) == (self._catalogue.models, self._catalogue.families)
            self._catalogue.replace_with(newer)
            if not same:
                emit("models.reloaded", count=len(newer.models))

    def _file_state(self) -> FileState:
        """Return what tells that the file is another one; None if it can't be read."""
        path = self._settings.catalogue_path
        try:
            found = path.stat()
        except OSError:
            return None
        return path, found.st_ino, found.st_mtime_ns, found.st_size


def reload_models() -> None:
    """Make every watch of this process read its file now, as after SIGHUP."""
    for watch in list(_watches):
        watch.reload()
