"""Makes a release that does not exist yet: this tree with more fields in what it stores, compressed by default."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIELD = "of_the_next_release"
_RECORD = "worker/jobs/record.py"
_EVENTS = "worker/jobs/events.py"
_UNSET = 'Field(default="", exclude_if=lambda value: not value)'
_PLAIN = "compact_records: bool = False"
_ADDED = [
    (_RECORD, "Job", _UNSET),
    (_RECORD, "Attempt", _UNSET),
    (_RECORD, "Check", _UNSET),
    (_EVENTS, "Queued", '"next"'),
    (_EVENTS, "AttemptStarted", '"next"'),
    (_EVENTS, "CheckStarted", '"next"'),
]


def make_next_release(folder: Path) -> Path:
    """Copy the packages into the folder and add a field to what they store; return the folder for PYTHONPATH."""
    for package in ("worker", "api"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "models.toml", folder)
    for name, one, default in _ADDED:
        path = folder / name
        head, found, rest = path.read_text().partition(f"\nclass {one}(")
        assert found, f"{name} has no class {one} any more"
        first, found, rest = rest.partition('"""\n')
        assert found
        path.write_text(f'{head}\nclass {one}({first}"""\n    {FIELD}: str = {default}\n{rest}')
    settings = folder / "worker/settings.py"
    before = settings.read_text()
    assert _PLAIN in before
    settings.write_text(before.replace(_PLAIN, _PLAIN.replace("False", "True")))
    return folder
