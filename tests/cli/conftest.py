"""A `vigil` command in a folder of its own, and one running `vigil up` for all tests that only ask it things."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from vigil_process import Up, Vigil, free_port, run, start_up
from waiting import LIMIT


@pytest.fixture
def vigil(tmp_path: Path) -> Vigil:
    return lambda *words, **more: run(tmp_path, *words, **more)


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    yield from _running(tmp_path_factory.mktemp("up"))


@pytest.fixture
def started_now(tmp_path: Path) -> Iterator[Up]:
    """A `vigil up` of the test's own, for what it prints and what ends some minutes later."""
    yield from _running(tmp_path)


def _running(folder: Path) -> Iterator[Up]:
    running = start_up(folder, free_port(), "--speed", "10")
    yield running
    running.process.send_signal(signal.SIGTERM)
    try:
        running.process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        running.process.kill()
        running.process.communicate()
        raise
    assert running.process.returncode == 0
