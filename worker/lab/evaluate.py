"""Evaluates the real delay rule on cases, for a grid of policies: discrete events, no ticks.

`policy.decide` is asked when the situation of the original changes and at the times it asks for, as the worker does.
Pure. It must not depend on where cases come from, how results are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from itertools import pairwise
from typing import Final

from worker.jobs.catalogue import Catalogue
from worker.jobs.record import Usage
from worker.jobs.spec import Action, OnDelay, Policy
from worker.jobs.states import RetryModelState
from worker.lab.model import ACCEPTED_AFTER, CheckSpan, LabCase, PolicyResult
from worker.safety.faster_model import FasterModel, NoFasterModel, faster_model
from worker.safety.policy import (
    Decision,
    DraftAction,
    OfferAction,
    RaceAction,
    Situation,
    SwitchAction,
    WaitAction,
    decide,
)

_STEP: Final = 20
"""Jobs after which `grid_in_steps` lets its caller pause."""


@dataclass(frozen=True, slots=True)
class SituationSpan:
    """A span in which the situation of the original stays the same."""

    start: float
    end: float
    situation: Situation
    faster: FasterModel | NoFasterModel
    check_end: float
    silence_end: float


@dataclass(frozen=True, slots=True)
class PreparedCase:
    """A case with the spans for which the rule is evaluated."""

    case: LabCase
    moments: tuple[SituationSpan, ...]


@dataclass(slots=True)
class Totals:
    """The totals of one policy over all cases; tokens are counted by model as (input, output)."""

    waits: list[float] = field(default_factory=list)
    settled: list[float] = field(default_factory=list)
    substituted: int = 0
    offered: int = 0
    drafted: int = 0
    blocked: int = 0
    input: Counter[tuple[str, bool]] = field(default_factory=Counter)  # (model, delivered) -> tokens
    output: Counter[tuple[str, bool]] = field(default_factory=Counter)

    def pay(self, model: str, read: int, written: int, *, delivered: bool) -> None:
        """Count the tokens of one attempt."""
        self.input[model, delivered] += read
        self.output[model, delivered] += written

    def cost(self, catalogue: Catalogue, *, wasted_only: bool = False) -> Decimal | None:
        """Return the dollars for all tokens, or for those of undelivered answers; None if a model has no price."""
        total = Decimal(0)
        for model, delivered in sorted(self.input):
            if wasted_only and delivered:
                continue
            usage = Usage(input_tokens=self.input[model, delivered], output_tokens=self.output[model, delivered])
            cost = catalogue.cost(model, usage, long_context=False)  # a sum over many requests
            if cost is None:
                return None
            total += cost
        return total


def course(case: LabCase, catalogue: Catalogue, on_delay_model: str | None = None) -> PreparedCase:
    """Return the case with its spans, each with one situation."""
    checked = catalogue.checked(case.model)
    points = {0.0, case.end}
    for start, end in (*((h.start, h.end) for h in case.holds), *case.silences):
        points.update(at for at in (start, end) if 0 <= at <= case.end)
    moments: list[SituationSpan] = []
    chosen: dict[tuple[str | None, RetryModelState], FasterModel | NoFasterModel] = {}
    times = sorted(points)
    for start, end in pairwise(times):
        hold = next((h for h in case.holds if h.start <= start < h.end), None)
        silence = next((s for s in case.silences if s[0] <= start < s[1]), None)
        if hold is None and (silence is None or not checked):
            continue
        last = max((h for h in case.holds if h.start <= start), key=lambda h: h.start, default=CheckSpan(0.0, 0.0))
        notice = (last.retry_model, last.retry_model_state)
        if notice not in chosen:
            chosen[notice] = faster_model(case.model, on_delay_model, *notice, catalogue, allow_unknown=True)
        situation = Situation(
            check_since=hold.start if hold else None,
            silent_since=silence[0] if silence else None,
            checked=checked,
            retry_model=last.retry_model,
            retry_model_state=last.retry_model_state,
        )
        ends = (hold.end if hold else start, silence[1] if silence else start)
        moments.append(SituationSpan(start, end, situation, chosen[notice], *ends))
    return PreparedCase(case, tuple(moments))


def _first_act(policy: Policy, course: PreparedCase, accept: float) -> tuple[float, Decision, bool]:
    """Return (time, the first decision that is no wait, whether offers were made); an accepted offer is a switch."""
    closes, offered = -1.0, False
    for moment in course.moments:
        situation = moment.situation
        if moment.start < closes:
            situation = replace(situation, offered=True)
        now = moment.start
        decision = decide(policy, situation, moment.faster, now)
        while isinstance(decision, WaitAction) and decision.until is not None and decision.until < moment.end:
            now = decision.until
            decision = decide(policy, situation, moment.faster, now)
        if isinstance(decision, OfferAction):
            offered = True
            closes = moment.silence_end if decision.reason == "silence" else moment.check_end
            if course.case.acceptance_draw < accept and now + ACCEPTED_AFTER < closes:
                return now + ACCEPTED_AFTER, SwitchAction(decision.model, "offer_accepted"), True
        elif not isinstance(decision, WaitAction):
            return now, decision, offered
    return course.case.end, WaitAction(), offered


def play(policy: Policy, course: PreparedCase, totals: Totals, accept: float = 0.0) -> None:
    """Add the job's result under `policy` to `totals`."""
    case = course.case
    at, decision, offered = _first_act(policy, course, accept)
    totals.offered += offered
    totals.blocked += case.blocked
    if not isinstance(decision, SwitchAction | RaceAction | DraftAction):
        totals.pay(case.model, case.input_tokens, case.output_tokens, delivered=not case.blocked)
        if not case.blocked:
            totals.waits.append(case.end)
            totals.settled.append(case.end)
        return
    there = at + case.faster_seconds
    if isinstance(decision, SwitchAction):
        end, first, faster_wins = there, there, True
    elif isinstance(decision, RaceAction) or case.blocked:  # the block that comes first ends both
        end = first = min(there, case.end)
        faster_wins = there < case.end
    else:
        end, first, faster_wins = case.end, min(there, case.end), False
        totals.drafted += there < case.end
    original_stops = at if isinstance(decision, SwitchAction) else end
    written = _written(case.output_tokens, original_stops, case.end)
    totals.pay(case.model, case.input_tokens, written, delivered=not (case.blocked or faster_wins))
    written = _written(case.faster_tokens, end - at, case.faster_seconds)
    totals.pay(decision.model, case.input_tokens, written, delivered=faster_wins and not case.blocked)
    if not case.blocked:
        totals.substituted += faster_wins
        totals.waits.append(first)
        totals.settled.append(end)


