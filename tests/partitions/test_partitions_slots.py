"""The slots of a worker go to its partitions in fair turn, whatever waits in one of them."""

from __future__ import annotations

import pytest

from worker.tasks.execution.slots import Slots, SlotShare


class Time:
    """A clock that stands still."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


class Queue:
    """A partition with so many jobs that wait; it claims whatever it may."""

    def __init__(self, slots: Slots, waiting: int) -> None:
        self.waiting, self.running, self.woken = waiting, 0, False
        self.share: SlotShare = slots.join(self._wake)

    def _wake(self) -> None:
        self.woken = True

    def claim(self) -> int:
        """Claim once; return how many jobs that brought."""
        self.woken = False
        free = self.share.free()
        if free <= 0:
            return 0
        self.share.begin_claim(free)
        got = min(free, self.waiting)
        self.waiting -= got
        self.running += got
        for _ in range(got):
            self.share.start()
        self.share.end_claim(free, got)
        return got

    def end(self, count: int) -> None:
        for _ in range(count):
            self.running -= 1
            self.share.end()


def test_one_partition_has_all_slots(time: Time) -> None:
    only = Queue(Slots(10, time), 50)
    assert only.claim() == 10
    assert only.claim() == 0
    only.end(3)
    assert only.claim() == 3


def test_a_deep_queue_leaves_a_slot_for_each_partition_that_has_none(time: Time) -> None:
    slots = Slots(10, time)
    deep, late, later = Queue(slots, 1000), Queue(slots, 0), Queue(slots, 0)
    assert deep.claim() == 8
    assert late.claim() == later.claim() == 0
    late.waiting = later.waiting = 5
    assert late.claim() == 1
    assert later.claim() == 1


def test_freed_slots_go_to_the_partition_that_runs_fewest(time: Time) -> None:
    slots = Slots(10, time)
    deep, late = Queue(slots, 1000), Queue(slots, 0)
    assert deep.claim() == 9
    late.waiting = 1000
    assert late.claim() == 1
    assert late.claim() == 0
    for _ in range(4):
        deep.end(1)
        assert late.woken
        assert deep.claim() == 0, "who runs most waits"
        assert late.claim() == 1
    assert (deep.running, late.running) == (5, 5)
    deep.end(1)
    late.end(1)
    assert (deep.claim(), late.claim()) == (1, 1)
    late.waiting = 0
    late.end(5)
    late.claim()
    assert deep.woken, "what was kept for the other is free"
    assert deep.claim() == 4, "all but the one that is kept"
    assert deep.running == 9


def test_two_deep_queues_share_the_slots_in_halves(time: Time) -> None:
    slots = Slots(8, time)
    one, other = Queue(slots, 100), Queue(slots, 100)
    one.claim()
    other.claim()
    for _ in range(20):
        for queue in (one, other):
            queue.end(1)
            one.claim()
            other.claim()
    assert (one.running, other.running) == (4, 4)


def test_with_fewer_slots_than_partitions_they_take_turns(time: Time) -> None:
    slots = Slots(1, time)
    one, other = Queue(slots, 10), Queue(slots, 10)
    assert one.claim() == 1
    assert other.claim() == 0
    ran = []
    for _ in range(6):
        first = one if one.running else other
        first.end(1)
        order = (first, other if first is one else one)
        ran += [queue for queue in order if queue.claim()]
    assert ran == [other, one, other, one, other, one]


def test_a_store_that_does_not_answer_keeps_no_slots_from_the_others(time: Time) -> None:
    slots = Slots(10, time)
    slow, other = Queue(slots, 0), Queue(slots, 100)
    kept = slow.share.free()
    slow.share.begin_claim(kept)
    assert other.claim() <= 1, "a claim that is under way may fill its slots"
    time.now = 1.5
    other.claim()
    assert other.running >= 9
    slow.share.end_claim(kept, None)
    other.end(2)
    other.claim()
    assert other.running == 10, "nothing is kept for a store that fails"
    assert slow.share.free() == 0
    other.end(3)
    assert slow.share.free() == 1, "it tries again with one job"
