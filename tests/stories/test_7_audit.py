"""Story 7: an auditor reads what was asked, of which model, what came back, and proves that nothing was changed."""

from __future__ import annotations

from arq.connections import ArqRedis
from story import Story

from worker.audit.keys import Signer, TrustedKeys
from worker.clock import Clock
from worker.store import keys
from worker.store.audit.verification import TrailVerification


async def test_the_trail_of_a_job_can_be_read_and_holds_no_content(vigil: Story) -> None:
    job = await vigil.app.submit(model="gpt-5.6-sol", input="CANARY: why is the sky blue?")
    job = await vigil.app.wait(job.id)
    records = await vigil.app.audit(job.id)
    types = [record.type for record in records]
    assert (types[0], types[-1]) == ("job.queued", "job.completed")
    assert all(record.hash for record in records)  # each covers the record before it
    assert "CANARY" not in str([record.raw for record in records])


async def test_a_changed_record_is_found(vigil: Story, redis: ArqRedis) -> None:
    await vigil.app.wait((await vigil.app.submit(model="gpt-5.6-sol", input="Hello")).id)
    trail = TrailVerification(redis, Clock(), TrustedKeys([Signer(bytes(32)).public]))
    assert (await trail.verify()).good

    (first, fields), *_ = await redis.xrange(keys.AUDIT, count=1)
    await redis.xdel(keys.AUDIT, first)  # somebody removes a record
    assert fields
    proof = await TrailVerification(redis, Clock(), TrustedKeys([Signer(bytes(32)).public])).verify()
    assert not proof.good
    assert proof.faults
