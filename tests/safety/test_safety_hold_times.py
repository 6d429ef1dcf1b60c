"""The delay rule and the deadline: it acts early only where measured holds say that waiting will probably miss it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st
from test_safety_policy_properties import CATALOGUE, LIVE, POLICIES, SECONDS, SITUATIONS, faster_of

from worker.jobs.spec import OnDelay, Policy
from worker.safety.hold_times import MIN_SAMPLES, HoldTimes, act_early_after, bound_of, bucket_of, quantile
from worker.safety.policy import FasterModel, OfferAction, Situation, SwitchAction, WaitAction, decide, plan

COUNTS = st.dictionaries(st.integers(0, 150), st.integers(0, 50), max_size=8)
HOLDS = st.builds(HoldTimes, ended=COUNTS, cut=COUNTS, finishing=COUNTS)
LUNA = FasterModel("gpt-5.6-luna")


def measured(*seconds: float, times: int = 10) -> HoldTimes:
    return HoldTimes(ended={bucket_of(one): times for one in seconds})


@given(st.floats(0, 1e5))
def test_a_bucket_holds_what_is_counted_in_it(seconds):
    assert seconds <= bound_of(bucket_of(seconds)) * (1 + 1e-9)
    assert bound_of(bucket_of(seconds)) <= max(0.1, seconds * 1.1) * (1 + 1e-6)


@given(HOLDS, SECONDS, SECONDS)
def test_fewer_holds_last_longer(holds, one, other):
    assert 0 <= holds.lasting(max(one, other)) <= holds.lasting(min(one, other)) <= 1
    assert holds.lasting(0) == 1


@given(HOLDS, st.floats(0, 5000), st.floats(-100, 1e6))
def test_it_never_acts_later_than_the_rule_and_never_without_reason(holds, after, deadline):
    early = act_early_after(after, deadline, holds)
    if early is None:
        return
    assert 0 <= early < min(after, deadline)
    assert holds.samples >= MIN_SAMPLES
    latest = deadline - (quantile(holds.finishing, 0.5) or 0)
    assert early >= latest or holds.lasting(latest) >= holds.lasting(early) / 2


@given(HOLDS, st.floats(0, 5000), st.floats(0, 1e5), st.floats(0, 1e5))
def test_a_later_deadline_never_makes_it_act_earlier(holds, after, deadline, more):
    near, far = act_early_after(after, deadline, holds), act_early_after(after, deadline + more, holds)
    assert (after if far is None else far) >= (min(after, deadline) if near is None else near)


@given(POLICIES, SITUATIONS, HOLDS, SECONDS, SECONDS)
def test_a_deadline_never_widens_what_the_policy_allows(policy, situation, holds, deadline, now):
    """Whatever is measured: what the rule does is what it would do at the latest by `after_seconds`, or nothing."""
    known = replace(situation, deadline=deadline, holds=holds)
    faster = faster_of(policy, "gpt-5.6-sol", situation)
    decision, latest = decide(policy, known, faster, now), 10**9
    if not isinstance(decision, WaitAction):
        assert policy.on_delay.action != "wait"
        assert not policy.require_model
        assert not any((known.blocked, known.settled, known.acted, known.faster_running))
        assert type(decision) is type(decide(policy, situation, faster, latest))
        assert decision.model == faster.model
        assert known.check_since is not None or decision.reason == "silence", "silence is no check"


@given(POLICIES, LIVE, HOLDS, SECONDS)
def test_it_acts_when_it_said_that_it_will(policy, situation, holds, deadline):
    known = replace(situation, deadline=deadline, holds=holds)
    faster = faster_of(policy, "gpt-5.6-sol", situation)
    planned = plan(policy, known, faster)
    if planned is None:
        assert isinstance(decide(policy, known, faster, 10**9), WaitAction)
        return
    assert not isinstance(decide(policy, known, faster, planned.at), WaitAction)
    before = decide(policy, known, faster, planned.at - 1)
    assert before == WaitAction(planned.at)
    assert planned.action == policy.on_delay.action


@pytest.mark.parametrize(
    ("holds", "deadline", "early"),
    [
        (measured(300), 100, 0.0),  # all last longer than there is time: at once
        (measured(10), 100, None),  # all end in time
        (measured(300, times=1), 100, None),  # too few were measured
        (measured(5, 60), 100, None),
        (HoldTimes(ended={bucket_of(5): 6, bucket_of(300): 4}), 100, bound_of(bucket_of(5))),  # of those left most miss
        (HoldTimes(ended={bucket_of(5): 5}, cut={bucket_of(45): 50}), 100, 0.0),  # most were cut: they last longer
        (replace(measured(60), finishing={bucket_of(80): 3}), 100, 0.0),  # the answer takes its time too
        (measured(10), float("inf"), None),
        (HoldTimes(), 1, None),  # nothing is known: the policy's own time
    ],
)
def test_what_measured_holds_say(holds, deadline, early):
    assert act_early_after(3600, deadline, holds) == early


def test_the_action_is_the_policys():
    known = Situation(check_since=0.0, checked=True, deadline=100.0, holds=measured(300))
    for action, kind in (("offer", OfferAction), ("switch", SwitchAction), ("wait", WaitAction)):
        rule = Policy(on_delay=OnDelay(action=action, after_seconds=3600))
        assert type(decide(rule, known, LUNA, 0.0)) is kind
    assert CATALOGUE.checked("gpt-5.6-sol")
