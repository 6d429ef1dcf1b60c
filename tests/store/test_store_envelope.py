"""The envelope: what is sealed opens where it belongs and nowhere else, and says which key it wants."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from worker.jobs.errors import ContentDamaged, KeyMissing, StoreUnavailable
from worker.store import codec
from worker.store.envelope import INPUT, OUTPUT, PRIVATE, JobCipher, MasterKeyring, kid_in, kid_of, text_field

OLD, NEW = bytes(32), bytes([1]) * 32
SECRET = "canary-7c1d"
_text = st.text(max_size=30)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=8,
)


@given(_json, _text)
def test_what_is_sealed_opens_in_its_own_box_and_field(value: Any, field: str) -> None:
    box = MasterKeyring([NEW]).new("acme", "job_1")
    assert box.unseal(field, box.seal(field, value)) == value
    assert box.unseal(field, box.seal_with_key(field, value)) == value


def test_a_value_that_brings_its_key_along_opens_in_any_process_with_the_master_key() -> None:
    raw = MasterKeyring([NEW]).new("acme", "job_1").seal_with_key(PRIVATE, {"metadata": {"a": SECRET}})
    assert SECRET.encode() not in raw
    box, value = MasterKeyring([OLD, NEW]).open("acme", "job_1", PRIVATE, raw)
    assert value == {"metadata": {"a": SECRET}}
    assert box.unseal(INPUT, MasterKeyring([NEW]).open("acme", "job_1", PRIVATE, raw)[0].seal(INPUT, SECRET)) == SECRET


@pytest.mark.parametrize(
    ("app", "job_id", "field"), [("evil", "job_1", PRIVATE), ("acme", "job_2", PRIVATE), ("acme", "job_1", OUTPUT)]
)
def test_a_value_that_was_moved_to_another_app_job_or_field_does_not_open(app: str, job_id: str, field: str) -> None:
    raw = MasterKeyring([NEW]).new("acme", "job_1").seal_with_key(PRIVATE, SECRET)
    with pytest.raises(ContentDamaged) as caught:
        MasterKeyring([NEW]).open(app, job_id, field, raw)
    assert SECRET not in str(caught.value)


def test_the_text_of_one_attempt_is_not_the_text_of_another() -> None:
    box = MasterKeyring([NEW]).new("acme", "job_1")
    with pytest.raises(ContentDamaged):
        box.unseal(text_field(2), box.seal(text_field(1), [1, 0, "hi"]))


@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    raw = MasterKeyring([NEW]).new("acme", "job_1").seal_with_key(PRIVATE, {"prompt": SECRET})
    at = data.draw(st.integers(0, len(raw) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != raw[at]))
    changed = raw[:at] + bytes([other]) + raw[at + 1 :]
    with pytest.raises((ContentDamaged, KeyMissing, ValueError)):
        MasterKeyring([NEW]).open("acme", "job_1", PRIVATE, changed)


@pytest.mark.parametrize("keys", [[], [OLD]])
def test_without_its_key_a_value_names_the_key_it_wants(keys: list[bytes]) -> None:
    raw = MasterKeyring([NEW]).new("acme", "job_1").seal_with_key(PRIVATE, SECRET)
    with pytest.raises(KeyMissing) as caught:
        MasterKeyring(keys).open("acme", "job_1", PRIVATE, raw)
    assert caught.value.kid == kid_of(NEW).hex()
    assert isinstance(caught.value, StoreUnavailable), "it is kept, and may be asked for again"


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    old = MasterKeyring([OLD]).new("acme", "job_1").seal_with_key(PRIVATE, SECRET)
    both = MasterKeyring([NEW, OLD])
    assert both.open("acme", "job_1", PRIVATE, old)[1] == SECRET
    assert kid_in(both.new("acme", "job_2").seal_with_key(PRIVATE, 1)) == kid_of(NEW)


def test_a_key_that_is_wrapped_again_leaves_the_content_as_it_is() -> None:
    box = MasterKeyring([OLD]).new("acme", "job_1")
    private, sealed_input = box.seal_with_key(PRIVATE, SECRET), box.seal(INPUT, SECRET)
    again = MasterKeyring([NEW, OLD]).rewrap("acme", "job_1", private)
    fresh, value = MasterKeyring([NEW]).open("acme", "job_1", PRIVATE, again)
    assert (value, fresh.unseal(INPUT, sealed_input)) == (SECRET, SECRET)
    with pytest.raises(KeyMissing):
        MasterKeyring([OLD]).open("acme", "job_1", PRIVATE, again)


def test_without_keys_all_is_plain_and_plain_values_stay_readable() -> None:
    off = MasterKeyring()
    raw = off.new("acme", "job_1").seal_with_key(PRIVATE, SECRET)
    assert codec.unseal(raw) == SECRET
    box, value = MasterKeyring([NEW]).open("acme", "job_1", PRIVATE, raw)
    assert value == SECRET
    assert codec.is_plain(box.seal(OUTPUT, 1)), "a job that began plain has no key"
    assert off.seal_text("app:a", "whsec_x") == "whsec_x" == MasterKeyring([NEW]).unseal_text("app:a", "whsec_x")


def test_secrets_that_belong_to_no_job_open_under_their_own_name_only() -> None:
    keyring = MasterKeyring([NEW])
    raw, text = keyring.seal_named("endpoint:acme:we_1", {"secret": SECRET}), keyring.seal_text("app:acme", SECRET)
    assert SECRET.encode() not in raw
    assert SECRET not in text
    assert keyring.unseal_named("endpoint:acme:we_1", raw) == {"secret": SECRET}
    assert keyring.unseal_text("app:acme", text) == SECRET
    for wrong in ("endpoint:acme:we_2", "endpoint:evil:we_1"):
        with pytest.raises(ContentDamaged):
            keyring.unseal_named(wrong, raw)
    with pytest.raises(ContentDamaged):
        keyring.unseal_text("app:evil", text)


def test_a_box_without_a_key_opens_nothing_that_is_sealed() -> None:
    sealed = MasterKeyring([NEW]).new("acme", "job_1").seal(OUTPUT, SECRET)
    with pytest.raises(ContentDamaged):
        JobCipher("acme", "job_1", bytes).unseal(OUTPUT, sealed)


def test_nobodys_box_keeps_its_content_for_ever() -> None:
    keyring = MasterKeyring([NEW])
    sealed = keyring.ephemeral("job_1").seal(OUTPUT, SECRET)
    assert SECRET.encode() not in sealed
    with pytest.raises(ContentDamaged):
        keyring.ephemeral("job_1").unseal(OUTPUT, sealed)


def test_the_same_content_never_looks_the_same() -> None:
    box = MasterKeyring([NEW]).new("acme", "job_1")
    assert len({box.seal(OUTPUT, SECRET) for _ in range(50)}) == 50
