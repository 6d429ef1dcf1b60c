"""What is done to the trail in Redis is found and named: altered, removed, inserted, reordered, truncated, forged."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from arq.connections import ArqRedis
from builders import BLOCKED, COMPLETED, STARTED, T0, FakeClock, began, done, new_job

from worker.audit.chain import GENESIS, Row, canonical, hash_of, link, stream_id
from worker.audit.keys import Signer, Trusted
from worker.audit.report import Report
from worker.audit.seals import checkpoint, parse
from worker.jobs import events as ev
from worker.jobs.states import Outcome
from worker.store import keys
from worker.store.audit import Trail
from worker.store.jobs import Jobs
from worker.store.proof import Proof
from worker.store.seals import Seals

SIGNER, THIEF = Signer(b"s" * 32), Signer(b"t" * 32)
NORMAL = [(STARTED, None), (began(), 1), (done(), 1), (COMPLETED, 1)]
REFUSED = [(STARTED, None), (began(), 1), (done(Outcome.BLOCKED), 1), (BLOCKED, 1)]
FLAGGED = (ev.AccountFlagged(), None)


@dataclass
class House:
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

    async def fill(self, count: int, size: int = 25) -> None:
        for n in range(count):
            job = (await self.jobs.submit(new_job()))[0].job
            self.ids.append(job.id)
            lives = [[NORMAL], [NORMAL[:2], NORMAL[2:]], [REFUSED], [[FLAGGED], [FLAGGED]]]
            for said in lives[n % 4]:
                await self.jobs.change(job.id, lambda _, said=said: said)
            if n == count * 9 // 10:
                await self.seal(size)

    async def prove(self, *, shipped: bool = False) -> Report:
        return await Proof(self.redis, self.clock, Trusted([SIGNER.public])).prove(self.shipped if shipped else None)

    async def rows(self) -> list[Row]:
        return await Trail(self.redis, self.clock).page("-", count=10**6)

    async def rebuild(self, rows: list[Row]) -> None:
        """The stream with these records in this order, as whoever holds Redis can make it."""
        await self.redis.delete(keys.AUDIT)
        for row in rows:
            await self.redis.xadd(keys.AUDIT, {"hash": row.hash, "record": row.record}, id=row.id)

    async def of(self, job_id: str) -> list[Row]:
        return await Trail(self.redis, self.clock).of_chain(job_id)


@pytest.fixture
async def house(redis, clock, jobs) -> House:
    house = House(redis, clock, jobs)
    await house.fill(40)
    return house


async def test_an_honest_trail_is_good_and_counted(house):
    report = await house.prove(shipped=True)
    assert report.good, report.faults
    assert (report.records, report.jobs, report.seals) == (180, 40, 7)
    assert 0 < report.unsealed < 25
    assert report.lines()[-1].startswith("ok: nothing was altered")


async def test_it_stays_good_while_jobs_go_on_and_are_forgotten(house):
    for n, job_id in enumerate(house.ids):
        if n % 4 == 3:
            await house.jobs.change(job_id, lambda _: NORMAL)
    await Trail(house.redis, house.clock).note("job.content.deleted", app="shop", job_id=house.ids[0], by="k", why="w")
    await house.redis.delete(keys.job(house.ids[1]), keys.job(house.ids[2]))  # their time is over
    assert (await house.prove()).good
    await house.seal()
    assert (await house.prove()).unsealed == 0


def altered(row: Row, name: str = "at", value: object = "2020-01-01T00:00:00Z") -> Row:
    return row._replace(record=canonical({**json.loads(row.record), name: value}))


def swapped(rows: list[Row], a: int, b: int) -> list[Row]:
    """The two records trade places; the places keep their ids."""
    out = list(rows)
    out[a], out[b] = rows[b]._replace(id=rows[a].id), rows[a]._replace(id=rows[b].id)
    return out


def place(rows: list[Row], job_id: str, seq: int) -> int:
    mark = b'"seq":%d,' % seq
    return next(n for n, r in enumerate(rows) if job_id.encode() in r.record and mark in r.record)


async def alter(h: House, job: int = 5, seq: int = 3) -> dict:
    rows = await h.rows()
    n = place(rows, h.ids[job], seq)
    rows[n] = altered(rows[n])
    await h.rebuild(rows)
    return {"kind": "altered", "record": rows[n].id, "job_id": h.ids[job], "seq": seq}


async def alter_the_first(h: House) -> dict:
    return await alter(h, seq=1)


async def alter_the_unsealed(h: House) -> dict:
    return await alter(h, job=38, seq=4)


async def alter_and_hash_anew(h: House) -> dict:
    """A whole job's trail is written anew, every hash right, its record in Redis too."""
    rows, job_id, head = await h.rows(), h.ids[5], GENESIS
    for n, row in enumerate(rows):
        if job_id.encode() in row.record:
            forged = altered(row, "key_id", "key_2")
            head = hash_of(head, forged.record)
            rows[n] = forged._replace(hash=head)
    await h.rebuild(rows)
    await h.redis.hset(keys.job(job_id), "chain", head)
    return {"kind": "altered", "record": rows[place(rows, job_id, 1)].id}


