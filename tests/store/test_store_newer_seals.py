"""Checkpoints that a newer release made: fields that it added are under their signature, and the chain goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sealed_trail import SIGNER, SealedTrail

from worker.audit.chain import canonical
from worker.audit.seals import BadSeal
from worker.store import keys
from worker.store.audit.seals import Seals


@pytest.fixture
async def sealed(redis, clock, jobs) -> SealedTrail:
    one = SealedTrail(redis, clock, jobs)
    await one.fill(12, size=1000)
    return one


async def resign(sealed: SealedTrail, *, sign: bool = True, **fields: Any) -> bytes:
    """Write the last checkpoint as a newer release would; return its line."""
    body = {**json.loads(await sealed.redis.lindex(keys.SEALS, -1)), **fields}
    if sign:
        del body["signature"]
        body["signature"] = SIGNER.sign(canonical(body))
    await sealed.redis.lset(keys.SEALS, -1, canonical(body))
    return canonical(body)


async def test_a_field_of_a_newer_release_is_under_the_signature_and_the_next_checkpoint_follows(sealed):
    line = await resign(sealed, of_a_newer_release={"x": 1})
    assert (await sealed.verify()).good
    await sealed.seal()
    report = await sealed.verify()
    assert (report.good, report.seals, report.unsealed) == (True, 2, 0)
    assert await sealed.redis.lindex(keys.SEALS, 0) == line
    await sealed.redis.lset(keys.SEALS, 0, line.replace(b'"x":1', b'"x":2'))
    assert not (await sealed.verify()).good, "whoever changes it is found"


async def test_nobody_can_add_a_field_without_the_key(sealed):
    await resign(sealed, sign=False, of_a_newer_release=1)
    assert not (await sealed.verify()).good


async def test_after_a_checkpoint_that_needs_a_newer_release_no_older_one_seals(sealed):
    line = await resign(sealed, schema_number=99)
    with pytest.raises(BadSeal, match="newer release"):
        await Seals(sealed.redis).last()
    with pytest.raises(BadSeal):
        await sealed.seal()
    assert await sealed.redis.lrange(keys.SEALS, -1, -1) == [line]
    report = await sealed.verify()
    assert not report.good
    assert any("newer release" in fault.detail for fault in report.faults)
