"""Processes that outlive the tests which started them."""

from __future__ import annotations

import os
import time
from pathlib import Path

_GRACE = 20.0  # seconds in which what was told to end may do so


def left_running(folder: Path) -> list[str]:
    """The command lines of our descendants, and of whatever works in or with `folder`; empty where /proc is missing."""
    end = time.monotonic() + _GRACE
    while (found := _running(folder)) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def _running(folder: Path) -> list[str]:
    parents: dict[int, int] = {}
    words: dict[int, str] = {}
    inside: set[int] = set()
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            place = str((entry / "cwd").readlink())
        except OSError:
            continue  # it has ended, or is somebody else's
        if state != "Z":
            parents[pid], words[pid] = int(parent), command
            if str(folder) in command or place.startswith(str(folder)):
                inside.add(pid)
    me = os.getpid()
    return [words[pid] for pid in parents if pid != me and (pid in inside or me in _line(pid, parents))]


def _line(pid: int, parents: dict[int, int]) -> list[int]:
    """The ancestors of a process."""
    line: list[int] = []
    while (pid := parents.get(pid, 0)) and pid not in line:
        line.append(pid)
    return line
