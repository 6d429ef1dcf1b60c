"""Ways to tamper with an audit trail in Redis; each returns what a verification must report."""

import json
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from itertools import pairwise

from sealed_trail import OTHER_SIGNER, SIGNER, T0, SealedTrail, altered, place, swapped

from worker.audit.chain import GENESIS, AuditRow, canonical, chain_of_row, hash_of, link, stream_id
from worker.audit.report import Report
from worker.audit.seals import Seal, checkpoint, parse
from worker.store import keys
from worker.store.audit.trail import Trail


async def alter(sealed_trail: SealedTrail, job: int | None = None, seq: int = 3) -> dict:
    rows, job_id = await sealed_trail.rows(), sealed_trail.ids[sealed_trail.middle if job is None else job]
    n = place(rows, job_id, seq)
    rows[n] = altered(rows[n])
    await sealed_trail.rebuild(rows)
    return {"kind": "altered", "record": rows[n].id, "job_id": job_id, "seq": seq}


async def alter_the_first(sealed_trail: SealedTrail) -> dict:
    return await alter(sealed_trail, seq=1)


async def alter_the_unsealed(sealed_trail: SealedTrail) -> dict:
    return await alter(sealed_trail, job=-2, seq=4)


async def alter_and_hash_anew(sealed_trail: SealedTrail) -> dict:
    """A whole job's trail is written anew, every hash right, its record in Redis too."""
    rows, job_id, head = await sealed_trail.rows(), sealed_trail.ids[sealed_trail.middle], GENESIS
    for n, row in enumerate(rows):
        if job_id.encode() in row.record:
            forged = altered(row, "key_id", "key_2")
            head = hash_of(head, forged.record)
            rows[n] = forged._replace(hash=head)
    await sealed_trail.rebuild(rows)
    await sealed_trail.redis.hset(keys.job(job_id), "chain", head)
    return {"kind": "altered", "record": rows[place(rows, job_id, 1)].id}


async def alter_and_hash_one(sealed_trail: SealedTrail) -> dict:
    """The record has the hash that belongs to it now; the one behind it does not follow any more."""
    rows = await sealed_trail.rows()
    n = place(rows, sealed_trail.ids[sealed_trail.middle], 3)
    before = rows[place(rows, sealed_trail.ids[sealed_trail.middle], 2)].hash
    forged = altered(rows[n])
    rows[n] = forged._replace(hash=hash_of(before, forged.record))
    await sealed_trail.rebuild(rows)
    return {"kind": "altered", "record": rows[n].id}


async def alter_a_hash(sealed_trail: SealedTrail) -> dict:
    rows = await sealed_trail.rows()
    n = place(rows, sealed_trail.ids[sealed_trail.middle], 5)
    rows[n] = rows[n]._replace(hash="0" * 64)
    await sealed_trail.rebuild(rows)
    return {"kind": "altered", "record": rows[n].id}


def sealed_together(sealed_trail: SealedTrail, *rows: AuditRow) -> bool:
    """Whether one checkpoint covers these rows: what is missing at its very end is told of the checkpoint instead."""
    ends = [stream_id(parse(line).last) for line in sealed_trail.shipped]
    return len({bisect_left(ends, stream_id(row.id)) for row in rows}) == 1


async def remove(sealed_trail: SealedTrail, job: int | None = None, seq: int = 3) -> dict:
    rows = await sealed_trail.rows()
    jobs = sealed_trail.ids[sealed_trail.middle :] if job is None else [sealed_trail.ids[job]]
    around = ((one, rows[place(rows, one, seq)], rows[place(rows, one, seq + 1)]) for one in jobs)
    job_id = next((one for one, *pair in around if sealed_together(sealed_trail, *pair)), jobs[0])
    n = place(rows, job_id, seq)
    await sealed_trail.redis.xdel(keys.AUDIT, rows[n].id)
    return {"kind": "removed", "job_id": job_id, "seq": seq, "record": rows[place(rows, job_id, seq + 1)].id}


async def remove_from_the_unsealed(sealed_trail: SealedTrail) -> dict:
    return await remove(sealed_trail, job=-2, seq=3)