def _written(tokens: int, until: float, whole: float) -> int:
    """Return the tokens written by then: evenly over the attempt, checks included, as withheld text is written too."""
    return tokens if until >= whole else int(tokens * max(0.0, until) / whole)


def percentile(ordered: Sequence[float], percent: int) -> float:
    """Return the nearest-rank percentile of sorted values, or 0 for none."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)] if ordered else 0.0


def row(
    policy: Policy, courses: Iterable[PreparedCase], catalogue: Catalogue, base: Decimal | None, accept: float
) -> PolicyResult:
    """Return the result of one policy over all courses; `base`: the cost of waiting only."""
    totals, jobs = Totals(), 0
    for one in courses:
        play(policy, one, totals, accept)
        jobs += 1
    return result(policy, totals, jobs, catalogue, base)


def result(policy: Policy, totals: Totals, jobs: int, catalogue: Catalogue, base: Decimal | None) -> PolicyResult:
    """Return the result of one policy whose totals over so many jobs these are; `base`: the cost of waiting only."""
    totals.waits.sort()
    totals.settled.sort()
    cost, rule = totals.cost(catalogue), policy.on_delay
    of = max(1, jobs)
    return PolicyResult(
        action=rule.action,
        after_seconds=rule.after_seconds,
        silence_seconds=rule.silence_seconds,
        jobs=jobs,
        wait_p50=percentile(totals.waits, 50),
        wait_p95=percentile(totals.waits, 95),
        settled_p50=percentile(totals.settled, 50),
        settled_p95=percentile(totals.settled, 95),
        substituted=totals.substituted / of,
        offered=totals.offered / of,
        drafted=totals.drafted / of,
        blocked=totals.blocked / of,
        wasted=totals.cost(catalogue, wasted_only=True),
        extra=None if cost is None or base is None else cost - base,
    )


def grid(
    cases: Sequence[LabCase],
    catalogue: Catalogue,
    actions: Sequence[Action],
    thresholds: Sequence[float],
    silence_seconds: float,
    *,
    model: str | None = None,
    accept: float = 0.0,
) -> list[PolicyResult]:
    """Return one row for each action and threshold, in the order given."""
    courses = [course(case, catalogue, model) for case in cases]
    waiting = Totals()
    for one in courses:
        play(_policy("wait", 0.0, 0.0, model), one, waiting)
    base = waiting.cost(catalogue)
    policies = [_policy(action, after, silence_seconds, model) for action in actions for after in thresholds]
    return [row(policy, courses, catalogue, base, accept) for policy in policies]


def grid_in_steps(
    cases: Sequence[LabCase], catalogue: Catalogue, rules: Sequence[OnDelay], model: str | None = None
) -> Iterator[PolicyResult | None]:
    """Yield one row for each rule, in the order given, and None after every few jobs, where a caller may pause."""
    courses, waiting = list[PreparedCase](), Totals()
    for number, case in enumerate(cases):
        courses.append(course(case, catalogue, model))
        play(_policy("wait", 0.0, 0.0, model), courses[-1], waiting)
        if number % _STEP == 0:
            yield None
    base = waiting.cost(catalogue)
    for rule in rules:
        policy, totals = Policy(on_delay=rule), Totals()
        for number, one in enumerate(courses):
            play(policy, one, totals)
            if number % _STEP == 0:
                yield None
        yield result(policy, totals, len(courses), catalogue, base)


def _policy(action: Action, after: float, silence: float, model: str | None) -> Policy:
    rule = OnDelay(action=action, after_seconds=after, silence_seconds=silence, model=model)
    return Policy(on_delay=rule)
