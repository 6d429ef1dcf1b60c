"""Chaos: the promises P1, P4, P6 and P8 while processes are killed, stopped and cut off. Each test kills and counts."""

from __future__ import annotations

from collections import Counter

from arq.connections import ArqRedis

from worker.audit import chain
from worker.clock import Clock
from worker.jobs import events as ev, fold
from worker.jobs.events import Event
from worker.jobs.record import Job
from worker.jobs.spec import Policy
from worker.store import codec, keys
from worker.store.audit.stream_records import row_of
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import NewJob

__all__ = ["check_books", "submit"]


async def submit(redis: ArqRedis, prompt: str, *, idempotency_key: str | None = None, **policy: object) -> str:
    """A job put into Redis as the API does it; its id."""
    fact = ev.Queued(app="chaos", key_id="key_chaos", requested_model="gpt-5.6-sol", policy=Policy(**policy))
    stored, _ = await Jobs(redis, Clock()).submit(NewJob(fact, {"metadata": {}}, {"input": prompt}, idempotency_key))
    return stored.job.id


async def check_books(redis: ArqRedis, ids: list[str], *, whole_trail: bool = True) -> list[Job]:
    """Every job is settled once, its trail is gapless and gives its record, its audit chain holds, nothing is left.

    `whole_trail`: nothing of the audit trail has moved out of Redis, where `vigil audit verify` follows it.
    """
    jobs = Jobs(redis, Clock())
    found: list[Job] = []
    for job_id in ids:
        stored = await jobs.load(job_id)
        assert stored is not None, f"{job_id} is lost"
        assert stored.job.settled, f"{job_id} is {stored.job.status}"
        trail = [Event.load(body) for body in await jobs.trail(job_id)]
        assert [event.seq for event in trail] == list(range(1, len(trail) + 1)), "gapless"
        assert sum(isinstance(event.fact, ev.TERMINAL_FACTS) for event in trail) == 1, "terminal once"
        assert fold.replay(trail) == stored.job
        found.append(stored.job)
    if whole_trail:
        await _check_chains(redis)
    for place in (keys.READY, keys.LATER, keys.LEASED, keys.DEADLINE):
        assert await redis.zcard(place) == 0, place
    return found


async def _check_chains(redis: ArqRedis) -> None:
    heads: dict[str, str] = {}
    seqs: Counter[str] = Counter()
    for row in [row_of(*entry) for entry in await redis.xrange(keys.AUDIT)]:
        record = codec.load_event(row.record)
        if record["seq"] is None:  # a note on an app: a chain of its own
            continue
        job_id = record["job_id"]
        seqs[job_id] += 1
        assert record["seq"] == seqs[job_id]
        heads[job_id], _ = chain.link(heads.get(job_id, chain.GENESIS), record)
        assert heads[job_id] == row.hash
