"""How fast is a trail proven? Records per second of `vigil audit verify`, from Redis and from an export.

    python ops/bench/audit.py [--jobs 20000] [--compact] [--json]

The trail is made of settled jobs with the store's own commands (`store_scale.py`), sealed as a worker seals it.
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

from worker.audit.export import FileProof, lines_of, manifest, read_manifest
from worker.audit.keys import Signer, TrustedKeys
from worker.clock import Clock
from worker.embedded import EmbeddedValkey
from worker.settings import Settings
from worker.store.audit.export import Export
from worker.store.audit.verification import TrailVerification
from worker.store.connection.pool import connect
from worker.store.jobs.repository import Jobs
from worker.tasks.maintenance.audit_sealer import AuditSealer

TARGET = 50_000
_ROUNDS = 3


async def bench(folder: Path, count: int, *, compact: bool) -> Report:
    """Fills, seals, proves."""
    report, signer, clock = Report("audit"), Signer(b"s" * 32), Clock()
    async with EmbeddedValkey(folder) as server:
        redis = connect(server.url, compact=compact)
        await redis.config_set("appendfsync", "no")
        await fill(redis, Jobs(redis, clock), count)
        began = time.perf_counter()
        await AuditSealer(redis, clock, Settings(_env_file=None, data_dir=folder)).seal(signer)  # type: ignore[call-arg]
        sealing = time.perf_counter() - began
        rates, cpu = [], 0.0
        for _ in range(_ROUNDS):
            used = time.process_time()
            proven = await TrailVerification(redis, clock, TrustedKeys([signer.public])).verify()
            cpu = max(cpu, proven.records / (time.process_time() - used))
            if not proven.good:
                raise RuntimeError(proven.faults)
            rates.append(proven.records / proven.seconds)
        book, path = Export(redis, clock), folder / "trail.ndjson"
        with path.open("wb") as file:
            async for lines in book.lines():
                file.writelines(line + b"\n" for line in lines)
        raw = manifest(book.manifest, book.seals, filters={}, public=[signer.public], signer=signer, at=clock.now())
        await redis.aclose()
    began = time.perf_counter()
    with path.open("rb") as file:
        of_file = FileProof(lambda: lines_of(file), read_manifest(raw), TrustedKeys([signer.public])).prove()
    from_file = of_file.records / (time.perf_counter() - began)
    size = path.stat().st_size / of_file.records
    report.lines.append(f"{of_file.records:,} records of {size:.0f} bytes; sealing {of_file.records / sealing:,.0f}/s")
    report.lines.append(f"{cpu:,.0f} records from Redis per second of CPU: what a machine to itself would come near to")
    report.figures += [
        Figure.at_least("audit records proven per second, Redis", max(rates), TARGET, "/s"),
        Figure.at_least("audit records proven per second, export", from_file, TARGET, "/s"),
    ]
    return report


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--compact", action="store_true", help="records are stored compressed")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vigil-bench-") as folder:
        report = asyncio.run(bench(Path(folder), given.jobs, compact=given.compact))
    report.show(as_json=given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
