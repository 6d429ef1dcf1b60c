"""API keys, apps and the secrets that Vigil keeps: what is shown once, what is kept, what ends."""

import asyncio

import pytest
from builders import FakeClock
from hypothesis import given, strategies as st

from worker.clock import Clock
from worker.jobs.errors import Refused
from worker.store import keys
from worker.store.apps import Apps
from worker.store.connection import kept_secrets
from worker.store.connection.kept_secrets import KeptSecrets
from worker.store.key_text import is_well_formed, new_key

ALL = ("submit", "read", "audit", "ops")


@pytest.fixture
def apps(redis, clock) -> Apps:
    return Apps(redis, clock)


class NoRedis:
    """Fails the test when anyone asks Redis anything."""

    def __getattr__(self, name):
        raise AssertionError(f"Redis was asked: {name}")


async def test_a_key_is_found_by_itself_and_kept_only_as_its_digest(redis, apps):
    record, key, secret = await apps.create_key("shop", ("submit", "read"))
    assert await apps.find(key) == record
    assert (record.app, record.scopes, record.revoked_at, record.last4) == ("shop", ("submit", "read"), 0, key[-4:])
    assert secret.startswith("whsec_")
    assert await apps.webhook_secret("shop") == secret
    for name in await redis.keys("*"):
        assert key.encode() not in name + (await redis.dump(name) or b"")


async def test_a_second_key_of_an_app_shares_its_webhook_secret(apps):
    _, first, secret = await apps.create_key("shop", ALL)
    _, second, same = await apps.create_key("shop", ALL)
    _, _, other = await apps.create_key("bakery", ALL)
    assert first != second
    assert secret == same != other
    assert [k.app for k in await apps.list_keys()] == ["shop", "shop", "bakery"]


async def test_an_app_without_key_has_no_secret(apps):
    assert await apps.webhook_secret("nobody") is None


async def test_revoking_ends_a_key_for_good_and_again_changes_nothing(apps, clock):
    record, key, _ = await apps.create_key("shop", ALL)
    first = await apps.revoke(record.id)
    assert first.revoked_at > 0
    clock.step(60)
    assert await apps.revoke(record.id) == first
    assert await apps.find(key) == first
    assert await apps.list_keys() == [first]


async def test_a_key_that_is_not_there_cannot_be_revoked(apps):
    with pytest.raises(Refused) as caught:
        await apps.revoke("key_none")
    assert caught.value.status == 404


async def test_an_unknown_scope_is_refused_and_makes_nothing(redis, apps):
    with pytest.raises(Refused, match="admin"):
        await apps.create_key("shop", ("submit", "admin"))
    assert await redis.keys("*") == []


@pytest.mark.parametrize("name", ["", "shop:status:queued", "a b", "a\n", "a\0", "x" * 101])
async def test_an_app_whose_name_could_be_anothers_key_is_refused(redis, apps, name):
    with pytest.raises(Refused) as caught:
        await apps.create_key(name, ALL)
    assert caught.value.code == "invalid_app"
    assert await redis.keys("*") == []


@given(st.binary(min_size=24, max_size=24))
def test_every_key_is_plausible_and_one_wrong_character_is_not(random_bytes):
    key = new_key(random_bytes)
    assert len(key) == 42
    assert is_well_formed(key)
    for at in range(4, 42):
        assert not is_well_formed(key[:at] + ("0" if key[at] != "0" else "1") + key[at + 1 :])


@pytest.mark.parametrize("junk", ["", "vgl_", "vgl_" + "0" * 38, "sk-proj-123", "vgl_" + "é" * 38, "vgl_" + "0" * 9999])
async def test_junk_never_costs_a_question_to_redis(junk):
    assert await Apps(NoRedis(), FakeClock()).find(junk) is None


async def test_a_key_of_another_house_is_not_found(apps):
    assert await apps.find(new_key(bytes(24))) is None


async def test_a_secret_is_made_once_for_all_processes(redis):
    all_secrets = [KeptSecrets(redis, Clock()) for _ in range(10)]
    made = await asyncio.gather(*(secrets.get(kept_secrets.IDENTIFIER) for secrets in all_secrets))
    assert len(set(made)) == 1
    assert len(made[0]) == 32
    assert await KeptSecrets(redis, Clock()).get(kept_secrets.IDENTIFIER) == made[0]
    assert await KeptSecrets(redis, Clock()).get(kept_secrets.DIGEST) != made[0]


async def test_a_secret_is_read_once_and_a_given_one_is_never_kept(redis, clock):
    secrets = KeptSecrets(redis, clock, {kept_secrets.IDENTIFIER: b"given"})
    assert await secrets.get(kept_secrets.IDENTIFIER) == b"given"
    assert await redis.exists(keys.secret(kept_secrets.IDENTIFIER)) == 0
    made = await secrets.get(kept_secrets.DIGEST)
    await redis.flushall()
    assert await secrets.get(kept_secrets.DIGEST) == made


def test_an_identifier_is_the_apps_own_and_a_digest_proves_what_was_asked():
    name = kept_secrets.safety_identifier
    assert name(b"s", "shop", "anna") == name(b"s", "shop", "anna")
    assert len({name(b"s", "shop", "anna"), name(b"t", "shop", "anna"), name(b"s", "bakery", "anna")}) == 3
    digest = kept_secrets.input_digest
    assert digest(b"s", {"input": "x", "model": "m"}) == digest(b"s", {"model": "m", "input": "x"})
    assert digest(b"s", {"input": "x"}) != digest(b"s", {"input": "y"})
