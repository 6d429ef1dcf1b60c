"""Decides the delay rule (the "Luna policy"): what to do about an attempt that a safety check, or silence, delays.

(the job's policy, the situation, the clock) -> a decision. It concerns delays only: `retry` decides about errors, the
fallback rule about access denials, and after a block it never acts (promise P2). Pure: every time is an argument in
monotonic seconds. It must not depend on the record or the provider.

    what is open                     | due at                                  | stated reason
    a signalled check                | its start + after_seconds               | safety_check_delay
    silence on a model that may be   | its start + silence_seconds (0 = never) | silence
    checked                          | or, unless the app set them, what is    |
                                     | unusual for the model (`silence.py`)    |

A signalled check is acted on before `after_seconds` where waiting for its end will probably miss the job's deadline:
how long checks of this family last is measured (`hold_times`). `after_seconds` is the latest time in every case.

The earlier one acts; if both are due, the signalled check is the stated reason, because it is the better evidence
(promise P5). A check that ended starts no timer; the next one starts its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, assert_never

from worker.jobs.record import DisclosureReason
from worker.jobs.spec import OnDelay, Policy
from worker.jobs.states import RetryModelState
from worker.safety.faster_model import FasterModel, NoFasterModel, faster_model
from worker.safety.hold_times import HoldTimes, act_early_after

__all__ = [
    "POLICY_VERSION", "Decision", "DraftAction", "FasterModel", "NoFasterModel", "OfferAction", "Plan",
    "RaceAction", "Situation", "SwitchAction", "WaitAction", "decide", "faster_model", "plan",
]  # fmt: skip

POLICY_VERSION: Final = 3
"""Rises with each change of what `decide` or `faster_model` returns; the trail records the version of a decision."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of the original attempt at present. Times are monotonic seconds."""

    check_since: float | None = None  # the start of the open check, counted from when it was signalled; else None
    silent_since: float | None = None  # the last output-bearing event or the opening; None = not to be judged
    checked: bool = False  # additional checks are known for this model, so silence may mean one
    retry_model: str | None = None  # of the attempt's latest check, like its state
    retry_model_state: RetryModelState = RetryModelState.ABSENT
    blocked: bool = False  # any attempt of the job, or a block that is reported and not yet committed
    faster_running: bool = False  # a faster attempt was started, whatever its state now
    offered: bool = False  # an offer is open
    acted: bool = False  # this rule has switched, raced or drafted once in this job
    settled: bool = False
    output_seen: bool = False  # changes nothing: a check may begin in mid-output, and only the winner's text counts
    deadline: float | None = None  # when the job expires
    silence_seconds: float | None = None  # what is unusual for the model; None = the rule's own silence_seconds
    holds: HoldTimes = field(default_factory=HoldTimes)  # how long checks of the model's family lasted


@dataclass(frozen=True, slots=True)
class WaitAction:
    """Do nothing; decide again at the monotonic time `until`, or (None) when something changes."""

    until: float | None = None


@dataclass(frozen=True, slots=True)
class _Action:
    model: str
    reason: DisclosureReason


class OfferAction(_Action):
    """Let the app choose: it may accept `model` while the delay lasts."""

    __slots__ = ()


class SwitchAction(_Action):
    """Stop the original, run on `model`."""

    __slots__ = ()


class RaceAction(_Action):
    """Start `model` beside the original; the first to complete wins."""

    __slots__ = ()


class DraftAction(_Action):
    """Start `model` beside the original; its answer is a draft until the original's replaces it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What the rule will do at the monotonic time `at` if nothing changes until then."""

    action: Literal["offer", "switch", "race", "draft"]
    at: float
    because: Literal["after_seconds", "silence_seconds", "deadline"]


Decision = WaitAction | OfferAction | SwitchAction | RaceAction | DraftAction
_WAIT_FOR_CHANGE: Final = WaitAction()


def decide(
    policy: Policy, situation: Situation, faster: FasterModel | NoFasterModel, now: float, cost_allows: bool = True
) -> Decision:
    """Return what the job's delay rule demands at `now`.

    At the time of `WaitAction.until` it acts, unless the situation has changed. `cost_allows`: the job's cost cap
    allows an attempt on the faster model; otherwise there is not even an offer.
    """
    rule = policy.on_delay
    if rule.action == "wait" or isinstance(faster, NoFasterModel) or not cost_allows or not _may_act(policy, situation):
        return _WAIT_FOR_CHANGE
    check, silence = _check_due(rule, situation), _silence_due(rule, situation)
    reason: DisclosureReason | WaitAction
    if check is not None and now >= check.at:
        reason = "safety_check_delay"
    elif silence is not None and now >= silence.at:
        reason = "silence"
    else:
        reason = WaitAction(min((due.at for due in (check, silence) if due is not None), default=None))
    if isinstance(reason, WaitAction):
        return reason
    match rule.action:
        case "offer":
            return OfferAction(faster.model, reason)
        case "switch":
            return SwitchAction(faster.model, reason)
        case "race":
            return RaceAction(faster.model, reason)
        case "draft":
            return DraftAction(faster.model, reason)
        case _:
            assert_never(rule.action)


def _may_act(policy: Policy, situation: Situation) -> bool:
    """Return whether the rule may act on this job at all, whatever the time."""
    if situation.blocked or situation.settled or policy.require_model:
        return False
    if situation.acted or situation.faster_running:
        return False
    return not (situation.offered and policy.on_delay.action == "offer")


def plan(
    policy: Policy, situation: Situation, faster: FasterModel | NoFasterModel, cost_allows: bool = True
) -> Plan | None:
    """Return when `decide` will act if nothing changes, and as what; None if it won't."""
    rule = policy.on_delay
    if rule.action == "wait" or isinstance(faster, NoFasterModel) or not cost_allows or not _may_act(policy, situation):
        return None
    dues = [due for due in (_check_due(rule, situation), _silence_due(rule, situation)) if due is not None]
    return min(dues, key=lambda due: due.at, default=None)


def _check_due(rule: OnDelay, situation: Situation) -> Plan | None:
    """Return when the rule acts on the open check, or None if none is signalled."""
    if situation.check_since is None or rule.action == "wait":
        return None
    early = None
    if situation.deadline is not None:
        early = act_early_after(rule.after_seconds, situation.deadline - situation.check_since, situation.holds)
    if early is None:
        return Plan(rule.action, situation.check_since + rule.after_seconds, "after_seconds")
    return Plan(rule.action, situation.check_since + early, "deadline")


def _silence_due(rule: OnDelay, situation: Situation) -> Plan | None:
    """Return when the rule acts on silence, or None if it doesn't."""
    if situation.silent_since is None or not situation.checked or rule.silence_seconds <= 0 or rule.action == "wait":
        return None
    after = rule.silence_seconds if situation.silence_seconds is None else situation.silence_seconds
    return Plan(rule.action, situation.silent_since + after, "silence_seconds")
