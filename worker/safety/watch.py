"""Judges one attempt: events and ticks in, signals out, one verdict at the end.

Sans-I/O: it never awaits, reads no clock and keeps no text. It must not depend on policies or the job's deadline (see
`stop`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal, assert_never

from worker.jobs.errors import Failure
from worker.jobs.record import Check
from worker.jobs.states import DELIVERED, CheckEnd, Evidence, Outcome
from worker.safety import classify
from worker.safety.attempt_state import AttemptState, PendingError
from worker.safety.checks import Checks
from worker.safety.codes import weight
from worker.safety.connection_cuts import UNANSWERED
from worker.safety.outcomes import CHECK_ENDS, MAY_RUN_ON, STOPPED_BY_VIGIL
from worker.safety.signals import AccountFlagSignal, AttemptEnded, AttemptVerdict, FirstOutput, ResponseKnown, Signal
from worker.safety.stream import (
    CallDone,
    CheckNotice,
    Closed,
    Created,
    Delta,
    Flagged,
    ItemDone,
    Keepalive,
    Opened,
    PartDone,
    Rejected,
    Served,
    StreamError,
    StreamEvent,
    Terminal,
)
from worker.safety.watch_limits import CHARACTERS_PER_TOKEN, WatchLimits

DeltaEffect = Literal["signals", "stale", "late"]

_RUNNING: Final = frozenset({"response.in_progress", "response.output_item.added", "response.content_part.added"})


class AttemptWatch:
    """Judges one attempt; every time is monotonic seconds, given by the caller."""

    __slots__ = (
        "_any_event", "_checked", "_checks", "_cursor", "_error", "_error_due_at", "_first_event_reported", "_flags",
        "_last", "_longest_silence", "_on_fast_path", "_opened", "_output_seen", "_pending", "_resume_floor",
        "_silent_since", "_start", "_state", "_verdict", "characters", "deltas", "late_events", "limits",
    )  # fmt: skip

    def __init__(
        self,
        model: str,
        *,
        checked: bool,
        now: float,
        limits: WatchLimits | None = None,
        aliases: Mapping[str, str] | None = None,
        service_tier: str | None = None,
        cursor: int | None = None,
        event_seen: bool = False,
        output_seen: bool = False,
        check: Check | None = None,
        resumed: int = 0,
    ) -> None:
        """Watch a call to `model` that is made at `now`.

        `checked`: additional checks are known for this model. `cursor`, `event_seen`, `output_seen`, `check` (the
        open one), `resumed`: what the record already says when a dead worker's attempt is taken up.
        """
        self._checked, self.limits = checked, limits or WatchLimits()
        self._checks, self._error = Checks(check), PendingError()
        self._state = AttemptState(model, aliases or {}, service_tier, resumed)
        self._start = self._last = now
        # since when no output has come, from the call on, because gateways hold back even the headers; None: not judged
        self._silent_since: float | None = now
        self._longest_silence = math.nan if event_seen else 0.0  # not known of a call that another worker began
        self._any_event = self._opened = self._on_fast_path = False
        self._first_event_reported = event_seen
        self._output_seen = output_seen
        self._cursor = self._resume_floor = -1 if cursor is None else cursor
        self._error_due_at = math.inf  # when an error event counts without a terminal event
        self._flags: set[str] = set()
        self._pending: list[Signal] = []
        self._verdict: AttemptVerdict | None = None
        self.deltas = self.characters = 0
        self.late_events = 0

    @property
    def verdict(self) -> AttemptVerdict | None:
        """Return the verdict, or None while the attempt goes on. Later events can only add flags."""
        return self._verdict

    @property
    def evidence(self) -> Evidence | None:
        """Return the evidence of the open check, or None if none is open."""
        return self._checks.evidence

    @property
    def output_seen(self) -> bool:
        """Return whether an output-bearing event has come."""
        return self._output_seen

    @property
    def sequence(self) -> int | None:
        """Return the highest sequence number seen: the resume cursor."""
        return self._cursor if self._cursor >= 0 else None

    @property
    def silent_since(self) -> float | None:
        """Return when the last output came or the call was made, or None while queued or after the end."""
        return self._silent_since if self._verdict is None else None

    @property
    def blocked(self) -> bool:
        """Return whether a block was reported, even before the terminal event."""
        return self._error.block is not None or (self._verdict is not None and self._verdict.block is not None)

    def delta(self, sequence: int | None, now: float, length: int = 0) -> DeltaEffect | None:
        """Record a delta that is not empty: the fast path, called for every delta.

        None = append the text, nothing else changed. "signals" = append it and call `take_signals`. "stale" and
        "late" = do not append it: it was seen before a resume, or it came after the end.
        """
        if sequence is not None:
            if sequence <= self._resume_floor:
                self._last = now
                return "stale"
            if sequence - self._cursor == 1:
                self._cursor = sequence
            else:
                self._advance(sequence)
        since = self._silent_since
        if since is not None and now - since > self._longest_silence:
            self._longest_silence = now - since
        self._last = self._silent_since = now
        self.deltas += 1
        self.characters += length
        return None if self._on_fast_path else self._slow_path()

    def take_signals(self) -> list[Signal]:
        """Return and clear the signals that the fast path left."""
        pending, self._pending = self._pending, []
        return pending

    def feed(self, event: StreamEvent, now: float) -> list[Signal]:
        """Return the signals of `event`. After the end it only adds flags; a stale event only shows life."""
        if self._verdict is not None:
            self._after_end(event)
            return []
        self._any_event, self._last = True, now
        sequence = None if isinstance(event, Opened | Rejected | Closed | Served | Flagged) else event.sequence
        if not isinstance(event, Terminal) and sequence is not None and sequence <= self._resume_floor:
            return self.take_signals()
        if sequence is not None:
            self._advance(sequence)
        if not isinstance(event, Opened | Rejected | Closed):
            self._first_event()
        self._handle(event, now)
        return self.take_signals()

    def tick(self, now: float) -> list[Signal]:
        """Return the signals of elapsed time: silence that suggests a check, or that is too long."""
        if self._verdict is None:
            pending = self._error.failure
            if pending is not None and now >= min(self._error_due_at, self._idle_deadline()):
                self._end(pending)
            elif now >= self._idle_deadline():
                if self._checks.open:
                    self._flags.add("in_check")
                self._end(classify.silent(first_event=not self._any_event))
            elif now >= self._suspect_at():
                self._pending += self._checks.suspect()
                self._on_fast_path = False
        return self.take_signals()

    def is_overdue(self, now: float) -> bool:
        """Return whether the next `tick` would end an attempt whose response may go on over another connection.

        That is after silence, or after a retryable error event without a terminal event.
        """
        pending = self._error.failure
        if self._verdict is not None or (pending is not None and not pending.retryable):
            return False
        return now >= (self._idle_deadline() if pending is None else min(self._error_due_at, self._idle_deadline()))

    def extend(self, now: float) -> None:
        """Restart the idle timers, because the response is looked at again before anything is decided."""
        self._any_event, self._last = True, now
        if self._error.failure is not None:
            self._error_due_at = now + self.limits.after_fault

    def next_tick(self) -> float:
        """Return the monotonic time at which `tick` must be called next; infinity after the end."""
        if self._verdict is not None:
            return math.inf
        return min(self._idle_deadline(), self._suspect_at(), self._error_due_at)

    def stop(self, outcome: Outcome) -> list[Signal]:
        """End the attempt from Vigil's side: substituted, cancelled, interrupted or timed_out by a deadline.

        A block that was already reported stays a block (promise P2). Nothing happens after the end.
        """
        if self._verdict is not None:
            return []
        if self._error.block is not None:
            self._end(self._error.block)
        elif outcome in STOPPED_BY_VIGIL:
            self._end(outcome)
        else:
            self._end(Failure(outcome, "run_deadline" if outcome is Outcome.TIMED_OUT else outcome.value, "us"))
        return self.take_signals()

    # -- events

    def _handle(self, event: StreamEvent, now: float) -> None:  # noqa: C901, PLR0912  one row per event
        match event:
            case Delta():
                if event.text:
                    self._state.refused |= event.kind == "refusal"
                    self.deltas += 1
                    self.characters += len(event.text)
                    self._output(now)
            case ItemDone() | PartDone() | CallDone():
                self._flags.update(self._state.add_completed(event))
                if not isinstance(event, CallDone) or event.arguments:
                    self._output(now)
            case Keepalive():
                self._status(event.type, now)
            case CheckNotice():
                if self._error.block is None:  # after a block there is nothing left to check
                    self._pending += self._checks.notice(event)
                    self._on_fast_path = self._on_fast_path and not self._checks.open
            case Created():
                self._pending += self._state.created(event)
                self._status(f"response.{event.status}", now)
            case Opened():
                self._opened = True
                if event.resumed:
                    self._resume_floor = self._cursor
                if self._silent_since is None:
                    self._silent_since = now
                self._pending += self._state.opened(event)
            case Served():
                self._state.header = event.model
            case Flagged():
                if "account_flagged" not in self._flags:
                    self._flags.add("account_flagged")
                    self._pending.append(AccountFlagSignal(event.programs))
            case StreamError():
                self._on_error(event, now)
            case Terminal():
                self._on_terminal(event)
            case Rejected():
                self._pending += self._state.rejected(event)
                failure = classify.rejected(event, after_output=self._output_seen)
                gone = event.on == "create" or failure.outcome in (Outcome.LOST, Outcome.BLOCKED)
                self._end(self._error.update(failure, weight(event.problem)), may_go_on=not gone)
            case Closed():
                if event.how == "cut" and not event.opened and not self._opened:
                    self._flags.add(UNANSWERED)
                self._end(self._error.failure or classify.closed(event, opened=self._opened))
            case _:
                assert_never(event)

    def _on_error(self, event: StreamError, now: float) -> None:
        state = self._state
        failure = classify.fault(
            event, http_status=state.http_status, request_id=state.request_id, after_output=self._output_seen
        )
        self._error.update(failure, weight(event.problem))
        self._error_due_at = now + self.limits.after_fault
        self._on_fast_path = False
        if self._error.block is not None:
            self._pending += self._checks.close(CheckEnd.BLOCKED)

    def _on_terminal(self, event: Terminal) -> None:
        state, pending = self._state, self._error
        self._flags.update(event.flags)
        self._pending += state.terminal(event)
        failure = classify.terminal(
            event, http_status=state.http_status, request_id=state.request_id, after_output=self._output_seen
        )
        if failure is not None:
            self._end(pending.update(failure, weight(event.problem, event.incomplete_reason)), event)
            return
        if pending.failure is not None:
            self._flags.add("terminal_conflict")
        if pending.block is not None:
            self._end(pending.block, event)
        elif event.status == "incomplete":
            self._end(Outcome.INCOMPLETE, event)
        else:
            self._end(Outcome.REFUSED if state.refused else Outcome.COMPLETED, event)

    def _status(self, kind: str, now: float) -> None:
        """Count silence from when the response runs: a queued one is silent by nature."""
        if kind == "response.queued" and not self._output_seen:
            self._silent_since = None
        elif kind in _RUNNING and self._silent_since is None:
            self._silent_since = now

    def _after_end(self, event: StreamEvent) -> None:
        self._count_late()
        done, delivered = self._verdict, isinstance(event, Terminal) and event.status in ("completed", "incomplete")
        if isinstance(event, Terminal) and done is not None and delivered != (done.outcome in DELIVERED):
            self._flag_late("terminal_conflict")

    # -- small parts

    def _advance(self, sequence: int) -> None:
        if sequence > self._cursor + 1 and self._cursor >= 0:
            self._flags.add("sequence_gap")
        self._cursor = max(self._cursor, sequence)

    def _output(self, now: float) -> None:
        self._end_silence(now)
        self._silent_since = now
        if not self._on_fast_path:
            self._slow_path()

    def _end_silence(self, now: float) -> None:
        if self._silent_since is not None and now - self._silent_since > self._longest_silence:
            self._longest_silence = now - self._silent_since

    def _slow_path(self) -> DeltaEffect | None:
        """Handle output that comes first, or while a check or an error is open."""
        if self._verdict is not None:
            self._count_late()
            return "late"
        self._any_event = True
        self._first_event()
        if not self._output_seen:
            self._output_seen = True
            self._pending.append(FirstOutput())
        self._pending += self._checks.close(CheckEnd.OUTPUT)
        if self._error.failure is None:
            self._on_fast_path = True
        elif self._error.block is None:  # the stream goes on after an error event, so that was not the end
            self._error_due_at = self._last + self.limits.after_fault
        return "signals" if self._pending else None

    def _first_event(self) -> None:
        if not self._first_event_reported:
            self._first_event_reported = True
            self._pending.append(ResponseKnown(first_event=True))

    def _idle_deadline(self) -> float:
        """Return when silence is too long."""
        if not self._any_event:
            return self._start + self.limits.first_event
        signalled = self._checks.evidence is Evidence.SIGNALLED
        return self._last + (max(self.limits.idle, self.limits.check_idle) if signalled else self.limits.idle)

    def _suspect_at(self) -> float:
        """Return when silence suggests a check; never while one is open or an error is pending."""
        after, since = self.limits.suspect_after, self._silent_since
        if after is None or since is None or not self._checked or self._checks.open or self._error.failure is not None:
            return math.inf
        return since + after

    def _count_late(self) -> None:
        self.late_events += 1
        self._flag_late("late_events")

    def _flag_late(self, flag: str) -> None:
        if self._verdict is not None and flag not in self._verdict.flags:
            self._verdict = replace(self._verdict, flags=(*self._verdict.flags, flag))

    # -- the end

    def _end(self, end: Failure | Outcome, event: Terminal | None = None, *, may_go_on: bool = False) -> None:
        failure, outcome = (end, end.outcome) if isinstance(end, Failure) else (None, end)
        if failure is not None and self._checks.evidence is Evidence.SIGNALLED and self._error.unexplained:
            failure = classify.after_check(failure)
        self._pending += self._checks.close(CHECK_ENDS.get(outcome, CheckEnd.FAILED))
        self._pending += self._checks.flush()
        self._on_fast_path = False
        self._end_silence(self._last)
        error_reported = self._error_due_at < math.inf
        self._verdict = self._state.verdict(
            outcome,
            failure,
            event,
            self._flags,
            sequence=self.sequence,
            deltas=max(self.deltas, math.ceil(self.characters / CHARACTERS_PER_TOKEN)),
            output_seen=self._output_seen,
            resumable=(outcome in MAY_RUN_ON or may_go_on) and not error_reported,
            longest_silence=None if math.isnan(self._longest_silence) else self._longest_silence,
        )
        self._pending.append(AttemptEnded(self._verdict))