async def remove(h: House, job: int = 5, seq: int = 3) -> dict:
    rows = await h.rows()
    n = place(rows, h.ids[job], seq)
    await h.redis.xdel(keys.AUDIT, rows[n].id)
    return {"kind": "removed", "job_id": h.ids[job], "seq": seq, "record": rows[place(rows, h.ids[job], seq + 1)].id}


async def remove_from_the_unsealed(h: House) -> dict:
    return await remove(h, job=38, seq=3)


async def remove_a_note(h: House) -> dict:
    trail, job_id = Trail(h.redis, h.clock), h.ids[39]
    gone = await trail.note("audit.hold", app="shop", job_id=job_id, by="ops", why="a case")
    after = await trail.note("audit.release", app="shop", job_id=job_id, by="ops", why="over")
    await h.seal()
    await h.redis.xdel(keys.AUDIT, gone.id)
    return {"kind": "removed", "record": after.id}


def squeezed(rows: list[Row]) -> list[Row]:
    """The same rows with ids that rise."""
    out = rows[:1]
    for row in rows[1:]:
        ms, number = stream_id(out[-1].id)
        out.append(row if stream_id(row.id) > (ms, number) else row._replace(id=f"{ms}-{number + 1}"))
    return out


async def insert(h: House) -> dict:
    """A record that follows from the one before it, in the middle of a job."""
    rows, job_id = await h.rows(), h.ids[5]
    n = place(rows, job_id, 2)
    hashed, body = link(rows[n].hash, {**json.loads(rows[n].record), "seq": 3, "type": "job.account.flagged"})
    out = squeezed([*rows[: n + 1], Row(rows[n].id, hashed, body), *rows[n + 1 :]])
    await h.rebuild(out)
    return {"kind": "inserted", "job_id": job_id, "seq": 3, "record": out[n + 1].id}


async def insert_a_whole_job(h: House) -> dict:
    rows = await h.rows()
    n = place(rows, h.ids[5], 1)
    hashed, body = link(GENESIS, {**json.loads(rows[n].record), "job_id": h.ids[5][:-4] + "zzzz"})
    out = squeezed([*rows[:n], Row(rows[n].id, hashed, body), *rows[n:]])
    await h.rebuild(out)
    return {"kind": "inserted", "record": out[n].id}


async def append_forged(h: House) -> dict:
    """A record at the very end of a job's chain, hashed as it should be."""
    job_id = h.ids[39]
    last = (await h.of(job_id))[-1]
    hashed, body = link(last.hash, {**json.loads(last.record), "seq": 4})
    forged = await h.redis.xadd(keys.AUDIT, {"hash": hashed, "record": body})
    return {"kind": "inserted", "record": forged.decode(), "job_id": job_id}


async def reorder_two_of_a_job(h: House) -> dict:
    rows = await h.rows()
    a, b = place(rows, h.ids[4], 3), place(rows, h.ids[4], 4)
    await h.rebuild(swapped(rows, a, b))
    return {"kind": "reordered", "job_id": h.ids[4], "record": rows[a].id}


async def reorder_two_jobs(h: House) -> dict:
    """Each job's own chain still holds."""
    rows = await h.rows()
    a, b = place(rows, h.ids[5], 1), place(rows, h.ids[4], 5)
    await h.rebuild(swapped(rows, min(a, b), max(a, b)))
    return {"kind": "reordered", "record": rows[min(a, b)].id}


async def cut_the_sealed_tail(h: House) -> dict:
    rows = await h.rows()
    await h.rebuild(rows[:-60])
    return {"kind": "truncated"}


async def cut_the_unsealed_tail(h: House) -> dict:
    rows = await h.rows()
    await h.redis.xdel(keys.AUDIT, rows[-1].id)
    return {"kind": "truncated", "job_id": h.ids[39], "seq": 3}


async def remove_a_whole_job(h: House) -> dict:
    rows = await h.of(h.ids[5])
    await h.redis.xdel(keys.AUDIT, *(row.id for row in rows))
    return {"kind": "removed"}


async def remove_a_whole_unsealed_job(h: House) -> dict:
    rows = await h.of(h.ids[38])
    await h.redis.xdel(keys.AUDIT, *(row.id for row in rows))
    await h.redis.delete(keys.audited(h.ids[38]))
    return {"kind": "removed", "job_id": h.ids[38], "seq": 1}


