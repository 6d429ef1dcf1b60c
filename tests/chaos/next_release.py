"""Makes a release that does not exist yet: this tree with more fields in what it stores, compressed by default.

It has one more migration, too.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIELD = "of_the_next_release"
STEPS = 100
COUNTED = "vigil:text:next_release"
"""Where its migration notes each step that it has done."""
_RECORD = "worker/jobs/record.py"
_EVENTS = "worker/jobs/events.py"
_ENDPOINTS = "worker/store/webhooks/endpoints.py"
_SCHEMA = "worker/store/store_schema.py"
_MIGRATIONS = "worker/store/lifecycle/migrations.py"
_UNSET = 'Field(default="", exclude_if=lambda value: not value)'
_DATACLASS = '__import__("dataclasses").field(default="next", kw_only=True)'
_PLAIN = "compact_records: bool = False"
_ADDED = [
    (_RECORD, "Job", _UNSET),
    (_RECORD, "Attempt", _UNSET),
    (_RECORD, "Check", _UNSET),
    (_EVENTS, "Queued", '"next"'),
    (_EVENTS, "AttemptStarted", '"next"'),
    (_EVENTS, "CheckStarted", '"next"'),
    (_ENDPOINTS, "Secret", _DATACLASS),
    (_ENDPOINTS, "Endpoint", _DATACLASS),
    ("worker/store/webhooks/outbox.py", "OutboxMessage", _DATACLASS),
    ("worker/store/admission/pauses.py", "Pause", _DATACLASS),
]
_MIGRATION = f'''

class OfTheNextRelease:
    """Notes each of its steps."""

    number, what = {{number}}, "the next release has counted"

    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis

    async def step(self, cursor: str) -> MigrationStep:
        """Note the step."""
        await self._redis.rpush("{COUNTED}", cursor or "0")
        after = int(cursor or 0) + 1
        return MigrationStep(str(after) if after < {STEPS} else None, 1)
'''


def make_next_release(folder: Path) -> Path:
    """Copy the packages into the folder and add to what they store; return the folder for PYTHONPATH."""
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
    _add_migration(folder)
    return folder


def next_schema() -> int:
    """Return the number of the next release's migration."""
    found = re.search(r"STORE_SCHEMA: Final = (\d+)\n", (ROOT / _SCHEMA).read_text())
    assert found
    return int(found[1]) + 1


def _add_migration(folder: Path) -> None:
    number, schema, path = next_schema(), folder / _SCHEMA, folder / _MIGRATIONS
    schema.write_text(schema.read_text().replace(f"Final = {number - 1}\n", f"Final = {number}\n"))
    text, last = path.read_text(), "IndexQuarantineEnds(redis, clock)]"
    assert last in text
    text = text.replace(last, f"{last} + [OfTheNextRelease(redis)]")
    path.write_text(text + _MIGRATION.format(number=number))
