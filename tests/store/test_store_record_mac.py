"""The MAC of records: whatever is changed, moved or made under another key is refused; nothing that Vigil wrote is."""

from __future__ import annotations

import json

import pytest
from hypothesis import assume, given, strategies as st

from worker.jobs.errors import RecordUnreadable
from worker.store.envelope import MasterKeyring, kid_of
from worker.store.record_mac import RecordMacs, split

ONE, TWO = bytes([1]) * 32, bytes([2]) * 32
MACS = RecordMacs({kid_of(ONE): ONE})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
RECORDS = st.dictionaries(st.text(max_size=8), JSON, max_size=6).map(lambda body: json.dumps(body).encode())
NAMES = st.text(min_size=1, max_size=30)


def refused(macs: RecordMacs, name: str, raw: bytes) -> str:
    """Return why the record is refused, or "" if it is not."""
    try:
        macs.detach("vigil:x", name, raw)
    except RecordUnreadable as error:
        return error.why
    return ""


@given(NAMES, RECORDS)
def test_what_was_tagged_is_the_same_record_and_the_same_json(name: str, record: bytes) -> None:
    tagged = MACS.attach(name, record)
    assert MACS.detach("vigil:x", name, tagged) == record
    body = json.loads(tagged)
    assert body.pop("mac") == split(tagged)[1].decode()
    assert body == {key: value for key, value in json.loads(record).items() if key != "mac"}
    assert MACS.attach(name, record) == tagged


@given(NAMES, RECORDS, st.data())
def test_one_changed_byte_is_refused(name: str, record: bytes, data: st.DataObject) -> None:
    tagged = MACS.attach(name, record)
    at = data.draw(st.integers(0, len(tagged) - 1))
    other = data.draw(st.integers(0, 255))
    assume(tagged[at] != other)
    assert refused(MACS, name, tagged[:at] + bytes([other]) + tagged[at + 1 :])


@given(NAMES, NAMES, RECORDS, RECORDS)
def test_a_tag_is_of_one_name_and_one_record(name: str, other: str, record: bytes, second: bytes) -> None:
    assume(name != other and record != second)
    tagged, tag = MACS.attach(name, record), MACS.tag(name, record)
    assert refused(MACS, other, tagged) == "wrong_mac"
    with pytest.raises(RecordUnreadable):
        MACS.check("k", name, second, tag)


@given(NAMES, st.binary(max_size=40), st.binary(min_size=1, max_size=10))
def test_name_and_record_can_not_be_divided_otherwise(name: str, record: bytes, more: bytes) -> None:
    text = more.decode("latin-1")
    assert MACS.tag(name + text, record) != MACS.tag(name, text.encode() + record)


def test_what_has_no_tag_or_another_keys_is_told_apart() -> None:
    record, both = b'{"a":1}', RecordMacs({kid_of(TWO): TWO, kid_of(ONE): ONE})
    assert refused(MACS, "n", record) == "no_mac"
    assert refused(MACS, "n", both.attach("n", record)) == "unknown_key"
    assert refused(both, "n", MACS.attach("n", record)) == "", "after a rotation each configured key still checks"
    assert both.needs_tag(split(MACS.attach("n", record))[1])
    assert not both.needs_tag(split(both.attach("n", record))[1])


def test_only_a_missing_tag_can_be_accepted() -> None:
    accepting, record = RecordMacs({kid_of(ONE): ONE}, accept_missing=True), b'{"a":1}'
    assert refused(accepting, "n", record) == ""
    assert refused(accepting, "n", MACS.attach("n", record).replace(b"1,", b"2,", 1)) == "wrong_mac"
    assert refused(accepting.strict(), "n", record) == "no_mac"


def test_without_master_keys_nothing_is_tagged_and_nothing_checked() -> None:
    off, record = MasterKeyring().macs, b'{"a":1}'
    assert off.attach("n", record) == record
    assert off.detach("k", "n", MACS.attach("n", record)) == record, "a tag is no part of the record"
    assert off.tag("n", record) == b""


def test_the_key_of_macs_is_none_of_the_keys_that_encrypt() -> None:
    """A tag under the label of job keys would be an oracle for them."""
    assert RecordMacs({kid_of(ONE): ONE}).tag("n", b"") != RecordMacs({kid_of(ONE): TWO}).tag("n", b"")
