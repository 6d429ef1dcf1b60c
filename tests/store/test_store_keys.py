"""Each kind of key is known by name, so that faults can say what was unreadable, and is described in one page."""

from __future__ import annotations

import re
from pathlib import Path

from worker.store import keys
from worker.store.key_kinds import KINDS, kind_of

PAGE = Path(__file__).parents[2] / "ops" / "design" / "redis-keys.md"


def test_the_page_describes_the_kinds_that_there_are():
    table = PAGE.read_text().partition("```")[2]
    assert set(re.findall(r"vigil:([a-z]+)", table)) == KINDS


def test_a_key_is_of_its_kind_and_a_strange_one_of_none():
    assert kind_of(keys.ledger("x", "blocks")) == "ledger"
    assert kind_of(keys.job("job_x")) == "job"
    assert kind_of(keys.QUARANTINE) == "quarantine"
    assert kind_of("vigil:nothing:x") == kind_of("other:job") == "other"
