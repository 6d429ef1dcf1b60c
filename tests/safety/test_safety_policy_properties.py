"""What holds of the delay rule whatever happens."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

from hypothesis import assume, given, strategies as st

from worker.jobs.catalogue import parse
from worker.jobs.spec import OnDelay, Policy
from worker.jobs.states import RetryModelState
from worker.safety.policy import (
    DraftAction,
    FasterModel,
    NoFasterModel,
    OfferAction,
    RaceAction,
    Situation,
    SwitchAction,
    WaitAction,
    decide,
    faster_model,
)
from worker.safety.served_model import base_name

CATALOGUE = parse(tomllib.loads((Path(__file__).parents[2] / "models.toml").read_text()))
NAMES = st.sampled_from(["gpt-5.6-sol", "gpt-5.6", "gpt-5.6-terra", "gpt-5.6-luna", "gpt-5.6-luna-2026-07-09", "gpt-9"])
SECONDS = st.floats(0, 1e6)
MAYBE = st.none() | SECONDS
RULES = st.builds(
    OnDelay,
    action=st.sampled_from(["wait", "offer", "switch", "race", "draft"]),
    after_seconds=st.floats(0, 5000),
    silence_seconds=st.just(0.0) | st.floats(0, 5000),
    model=st.none() | NAMES,
)
POLICIES = st.builds(Policy, on_delay=RULES, require_model=st.booleans())
SITUATIONS = st.builds(
    Situation,
    check_since=MAYBE,
    silent_since=MAYBE,
    checked=st.booleans(),
    retry_model=st.none() | NAMES,
    retry_model_state=st.sampled_from(RetryModelState),
    blocked=st.booleans(),
    faster_running=st.booleans(),
    offered=st.booleans(),
    acted=st.booleans(),
    settled=st.booleans(),
    output_seen=st.booleans(),
)
LIVE = SITUATIONS.map(
    lambda s: replace(s, blocked=False, faster_running=False, offered=False, acted=False, settled=False)
)
DENIED = st.frozensets(NAMES, max_size=2)


def dues(policy, s):
    rule = policy.on_delay
    check = None if s.check_since is None else s.check_since + rule.after_seconds
    judged = s.silent_since is not None and s.checked and rule.silence_seconds > 0
    return check, s.silent_since + rule.silence_seconds if judged else None


def faster_of(policy, requested, s, denied=(), allow=False):
    policy_model = policy.on_delay.model
    return faster_model(
        requested, policy_model, s.retry_model, s.retry_model_state, CATALOGUE, denied, allow_unknown=allow
    )


@given(POLICIES, SITUATIONS, SECONDS, st.booleans())
def test_never_after_a_block_nor_the_end_nor_where_the_model_is_required_nor_without_money(policy, s, now, cost):
    decision = decide(policy, s, FasterModel("gpt-5.6-luna"), now, cost)
    if s.blocked or s.settled or s.acted or s.faster_running or policy.require_model or not cost:
        assert decision == WaitAction()


@given(POLICIES, LIVE, NAMES, DENIED, SECONDS, st.booleans())
def test_what_is_acted_with_is_another_model_that_is_granted_and_wanted(policy, s, requested, denied, now, allow):
    faster = faster_of(policy, requested, s, denied, allow)
    decision = decide(policy, s, faster, now)
    if isinstance(decision, WaitAction):
        return
    name = base_name(decision.model, CATALOGUE.aliases)
    assert name != base_name(requested, CATALOGUE.aliases)
    assert name not in {base_name(d, CATALOGUE.aliases) for d in denied}
    assert allow or CATALOGUE.find(decision.model)
    assert policy.on_delay.model is not None or s.retry_model_state is not RetryModelState.NONE


@given(POLICIES, LIVE, SECONDS)
def test_it_acts_when_the_first_clock_has_run_out_and_not_before(policy, s, now):
    decision = decide(policy, s, FasterModel("gpt-5.6-luna"), now)
    check, silence = dues(policy, s)
    due = [at for at in (check, silence) if at is not None]
    if policy.require_model or policy.on_delay.action == "wait" or not due:
        assert decision == WaitAction()
    elif now < min(due):
        assert decision == WaitAction(min(due))
    else:
        kinds = {"offer": OfferAction, "switch": SwitchAction, "race": RaceAction, "draft": DraftAction}
        assert type(decision) is kinds[policy.on_delay.action]
        assert decision.reason == ("safety_check_delay" if check is not None and now >= check else "silence")


ACTING = st.builds(
    OnDelay,
    action=st.sampled_from(["offer", "switch", "race", "draft"]),
    after_seconds=st.floats(1, 5000),
    silence_seconds=st.just(0.0) | st.floats(1, 5000),
)


@given(ACTING, LIVE, st.floats(0, 1e6), st.floats(0, 0.99))
def test_the_time_to_ask_again_lies_ahead_and_asking_then_acts(rule, s, start, part):
    policy, faster = Policy(on_delay=rule), FasterModel("gpt-5.6-luna")
    s = replace(s, check_since=start, silent_since=None if s.silent_since is None else start)
    now = start + part * min(at - start for at in dues(policy, s) if at is not None)
    decision = decide(policy, s, faster, now)
    assume(isinstance(decision, WaitAction))
    assert decision.until is not None
    assert decision.until > now
    assert not isinstance(decide(policy, s, faster, decision.until), WaitAction)


@given(POLICIES, SITUATIONS, SECONDS)
def test_the_same_question_has_the_same_answer_and_no_faster_model_means_no_action(policy, s, now):
    faster = faster_of(policy, "gpt-5.6-sol", s)
    assert decide(policy, s, faster, now) == decide(policy, s, faster, now)
    assert decide(policy, replace(s, output_seen=not s.output_seen), faster, now) == decide(policy, s, faster, now)
    assert decide(policy, s, NoFasterModel("denied"), now) == WaitAction()
