"""Tracks the intervals in which a safety check runs (wire.md section 2).

A notice or silence opens a check, the next output or the end closes it, a later notice opens the next one. It must not
depend on time or outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from worker.jobs.record import Check
from worker.jobs.states import CheckEnd, Evidence, RetryModelState
from worker.safety.signals import CheckEndedSignal, CheckStartedSignal, CheckUpdatedSignal, Signal
from worker.safety.stream import CheckNotice

MAX_TERMS: Final = 8
MAX_TERM_LENGTH: Final = 64
MAX_MODEL_LENGTH: Final = 200

NoticeFields = tuple[tuple[str, ...], tuple[str, ...], str | None, RetryModelState]


@dataclass(slots=True)
class _Check:
    evidence: Evidence
    fields: NoticeFields
    repeats: int = 0
    reported: int = 0  # the repeats that a signal has reported already


class Checks:
    """The checks of one attempt: at most one is open, the last one is remembered."""

    __slots__ = ("_last", "_retry_model", "open")

    def __init__(self, resumed_check: Check | None = None) -> None:
        """`resumed_check`: the check that was open when an earlier worker gave up the attempt."""
        self.open = False
        self._last: _Check | None = None
        self._retry_model: tuple[str | None, RetryModelState] = (None, RetryModelState.ABSENT)
        if resumed_check is not None:
            self.open, self._retry_model = True, (resumed_check.retry_model, resumed_check.retry_model_state)
            fields = (resumed_check.use_cases, resumed_check.reasons, *self._retry_model)
            self._last = _Check(resumed_check.evidence, fields, resumed_check.repeats, resumed_check.repeats)

    @property
    def evidence(self) -> Evidence | None:
        """Return the evidence of the open check, or None if none is open."""
        return self._last.evidence if self.open and self._last is not None else None

    def notice(self, notice: CheckNotice) -> list[Signal]:
        """Apply a notice: it opens a check, changes the open one, or is counted as a repeat.

        A notice on an output or terminal event that repeats the last check is only counted; `flush` reports it. An
        absent `retry_model` keeps the one named before.
        """
        fields = self._resolve(notice)
        last = self._last
        same = last is not None and last.evidence is Evidence.SIGNALLED and last.fields == fields
        if last is not None and same and (self.open or notice.piggybacked):
            last.repeats += 1
            return []
        if last is not None and self.open:
            last.evidence, last.fields, last.reported = Evidence.SIGNALLED, fields, last.repeats
            return [CheckUpdatedSignal(last.evidence, *fields, last.repeats)]
        return self._begin(Evidence.SIGNALLED, fields)

    def suspect(self) -> list[Signal]:
        """Open a suspected check because of silence; change nothing if a check is open."""
        return [] if self.open else self._begin(Evidence.SUSPECTED, ((), (), None, RetryModelState.ABSENT))

    def close(self, ended_by: CheckEnd) -> list[Signal]:
        """End the open check, if there is one."""
        if not self.open or self._last is None:
            return []
        self.open = False
        self._last.reported = self._last.repeats
        return [CheckEndedSignal(ended_by, self._last.repeats)]

    def flush(self) -> list[Signal]:
        """Report the repeats that came after the last check had ended."""
        last = self._last
        if last is None or self.open or last.repeats == last.reported:
            return []
        last.reported = last.repeats
        return [CheckUpdatedSignal(last.evidence, *last.fields, last.repeats)]

    def _begin(self, evidence: Evidence, fields: NoticeFields) -> list[Signal]:
        before = self.flush()
        self.open, self._last = True, _Check(evidence, fields)
        return [*before, CheckStartedSignal(evidence, *fields)]

    def _resolve(self, notice: CheckNotice) -> NoticeFields:
        model = _valid_model_name(notice.retry_model)
        if notice.retry_model_state is RetryModelState.NONE:
            self._retry_model = (None, RetryModelState.NONE)
        elif notice.retry_model_state is RetryModelState.NAMED and model:
            self._retry_model = (model, RetryModelState.NAMED)
        return (_clean_terms(notice.use_cases), _clean_terms(notice.reasons), *self._retry_model)


def _clean_terms(terms: tuple[str, ...]) -> tuple[str, ...]:
    """Return the first few different terms, printable and cut to length: the provider's text goes into the record."""
    cleaned = ("".join(c for c in term if c.isprintable()).strip()[:MAX_TERM_LENGTH] for term in terms)
    return tuple(dict.fromkeys(term for term in cleaned if term))[:MAX_TERMS]


def _valid_model_name(model: str | None) -> str | None:
    """Return a name that a model could have, or None for anything else."""
    name = (model or "").strip()
    ok = 0 < len(name) <= MAX_MODEL_LENGTH and name.isprintable() and not any(c.isspace() for c in name)
    return name if ok else None
