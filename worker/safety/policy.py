"""Decides the delay rule (the "Luna policy"): what to do about an attempt that a safety check, or silence, delays.

(the job's policy, the situation, the clock) -> a decision. It concerns delays only: `retry` decides about errors, the
fallback rule about access denials, and after a block it never acts (promise P2). Pure: every time is an argument in
monotonic seconds. It must not depend on the record or the provider.

    what is open                     | due at                                  | stated reason
    a signalled check                | its start + after_seconds               | safety_check_delay
    silence on a model that may be   | its start + silence_seconds (0 = never) | silence
    checked                          |                                         |

The earlier one acts; if both are due, the signalled check is the stated reason, because it is the better evidence
(promise P5). A check that ended starts no timer; the next one starts its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from worker.jobs.record import DisclosureReason
from worker.jobs.spec import OnDelay, Policy
from worker.jobs.states import RetryModelState
from worker.safety.faster_model import FasterModel, NoFasterModel, faster_model

__all__ = [
    "POLICY_VERSION", "Decision", "DraftAction", "FasterModel", "NoFasterModel", "OfferAction", "RaceAction",
    "Situation", "SwitchAction", "WaitAction", "decide", "faster_model",
]  # fmt: skip

POLICY_VERSION: Final = 1
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
    reason = _due(rule, situation, now)
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


def _due(rule: OnDelay, situation: Situation, now: float) -> DisclosureReason | WaitAction:
    """Return the reason to act now, or the wait until there is one."""
    check = None if situation.check_since is None else situation.check_since + rule.after_seconds
    if check is not None and now >= check:
        return "safety_check_delay"
    silence = None
    if situation.silent_since is not None and situation.checked and rule.silence_seconds > 0:
        silence = situation.silent_since + rule.silence_seconds
        if now >= silence:
            return "silence"
    return WaitAction(min((at for at in (check, silence) if at is not None), default=None))