async def remove_a_note(sealed_trail: SealedTrail) -> dict:
    trail, job_id = Trail(sealed_trail.redis, sealed_trail.clock), sealed_trail.ids[-1]
    gone = await trail.note("audit.hold", app="shop", job_id=job_id, by="ops", why="a case")
    after = await trail.note("audit.release", app="shop", job_id=job_id, by="ops", why="over")
    await sealed_trail.seal()
    await sealed_trail.redis.xdel(keys.AUDIT, gone.id)
    return {"kind": "removed", "record": after.id}


def squeezed(rows: list[AuditRow]) -> list[AuditRow]:
    """The same rows with ids that rise."""
    out = rows[:1]
    for row in rows[1:]:
        ms, number = stream_id(out[-1].id)
        out.append(row if stream_id(row.id) > (ms, number) else row._replace(id=f"{ms}-{number + 1}"))
    return out


async def insert(sealed_trail: SealedTrail) -> dict:
    """A record that follows from the one before it, in the middle of a job."""
    rows, job_id = await sealed_trail.rows(), sealed_trail.ids[sealed_trail.middle]
    n = place(rows, job_id, 2)
    hashed, body = link(rows[n].hash, {**json.loads(rows[n].record), "seq": 3, "type": "job.account.flagged"})
    out = squeezed([*rows[: n + 1], AuditRow(rows[n].id, hashed, body), *rows[n + 1 :]])
    await sealed_trail.rebuild(out)
    return {"kind": "inserted", "job_id": job_id, "seq": 3, "record": out[n + 1].id}


async def insert_with_any_hash(sealed_trail: SealedTrail) -> dict:
    rows, job_id = await sealed_trail.rows(), sealed_trail.ids[sealed_trail.middle]
    n = place(rows, job_id, 2)
    out = squeezed([*rows[: n + 1], AuditRow(rows[n].id, "e" * 64, altered(rows[n]).record), *rows[n + 1 :]])
    await sealed_trail.rebuild(out)
    return {"kind": "inserted", "job_id": job_id, "record": out[n + 1].id}


async def tell_twice(sealed_trail: SealedTrail) -> dict:
    """An old record once more, at the end."""
    row = (await sealed_trail.of(sealed_trail.ids[sealed_trail.middle]))[2]
    again = await sealed_trail.redis.xadd(keys.AUDIT, {"hash": row.hash, "record": row.record})
    return {"record": again.decode(), "job_id": sealed_trail.ids[sealed_trail.middle]}


async def insert_a_whole_job(sealed_trail: SealedTrail) -> dict:
    rows = await sealed_trail.rows()
    n = place(rows, sealed_trail.ids[sealed_trail.middle], 1)
    hashed, body = link(
        GENESIS, {**json.loads(rows[n].record), "job_id": sealed_trail.ids[sealed_trail.middle][:-4] + "zzzz"}
    )
    out = squeezed([*rows[:n], AuditRow(rows[n].id, hashed, body), *rows[n:]])
    await sealed_trail.rebuild(out)
    return {"kind": "inserted", "record": out[n].id}


async def append_forged(sealed_trail: SealedTrail) -> dict:
    """A record at the very end of a job's chain, hashed as it should be."""
    job_id = sealed_trail.ids[-1]
    last = (await sealed_trail.of(job_id))[-1]
    hashed, body = link(last.hash, {**json.loads(last.record), "seq": 4})
    forged = await sealed_trail.redis.xadd(keys.AUDIT, {"hash": hashed, "record": body})
    return {"kind": "inserted", "record": forged.decode(), "job_id": job_id}


async def reorder_two_of_a_job(sealed_trail: SealedTrail) -> dict:
    rows = await sealed_trail.rows()
    a, b = (
        place(rows, sealed_trail.ids[sealed_trail.middle - 1], 3),
        place(rows, sealed_trail.ids[sealed_trail.middle - 1], 4),
    )
    await sealed_trail.rebuild(swapped(rows, a, b))
    return {"kind": "reordered", "job_id": sealed_trail.ids[sealed_trail.middle - 1], "record": rows[a].id}


async def reorder_two_jobs(sealed_trail: SealedTrail) -> dict:
    """Each job's own chain still holds."""
    rows = await sealed_trail.rows()
    first = place(rows, sealed_trail.ids[sealed_trail.middle], 1)
    ends = {parse(line).last for line in sealed_trail.shipped}
    pairs = enumerate(pairwise(rows[first:]), first)
    a = next(n for n, (one, two) in pairs if chain_of_row(one) != chain_of_row(two) and one.id not in ends)
    await sealed_trail.rebuild(swapped(rows, a, a + 1))
    return {"kind": "reordered", "record": rows[a].id}


