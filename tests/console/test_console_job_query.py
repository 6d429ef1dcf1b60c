"""What the address of the Jobs page means, and what a text in its search box stands for."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, strategies as st

from api.console.job_query import JobQuery, read_search
from api.jobs.search import FILTERS, REPEATABLE, filter_of_query
from worker.jobs import ids
from worker.jobs.states import Status

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
JOB = ids.new_id("job", 1_764_500_000_000, bytes(10))
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
PAIRS = st.lists(
    st.tuples(st.sampled_from([*FILTERS, "cursor", "notice", "ids"]), TEXT | st.sampled_from(list(Status)))
)


def parsed(address: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(address).query, keep_blank_values=True)


@given(PAIRS)
def test_an_address_means_what_the_filters_were(sent):
    query = JobQuery.of(sent)
    assert JobQuery.of(parsed(query.address(cursor="c"))) == query
    assert all(value.strip() and name in FILTERS for name, value in query.pairs)
    for name in FILTERS:
        assert name in REPEATABLE or len(query.values(name)) <= 1


@given(PAIRS)
def test_a_chip_removes_its_filter_and_no_other(sent):
    query = JobQuery.of(sent)
    for chip in query.chips():
        left = JobQuery.of(parsed(chip.address)).pairs
        (gone,) = set(query.pairs) - set(left)
        assert gone[1] == chip.value
        assert set(left) < set(query.pairs)


@given(PAIRS, st.sampled_from(list(Status)))
def test_a_status_is_switched_on_and_off(sent, status):
    query = JobQuery.of(sent)
    switched = query.toggled(status)
    assert (status in switched.values("status")) is not (status in query.values("status"))
    assert set(switched.toggled(status).pairs) == set(query.pairs)


@given(PAIRS)
def test_the_command_has_every_filter_as_one_word(sent):
    query = JobQuery.of(sent)
    assert shlex.split(query.command())[2:] == [
        word for name, value in query.pairs for word in (f"--{name.replace('_', '-')}", value)
    ]


def test_times_may_be_short_and_ages():
    def until(value: str) -> str:
        return JobQuery.of([("created_after", value)]).at(NOW).value("created_after")

    assert until("2026-11-30") == "2026-11-30T00:00:00Z"
    assert until("2026-11-30T09:15") == until("2026-11-30 09:15") == "2026-11-30T09:15:00Z"
    assert until("2026-11-30T09:15:30+02:00") == "2026-11-30T09:15:30+02:00"
    assert until("-90m") == "2026-11-30T10:30:00.000Z"
    assert until("-24h") == until("-1d") == "2026-11-29T12:00:00.000Z"
    assert until("-999999d") < "1930"
    assert until("yesterday") == "yesterday", "the filter says what is wrong with it"
    assert filter_of_query(JobQuery.of([("created_after", "-7d")]).at(NOW).params).created_after is not None


@pytest.mark.parametrize(
    "text",
    [
        JOB,
        ids.response_id_of(JOB),
        ids.completion_id_of(JOB),
        f"https://vigil.example/v1/jobs/{JOB}/events?after=3",
        f"vigil get {JOB}",
    ],
)
def test_an_id_of_a_job_leads_to_it(text):
    assert read_search(text, ()).job_id == JOB


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("resp_68af0123456789abcdef0123456789abcdef0123456789ab", "response_id"),
        ("req_0123456789abcdef", "request_id"),
        ("0b5b3c1e-7d5c-4f4e-9a57-2f1f3f8f0a11", "request_id"),
        ("ticket=A=17", "metadata"),
        ("checking", "status"),
        ("gpt-5.6-sol", "model"),
    ],
)
def test_other_texts_are_a_filter(text, pair):
    assert read_search(text, {"gpt-5.6-sol"}).filters == ((pair, text),)


@given(TEXT)
def test_any_text_means_something(text):
    meaning = read_search(text, ())
    assert bool(meaning.job_id) + bool(meaning.filters) + bool(meaning.choices) == 1
