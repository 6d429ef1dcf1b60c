"""Prompt, end user or account: which of them the checks are about, by what was signalled and by nothing else."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, strategies as st

from worker.safety.account import (
    MIN_END_USERS,
    MIN_ORDINARY_REQUESTS,
    AccountVerdict,
    Counts,
    FamilyCounts,
    judge_account,
    judge_family,
)

WORSE = ["normal", "elevated", "widened"]
few = st.integers(0, 200)


@st.composite
def counts(draw: st.DrawFn) -> Counts:
    ordinary = draw(few)
    signalled = draw(st.integers(0, ordinary))
    return Counts(ordinary, signalled, draw(st.integers(0, ordinary - signalled)), draw(few), draw(few))


@st.composite
def seen(draw: st.DrawFn) -> FamilyCounts:
    half = draw(counts())
    return FamilyCounts(half + draw(counts()), half, draw(counts()), draw(st.integers(0, 50)))


def badness(one: AccountVerdict) -> int:
    return WORSE.index(one.state)


def test_checks_on_nearly_all_ordinary_requests_of_several_end_users_are_about_the_account():
    half = Counts(ordinary=MIN_ORDINARY_REQUESTS, signalled=MIN_ORDINARY_REQUESTS - 2)
    assert judge_family(FamilyCounts(half, half, end_users=MIN_END_USERS)) == AccountVerdict(
        "widened", ("checks_widened",)
    )


def test_the_same_checks_on_one_end_user_are_about_that_end_user():
    half = Counts(ordinary=50, signalled=50)
    assert judge_family(FamilyCounts(half, half, end_users=MIN_END_USERS - 1)) == AccountVerdict(
        "elevated", ("checks_on_few_end_users",)
    )


@pytest.mark.parametrize("ordinary", [0, 1, MIN_ORDINARY_REQUESTS - 1])
def test_few_requests_say_nothing(ordinary):
    half = Counts(ordinary, ordinary)
    assert judge_family(FamilyCounts(half, half, end_users=9)).state == "normal"


def test_three_times_the_share_of_the_days_before_is_more_than_usual():
    before = Counts(ordinary=700, signalled=70)
    assert judge_family(FamilyCounts(Counts(100, 31), Counts(), before)) == AccountVerdict(
        "elevated", ("check_rate_up",)
    )
    assert judge_family(FamilyCounts(Counts(100, 30), Counts(), before)).state == "normal"


def test_from_nothing_to_a_little_is_noise_and_without_days_before_only_much_counts():
    assert judge_family(FamilyCounts(Counts(100, 10), Counts(), Counts(ordinary=5000))).state == "normal"
    assert judge_family(FamilyCounts(Counts(100, 11), Counts(), Counts(ordinary=5000))).state == "elevated"
    assert judge_family(FamilyCounts(Counts(100, 30))).state == "normal"
    assert judge_family(FamilyCounts(Counts(100, 31))).state == "elevated"


def test_blocks_make_nothing_ordinary():
    """A flood of bad prompts that are checked and blocked says nothing of how ordinary ones are treated."""
    half = Counts(ordinary=30, signalled=1, blocked=500, blocked_signalled=500)
    assert judge_family(FamilyCounts(half, half, end_users=100)).state == "normal"


@given(seen(), few)
def test_silence_changes_nothing(one, more):
    def silent(c: Counts) -> Counts:
        return c._replace(suspected=more)

    assert judge_family(one) == judge_family(
        FamilyCounts(silent(one.hour), silent(one.half_hour), silent(one.before), one.end_users)
    )


@given(seen(), st.integers(1, 50))
def test_more_checks_on_the_same_requests_never_look_better(one, more):
    assume(one.half_hour.signalled + more <= one.half_hour.ordinary)
    more_checks = Counts(signalled=more)
    worse = one._replace(half_hour=one.half_hour + more_checks, hour=one.hour + more_checks)
    assert badness(judge_family(worse)) >= badness(judge_family(one))


@given(seen())
def test_widened_always_has_its_evidence(one):
    if judge_family(one).state == "widened":
        assert one.half_hour.ordinary >= MIN_ORDINARY_REQUESTS
        assert one.half_hour.signalled / one.half_hour.ordinary > 0.8
        assert one.end_users >= MIN_END_USERS
    assert bool(judge_family(one).because) == (judge_family(one).state != "normal")


@given(
    st.dictionaries(st.sampled_from("abc"), seen().map(judge_family)),
    st.dictionaries(
        st.sampled_from(["safety.warning_issued", "safety_identifier.blocked", "safety.alert.created"]), few
    ),
)
def test_the_account_is_as_its_worst_family_and_a_warning_alone_never_widens(families, notices):
    whole = judge_account(families, notices)
    worst = max((badness(one) for one in families.values()), default=0)
    warned = notices.get("safety.warning_issued", 0) > 0
    assert badness(whole) == max(worst, 1 if warned else 0)
    assert ("provider_notice" in whole.because) == warned
