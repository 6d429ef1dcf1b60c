"""How large the trail of a small job is, in Redis and in the archive, and how fast it gets there.

    python ops/bench/archive.py [--jobs 5000] [--compact] [--json]

The trail is made of settled jobs with the store's own commands (`store_scale.py`), sealed as a worker seals it,
archived in a folder, trimmed from Redis, and verified across both.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from report import Figure, Report
from store_scale import fill

from worker.audit.keys import Signer, TrustedKeys
from worker.clock import Clock
from worker.embedded import EmbeddedValkey
from worker.settings import Settings
from worker.store import keys
from worker.store.archive.attached import archive_of, attach_archive
from worker.store.audit.verification import TrailVerification
from worker.store.connection.pool import connect
from worker.store.jobs.repository import Jobs
from worker.store.lifecycle.archiver import Archiver
from worker.store.lifecycle.trimming import Trimming
from worker.tasks.maintenance.audit_sealer import AuditSealer

_MAX_ARCHIVED_BYTES = 2_000
_EVERYTHING = -3600.0  # seconds after which records leave Redis


async def bench(folder: Path, count: int, *, compact: bool) -> Report:
    """Fills, seals, archives, trims, proves."""
    report, signer, clock = Report("archive"), Signer(b"s" * 32), Clock()
    trusted = TrustedKeys([signer.public])
    settings = Settings(_env_file=None, data_dir=folder, archive=f"file://{folder}/archive")  # type: ignore[call-arg]
    async with EmbeddedValkey(folder) as server:
        redis = connect(server.url, compact=compact)
        attach_archive(redis, settings)
        archive = archive_of(redis)
        if archive is None:
            raise RuntimeError
        await redis.config_set("appendfsync", "no")
        await fill(redis, Jobs(redis, clock), count)
        await AuditSealer(redis, clock, settings).seal(signer)
        lists = [name async for name in redis.scan_iter(match=keys.chain_records("*"), count=1000)]
        in_lists = sum([await redis.memory_usage(name) or 0 for name in lists])
        in_redis = await redis.memory_usage(keys.AUDIT, samples=0) + in_lists
        archiver = Archiver(redis, clock, archive, signer, trusted, 3600)
        began = time.perf_counter()
        records = await archiver.run(now=True)
        archiving = time.perf_counter() - began
        while ids := [one.decode() for one in await redis.zrange(keys.SETTLED, 0, 999)]:  # their time is over
            await redis.delete(*map(keys.job, ids))
            await redis.zrem(keys.SETTLED, *ids)
        began = time.perf_counter()
        await Trimming(redis, clock).run(await archiver.state(), archive, _EVERYTHING)
        trimming = time.perf_counter() - began
        left = await redis.memory_usage(keys.AUDIT, samples=0)
        proven = await TrailVerification(redis, clock, trusted).verify()
        if not proven.good:
            raise RuntimeError(proven.faults)
        await redis.aclose()
    stored = sum(path.stat().st_size for path in (folder / "archive").rglob("*") if path.is_file())
    report.lines.append(
        f"{records:,} records of {count:,} jobs: archived {records / archiving:,.0f}/s, "
        f"trimmed {records / trimming:,.0f}/s, proven across both {proven.records / proven.seconds:,.0f}/s"
    )
    report.lines.append(f"trail of a job in Redis: {in_redis / count:,.0f} bytes; after trimming {left / count:,.0f}")
    report.figures.append(
        Figure.at_most("bytes of trail of a small job in the archive", stored / count, _MAX_ARCHIVED_BYTES, " B")
    )
    return report


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5_000)
    parser.add_argument("--compact", action="store_true", help="records are stored compressed")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vigil-bench-") as folder:
        report = asyncio.run(bench(Path(folder), given.jobs, compact=given.compact))
    report.show(as_json=given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
