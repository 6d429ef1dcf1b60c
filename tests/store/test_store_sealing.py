"""An upgrade: what is older than the encryption or than MACs waits, is counted, and goes on once it is sealed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from arq.connections import ArqRedis
from builders import STARTED, FakeClock, began, new_job

from worker.audit.report import Report
from worker.jobs import events as ev
from worker.jobs.errors import RecordUnreadable
from worker.jobs.states import Outcome
from worker.store import keys
from worker.store.admission.pauses import Pauses
from worker.store.apps import ApiKey, Apps
from worker.store.connection.kept_secrets import KeptSecrets
from worker.store.connection.pool import connect
from worker.store.end_users.quarantine import Quarantine
from worker.store.envelope import MasterKeyring
from worker.store.jobs.repository import Jobs
from worker.store.lifecycle.record_verification import RecordVerification
from worker.store.lifecycle.seal_check import count_refused_at_start, count_unsealed
from worker.store.lifecycle.sealing import StoreSealing
from worker.store.record_mac import split
from worker.store.webhooks.endpoints import Endpoints

KEY, ANN = bytes([7]) * 32, "a" * 64
DONE = [
    (STARTED, None),
    (began(), 1),
    (ev.AttemptFinished(outcome=Outcome.COMPLETED, served_model="gpt-5.6-sol"), 1),
    (ev.Completed(served_model="gpt-5.6-sol"), 1),
]


@dataclass
class Old:
    """What an earlier deployment left behind."""

    key: str
    record: ApiKey
    settled: str
    waiting: str


async def fill(redis: ArqRedis) -> Old:
    clock = FakeClock()
    jobs, apps = Jobs(redis, clock), Apps(redis, clock)
    record, key, _ = await apps.create_key("shop", ("read",))
    await Endpoints(redis, clock).create(
        "shop", url="https://a.example/", events=("job.completed",), payload="thin", description="", secret="whsec_x"
    )
    await Quarantine(redis, clock).add("shop", ANN, by="key_ops", reason="", name="ann")
    await Pauses(redis, clock).pause("model", "other", by="key_ops", note="n")
    await KeptSecrets(redis, clock).get("identifier")
    settled, waiting = (await jobs.submit(new_job()))[0].job.id, (await jobs.submit(new_job(prompt="later")))[0].job.id
    output = await jobs.seal_output(settled, {"output_text": "hello"})
    await jobs.change(settled, lambda _: DONE, output=output)
    return Old(key, record, settled, waiting)


async def as_an_earlier_release_left_it(redis: ArqRedis) -> None:
    """Take every MAC away, and the trail's notes on records: an earlier release wrote neither."""
    for name in [raw.decode() for raw in await redis.keys("vigil:*")]:
        if name.startswith((keys.api_key(""), keys.app(""), keys.PAUSE)):
            await redis.set(name, split(await redis.get(name))[0])
        elif name.startswith(keys.JOB):
            await redis.hdel(name, "mac")
        elif name.startswith(keys.TRAIL):
            for place, raw in enumerate(await redis.lrange(name, 0, -1)):
                await redis.lset(name, place, split(raw)[0])
    for person, raw in (await redis.hgetall(keys.QUARANTINE)).items():
        await redis.hset(keys.QUARANTINE, person, split(raw)[0])


@pytest.fixture
async def sides(redis: ArqRedis, valkey_url: str) -> AsyncIterator[dict[str, ArqRedis]]:
    made = {
        "off": connect(valkey_url),
        "on": connect(valkey_url, keyring=MasterKeyring([KEY])),
        "accepting": connect(valkey_url, keyring=MasterKeyring([KEY], accept_plain=True)),
    }
    yield made
    for client in made.values():
        await client.aclose()


async def differences(redis: ArqRedis) -> list[str]:
    report = Report()
    await RecordVerification(redis, FakeClock()).verify(report)
    return [fault.detail for fault in report.faults]


async def reads(redis: ArqRedis, old: Old) -> None:
    """Everything can be read by a process that accepts nothing plain."""
    clock = FakeClock()
    assert await Apps(redis, clock).find(old.key) == old.record
    assert (await Jobs(redis, clock).load_output(old.settled) or {})["output_text"] == "hello"
    assert [event["seq"] for event in await Jobs(redis, clock).trail(old.settled)] == [1, 2, 3, 4, 5]
    assert [one.url for one in await Endpoints(redis, clock).of_app("shop")] == ["https://a.example/"]
    assert [one.name for one in await Quarantine(redis, clock).of_app("shop")] == ["ann"]
    assert [one.note for one in await Pauses(redis, clock).list()] == ["n"]


