"""How far the archive is behind the sealed trail."""

from __future__ import annotations

from arq.connections import ArqRedis

from worker.audit.chain import stream_id
from worker.audit.seals import BadSeal
from worker.clock import Clock, to_ms
from worker.store.archive.archive_state import ArchiveStates
from worker.store.archive.attached import archive_of
from worker.store.audit.seals import Seals


async def archive_lag(redis: ArqRedis, clock: Clock) -> float | None:
    """Return how many seconds ago the first sealed record was written that is not archived; 0 if there is none.

    None for a Vigil without an archive, or when the seals can't be read.
    """
    state = await ArchiveStates(redis).get()
    if state is None and archive_of(redis) is None:
        return None
    number, seals = (state.seal if state is not None else 0), Seals(redis)
    try:
        while found := await seals.after_number(number):
            for seal in found:
                if seal.kind == "checkpoint":
                    return max(0.0, (to_ms(clock.now()) - stream_id(str(seal.body["first"]))[0]) / 1000)
            number = found[-1].number
    except BadSeal:
        return None
    return 0.0
