"""Notes on an end user are sealed, bounded, one app's own, and stay readable when master keys are rotated."""

from __future__ import annotations

import base64

import pytest
from builders import ENCRYPTION_KEYS, PLAIN
from pydantic import SecretStr

from worker.jobs.errors import Refused
from worker.store import keys
from worker.store.connection.pool import connect
from worker.store.end_users import appeal_notes
from worker.store.end_users.appeal_notes import AppealNotes
from worker.store.envelope import MasterKeyring
from worker.store.lifecycle.key_rotation import KeyRotation

ANN = "a" * 64
TEXT = "She says it was homework: ☂"


@pytest.fixture
def notes(redis, clock) -> AppealNotes:
    return AppealNotes(redis, clock)


async def test_notes_come_back_newest_first_and_to_their_app_alone(redis, clock, notes):
    await notes.add("shop", ANN, TEXT, by="key_1")
    clock.step(60)
    await notes.add("shop", ANN, "Lifted.", by="key_2")
    assert [(one.text, one.by) for one in await notes.of("shop", ANN)] == [("Lifted.", "key_2"), (TEXT, "key_1")]
    assert await notes.of("other", ANN) == []
    raw = b"".join((await redis.hgetall(keys.appeal_notes("shop", ANN))).values())
    assert PLAIN or b"homework" not in raw
    assert await redis.ttl(keys.appeal_notes("shop", ANN)) > 80 * 86_400


async def test_they_are_bounded(notes, monkeypatch):
    monkeypatch.setattr(appeal_notes, "MAX_NOTES", 1)
    for text in ("", "x" * (appeal_notes.MAX_NOTE + 1)):
        with pytest.raises(Refused):
            await notes.add("shop", ANN, text, by="key_1")
    await notes.add("shop", ANN, TEXT, by="key_1")
    with pytest.raises(Refused):
        await notes.add("shop", ANN, TEXT, by="key_1")


@pytest.mark.skipif(PLAIN, reason="nothing is sealed")
async def test_one_that_was_moved_or_changed_shows_no_text(redis, notes):
    await notes.add("shop", ANN, TEXT, by="key_1")
    (field, raw), *_ = (await redis.hgetall(keys.appeal_notes("shop", ANN))).items()
    await redis.hset(keys.appeal_notes("other", ANN), field, raw)
    assert [one.text for one in await notes.of("other", ANN)] == [None]
    await redis.set(keys.appeal_notes("shop", ANN), "spoiled")
    assert await notes.of("shop", ANN) == []


@pytest.mark.skipif(PLAIN, reason="nothing is sealed")
async def test_a_rotation_of_master_keys_takes_them_along(redis, valkey_url, clock, notes):
    await notes.add("shop", ANN, TEXT, by="key_1")
    new = SecretStr(base64.urlsafe_b64encode(bytes(range(1, 33))).decode())
    both = connect(valkey_url, keyring=MasterKeyring.from_settings([new, SecretStr(ENCRYPTION_KEYS)]))
    only_new = connect(valkey_url, keyring=MasterKeyring.from_settings([new]))
    try:
        counts = await KeyRotation(both).run()
        assert (counts["changed_meanwhile"], counts["unreadable"]) == (0, 0)
        assert [one.text for one in await AppealNotes(only_new, clock).of("shop", ANN)] == [TEXT]
    finally:
        await both.aclose()
        await only_new.aclose()
