"""The check of `vigil doctor` for the identity of the store: is it the known one, and will the next start know it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from worker.cli.doctor.check import DoctorCheck
from worker.settings import Settings
from worker.store.connection.pool import Redis
from worker.store.connection.store_guard import read_answer
from worker.store.connection.store_mark import describe, judge, load
from worker.store.errors import store_errors

_TEMPORARY: Final = {"tmpfs", "ramfs", "overlay"}
_KEEP_FIX: Final = "set VIGIL_STORE_MARK to a file that outlives the container, one for each machine"


async def store_check(redis: Redis, settings: Settings) -> DoctorCheck:
    """Check whether Redis holds the store known here, and whether the next start will recognise it."""
    path = settings.mark_file
    try:
        mark = load(path)
    except OSError as error:
        return DoctorCheck(
            "store",
            "warning",
            f"{path} can't be read ({error.strerror}): an emptied Redis would go unnoticed",
            _KEEP_FIX,
        )
    async with store_errors("say which deployment it holds"):
        answer = await read_answer(redis.execute_command, mark)
    reason = judge(mark, answer)
    if mark is not None and reason is not None:
        return DoctorCheck(
            "store", "problem", describe(reason, mark, answer), "bring its data back, or `vigil store accept`"
        )
    known = f"deployment {answer.deployment}" if answer.deployment else "no deployment yet"
    if mark is None:
        detail = f"{known}; {path} does not name it, so an emptied Redis would pass for a new one"
        return DoctorCheck("store", "warning", detail, f"start the API or a worker once; {_KEEP_FIX}")
    if _file_system(path) in _TEMPORARY:
        detail = (
            f"{known}, as known here; but {path} is lost with the container, and then an emptied Redis passes for new"
        )
        return DoctorCheck("store", "warning", detail, _KEEP_FIX)
    return DoctorCheck("store", "ok", f"{known}, as known in {path}")


def _file_system(path: Path) -> str:
    """Return the type of the file system of the file, or "" if it is unknown."""
    try:
        rows = [row.split() for row in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    place = os.path.realpath(path)
    over = [row for row in rows if os.path.commonpath([place, row[1]]) == row[1]]
    return max(over, key=lambda row: len(row[1]), default=["", "", ""])[2]
