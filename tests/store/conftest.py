"""Fixtures of the store tests: jobs on a clock that the test sets."""

from __future__ import annotations

import pytest
from arq.connections import ArqRedis
from builders import FakeClock

from worker.store.jobs.repository import Jobs


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def jobs(redis: ArqRedis, clock: FakeClock) -> Jobs:
    return Jobs(redis, clock)
