"""What a person on call sees in Sentry in eight incidents: a short list, told once, without content."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from eight_incidents import INCIDENTS, OUTAGE, SECRET, Seen, incidents
from ingest import Ingest
from thorough import cases

from worker.telemetry import sentry
from worker.telemetry.sentry_issues import CAUSES

DOCUMENT = Path(__file__).resolve().parents[2] / "ops" / "sentry" / "README.md"
ROW = re.compile(r"^\| `?([^|`]+)`? \| (error|warning) \| ([^|]+) \| ", re.MULTILINE)


def section(title: str) -> str:
    """The part of the document below this heading."""
    return DOCUMENT.read_text().split(f"## {title}\n")[1].split("\n## ")[0]


@pytest.mark.timeout(cases(300, 1800))
async def test_eight_incidents_are_a_short_list_of_issues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Seen] = {}
    with Ingest() as ingest:
        async for one in incidents(tmp_path, ingest, monkeypatch):
            seen[one.incident] = one
        sentry.stop()
        everything, traces = ingest.everything(), ingest.items("transaction")
    print(listing(seen.values()))
    assert {row for one in seen.values() for row in one.issues if len(one.issues) > 1} == set(), "one issue for each"
    documented = set(ROW.findall(section("Eight incidents")))
    assert {(name, *issue) for name, one in seen.items() for issue in one.issues} == documented
    assert seen.keys() == INCIDENTS.keys()
    outage = seen["provider down"]
    assert len(outage.first) <= cases(1, 3), "and nothing more within the minute"
    assert outage.occurrences == OUTAGE
    *first, later = (event["contexts"]["incident"] for event in (*outage.first, *outage.later))
    assert later["suppressed"] == OUTAGE - sum(one["count"] for one in first) - 1
    assert (later["number"], later["runbook"]) == (len(first) + 1, "ops/runbook/UpstreamErrors.md")
    assert seen["worker bug"].occurrences == 20
    assert all(len(one.first) == 1 for name, one in seen.items() if name not in ("provider down", "Redis away"))
    assert traces == [], "the share of traces is 0"
    for leak in (SECRET, "sk-stage", "whsec_", "CANARY-query", "/hooks", "127.0.0.1", "job_0 "):
        assert leak not in everything, leak


def test_every_cause_is_in_the_document() -> None:
    documented = {cause: (level, title.strip()) for cause, level, title in ROW.findall(section("All causes"))}
    bug = "*the exception's type and place*"
    assert documented == {name: (one.level, bug if one.bug else one.title) for name, one in CAUSES.items()}


def listing(seen: object) -> str:
    """The list of issues, as Sentry shows it."""
    lines = []
    for one in seen:
        for level, title in one.issues:
            events = len(one.first) + len(one.later)
            lines.append(f"{one.incident:24}{level:9}{title:80}{events:3} events for {one.occurrences:,} occurrences")
    return "\n".join(lines)