async def test_a_deployment_of_an_earlier_release_goes_on_once_it_is_sealed(sides: dict[str, ArqRedis]) -> None:
    on = sides["on"]
    old = await fill(on)
    await as_an_earlier_release_left_it(on)
    assert await count_refused_at_start(on) == 1
    with pytest.raises(RecordUnreadable, match="no_mac"):
        await Apps(on, FakeClock()).find(old.key)
    with pytest.raises(RecordUnreadable, match="no_mac"):
        await Jobs(on, FakeClock()).load(old.settled)
    assert (await Jobs(on, FakeClock()).claim("w1", 5, 60))[1] == []
    assert (await count_unsealed(on)).without_mac == 6
    await reads(sides["accepting"], old)

    sealing = StoreSealing(sides["accepting"], FakeClock(start=500))
    counts = await sealing.run()
    assert (counts["unreadable"], counts["changed_meanwhile"], counts["jobs_not_over"]) == (0, 0, 0)
    assert f"API key {old.record.id} of app shop" in sealing.accepted
    await reads(on, old)
    _, claimed = await Jobs(on, FakeClock()).claim("w2", 5, 60)
    assert [one.job.id for one in claimed] == [old.waiting], "the waiting job was not failed meanwhile"
    left = await count_unsealed(on)
    assert (left.plain, left.without_mac, left.wrong) == (0, 0, 0)
    assert await differences(on) == []
    again = await StoreSealing(sides["accepting"], FakeClock(start=900)).run()
    assert (again["sealed"], again["tagged"], again["noted"]) == (0, 0, 0)


async def test_a_plain_deployment_goes_on_encrypted(sides: dict[str, ArqRedis]) -> None:
    old = await fill(sides["off"])
    counted = await count_unsealed(sides["accepting"])
    assert (counted.plain, counted.without_mac) == (5, 6), "two jobs, an endpoint, two secrets; six records"
    counts = await StoreSealing(sides["accepting"], FakeClock(start=500)).run()
    assert (counts["unreadable"], counts["jobs_not_over"]) == (0, 1)
    await reads(sides["on"], old)
    jobs = Jobs(sides["accepting"], FakeClock())
    _, (held,) = await jobs.claim("w1", 5, 60)
    assert held.input == {"input": "later"}, "a plain job that is not over runs where plain values are accepted"
    output = await jobs.seal_output(old.waiting, {"output_text": "hello"})
    await jobs.change(old.waiting, lambda _: DONE, token=held.token, output=output)
    counts = await StoreSealing(sides["accepting"], FakeClock(start=900)).run()
    assert counts["jobs_not_over"] == 0
    assert (await Jobs(sides["on"], FakeClock()).load_output(old.waiting) or {})["output_text"] == "hello"
    assert await differences(sides["on"]) == []


async def test_a_plain_job_that_is_run_without_the_setting_fails_and_says_why(sides: dict[str, ArqRedis]) -> None:
    """Its record has a MAC, so Vigil accepted it encrypted: a plain prompt in it was put there."""
    jobs = Jobs(sides["on"], FakeClock())
    job, _ = await jobs.submit(new_job())
    plain, _ = await Jobs(sides["off"], FakeClock(start=50)).submit(new_job(prompt="another"))
    await sides["on"].copy(keys.job_input(plain.job.id), keys.job_input(job.job.id), replace=True)
    _, claimed = await jobs.claim("w1", 5, 60)
    assert [(one.job.id, one.unreadable, one.input) for one in claimed] == [(job.job.id, "damaged", None)]


async def test_a_wrong_mac_is_never_accepted(sides: dict[str, ArqRedis]) -> None:
    old = await fill(sides["on"])
    name = keys.app("shop")
    raw = await sides["on"].get(name)
    await sides["on"].set(name, raw.replace(b'"name":"shop"', b'"name":"shop","rate":[0,0]'))
    counts = await StoreSealing(sides["accepting"], FakeClock(start=500)).run()
    assert counts["unreadable"] == 1
    assert (await count_unsealed(sides["accepting"])).named == [name]
    with pytest.raises(RecordUnreadable, match="wrong_mac"):
        await Apps(sides["accepting"], FakeClock()).rate("shop")
    assert await Apps(sides["on"], FakeClock()).find(old.key) == old.record, "its keys work, at the default rate"
