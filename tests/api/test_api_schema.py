"""The API does what its document says, checked by schemathesis: valid, invalid and in sequences.

`python tests/api/schema_fuzzing.py --seconds 600` goes on for longer.
"""

from __future__ import annotations

import re

from schema_fuzzing import Fuzzed, fuzz
from thorough import cases

SEED = 20_260_630
PAUSE = "/v1/pause"
"""By itself: what pauses everything would leave all others waiting."""


def counted(done: Fuzzed) -> tuple[int, int, int]:
    """(operations tested, all operations, cases) of a run without failures."""
    assert done.code == 0, done.brief
    operations = re.search(r"Operations: +(\d+) selected / (\d+) total", done.output)
    generated = re.search(r"(\d+) generated", done.output)
    assert operations is not None, done.brief
    assert generated is not None, done.brief
    return int(operations[1]), int(operations[2]), int(generated[1])


async def test_the_served_api_keeps_to_its_document(settings, redis, valkey_url):
    settings = settings.model_copy(update={"allow_unknown_models": True})  # so that made-up jobs are taken too
    given = (settings, redis, valkey_url, SEED, "--max-examples", str(cases(1, 5)))
    most, total, generated = counted(await fuzz(*given, "--exclude-path", PAUSE))
    rest, _, _ = counted(await fuzz(*given, "--include-path", PAUSE))
    assert most + rest == total
    assert generated >= 200
