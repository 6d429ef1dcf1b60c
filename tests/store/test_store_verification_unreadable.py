"""A proof that meets a key that it can't read: the key is named, with what to do, and is left as it stands."""

import pytest
from sealed_trail import SIGNER, SealedTrail

from worker.audit.keys import TrustedKeys
from worker.cli.errors import EXIT_FAILED, explain
from worker.jobs.errors import RecordUnreadable
from worker.store import keys
from worker.store.audit.verification import TrailVerification


@pytest.fixture
async def sealed(redis, clock, jobs) -> SealedTrail:
    sealed = SealedTrail(redis, clock, jobs)
    await sealed.fill(12)
    return sealed


@pytest.mark.parametrize("shipped", [True, False])
@pytest.mark.parametrize("what", ["audit", "seals", "job", "audited"])
async def test_the_key_is_named_and_left_as_it_is(sealed, what, shipped):
    job_id = sealed.ids[sealed.middle]
    key = {"audit": keys.AUDIT, "seals": keys.SEALS, "job": keys.job(job_id), "audited": keys.chain_records(job_id)}[
        what
    ]
    copies = await sealed.redis.lrange(keys.SEALS, 0, -1) if shipped else None
    await sealed.redis.delete(key)
    await sealed.redis.set(key, "of another type")
    report = await TrailVerification(sealed.redis, sealed.clock, TrustedKeys([SIGNER.public])).verify(copies)
    found = [fault for fault in report.faults if fault.kind == "unreadable"]
    assert len(found) == 1, report.faults
    assert found[0].detail.startswith(f"the value of {key} can't be read (wrong_type); ")
    assert "verify again; see ops/runbook/RecordsUnreadable.md" in found[0].detail
    assert found[0].job_id == (job_id if what in ("job", "audited") else None)
    assert not report.good
    assert await sealed.redis.get(key) == b"of another type"
    assert not await sealed.redis.exists(keys.ASIDES)


def test_a_command_that_meets_one_names_it_too():
    line, code = explain(RecordUnreadable(keys.AUDIT, "wrong_type"))
    assert (code, line.startswith("the value of vigil:audit can't be read (wrong_type); ops/runbook/")) == (
        EXIT_FAILED,
        True,
    )
