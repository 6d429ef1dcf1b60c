"""Keys that end soon are reported: by `vigil doctor`, and by a worker once a day. Times as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from worker.cli.doctor.key_checks import key_check
from worker.cli.errors import CliError
from worker.cli.times import parse_end, parse_seconds
from worker.clock import Clock
from worker.store import keys
from worker.store.apps import Apps
from worker.tasks.maintenance.key_expiry import report_expiring_keys

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


async def test_the_doctor_and_a_worker_tell_of_keys_that_end_soon(redis, clock, telemetry_events):
    apps, now = Apps(redis, clock), Clock().now()
    soon, _, _ = await apps.create_key("shop", ("read",), person="Ann", expires_at=now + timedelta(days=3))
    await apps.create_key("shop", ("read",), expires_at=now + timedelta(days=30))
    await apps.create_key("shop", ("read",))
    gone, _, _ = await apps.create_key("shop", ("read",), person="Bo", expires_at=now + timedelta(days=2))
    await apps.revoke(gone.id)
    check = await key_check(redis, clock)
    assert (check.state, check.name) == ("warning", "API keys")
    assert f"3 live; {soon.id} of app shop (Ann) expires 20" in check.detail
    assert gone.id not in check.detail
    for _ in range(2):
        await report_expiring_keys(redis, clock)
    await redis.delete(keys.warning("keys"))  # an hour later
    await report_expiring_keys(redis, clock)
    events = [fields for name, fields in telemetry_events if name == "key.expiring"]
    assert [(fields["app"], fields["what"]) for fields in events] == [("shop", soon.id)]
    assert "Ann" not in str(events)
    await apps.revoke(soon.id)
    check = await key_check(redis, clock)
    assert (check.state, check.detail) == ("ok", "2 live; none ends within 14 days")


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("90d", datetime(2026, 9, 29, 12, tzinfo=UTC)),
        ("12h", datetime(2026, 7, 2, 0, tzinfo=UTC)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T12:00:00+02:00", datetime(2027, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_an_end_is_so_many_days_or_a_date(text, end):
    assert parse_end("--expires", text, NOW) == end


@pytest.mark.parametrize("text", ["", "90", "d", "-1d", "0d", "soon", "2026-07-01", "999999999w"])
def test_an_end_that_is_none_is_one_line(text):
    with pytest.raises(CliError, match="--expires"):
        parse_end("--expires", text, NOW)


def test_seconds_have_a_unit():
    assert [parse_seconds("--result", text) for text in ("30m", "3d", "2w", "60s")] == [1800, 259_200, 1_209_600, 60]
    with pytest.raises(CliError, match="--result"):
        parse_seconds("--result", "3 days")
