"""Notes that an earlier release wrote stay readable: sealed, one app's own, also when master keys are rotated."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from appeal_note import write_appeal_note
from builders import ENCRYPTION_KEYS, PLAIN
from pydantic import SecretStr

from worker.store import keys
from worker.store.connection.pool import connect
from worker.store.end_users.appeal_notes import AppealNotes
from worker.store.envelope import MasterKeyring
from worker.store.lifecycle.key_rotation import KeyRotation

ANN = "a" * 64
TEXT = "She says it was homework: ☂"


@pytest.fixture
def notes(redis) -> AppealNotes:
    return AppealNotes(redis)


async def test_notes_come_back_newest_first_and_to_their_app_alone(redis, clock, notes):
    await write_appeal_note(redis, clock.now(), "shop", ANN, TEXT)
    await write_appeal_note(redis, clock.now() + timedelta(minutes=1), "shop", ANN, "Lifted.", by="key_2")
    assert [(one.text, one.by) for one in await notes.of("shop", ANN)] == [("Lifted.", "key_2"), (TEXT, "key_1")]
    assert await notes.of("other", ANN) == []


@pytest.mark.skipif(PLAIN, reason="nothing is sealed")
async def test_one_that_was_moved_or_changed_shows_no_text(redis, clock, notes):
    await write_appeal_note(redis, clock.now(), "shop", ANN, TEXT)
    (field, raw), *_ = (await redis.hgetall(keys.appeal_notes("shop", ANN))).items()
    await redis.hset(keys.appeal_notes("other", ANN), field, raw)
    assert [one.text for one in await notes.of("other", ANN)] == [None]
    await redis.set(keys.appeal_notes("shop", ANN), "spoiled")
    assert await notes.of("shop", ANN) == []


@pytest.mark.skipif(PLAIN, reason="nothing is sealed")
async def test_a_rotation_of_master_keys_takes_them_along(redis, valkey_url, clock):
    await write_appeal_note(redis, clock.now(), "shop", ANN, TEXT)
    new = SecretStr(base64.urlsafe_b64encode(bytes(range(1, 33))).decode())
    both = connect(valkey_url, keyring=MasterKeyring.from_settings([new, SecretStr(ENCRYPTION_KEYS)]))
    only_new = connect(valkey_url, keyring=MasterKeyring.from_settings([new]))
    try:
        counts = await KeyRotation(both).run()
        assert (counts["changed_meanwhile"], counts["unreadable"]) == (0, 0)
        assert [one.text for one in await AppealNotes(only_new).of("shop", ANN)] == [TEXT]
    finally:
        await both.aclose()
        await only_new.aclose()
