"""Build a sealed audit trail to tamper with: jobs in every state, checkpoints, a shipped copy of the seals."""

import asyncio
import json
from dataclasses import dataclass, field

from arq.connections import ArqRedis
from builders import BLOCKED, COMPLETED, STARTED, T0, FakeClock, began, done, new_job

from worker.audit.chain import AuditRow, canonical
from worker.audit.keys import Signer, TrustedKeys
from worker.audit.report import Report
from worker.audit.seals import checkpoint
from worker.jobs import events as ev
from worker.jobs.states import Outcome
from worker.store import keys
from worker.store.audit.seals import Seals
from worker.store.audit.trail import Trail
from worker.store.audit.verification import TrailVerification
from worker.store.jobs.repository import Jobs

SIGNER, OTHER_SIGNER = Signer(b"s" * 32), Signer(b"t" * 32)
NORMAL = [(STARTED, None), (began(), 1), (done(), 1), (COMPLETED, 1)]
REFUSED = [(STARTED, None), (began(), 1), (done(Outcome.BLOCKED), 1), (BLOCKED, 1)]
FLAGGED = (ev.AccountFlagged(), None)


@dataclass
class SealedTrail:
    """A trail with jobs in every state, sealed in ranges of 25 records, its last records not sealed yet."""

    redis: ArqRedis
    clock: FakeClock
    jobs: Jobs
    ids: list[str] = field(default_factory=list)
    shipped: list[bytes] = field(default_factory=list)

    async def seal(self, size: int = 25) -> None:
        seals, trail = Seals(self.redis), Trail(self.redis, self.clock)
        last = await seals.last()
        while rows := await trail.page(f"({last.last}" if last else "-", count=size):
            seal = checkpoint(SIGNER, last, rows, T0)
            assert await seals.append(last, seal)
            last = seal
            self.shipped.append(seal.line)

    async def fill(self, count: int, size: int = 25, concurrency: int = 1) -> None:
        """Submit and run so many jobs, `concurrency` at a time; seal nine of ten."""
        made = 0
        for end in (count * 9 // 10 + 1, count):
            while made < end:
                some = range(made, min(made + concurrency, end))
                fresh = [one.job.id for one, *_ in await asyncio.gather(*(self.jobs.submit(new_job()) for _ in some))]
                await asyncio.gather(*map(self._live, fresh, some))
                self.ids += fresh
                made += len(some)
            if end == count * 9 // 10 + 1:
                await self.seal(size)

    async def _live(self, job_id: str, n: int) -> None:
        lives = [[NORMAL], [NORMAL[:2], NORMAL[2:]], [REFUSED], [[FLAGGED], [FLAGGED]]]
        for drafts in lives[n % 4]:
            await self.jobs.change(job_id, lambda _, drafts=drafts: drafts)

    async def verify(self, *, shipped: bool = False) -> Report:
        return await TrailVerification(self.redis, self.clock, TrustedKeys([SIGNER.public])).verify(
            self.shipped if shipped else None
        )

    async def rows(self) -> list[AuditRow]:
        return await Trail(self.redis, self.clock).page("-", count=10**6)

    async def rebuild(self, rows: list[AuditRow]) -> None:
        """Rewrite the stream with these records in this order, as anyone with access to Redis can."""
        await self.redis.delete(keys.AUDIT)
        async with self.redis.pipeline(transaction=False) as pipe:
            for row in rows:
                pipe.xadd(keys.AUDIT, {"hash": row.hash, "record": row.record}, id=row.id)
            await pipe.execute()

    async def of(self, job_id: str) -> list[AuditRow]:
        return await Trail(self.redis, self.clock).of_chain(job_id)

    @property
    def middle(self) -> int:
        """Return the number of a sealed job with records of two commits; the next but one has not ended."""
        return len(self.ids) // 2 + 1

    async def copy(self) -> dict[bytes, bytes]:
        """Dump all keys of this Redis."""
        names = await self.redis.keys("*")
        async with self.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.dump(name)
            return dict(zip(names, await pipe.execute(), strict=True))

    async def restore(self, copy: dict[bytes, bytes]) -> None:
        """Restore this Redis from a dump."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.flushdb()
            for name, value in copy.items():
                pipe.restore(name, 0, value)
            await pipe.execute()
        self.shipped = await self.redis.lrange(keys.SEALS, 0, -1)


def altered(row: AuditRow, name: str = "at", value: object = "2020-01-01T00:00:00Z") -> AuditRow:
    return row._replace(record=canonical({**json.loads(row.record), name: value}))


def swapped(rows: list[AuditRow], a: int, b: int) -> list[AuditRow]:
    """Swap two records; the ids stay in place."""
    out = list(rows)
    out[a], out[b] = rows[b]._replace(id=rows[a].id), rows[a]._replace(id=rows[b].id)
    return out


def place(rows: list[AuditRow], job_id: str, seq: int) -> int:
    mark = b'"seq":%d,' % seq
    return next(n for n, r in enumerate(rows) if job_id.encode() in r.record and mark in r.record)
