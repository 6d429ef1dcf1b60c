"""The intervals in which a safety check runs (wire.md section 2): opened by a notice or by silence, closed by what
comes next, reopened by a later notice. Must not know: time, outcomes, what else happens in the stream.
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
    said: NoticeFields
    repeats: int = 0
    told: int = 0  # the repeats that a signal has told of already


class Checks:
    """The checks of one attempt: at most one is open, the last one is remembered."""

    __slots__ = ("_last", "_named", "open")

    def __init__(self, going_on: Check | None = None) -> None:
        """`going_on`: the check that ran when an earlier holder let go of the attempt."""
        self.open = False
        self._last: _Check | None = None
        self._named: tuple[str | None, RetryModelState] = (None, RetryModelState.ABSENT)
        if going_on is not None:
            self.open, self._named = True, (going_on.retry_model, going_on.retry_model_state)
            said = (going_on.use_cases, going_on.reasons, *self._named)
            self._last = _Check(going_on.evidence, said, going_on.repeats, going_on.repeats)

    @property
    def evidence(self) -> Evidence | None:
        """How sure the open check is; None when none is open."""
        return self._last.evidence if self.open and self._last is not None else None

    def notice(self, notice: CheckNotice) -> list[Signal]:
        """A notice opens a check, changes the open one, or counts as a repeat of what was said before.

        A notice that rides on output or on the end says nothing new when it repeats the last check: it is counted,
        and told of by `flush`. Absent `retry_model` keeps the one named before.
        """
        said = self._resolve(notice)
        last = self._last
        same = last is not None and last.evidence is Evidence.SIGNALLED and last.said == said
        if last is not None and same and (self.open or notice.riding):
            last.repeats += 1
            return []
        if last is not None and self.open:
            last.evidence, last.said, last.told = Evidence.SIGNALLED, said, last.repeats
            return [CheckUpdatedSignal(last.evidence, *said, last.repeats)]
        return self._begin(Evidence.SIGNALLED, said)

    def suspect(self) -> list[Signal]:
        """Silence opens a check that is only suspected; nothing changes when one is open."""
        return [] if self.open else self._begin(Evidence.SUSPECTED, ((), (), None, RetryModelState.ABSENT))

    def close(self, ended_by: CheckEnd) -> list[Signal]:
        """The open check, if there is one, is over."""
        if not self.open or self._last is None:
            return []
        self.open = False
        self._last.told = self._last.repeats
        return [CheckEndedSignal(ended_by, self._last.repeats)]

    def flush(self) -> list[Signal]:
        """Repeats that came after the last check had ended are told."""
        last = self._last
        if last is None or self.open or last.repeats == last.told:
            return []
        last.told = last.repeats
        return [CheckUpdatedSignal(last.evidence, *last.said, last.repeats)]

    def _begin(self, evidence: Evidence, said: NoticeFields) -> list[Signal]:
        before = self.flush()
        self.open, self._last = True, _Check(evidence, said)
        return [*before, CheckStartedSignal(evidence, *said)]

    def _resolve(self, notice: CheckNotice) -> NoticeFields:
        model = _valid_model_name(notice.retry_model)
        if notice.retry_model_state is RetryModelState.NONE:
            self._named = (None, RetryModelState.NONE)
        elif notice.retry_model_state is RetryModelState.NAMED and model:
            self._named = (model, RetryModelState.NAMED)
        return (_clean_terms(notice.use_cases), _clean_terms(notice.reasons), *self._named)


def _clean_terms(words: tuple[str, ...]) -> tuple[str, ...]:
    """The first few different words, cut to length, printable: they go into the record and are the provider's."""
    kept = ("".join(c for c in word if c.isprintable()).strip()[:MAX_TERM_LENGTH] for word in words)
    return tuple(dict.fromkeys(word for word in kept if word))[:MAX_TERMS]


def _valid_model_name(model: str | None) -> str | None:
    """A model's name that could be called; None for anything else."""
    name = (model or "").strip()
    ok = 0 < len(name) <= MAX_MODEL_LENGTH and name.isprintable() and not any(c.isspace() for c in name)
    return name if ok else None
