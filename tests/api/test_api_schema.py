"""What the API does is what its document says, held against it by schemathesis: valid, invalid and in sequences.

`python tests/api/fuzz_hand.py --seconds 600` goes on for longer.
"""

from __future__ import annotations

import re

from fuzz_hand import fuzz


async def test_the_served_api_keeps_to_its_document(settings, redis, valkey_url):
    settings = settings.model_copy(update={"allow_unknown_models": True})  # so that made-up jobs are taken too
    done = await fuzz(settings, redis, valkey_url, 20_260_630, "--max-examples", "5")
    assert done.code == 0, done.brief
    operations = re.search(r"Operations: +(\d+) selected / (\d+) total", done.said)
    cases = re.search(r"(\d+) generated", done.said)
    assert operations is not None, done.brief
    assert cases is not None, done.brief
    assert operations[1] == operations[2]
    assert int(cases[1]) >= 300
