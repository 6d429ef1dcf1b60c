"""What is done to the archive is found and named, and ops/audit.md says what is said."""

from __future__ import annotations

import re

import pytest
from archive_tampering import TAMPERINGS, Tampering
from archived_trail import archived_trail
from thorough import cases


@pytest.mark.parametrize("tamper", TAMPERINGS[:: cases(3, 1)], ids=lambda tamper: tamper.__name__)
async def test_tampering_with_the_archive_is_found_and_named(redis, clock, jobs, s3, tamper: Tampering) -> None:
    trail = await archived_trail(redis, clock, jobs, s3)
    expected = await tamper(trail)
    report = await trail.verify()
    assert not report.good, "nobody noticed"
    detail = "\n".join(f"{fault.kind}: {fault.detail}" for fault in report.faults)
    assert re.match(expected, detail), detail