async def cut_the_sealed_tail(sealed_trail: SealedTrail) -> dict:
    rows, last = await sealed_trail.rows(), parse(sealed_trail.shipped[-1])
    sealed = next(n for n, row in enumerate(rows) if row.id == last.last)
    await sealed_trail.rebuild(rows[: sealed - 3])
    return {"kind": "truncated", "checkpoint": last.number, "record": rows[sealed - 4].id}


async def cut_at_a_checkpoint(sealed_trail: SealedTrail) -> dict:
    """The last range is gone as a whole, and all behind it."""
    last = parse(sealed_trail.shipped[-1])
    await sealed_trail.rebuild(
        [row for row in await sealed_trail.rows() if stream_id(row.id) < stream_id(last.body["first"])]
    )
    return {"kind": "truncated", "checkpoint": last.number}


async def cut_the_unsealed_tail(sealed_trail: SealedTrail) -> dict:
    rows = await sealed_trail.rows()
    await sealed_trail.redis.xdel(keys.AUDIT, rows[-1].id)
    return {"kind": "truncated", "job_id": chain_of_row(rows[-1]), "seq": json.loads(rows[-1].record)["seq"]}


async def cut_behind_the_last_checkpoint(sealed_trail: SealedTrail) -> dict:
    """Not one sealed record is missing: only the jobs remember."""
    last = parse(sealed_trail.shipped[-1])
    await sealed_trail.rebuild([row for row in await sealed_trail.rows() if stream_id(row.id) <= stream_id(last.last)])
    return {"kind": ("removed", "truncated")}


async def cut_the_tail_of_a_job(sealed_trail: SealedTrail) -> dict:
    rows, job_id = await sealed_trail.rows(), sealed_trail.ids[sealed_trail.middle]
    gone = [row for row in rows if chain_of_row(row) == job_id][2:]
    await sealed_trail.redis.xdel(keys.AUDIT, *(row.id for row in gone))
    return {"kind": "removed"}


async def cut_the_tail_of_an_unsealed_job(sealed_trail: SealedTrail) -> dict:
    job_id = sealed_trail.ids[-2]
    gone = (await sealed_trail.of(job_id))[2:]
    await sealed_trail.redis.xdel(keys.AUDIT, *(row.id for row in gone))
    return {"kind": "truncated", "job_id": job_id, "seq": 3}


async def remove_a_whole_job(sealed_trail: SealedTrail) -> dict:
    rows = await sealed_trail.of(sealed_trail.ids[sealed_trail.middle])
    await sealed_trail.redis.xdel(keys.AUDIT, *(row.id for row in rows))
    return {"kind": "removed"}


async def remove_a_whole_unsealed_job(sealed_trail: SealedTrail) -> dict:
    rows = await sealed_trail.of(sealed_trail.ids[-2])
    await sealed_trail.redis.xdel(keys.AUDIT, *(row.id for row in rows))
    await sealed_trail.redis.delete(keys.chain_records(sealed_trail.ids[-2]))
    return {"kind": "removed", "job_id": sealed_trail.ids[-2], "seq": 1}


async def forge_a_checkpoint(sealed_trail: SealedTrail) -> dict:
    """Signed, by a key of the forger's."""
    last = parse(sealed_trail.shipped[-1])
    rows = await Trail(sealed_trail.redis, sealed_trail.clock).page(f"({last.last}")
    await sealed_trail.redis.rpush(keys.SEALS, checkpoint(OTHER_SIGNER, last, rows, T0).line)
    return {"kind": "checkpoint", "checkpoint": last.number + 1}


async def forge_in_our_name(sealed_trail: SealedTrail) -> dict:
    last = parse(sealed_trail.shipped[-1])
    rows = await Trail(sealed_trail.redis, sealed_trail.clock).page(f"({last.last}")
    body = dict(checkpoint(OTHER_SIGNER, last, rows, T0).body) | {"key": SIGNER.key_id}
    await sealed_trail.redis.rpush(keys.SEALS, canonical(body))
    return {"kind": "checkpoint", "checkpoint": last.number + 1}


