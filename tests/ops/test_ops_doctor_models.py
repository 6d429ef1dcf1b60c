"""What `vigil doctor` says about the models file: old prices, rows that end, models that shut down."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime

import pytest

from worker.cli.doctor.model_checks import price_check, shutdown_check
from worker.jobs.catalogue import parse

ROW = '[[models.m.prices]]\nfrom = 2026-01-01\ninput = "1"\noutput = "2"\nchecked_on = 2026-06-01\n'
NEXT = '[[models.m.prices]]\nfrom = 2026-06-20\ninput = "1"\noutput = "2"\nchecked_on = 2026-06-01\n'


@pytest.mark.parametrize(
    ("text", "day", "state", "words"),
    [
        (ROW, date(2026, 7, 31), "ok", "fresh"),
        (ROW, date(2026, 8, 1), "warning", "checked over 60 days ago: m (2026-06-01)"),
        (ROW + "until = 2026-06-20\n", date(2026, 6, 2), "ok", "fresh"),
        (ROW + "until = 2026-06-20\n", date(2026, 6, 10), "warning", "m ends on 2026-06-20"),
        (ROW + "until = 2026-06-20\n", date(2026, 6, 20), "warning", "m ended on 2026-06-20"),
        (ROW + "until = 2026-06-20\n" + NEXT, date(2026, 6, 10), "ok", "fresh"),
        ("[models.m]\n", date(2026, 6, 10), "ok", "0 models"),
    ],
)
def test_prices(text: str, day: date, state: str, words: str) -> None:
    now = datetime(day.year, day.month, day.day, tzinfo=UTC)
    found = price_check(parse(tomllib.loads(text)), now)
    assert (found.state, words in found.detail) == (state, True), found
    assert bool(found.fix) == (state != "ok")


def test_a_known_model_that_shuts_down_soon_is_a_warning() -> None:
    listed = {"m": date(2027, 1, 14), "late": date(2028, 1, 1), "other": date(2026, 12, 1), "none": None}
    found = shutdown_check(listed, {"m", "late", "none"}, date(2026, 11, 30))
    assert found is not None
    assert found.detail == "m shuts down on 2027-01-14"
    assert shutdown_check(listed, {"late", "none"}, date(2026, 11, 30)) is None
