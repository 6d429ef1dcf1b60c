"""Tells the meters of the provider's accounts what became of one run's calls; every word goes with a commit of the run.

A claim has charged the run's first call by a rough estimate. Calls that the run makes by itself (another model after a
denial, the delay rule) are charged here and wait for nothing: they are about a job that has started.
"""

from __future__ import annotations

from typing import Final

from worker.jobs.request_shape import RequestShape
from worker.jobs.states import Outcome
from worker.safety.provider_limits import ProviderLimits, read_provider_limits
from worker.safety.signals import AttemptVerdict
from worker.store.admission.pacing import Charge, Meter, MeterChange, PaceRules

_OUTPUT_TOKENS: Final = 500
"""The estimate of an answer that no claim has estimated."""


class CallPacing:
    """The calls of one run by attempt number: the meter of each, what it was charged, whether it was answered."""

    def __init__(self, rules: PaceRules, charge: Charge | None) -> None:
        """`charge`: what the claim has charged for the first call, if it has."""
        self._rules, self._unused = rules, charge
        self._calls: dict[int, tuple[Meter, Charge]] = {}
        self._answered: set[int] = set()

    def begin(self, number: int, model: str, account: str, shape: RequestShape) -> list[MeterChange]:
        """Return what is told of a call that is about to begin."""
        if self._rules.mode == "off":
            return []
        meter, claimed = self._rules.meter(model, account), self._unused
        self._unused = None
        output = claimed.output_tokens if claimed is not None else _OUTPUT_TOKENS
        if shape.output_limit is not None:  # the provider counts what may come
            output = shape.output_limit * shape.choices
        charge = Charge(shape.likely_input, output)
        self._calls[number] = (meter, charge)
        if claimed is None:
            return [meter.charged(charge)]
        if claimed.meter != meter.name:  # another model or account than the claim could know
            return [Meter.named(claimed.meter).returned(claimed), meter.charged(charge)]
        more = charge.tokens - claimed.tokens
        return [meter.estimated(more)] if more else []

    def unused(self) -> list[MeterChange]:
        """Return what gives the claim's charge back, when the run ends or waits without a call."""
        charge, self._unused = self._unused, None
        return [] if charge is None else [Meter.named(charge.meter).returned(charge)]

    def answered(self, number: int, headers: dict[str, str]) -> list[MeterChange]:
        """Return what is told once the provider has accepted the call: what its headers say of the limits."""
        if number not in self._calls or number in self._answered:
            return []
        self._answered.add(number)
        meter, charge = self._calls[number]
        return [meter.answered(charge, self._limits_in(headers))]

    def ended(self, number: int, verdict: AttemptVerdict) -> list[MeterChange]:
        """Return what is told when the call has ended: that it was refused for the limits, or what it has used."""
        if number not in self._calls:
            return []
        meter, charge = self._calls.pop(number)
        answered, limits = number in self._answered, self._limits_in(verdict.rate_limits)
        if verdict.outcome is Outcome.RATE_LIMITED:
            wait = verdict.failure.retry_after if verdict.failure is not None else None
            return [meter.refused(None if answered else charge, ProviderLimits() if answered else limits, wait)]
        changes: list[MeterChange] = []
        if not answered:
            changes = [meter.unanswered(charge) if verdict.http_status is None else meter.answered(charge, limits)]
        usage = verdict.usage
        return changes if usage is None else [*changes, meter.used(charge, usage.total_tokens, usage.output_tokens)]

    def _limits_in(self, headers: dict[str, str]) -> ProviderLimits:
        return read_provider_limits(headers if self._rules.mode == "headers" else {})
