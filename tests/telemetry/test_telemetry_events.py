"""The table of events: what it lists passes; anything else raises in tests and is dropped in production."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import timeit
from collections.abc import Iterator

import pytest

from worker.jobs.errors import SettingsError
from worker.settings_loader import load
from worker.telemetry import events, log, metrics_subscriber
from worker.telemetry.metrics import METRICS, MetricsRegistry


@pytest.fixture
def lenient() -> Iterator[None]:
    events.set_strict(False)
    yield
    events.set_strict()


def test_every_field_of_every_event_has_a_meaning() -> None:
    assert events.FIELDS.keys() >= events.COMMON_FIELDS
    for name, row in events.EVENTS.items():
        assert row.fields <= events.FIELDS.keys(), name
        assert row.description.endswith("."), name
        assert not row.fields & events.COMMON_FIELDS, name
    used = frozenset().union(*(row.fields for row in events.EVENTS.values()))
    reserved = {"sequence", "version"}  # for plain lines only
    assert events.FIELDS.keys() - used - events.COMMON_FIELDS <= reserved


@pytest.mark.parametrize("name", ["prompt", "output", "input", "text", "url", "body", "key", "message", "metadata"])
def test_no_field_is_named_after_content(name: str) -> None:
    assert name not in events.FIELDS


def test_what_no_table_lists_is_a_fault_of_ours_in_tests() -> None:
    with pytest.raises(ValueError, match=r"made\.up"):
        events.emit("made.up")
    with pytest.raises(ValueError, match=r"lease\.lost\.status"):
        events.emit("lease.lost", status="x")


@pytest.mark.usefixtures("lenient")
def test_in_production_it_is_dropped_and_the_rest_passes(telemetry_events: list[tuple[str, dict[str, object]]]) -> None:
    events.emit("made.up", prompt="CANARY")
    events.emit("lease.lost", job_id="job_1", prompt="CANARY")
    log.log("lease.lost", logging.WARNING, job="job_2", prompt="CANARY")
    assert [fields for name, fields in telemetry_events if name == "lease.lost"] == [
        {"job_id": "job_1"},
        {"job_id": "job_2"},
    ]
    assert [fields["what"] for name, fields in telemetry_events if name == "telemetry.dropped"] == [
        "event",
        "field",
        "field",
    ]
    assert "CANARY" not in repr(telemetry_events)


@pytest.mark.usefixtures("lenient")
def test_a_subscriber_that_breaks_harms_nobody(telemetry_events: list[tuple[str, dict[str, object]]]) -> None:
    def broken(_: str, __: object) -> None:
        raise RuntimeError

    events.subscribe(broken, ["job.rescued"])
    try:
        events.emit("job.rescued", generation=2)
    finally:
        events.unsubscribe(broken)
    assert ("job.rescued", {"generation": 2}) in telemetry_events


def test_what_it_is_about_goes_with_everything_told_inside(
    telemetry_events: list[tuple[str, dict[str, object]]],
) -> None:
    with events.event_context(request_id="req_1", nonsense="x"), events.event_context(job_id="job_1"):
        events.emit("lease.lost", job_id="job_2")
        events.emit("job.rescued", generation=1)
    events.emit("job.rescued", generation=2)
    assert [fields for _, fields in telemetry_events] == [
        {"request_id": "req_1", "job_id": "job_2"},
        {"request_id": "req_1", "job_id": "job_1", "generation": 1},
        {"generation": 2},
    ]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_says_the_event_and_its_fields(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("vigil")
    before = logger.handlers[:], logger.level, logger.propagate
    try:
        log.configure("INFO", form)
        events.emit(
            "job.settled", job_id="job_1", app="shop", trace_id="t" * 32, model="m", status="failed", attempts=1
        )
        events.emit("attempt.started", job_id="job_1", model="m")  # too quiet for INFO
        log.log("something.new", logging.WARNING, job="job_1", count=3)  # not in the table yet: a plain line
    finally:
        logger.handlers[:], logger.level, logger.propagate = before
    first, second = capsys.readouterr().err.splitlines()
    if form == "json":
        line = json.loads(first)
        assert (line["level"], line["event"], line["job_id"], line["attempts"]) == ("info", "job.settled", "job_1", 1)
        assert line["trace_id"] == "t" * 32
        assert json.loads(second)["event"] == "something.new"
    else:
        assert "job.settled job_id=job_1 app=shop" in first
        assert "warning something.new job_id=job_1 count=3" in second


def test_every_metric_of_a_process_is_moved_by_some_event(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: set[str] = set()
    for way in ("count", "observe", "set"):
        monkeypatch.setattr(MetricsRegistry, way, lambda _, name, *__, **___: moved.add(name))
    fields = {
        "model": "m", "served": "n", "disclosed": "yes", "status": "completed", "seconds": 1, "wait_seconds": 1,
        "refused": True, "reason": "hold", "code": "x", "category": "cyber", "evidence": "signalled", "count": 1,
        "outcome": "server_error", "ttft_seconds": 1, "input_tokens": 1, "cost_usd": 1, "resumed": 1, "slots": 1,
        "result": "delivered", "lag_seconds": 1, "http_status": 200, "what": "event", "decided_by": "policy",
        "account": "default",
    }  # fmt: skip
    for name in metrics_subscriber.HANDLERS:
        metrics_subscriber.observe(name, fields)
        metrics_subscriber.observe(name, {**fields, "reason": "access_denied"})
    own = {name for name, row in METRICS.items() if row.source == "process"}
    assert own - moved == {"vigil_build_info"}


def test_telling_is_cheap() -> None:
    seconds = min(timeit.repeat(lambda: events.emit("sweep.done", worker="w"), number=2000, repeat=5)) / 2000
    assert seconds < 50e-6  # measured: 1-2 us


def test_who_has_no_dsn_does_not_even_load_the_sdk() -> None:
    code = "import sys, api.app, worker.main; from worker.cli.main import assemble; assemble(); "
    code += "print('sentry_sdk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("dsn", ["garbage", "https://sentry.example/1", "https://SECRET@", "ftp://SECRET@h/1"])
def test_a_dsn_that_is_none_is_a_fault_of_the_settings(dsn: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"SENTRY_DSN": dsn})
    (fault,) = caught.value.faults
    assert fault.startswith("SENTRY_DSN: must be an address")
    assert "SECRET" not in fault
