"""Keys of people: they end with a code of their own, their last use is known, and what they read is on record."""

from __future__ import annotations

from datetime import timedelta

import pytest
from api_server import running, submitted
from builders import FakeClock
from waiting import until

from api.runtime.key_cache import KeyCache
from api.runtime.key_use_log import KeyUseLog
from worker.audit.chain import canonical
from worker.clock import Clock, to_ms
from worker.jobs.errors import RecordUnreadable
from worker.store import keys
from worker.store.apps import Apps
from worker.store.key_uses import KeyUses


class Counted(KeyUses):
    """Counts writes."""

    writes = 0

    async def write(self, uses):
        self.writes += 1
        await super().write(uses)


@pytest.fixture
def fake():
    return FakeClock(Clock().now())


async def person(apps: Apps, seconds: float = 3600, scopes=("read", "submit"), name="Ann"):
    ends = Clock().now() + timedelta(seconds=seconds)
    return await apps.create_key("acme", scopes, person=name, expires_at=ends)


async def test_person_and_end_are_part_of_the_record_and_old_records_read(redis, fake):
    apps = Apps(redis, fake)
    record, key, _ = await apps.create_key("shop", ("read",), person="Ann", expires_at=fake.now() + timedelta(days=1))
    assert (await apps.find(key), record.person) == (record, "Ann")
    name = keys.api_key((await redis.hget(keys.API_KEYS, record.id)).decode())
    raw = await redis.get(name)
    await redis.set(name, raw.replace(b'"Ann"', b'"Bob"'))
    if b'"mac"' in raw:
        with pytest.raises(RecordUnreadable):
            await apps.find(key)
    old, text, _ = await apps.create_key("shop", ("read",))
    stored = await redis.get(keys.api_key((await redis.hget(keys.API_KEYS, old.id)).decode()))
    assert b"person" not in stored and b"expires_at" not in stored, "as an older release has written it"  # noqa: PT018
    assert await apps.find(text) == old
    for wrong in ({"person": "a\nb"}, {"person": " "}, {"expires_at": fake.now()}):
        with pytest.raises(Exception, match=r"person|future"):
            await apps.create_key("shop", ("read",), **wrong)


async def test_a_cached_key_ends_when_its_time_is_over_not_when_the_cache_forgets_it(redis, fake):
    apps = Apps(redis, fake)
    _, key, _ = await apps.create_key("shop", ("read",), expires_at=fake.now() + timedelta(seconds=2))
    cache = KeyCache(apps, fake, KeyUseLog(KeyUses(redis), fake))
    assert await cache.find(key) == cache.cached(key) is not None
    fake.step(2)
    assert await cache.find(key) is cache.cached(key) is None
    assert (await cache.look_up(key)).is_expired(to_ms(fake.now()))


async def test_a_use_is_written_once_a_minute_and_not_by_the_request(redis, fake):
    uses = Counted(redis)
    log = KeyUseLog(uses, fake)
    for _ in range(500):
        log.note("key_a", 1000.0)
    assert uses.writes == 0
    await log.write()
    await log.write()
    assert (uses.writes, await uses.all()) == (1, {"key_a": to_ms(fake.now())})
    fake.step(59)
    log.note("key_a", 1059.0)
    await log.write()
    assert uses.writes == 1
    fake.step(1)
    log.note("key_a", 1060.0)
    log.note("key_b", 1060.0)
    await log.write()
    assert (uses.writes, set((await uses.all()).values())) == (2, {to_ms(fake.now())})
    await redis.hset(keys.KEY_USES, "key_c", "soon")
    assert "key_c" not in await uses.all()


async def test_an_expired_key_is_told_when_and_what_to_do_in_every_format(api, redis):
    used, seconds = False, 0.3
    while not used:  # on a busy machine a key may end before its first request comes
        record, key, _ = await person(api.apps, seconds)
        client = await api.client(key=key)
        used, seconds = (await client.get("/v1/jobs")).status_code == 200, 2 * seconds

    async def over():
        answer = await client.get("/v1/jobs")
        return answer if answer.status_code == 401 else None

    answer = await until("the end of the key", over)
    assert answer.json()["code"] == "key_expired"
    assert "vigil keys create --app acme" in answer.json()["detail"]
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    openai = (await client.post("/v1/responses", json={"model": "gpt-5.6-sol", "input": "x"})).json()["error"]
    assert (openai["code"], openai["vigil"]["code"]) == ("key_expired", "key_expired")
    await api.apps.revoke(record.id)
    assert (await client.get("/v1/jobs")).json()["code"] == "unauthorized", "a revoked key is no longer told"
    assert record.id in await until("its use", KeyUses(redis).all)


