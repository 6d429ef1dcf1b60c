"""What the API does is what its document says, held against it by schemathesis: valid, invalid and in sequences.

`python tests/api/fuzz_hand.py --seconds 600` goes on for longer.
"""

from __future__ import annotations

import re

from fuzz_hand import fuzz


async def test_the_served_api_keeps_to_its_document(settings, redis, valkey_url):
    settings = settings.model_copy(update={"allow_unknown_models": True})  # so that made-up jobs are taken too
    no_pauses = ("--exclude-path", "/v1/pause")  # a made-up pause of everything would make every other answer wait
    done = await fuzz(settings, redis, valkey_url, 20_260_630, "--max-examples", "5", *no_pauses)
    assert done.code == 0, done.brief
    operations = re.search(r"Operations: +(\d+) selected / (\d+) total", done.said)
    cases = re.search(r"(\d+) generated", done.said)
    assert operations is not None, done.brief
    assert cases is not None, done.brief
    assert int(operations[1]) == int(operations[2]) - 1
    assert int(cases[1]) >= 300


async def test_pausing_keeps_to_it_as_well(settings, redis, valkey_url):
    alone = ("--include-path", "/v1/pause", "--include-path", "/v1/resume")
    done = await fuzz(settings, redis, valkey_url, 20_260_630, "--max-examples", "20", *alone)
    assert done.code == 0, done.brief
