"""Holds one response while it exists: its snapshot, its stored events, and its cost.

It must not depend on HTTP or scenarios; steps come in, a snapshot and frames can be read.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from .ledger import Ledger
from .plan import Plan
from .request_body import ParsedRequest
from .wire import Ids, Json, Step

TERMINAL = frozenset({"completed", "failed", "incomplete", "cancelled"})


@dataclass(slots=True)
class LiveResponse:
    """A response and its events; only a background response stores them."""

    ask: ParsedRequest
    plan: Plan
    ids: Ids
    ledger: Ledger
    born: float  # loop time
    snapshot: Json = field(default_factory=dict)
    error: Json | None = None  # the first error object, for answers that aren't streams
    seqs: list[int] = field(default_factory=list)
    frames: list[tuple[bytes, bool]] = field(default_factory=list)
    done: bool = False
    task: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _billed: bool = False

    @property
    def status(self) -> str:
        """Return the status that a GET shows."""
        return str(self.snapshot.get("status"))

    def absorb(self, step: Step) -> None:
        """Apply a step: change the snapshot, the bill, and for background responses the stored events."""
        if step.snapshot is not None:
            self.snapshot = step.snapshot
        if step.error is not None and self.error is None:
            self.error = step.error
        if step.tokens:
            self.ledger.output_tokens += step.tokens
        if not self._billed and (step.tokens or (step.snapshot is not None and step.snapshot["usage"])):
            self._billed = True
            self.ledger.input_tokens += self.ask.input_tokens
        if self.ask.background and step.frame:
            self.seqs.append(step.seq if step.seq >= 0 else (self.seqs[-1] if self.seqs else -1))
            self.frames.append((step.frame, step.terminal))
            self.changed.set()

    def finish(self) -> None:
        """Mark that no further step will come; followers end after the last event."""
        self.done = True
        self.changed.set()

    def cancel(self) -> bool:
        """Stop a running response; return False if it had ended before."""
        if self.done or self.status in TERMINAL:
            return False
        if self.task is not None:
            self.task.cancel()
        self.snapshot = {**self.snapshot, "status": "cancelled"}
        self.finish()
        return True

    async def follow(self, after: int) -> AsyncIterator[tuple[bytes, bool]]:
        """Yield the stored events with a sequence number above `after`, then the new ones as they come."""
        index = bisect_right(self.seqs, after)
        while True:
            while index < len(self.frames):
                yield self.frames[index]
                index += 1
            if self.done:
                return
            self.changed.clear()
            await self.changed.wait()
