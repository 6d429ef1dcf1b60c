"""Checks, when a process starts, that the files and folders of the settings can be written.

A setting that names a place where nothing can be kept is wrong. A full disk is not the setting's fault: it passes.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from worker.jobs.errors import SettingsError
from worker.settings import Settings

_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


def check_files(settings: Settings) -> None:
    """Make the folders that these settings need. Raises SettingsError, which names each that can't be written."""
    faults = list(_faults(settings))
    if faults:
        raise SettingsError(faults)


def data_dir_fault(path: Path, error: OSError) -> str:
    """Return the fault of a data folder in which this happened."""
    return _fault("VIGIL_DATA_DIR", path, error.strerror or "", "name a folder that this user may write")


def _faults(settings: Settings) -> Iterator[str]:
    folder = settings.data_dir
    keeps_mark = "data_dir" in settings.model_fields_set and settings.store_mark is None
    if (settings.redis_url is None or keeps_mark) and (error := _folder_error(folder)):
        yield data_dir_fault(folder, error)
    for variable, path in (
        ("VIGIL_STORE_MARK", settings.store_mark),
        ("VIGIL_AUDIT_CHECKPOINTS", settings.audit_checkpoints),
    ):
        if path is not None and (why := _why_unwritable(path, may_be_folder=path == settings.audit_checkpoints)):
            yield _fault(variable, path, why, "name a file that this user may write")


def _why_unwritable(path: Path, *, may_be_folder: bool) -> str:
    """Return why the file can't be written, or replaced by another one; "" if it can."""
    try:
        if path.is_dir():
            error = _folder_error(path) if may_be_folder else OSError(errno.EISDIR, "Is a directory")
        elif path.exists() and not path.is_file():
            error = OSError(errno.EINVAL, "Is not a regular file")
        else:
            error = _folder_error(path.parent)
            if path.exists():
                path.open("ab").close()
    except OSError as raised:
        error = raised
    return "" if error is None or error.errno in _FULL else error.strerror or type(error).__name__


def _folder_error(folder: Path) -> OSError | None:
    """Make the folder and a file in it that is gone at once; return what was raised."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return None if error.errno in _FULL else error


def _fault(variable: str, path: Path, why: str, cure: str) -> str:
    return f"{variable}: {path} can't be written ({why}); {cure}"
