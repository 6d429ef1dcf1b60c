"""Turning master keys over: afterwards the old key can be dropped, and nothing that anybody sent or got is lost."""

from __future__ import annotations

from arq.connections import ArqRedis
from builders import FakeClock, new_job

from worker.store import keys
from worker.store.admission.pauses import Pauses
from worker.store.apps import Apps
from worker.store.connection.kept_secrets import KeptSecrets
from worker.store.connection.pool import connect
from worker.store.end_users.quarantine import Quarantine
from worker.store.envelope import MasterKeyring
from worker.store.jobs.repository import Jobs
from worker.store.lifecycle.key_rotation import KeyRotation
from worker.store.record_mac import split
from worker.store.webhooks.endpoints import Endpoints

OLD, NEW = bytes([3]) * 32, bytes([4]) * 32


async def test_after_a_rewrap_the_old_key_can_be_dropped(redis: ArqRedis, valkey_url: str) -> None:
    clock = FakeClock()
    old, both = (
        connect(valkey_url, keyring=MasterKeyring([OLD])),
        connect(valkey_url, keyring=MasterKeyring([NEW, OLD])),
    )
    new = connect(valkey_url, keyring=MasterKeyring([NEW]))
    made = [(await Jobs(old, clock).submit(new_job(prompt=f"p{i}")))[0].job for i in range(3)]
    _, key, secret = await Apps(old, clock).create_key("acme", ("read",))
    hook = await Endpoints(old, clock).create(
        "acme", url="https://a.example/", events=("job.completed",), payload="thin", description="", secret="whsec_x"
    )
    await Quarantine(old, clock).add("acme", "a" * 64, by="key_ops", reason="", name="ann")
    kept = await KeptSecrets(old, clock).get("digest")

    await Pauses(old, clock).pause("model", "m", by="key_ops", note="n")
    counts = await KeyRotation(both).run()
    assert (counts["rewrapped"], counts["unreadable"], counts["changed_meanwhile"]) == (7, 0, 0)
    again = await KeyRotation(both).run()
    assert (again["rewrapped"], again["under_first_key"]) == (0, 7), "begun again it passes over what is done"

    assert [(await Jobs(new, clock).load_input(job.id) or {})["input"] for job in made] == ["p0", "p1", "p2"]
    assert await Apps(new, clock).webhook_secret("acme") == secret
    assert (await Apps(new, clock).find(key)).app == "acme"
    assert [one.note for one in await Pauses(new, clock).list()] == ["n"]
    assert [len(await Jobs(new, clock).trail(job.id)) for job in made] == [1, 1, 1]
    assert (await Jobs(new, clock).load(made[0].id)).job == made[0]
    assert [new.keyring.macs.needs_tag(split(raw)[1]) for raw in await redis.lrange(keys.trail(made[0].id), 0, -1)] == [
        False
    ]
    assert await Endpoints(new, clock).find("acme", hook.id) == hook
    assert [one.name for one in await Quarantine(new, clock).of_app("acme")] == ["ann"]
    assert await KeptSecrets(new, clock).get("digest") == kept
    assert (await Jobs(old, clock).load_input(made[0].id) or {})["input"] == "p0", "a running process keeps its box"
    for client in (old, both, new):
        await client.aclose()


async def test_what_needs_a_key_that_is_not_there_is_counted_and_left_alone(redis: ArqRedis, valkey_url: str) -> None:
    old, new = connect(valkey_url, keyring=MasterKeyring([OLD])), connect(valkey_url, keyring=MasterKeyring([NEW]))
    job = (await Jobs(old, FakeClock()).submit(new_job(prompt="p")))[0].job
    assert (await KeyRotation(new).run())["unreadable"] == 2, "the job, and the secret of the digests of its metadata"
    assert (await Jobs(old, FakeClock()).load(job.id)) is not None
    for client in (old, new):
        await client.aclose()
