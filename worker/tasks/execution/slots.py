"""The slots of a worker, shared by its partitions in fair turn: none with a deep queue keeps another from running.

Slots that are free go to the partition that runs fewest jobs, and one without any finds one that was kept for it. Only
what waits takes part: a partition alone with work has all slots but those that are kept. With one partition the number
of free slots is all there is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_CLAIM_S: Final = 1.0
"""For so long a claim keeps the slots that it may fill; a store that answers later must not keep others from theirs."""
_KEPT_FROM: Final = 2
"""With so many slots for each partition one is kept for a partition that has none."""


@dataclass(eq=False, slots=True)
class _Share:
    """What one partition has and wants."""

    wake: Callable[[], None]
    running: int = 0
    claiming: int = 0
    claiming_until: float = 0.0
    wants_more: bool = False
    turn: int = 0
    """The number of its latest claim that brought jobs: of two that run as many, who claimed longer ago is next."""
    failing: bool = False


class Slots:
    """All slots of a worker."""

    def __init__(self, total: int, monotonic: Callable[[], float]) -> None:
        self.total, self._monotonic = total, monotonic
        self._shares: list[_Share] = []
        self._turns = 0

    def join(self, wake: Callable[[], None]) -> SlotShare:
        """Return the share of one more partition; `wake`: has it claim again, for slots may be free."""
        share = _Share(wake)
        self._shares.append(share)
        return SlotShare(self, share)

    def free_for(self, share: _Share) -> int:
        """Return how many jobs this partition may claim now."""
        now = self._monotonic()
        others = [one for one in self._shares if one is not share]
        free = self.total - share.running - sum(_taken(one, now) for one in others)
        if not others:
            return max(0, free)
        if self.total >= _KEPT_FROM * len(self._shares):
            free -= sum(not one.failing and not _taken(one, now) for one in others)
        waiting = [_taken(one, now) - (one.turn < share.turn) for one in others if one.wants_more]
        found = _fair_part(free, share.running, waiting)
        if found <= 0:
            share.wants_more = True
        return min(found, 1) if share.failing else max(0, found)

    def begin_claim(self, share: _Share, count: int) -> None:
        """Keep so many slots for a claim that is under way."""
        share.claiming, share.claiming_until = count, self._monotonic() + _CLAIM_S

    def end_claim(self, share: _Share, tried: int, got: int | None) -> None:
        """Note what a claim brought; None = its store did not answer."""
        wanted = share.wants_more
        if got:
            self._turns += 1
            share.turn = self._turns
        share.claiming, share.failing, share.wants_more = 0, got is None, got == tried
        if wanted and not share.wants_more:
            self.wake_waiting(share)  # what was kept for this one is theirs

    def wake_waiting(self, but: _Share) -> None:
        """Have the other partitions that wait for slots claim."""
        for one in self._shares:
            if one is not but and one.wants_more:
                one.wake()


class SlotShare:
    """The share of one partition."""

    def __init__(self, slots: Slots, share: _Share) -> None:
        self._slots, self._share = slots, share

    def free(self) -> int:
        """Return how many jobs may be claimed now."""
        return self._slots.free_for(self._share)

    def begin_claim(self, count: int) -> None:
        """Keep so many slots for a claim; every claim ends with `end_claim`."""
        self._slots.begin_claim(self._share, count)

    def end_claim(self, tried: int, got: int | None) -> None:
        """Note how many jobs the claim brought; None = the store did not answer."""
        self._slots.end_claim(self._share, tried, got)

    def start(self) -> None:
        """Count one more job that runs."""
        self._share.running += 1

    def end(self) -> None:
        """Count one job less, and have others claim if they wait."""
        self._share.running -= 1
        self._slots.wake_waiting(self._share)


def _taken(share: _Share, now: float) -> int:
    return share.running + (share.claiming if share.claiming_until > now else 0)


def _fair_part(free: int, own: int, others: list[int]) -> int:
    """Return how many of the free slots a partition gets that runs `own` jobs, when the one with fewest is always next.

    `others`: how many jobs the others run that want slots too; one less of those that come first among equals.
    """
    if not others:
        return free
    low, high = 0, max(0, free)
    while low < high:  # the most that leaves every other as many as this one will then have
        part = (low + high + 1) // 2
        if part + sum(max(0, own + part - 1 - other) for other in others) <= free:
            low = part
        else:
            high = part - 1
    return low
