"""Trains the dictionary that audit records, records and events of settled jobs are compressed with.

    python ops/bench/train_dictionary.py NUMBER [--kilobytes 16]

Runs every scenario of the simulator through a Valkey, an API and a worker of its own, and trains on what Redis holds
then. Ids, digests, times and names are replaced by random ones first, so that nothing of this machine or of this day is
in the dictionary, and no value that only these jobs have in common. Writes `worker/store/dictionaries/NUMBER.dict`;
`DICTIONARY` in `worker/store/compression.py` says which one is used for writing. A dictionary that was released is
never changed or removed: what it compressed must stay readable. Readers come first: a release that writes with a new
one must follow one that has it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import secrets
import sys
from pathlib import Path
from typing import Any

import zstandard
from memory_per_job import Store
from report import Deployment, Line, post

from worker.simulator.scenarios import SCENARIOS
from worker.store import compression, keys

_below = secrets.randbelow
_FIRST = 32_768
"""Smaller ids of dictionaries are reserved by zstd."""
_LAST = 65_535  # two bytes in each frame
_ROUNDS = 6
_PLAIN_JOBS = 400
_SETTLE_SECONDS = 90.0
_MODELS = ("gpt-5.6-sol", "gpt-5.6-sol", "gpt-5.6-luna", "gpt-5.6-terra")
_HEX = "0123456789abcdef"
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_APPS = ("shop", "search", "mail-agent", "support", "research", "a", "billing-bot", "docs", "team-7", "qa")
_POLICIES: tuple[dict[str, Any], ...] = (
    {},
    {"policy": {"on_delay": {"action": "wait"}}},
    {"policy": {"on_delay": {"action": "switch", "after_seconds": 1}}},
    {"policy": {"on_delay": {"action": "race", "after_seconds": 1}}},
    {"policy": {"require_model": True, "max_attempts": 2}},
    {"priority": "high", "metadata": {"a": "b"}},
)
_RANDOM = re.compile(
    rb"(?P<ulid>(?<=_)[0-9a-hjkmnp-tv-z]{26})|(?P<hex>[0-9a-f]{12,64}|(?<=\"1\.)[0-9a-f]{8}(?=\.))|(?P<time>20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6})"
    rb"|(?P<worker>(?<=\"worker\":\")[^\"]+)|(?P<app>(?<=\"app\":\")bench(?=\"))|(?P<org>(?<=\")(?:org|proj)[-_]sim(?=\"))"
)


def anonymous(sample: bytes) -> bytes:
    """Replace what is only this job's, this day's or this machine's; the same value by the same one."""
    known: dict[bytes, bytes] = {}

    def other(found: re.Match[bytes]) -> bytes:
        old = found[0]
        if old not in known:
            match found.lastgroup:
                case "ulid":
                    text = "".join(secrets.choice(_CROCKFORD) for _ in old)
                case "hex":
                    text = "".join(secrets.choice(_HEX) for _ in old)
                case "time":
                    day = f"20{26 + _below(14)}-{1 + _below(12):02}-{1 + _below(28):02}"
                    clock = f"{_below(24):02}:{_below(60):02}:{_below(60):02}"
                    text = f"{day}T{clock}.{_below(10**6):06}"
                case "worker":
                    text = f"worker-{_below(10**6)}-{_below(10**6):06x}"
                case "app":
                    text = secrets.choice(_APPS)
                case _:
                    text = old.decode()[:4].rstrip("-_") + "-" + "".join(secrets.choice(_CROCKFORD) for _ in range(20))
            known[old] = text.encode()
        return known[old]

    return _RANDOM.sub(other, sample)


async def collect() -> list[bytes]:
    """Run the jobs; return all audit records, and each settled job's record and events."""
    async with Deployment() as deployment:
        store = await Store.start(deployment, "training", {"VIGIL_MAX_JOBS": "500"})
        line = await Line.open(store.port)
        scenarios = [name for name in SCENARIOS if name not in ("list", "queued_forever")]
        prompts = [(name, number) for number in range(_ROUNDS) for name in scenarios]
        prompts += [("normal", number) for number in range(_PLAIN_JOBS)]
        for name, number in prompts:
            body = {
                "model": _MODELS[number % len(_MODELS)],
                "input": f"[[sim: {name} hold=2 tokens={5 + number}]] hello",
                **({"end_user": f"person-{number}"} if number % 2 else {}),
                **_POLICIES[number % len(_POLICIES)],
            }
            status, answer = await line.ask(post("/v1/jobs", body, store.key))
            if status not in (202, 403, 409):
                print(f"{name}: {status} {answer[:200]!r}", file=sys.stderr)
        line.close()
        for _ in range(int(_SETTLE_SECONDS)):
            if not await store.redis.zcard(keys.LEASED) and not await store.redis.zcard(keys.READY):
                break
            await asyncio.sleep(1)
        samples = [fields[b"record"] for _, fields in await store.redis.xrange(keys.AUDIT)]
        async for name in store.redis.scan_iter(match=keys.JOB + "*", count=1000):
            record = await store.redis.hget(name, "rec")
            rows = await store.redis.lrange(keys.trail(name.decode().removeprefix(keys.JOB)), 0, -1)
            if json.loads(record)["finished_at"]:
                samples += [record, b"\n".join(rows)]
        await store.redis.aclose()
    return samples


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", type=int, choices=range(_FIRST, _LAST + 1), metavar="NUMBER")
    parser.add_argument("--kilobytes", type=int, default=16)
    args = parser.parse_args()
    target = Path(compression.__file__).parent / "dictionaries" / f"{args.number}.dict"
    if target.exists():
        sys.exit(f"{target} exists: what it compressed must stay readable. Take another number.")
    samples = [anonymous(sample) for sample in asyncio.run(collect())]
    secrets.SystemRandom().shuffle(samples)
    kept, tried = samples[: len(samples) * 3 // 4], samples[len(samples) * 3 // 4 :]
    made = zstandard.train_dictionary(args.kilobytes * 1024, kept, dict_id=args.number)
    compressor = zstandard.ZstdCompressor(level=3, dict_data=made)
    small = sum(len(compressor.compress(one)) for one in tried)
    print(
        f"{len(samples)} samples; of the quarter that it was not trained on {small / sum(map(len, tried)):.1%} is left"
    )
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(made.as_bytes())


if __name__ == "__main__":
    main()
