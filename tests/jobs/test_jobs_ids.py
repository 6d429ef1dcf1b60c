"""Ids: they sort by time, turn back into it, and junk is told apart without asking anyone."""

import pytest
from hypothesis import given, strategies as st

from worker.jobs import ids

_ms = st.integers(0, 2**50 - 1)
_random_bytes = st.binary(min_size=10, max_size=10)


@given(_ms, _ms, _random_bytes, _random_bytes)
def test_ids_sort_by_the_millisecond_they_were_made_in(first, second, one, other):
    a, b = ids.new_id("job", first, one), ids.new_id("job", second, other)
    assert first == second or (a < b) == (first < second)


@given(_ms, _random_bytes)
def test_an_id_is_one_of_ours_and_gives_back_its_time(ms, random_bytes):
    job_id = ids.new_id("job", ms, random_bytes)
    assert ids.is_job_id(job_id)
    assert ids.time_ms(job_id) == ms


@given(_ms, _random_bytes, _random_bytes)
def test_all_random_bytes_are_in_the_id(ms, one, other):
    assert (ids.new_tail(ms, one) == ids.new_tail(ms, other)) == (one == other)


@given(_ms, _random_bytes)
def test_the_openai_shaped_name_goes_both_ways(ms, random_bytes):
    job_id = ids.new_id("job", ms, random_bytes)
    response_id = ids.response_id_of(job_id)
    assert response_id.startswith("resp_")
    assert ids.job_id_of(response_id) == job_id
    assert ids.job_id_of(job_id) == job_id


@pytest.mark.parametrize("size", [0, 9, 11])
def test_random_bytes_of_the_wrong_size_are_refused(size):
    with pytest.raises(ValueError, match="10 bytes"):
        ids.new_tail(0, bytes(size))


_GOOD = ids.new_id("job", 1_780_000_000_000, bytes(10))


@pytest.mark.parametrize(
    "junk",
    [
        "",
        "job_",
        _GOOD[:-1],
        _GOOD + "0",
        _GOOD + "\n",
        " " + _GOOD,
        _GOOD.upper(),
        _GOOD[:-1] + "u",  # not in the alphabet
        _GOOD[:-1] + "\0",
        _GOOD[:-1] + "é",
        _GOOD.replace("job_", "msg_"),
        "job:" + _GOOD[4:],
        "../../etc/passwd",
    ],
)
def test_junk_is_no_job_id(junk):
    assert not ids.is_job_id(junk)


@given(st.text(max_size=40))
def test_arbitrary_text_is_no_job_id(text):
    assert not ids.is_job_id(text)
    assert not ids.is_job_id("job_" + text[:25])
