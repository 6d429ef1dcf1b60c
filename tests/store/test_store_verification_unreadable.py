"""A proof that meets a key that it can't read: the key is named, with what to do, and is left as it stands."""

import pytest
from sealed_trail import SIGNER, House

from worker.audit.keys import TrustedKeys
from worker.cli.errors import BAD, explain
from worker.jobs.errors import RecordUnreadable
from worker.store import keys
from worker.store.audit.verification import TrailVerification


@pytest.fixture
async def house(redis, clock, jobs) -> House:
    house = House(redis, clock, jobs)
    await house.fill(12)
    return house


@pytest.mark.parametrize("shipped", [True, False])
@pytest.mark.parametrize("what", ["audit", "seals", "job", "audited"])
async def test_the_key_is_named_and_left_as_it_is(house, what, shipped):
    job_id = house.ids[house.middle]
    key = {"audit": keys.AUDIT, "seals": keys.SEALS, "job": keys.job(job_id), "audited": keys.audited(job_id)}[what]
    copies = await house.redis.lrange(keys.SEALS, 0, -1) if shipped else None
    await house.redis.delete(key)
    await house.redis.set(key, "of another type")
    report = await TrailVerification(house.redis, house.clock, TrustedKeys([SIGNER.public])).prove(copies)
    found = [fault for fault in report.faults if fault.kind == "unreadable"]
    assert len(found) == 1, report.faults
    assert found[0].detail.startswith(f"the value of {key} can't be read (wrong_type); ")
    assert "verify again; see ops/runbook/RecordsUnreadable.md" in found[0].detail
    assert found[0].job_id == (job_id if what in ("job", "audited") else None)
    assert not report.good
    assert await house.redis.get(key) == b"of another type"
    assert not await house.redis.exists(keys.ASIDES)


def test_a_command_that_meets_one_names_it_too():
    line, code = explain(RecordUnreadable(keys.AUDIT, "wrong_type"))
    assert (code, line.startswith("the value of vigil:audit can't be read (wrong_type); ops/runbook/")) == (BAD, True)