async def swap_signatures(sealed_trail: SealedTrail) -> dict:
    a, b = (dict(parse(line).body) for line in sealed_trail.shipped[2:4])
    a["signature"], b["signature"] = b["signature"], a["signature"]
    await sealed_trail.redis.lset(keys.SEALS, 2, canonical(a))
    await sealed_trail.redis.lset(keys.SEALS, 3, canonical(b))
    return {"kind": "checkpoint", "checkpoint": 3}


async def take_one_of_another_trail(sealed_trail: SealedTrail) -> dict:
    """Signed by our own key, over the same records, but behind another checkpoint than ours."""
    before, last = (parse(line) for line in sealed_trail.shipped[-2:])
    rows = await Trail(sealed_trail.redis, sealed_trail.clock).page(last.body["first"], last.last)
    other = Seal(before.line + b" ", before.body)
    await sealed_trail.redis.lset(keys.SEALS, -1, checkpoint(SIGNER, other, rows, T0).line)
    return {"kind": "checkpoint", "checkpoint": last.number}


async def swap_checkpoints(sealed_trail: SealedTrail) -> dict:
    await sealed_trail.redis.lset(keys.SEALS, 2, sealed_trail.shipped[3])
    await sealed_trail.redis.lset(keys.SEALS, 3, sealed_trail.shipped[2])
    return {"kind": "checkpoint", "checkpoint": 3}


async def alter_a_checkpoint(sealed_trail: SealedTrail) -> dict:
    """It says of fewer records what the last one said, and its signature is as it was."""
    body = dict(parse(sealed_trail.shipped[-1]).body)
    await sealed_trail.redis.lset(keys.SEALS, -1, canonical(body | {"count": body["count"] - 1}))
    return {"kind": "checkpoint", "checkpoint": body["number"]}


async def remove_the_first_checkpoint(sealed_trail: SealedTrail) -> dict:
    await sealed_trail.redis.lpop(keys.SEALS)
    return {"kind": "checkpoint", "checkpoint": 1}


async def remove_a_checkpoint(sealed_trail: SealedTrail) -> dict:
    await sealed_trail.redis.lrem(keys.SEALS, 1, sealed_trail.shipped[3])
    return {"kind": "checkpoint", "checkpoint": 4}


async def scribble_on_a_checkpoint(sealed_trail: SealedTrail) -> dict:
    await sealed_trail.redis.lset(keys.SEALS, 1, "nonsense")
    return {"kind": "checkpoint", "checkpoint": 2}


async def alter_the_jobs_chain_head(sealed_trail: SealedTrail) -> dict:
    await sealed_trail.redis.hset(keys.job(sealed_trail.ids[sealed_trail.middle + 2]), "chain", "f" * 64)
    return {"kind": "chain_head", "job_id": sealed_trail.ids[sealed_trail.middle + 2]}


async def scribble_on_a_record(sealed_trail: SealedTrail) -> dict:
    rows = await sealed_trail.rows()
    rows[30] = rows[30]._replace(record=b"nonsense")
    await sealed_trail.rebuild(rows)
    return {"kind": "altered", "record": rows[30].id}


Tampering = Callable[[SealedTrail], Awaitable[dict]]
TAMPERINGS: list[Tampering] = [
    *(alter, alter_the_first, alter_the_unsealed, alter_and_hash_anew, alter_and_hash_one, alter_a_hash),
    *(scribble_on_a_record, remove, remove_from_the_unsealed, remove_a_note),
    *(remove_a_whole_job, remove_a_whole_unsealed_job, cut_the_tail_of_a_job, cut_the_tail_of_an_unsealed_job),
    *(insert, insert_with_any_hash, insert_a_whole_job, append_forged, tell_twice),
    *(reorder_two_of_a_job, reorder_two_jobs),
    *(cut_the_sealed_tail, cut_at_a_checkpoint, cut_the_unsealed_tail, cut_behind_the_last_checkpoint),
    *(forge_a_checkpoint, forge_in_our_name, swap_signatures, swap_checkpoints, alter_a_checkpoint),
    take_one_of_another_trail,
    *(remove_the_first_checkpoint, remove_a_checkpoint, scribble_on_a_checkpoint, alter_the_jobs_chain_head),
]


def matches(expected: dict, report: Report) -> bool:
    """True when the first fault that is told is the one that was expected."""
    fault = report.faults[0].dump() if report.faults else {}
    return bool(fault) and all(
        fault.get(name) in value if isinstance(value, tuple) else fault.get(name) == value
        for name, value in expected.items()
    )
