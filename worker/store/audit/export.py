"""Export the audit trail of Redis: its lines page by page, then what the manifest needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from arq.connections import ArqRedis

from worker.audit.chain import AuditRow, app_chain, chain_of_row, stream_id
from worker.audit.export import ExportManifest, follows_from_nothing
from worker.audit.seals import Seal, parse
from worker.clock import Clock
from worker.store.audit.archived_seals import archived_seals
from worker.store.audit.seals import Seals
from worker.store.audit.trail import Trail
from worker.store.audit.trail_search import TrailFilter, TrailSearch

_PAGE = 5_000


@dataclass(slots=True)
class Export:
    """One export: read `lines()` to the end, then `manifest` and `seals` are complete.

    Of an end user it has the chains of their jobs. A selection by type or actor has gaps: no manifest can prove it.
    """

    redis: ArqRedis
    clock: Clock
    wanted: TrailFilter = field(default_factory=TrailFilter)
    after_ms: int | None = None
    before_ms: int | None = None
    page: int = _PAGE
    manifest: ExportManifest = field(default_factory=ExportManifest)
    seals: list[Seal] = field(default_factory=list)

    async def lines(self) -> AsyncIterator[list[bytes]]:
        """Yield the lines, page by page, up to what the trail holds now."""
        trail, search = Trail(self.redis, self.clock), TrailSearch(self.redis, self.clock)
        high, heads = await trail.last(), await self._sealed()
        if high is None:
            return
        low = "-" if self.after_ms is None else f"{self.after_ms}-0"
        if self.before_ms is not None and stream_id(high) >= (self.before_ms, 0):
            high = f"({self.before_ms}-0"
        first = last = ""
        async for rows in trail.pages(low, high, self.page):
            out = []
            for row in await search.select(rows, self.wanted):
                if self.wanted.end_user is not None and chain_of_row(row) == app_chain(self.wanted.app or ""):
                    continue  # one record of that chain would prove nothing
                first, last = first or row.id, row.id
                out.append(await self._line(trail, row, heads))
            yield out
        self._narrow(first, last)

    async def _line(self, trail: Trail, row: AuditRow, heads: dict[str, str]) -> bytes:
        chain = chain_of_row(row)
        if not self.manifest.has(chain) and not follows_from_nothing(row):
            self.manifest.starts[chain] = heads.get(chain) or await trail.hash_before(chain, row.id)
        return self.manifest.add(chain, row)

    async def _sealed(self) -> dict[str, str]:
        """Read the seals; return the ends of chains whose beginning retention removed.

        The export of one app holds no seals, as their records are not all in it.
        """
        seals = Seals(self.redis)
        if self.wanted.app is not None:
            line = await seals.last_retention(await seals.count())
            return dict(parse(line).body["heads"]) if line is not None else {}
        self.seals = await archived_seals(self.redis)
        first, skipped = await seals.first_number(), 0
        if self.seals and first is not None:
            skipped = max(0, self.seals[-1].number - first + 1)
        async for lines in seals.pages(await seals.count(), skipped):
            self.seals += [parse(line) for line in lines]
        retention = next((seal for seal in reversed(self.seals) if seal.kind == "retention"), None)
        return dict(retention.body["heads"]) if retention is not None else {}

    def _narrow(self, first: str, last: str) -> None:
        """Keep the seals that this export can prove: all of them, or those within its time range."""
        if self.wanted.app is not None or self.wanted.is_narrow or not last:
            self.seals = []
            return
        end = stream_id(last)
        self.seals = [seal for seal in self.seals if stream_id(seal.last) <= end]
        if self.after_ms is not None or self.before_ms is not None:
            begin = stream_id(first)
            kept = [s for s in self.seals if s.kind == "retention" or stream_id(s.body["first"]) >= begin]
            start = next((n for n, seal in enumerate(kept) if seal.kind == "checkpoint"), len(kept))
            self.seals = kept[start:]