async def test_a_use_survives_the_end_of_the_process(settings, redis, clock):
    async with running(settings, redis, clock) as api:
        record, key, _ = await person(api.apps)
        await (await api.client(key=key)).get("/v1/jobs")
    assert to_ms(clock.now()) - (await KeyUses(redis).all())[record.id] < 60_000


async def test_a_person_who_reads_what_another_key_submitted_is_on_record_once(api, acme, worker):
    job_id = await submitted(acme)
    record, key, _ = await person(api.apps)
    ann, own = await api.client(key=key), await submitted(await api.client(key=key))
    assert (await ann.get(f"/v1/jobs/{job_id}")).status_code == 200  # there is nothing to read yet
    await worker.start(job_id)
    await worker.complete(job_id, "SECRET")
    for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}", "/v1/jobs", f"/v1/responses/{job_id}", f"/v1/jobs/{own}"):
        assert (await ann.get(path)).status_code == 200
        assert (await acme.get(path)).status_code == 200
    assert (await ann.get(f"/v1/responses/{job_id}/input_items")).status_code == 200
    looks = (await acme.get("/v1/audit", params={"type": "content.read"})).json()["data"]
    assert [(look["job_id"], look["data"]["kind"]) for look in looks] == [(job_id, "output"), (job_id, "prompt")]
    assert {(look["data"]["by"], look["data"]["by_person"], look["data"]["via"]) for look in looks} == {
        (record.id, "Ann", "http")
    }
    assert b"SECRET" not in canonical({"looks": looks})
    for client in (acme, ann):  # a support packet is for people, whoever's key it is
        await client.get(f"/v1/jobs/{job_id}/support-packet")
    looks = (await acme.get("/v1/audit", params={"type": "content.read"})).json()["data"][2:]
    assert [(look["data"]["kind"], look["data"].get("by_person")) for look in looks] == [
        ("packet", None),
        ("packet", "Ann"),
    ]


async def test_a_person_who_repeats_the_request_of_another_key_is_given_its_answer_on_record(api, acme, worker):
    sent, named = {"model": "gpt-5.6-sol", "input": "Explain tail latency."}, {"Idempotency-Key": "order-17"}
    job_id = (await acme.post("/v1/jobs", json=sent, headers=named)).json()["id"]
    await worker.start(job_id)
    await worker.complete(job_id, "SECRET")
    _, key, _ = await person(api.apps)
    for client in (acme, await api.client(key=key)):
        repeated = await client.post("/v1/jobs", json=sent, headers=named)
        assert (repeated.json()["id"], repeated.json()["output_text"]) == (job_id, "SECRET")
    looks = (await acme.get("/v1/audit", params={"type": "content.read"})).json()["data"]
    assert [(look["job_id"], look["data"]["kind"], look["data"]["by_person"]) for look in looks] == [
        (job_id, "output", "Ann")
    ]


async def test_what_a_person_does_beside_the_life_of_a_job_is_on_record(api, acme):
    record, key, _ = await person(api.apps, scopes=("read", "submit", "ops", "audit"))
    ann, job_id = await api.client(key=key), await submitted(acme, end_user="user-17")
    made = (await ann.post("/v1/webhook-endpoints", json={"url": "https://app.example/hooks"})).json()
    await ann.patch(f"/v1/webhook-endpoints/{made['id']}", json={"state": "paused"})
    await ann.post(f"/v1/webhook-endpoints/{made['id']}/rotate-secret")
    await ann.delete(f"/v1/webhook-endpoints/{made['id']}")
    assert (await ann.delete(f"/v1/webhook-endpoints/{made['id']}")).status_code == 404
    await ann.post("/v1/jobs/actions", json={"action": "cancel", "ids": [job_id], "dry_run": True})
    await ann.post("/v1/jobs/actions", json={"action": "cancel", "filter": {"end_user": "user-17"}})
    await ann.post("/v1/quarantine", json={"end_user": "user-17"})
    acts = (await ann.get("/v1/audit", params={"actor": "Ann"})).json()["data"]
    assert [act["type"].removeprefix("webhook_endpoint.") for act in acts] == [
        *("created", "changed", "secret_rotated", "deleted", "jobs.action", "quarantine.added"),
    ]
    assert {act["data"]["by"] for act in acts} == {record.id}
    assert (acts[1]["data"]["fields"], acts[4]["data"]["filter"]) == (["state"], ["end_user"])
    shown = str(acts)
    assert all(secret not in shown for secret in ("user-17", made["secret"], key))