async def forge_a_checkpoint(h: House) -> dict:
    """Signed, by a key of the forger's."""
    last = parse(h.shipped[-1])
    rows = await Trail(h.redis, h.clock).page(f"({last.last}")
    await h.redis.rpush(keys.SEALS, checkpoint(THIEF, last, rows, T0).line)
    return {"kind": "checkpoint", "checkpoint": last.number + 1}


async def forge_in_our_name(h: House) -> dict:
    last = parse(h.shipped[-1])
    rows = await Trail(h.redis, h.clock).page(f"({last.last}")
    body = dict(checkpoint(THIEF, last, rows, T0).body) | {"key": SIGNER.key_id}
    await h.redis.rpush(keys.SEALS, canonical(body))
    return {"kind": "checkpoint", "checkpoint": last.number + 1}


async def swap_signatures(h: House) -> dict:
    a, b = (dict(parse(line).body) for line in h.shipped[2:4])
    a["signature"], b["signature"] = b["signature"], a["signature"]
    await h.redis.lset(keys.SEALS, 2, canonical(a))
    await h.redis.lset(keys.SEALS, 3, canonical(b))
    return {"kind": "checkpoint", "checkpoint": 3}


async def remove_a_checkpoint(h: House) -> dict:
    await h.redis.lrem(keys.SEALS, 1, h.shipped[3])
    return {"kind": "checkpoint", "checkpoint": 4}


async def scribble_on_a_checkpoint(h: House) -> dict:
    await h.redis.lset(keys.SEALS, 1, "nonsense")
    return {"kind": "checkpoint", "checkpoint": 2}


async def alter_the_jobs_chain_head(h: House) -> dict:
    await h.redis.hset(keys.job(h.ids[7]), "chain", "f" * 64)
    return {"kind": "chain_head", "job_id": h.ids[7]}


async def scribble_on_a_record(h: House) -> dict:
    rows = await h.rows()
    rows[30] = rows[30]._replace(record=b"nonsense")
    await h.rebuild(rows)
    return {"kind": "altered", "record": rows[30].id}


Tampering = Callable[[House], Awaitable[dict]]
TAMPERINGS: list[Tampering] = [
    *(alter, alter_the_first, alter_the_unsealed, alter_and_hash_anew, scribble_on_a_record),
    *(remove, remove_from_the_unsealed, remove_a_note, remove_a_whole_job, remove_a_whole_unsealed_job),
    *(insert, insert_a_whole_job, append_forged, reorder_two_of_a_job, reorder_two_jobs),
    *(cut_the_sealed_tail, cut_the_unsealed_tail, alter_the_jobs_chain_head),
    *(forge_a_checkpoint, forge_in_our_name, swap_signatures, remove_a_checkpoint, scribble_on_a_checkpoint),
]


@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda f: f.__name__)
async def test_tampering_is_found_and_named(house, tamper):
    expected = await tamper(house)
    report = await house.prove()
    assert not report.good, "nobody noticed"
    first = report.faults[0].dump()
    assert {name: first.get(name) for name in expected} == expected, report.faults
    assert report.dump()["first_bad"] == first
    assert report.lines()[-len(report.faults)].startswith("BAD: ")


async def test_the_job_whose_trail_vanished_is_named_too(house):
    await remove_a_whole_job(house)
    faults = (await house.prove()).faults
    assert (faults[-1].kind, faults[-1].job_id) == ("removed", house.ids[5])


async def test_tail_and_seals_cut_together_are_found_by_the_shipped_copy_alone(house):
    for job_id in house.ids[3::4]:
        await house.jobs.change(job_id, lambda _: NORMAL)
    await house.seal()
    await house.fill(1)
    await house.seal()
    rows = await house.rows()
    await house.rebuild(rows[:-5])
    await house.redis.rpop(keys.SEALS)
    await house.redis.delete(*map(keys.job, house.ids))  # whoever cuts well leaves no job that remembers
    assert (await house.prove()).good
    (fault,) = (await house.prove(shipped=True)).faults
    assert (fault.kind, fault.checkpoint, fault.record) == ("truncated", len(house.shipped), rows[-1].id)


async def test_seals_that_differ_from_the_shipped_ones_are_named(house):
    forged = dict(parse(house.shipped[-1]).body)
    copy = [*house.shipped[:-1], canonical({**forged, "at": "2020-01-01T00:00:00.000Z"})]
    report = await Proof(house.redis, house.clock, Trusted([SIGNER.public])).prove(copy)
    assert [f.checkpoint for f in report.faults] == [parse(house.shipped[-1]).number]


async def test_a_thousand_jobs_and_one_byte(redis, clock, jobs):
    house = House(redis, clock, jobs)
    await house.fill(1000, size=1000)
    assert (await house.prove()).good
    expected = await alter(house, job=501, seq=3)
    first = (await house.prove()).faults[0].dump()
    assert {name: first.get(name) for name in expected} == expected
