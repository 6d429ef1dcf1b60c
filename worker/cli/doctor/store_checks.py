"""What `vigil doctor` says of the store's identity: whether it is the known one, and whether it will be known again."""

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

_GOES: Final = {"tmpfs", "ramfs", "overlay"}
_KEEP: Final = "VIGIL_STORE_MARK, a file on a disk that outlives the process and its container, one for each machine"


async def store_check(redis: Redis, settings: Settings) -> DoctorCheck:
    """Whether Redis holds the store that was known here, and whether the next start will know it too."""
    path = settings.mark_file
    try:
        mark = load(path)
    except OSError as error:
        return DoctorCheck(
            "store", "warning", f"{path} can't be read ({error.strerror}): an emptied Redis goes unseen", _KEEP
        )
    async with store_errors("say which deployment it holds"):
        seen = await read_answer(redis.execute_command, mark)
    reason = judge(mark, seen)
    if mark is not None and reason is not None:
        return DoctorCheck(
            "store", "problem", describe(reason, mark, seen), "bring its data back, or `vigil store accept`"
        )
    known = f"deployment {seen.deployment}" if seen.deployment else "no deployment yet"
    if mark is None:
        said = f"{known}; nothing is remembered of it in {path}, so an emptied Redis would pass for a new one here"
        return DoctorCheck("store", "warning", said, f"start API or worker once; {_KEEP}")
    if _kind(path) in _GOES:
        said = f"{known}, as known here; but {path} goes with the container, and an emptied Redis then passes for new"
        return DoctorCheck("store", "warning", said, _KEEP)
    return DoctorCheck("store", "ok", f"{known}, as known in {path}")


def _kind(path: Path) -> str:
    """The type of the file system that the file is on; "" where that can't be told."""
    try:
        rows = [row.split() for row in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    place = os.path.realpath(path)
    over = [row for row in rows if os.path.commonpath([place, row[1]]) == row[1]]
    return max(over, key=lambda row: len(row[1]), default=["", "", ""])[2]
