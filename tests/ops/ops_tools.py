"""Tools that no Python package carries: taken from .tools/bin, fetched by ops/tools.sh, else the test is skipped."""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
from pathlib import Path

import pytest
from ops_server import ROOT

FOLDER = ROOT / ".tools"


@functools.cache
def _fetched() -> str:
    """The last reason why one of them can't be had."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            run = subprocess.run(
                ["sh", str(ROOT / "ops" / "tools.sh")], capture_output=True, text=True, timeout=90, check=False
            )
        except subprocess.TimeoutExpired:
            return "the archive doesn't answer"
        return (run.stderr.strip().splitlines() or ["no reason given"])[-1]


def tool(name: str) -> Path:
    """The program; the test is skipped, with the reason, where it can't be had."""
    path = FOLDER / "bin" / name
    if not os.access(path, os.X_OK):
        why = _fetched()
        if not os.access(path, os.X_OK):
            pytest.skip(f"{name} can't be had here: {why}")
    return path
