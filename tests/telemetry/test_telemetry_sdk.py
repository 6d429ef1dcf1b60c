"""Sentry's SDK does only what Vigil tells it to, and delays nothing."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from typing import Any

import sentry_sdk
from arq.connections import ArqRedis
from in_process import LIMIT, Stage
from ingest import Ingest

from worker.settings import Settings
from worker.telemetry import events, sentry, tracing
from worker.telemetry.internal_errors import report_internal_error

SECRET = "CANARY-7f1c"


def _arrived(ingest: Ingest) -> list[dict[str, Any]]:
    sentry.stop()
    assert SECRET not in ingest.everything()
    return ingest.events


def test_nothing_but_vigil_itself_speaks_to_sentry() -> None:
    with Ingest() as ingest:
        _speak_past_vigil(ingest)


def _speak_past_vigil(ingest: Ingest) -> None:
    sentry.start(Settings(_env_file=None, SENTRY_DSN=ingest.dsn))
    assert sentry_sdk.get_client().integrations == {}
    try:
        json.loads(SECRET)
    except ValueError as error:
        logging.getLogger("vigil").exception("no event of its own: %s", SECRET)
        sentry_sdk.add_breadcrumb(message=SECRET)
        sentry_sdk.capture_exception(error)
        report_internal_error("api.broke", error)
    (event,) = _arrived(ingest)
    assert event["tags"]["vigil.cause"] == "api.broke"


async def test_a_sentry_that_never_answers_delays_no_job_and_the_end_by_two_seconds(
    redis: ArqRedis, valkey_url: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the system takes connections, and nobody reads them
        dsn = f"http://public@127.0.0.1:{silent.getsockname()[1]}/7"
        await _run_beside_a_silent_sentry(redis, valkey_url, dsn)


async def _run_beside_a_silent_sentry(redis: ArqRedis, valkey_url: str, dsn: str) -> None:
    async with Stage(redis, valkey_url, SENTRY_DSN=dsn) as stage:
        await stage.worker()
        longest = 0.0
        for _ in range(150):  # more than the SDK's queue holds
            began = time.monotonic()
            with tracing.serving("POST /v1/jobs", dict):
                events.emit("lease.lost", job_id="job_1")
            longest = max(longest, time.monotonic() - began)
        ids = [await stage.submit("[[sim: normal tokens=2]]") for _ in range(5)]
        for job_id in ids:
            assert (await stage.settled(job_id)).status.value == "completed"
        began = time.monotonic()
        await asyncio.to_thread(sentry.stop)
        assert time.monotonic() - began < 2 + LIMIT / 10
        assert longest < LIMIT / 10
