"""The judge of one attempt: events and ticks in, signals out, one verdict at the end.

Sans-I/O: it never awaits, reads no clock, keeps no text. Must not know: policies, the job's deadline (see `stop`).
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
from worker.safety.cuts import UNANSWERED
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
from worker.safety.watch_limits import WatchLimits

DeltaEffect = Literal["signals", "stale", "late"]

_RUNNING: Final = frozenset({"response.in_progress", "response.output_item.added", "response.content_part.added"})


class AttemptWatch:
    """Judges one attempt; every time is monotonic seconds, given by the caller."""

    __slots__ = (
        "_calm", "_checked", "_checks", "_cursor", "_fault_at", "_first_told", "_flags", "_floor",
        "_heard", "_held", "_last", "_limits", "_opened", "_output_seen", "_pending", "_quiet", "_seen", "_start",
        "_verdict", "deltas", "late_events",
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
        output_seen: bool = False,
        check: Check | None = None,
        resumed: int = 0,
    ) -> None:
        """A watch over a call to `model` that is made at `now`.

        `checked`: additional checks are known for this model. `cursor`, `output_seen`, `check` (the one that ran),
        `resumed`: what the record already knows when a dead worker's attempt is taken up.
        """
        self._checked, self._limits = checked, limits or WatchLimits()
        self._checks, self._held = Checks(check), PendingError()
        self._seen = AttemptState(model, aliases or {}, service_tier, resumed)
        self._start = self._last = now
        # since when no output has come, at first since the call, because gateways hold back even the headers;
        # None = not to be judged
        self._quiet: float | None = now
        self._heard = self._opened = self._first_told = self._calm = False
        self._output_seen = output_seen
        self._cursor = self._floor = -1 if cursor is None else cursor
        self._fault_at = math.inf  # when an error event stands alone
        self._flags: set[str] = set()
        self._pending: list[Signal] = []
        self._verdict: AttemptVerdict | None = None
        self.deltas = 0
        self.late_events = 0

    @property
    def verdict(self) -> AttemptVerdict | None:
        """How it ended; None while it goes on. Events that come later can only add flags."""
        return self._verdict

    @property
    def evidence(self) -> Evidence | None:
        """How sure the open check is; None when none is open."""
        return self._checks.evidence

    @property
    def output_seen(self) -> bool:
        """True once an output-bearing event came."""
        return self._output_seen

    @property
    def sequence(self) -> int | None:
        """The highest sequence number seen: the resume cursor."""
        return self._cursor if self._cursor >= 0 else None

    @property
    def silent_since(self) -> float | None:
        """When the last output came, or the call was made; None while queued, or ended."""
        return self._quiet if self._verdict is None else None

    @property
    def blocked(self) -> bool:
        """True once a block was told of, also before the stream's last word."""
        return self._held.block is not None or (self._verdict is not None and self._verdict.block is not None)

    def stale(self, sequence: int | None) -> bool:
        """True when a resumed stream repeats an event that was seen before the cut."""
        return sequence is not None and sequence <= self._floor

    def delta(self, sequence: int | None, now: float) -> DeltaEffect | None:
        """The fast path for a piece of text that is not empty; it is called for every delta.

        None = append the text, nothing else changed. "signals" = append it and call `take`. "stale" and "late" =
        do not append it: it was seen before a resume, or it came after the end.
        """
        if sequence is not None:
            if sequence <= self._floor:
                self._last = now
                return "stale"
            if sequence - self._cursor == 1:
                self._cursor = sequence
            else:
                self._jump(sequence)
        self._last = self._quiet = now
        self.deltas += 1
        return None if self._calm else self._stir()

    def take(self) -> list[Signal]:
        """The signals that the fast path left behind."""
        pending, self._pending = self._pending, []
        return pending

    def feed(self, event: StreamEvent, now: float) -> list[Signal]:
        """What `event` means; nothing but flags after the end. Stale events only prove life."""
        if self._verdict is not None:
            self._after_end(event)
            return []
        self._heard, self._last = True, now
        sequence = None if isinstance(event, Opened | Rejected | Closed | Served | Flagged) else event.sequence
        if not isinstance(event, Terminal) and self.stale(sequence):
            return self.take()
        if sequence is not None:
            self._jump(sequence)
        if not isinstance(event, Opened | Rejected | Closed):
            self._first_event()
        self._judge(event, now)
        return self.take()

    def tick(self, now: float) -> list[Signal]:
        """What the clock alone tells: silence that suggests a check, or that is too long."""
        if self._verdict is None:
            held = self._held.failure
            if held is not None and now >= min(self._fault_at, self._life()):
                self._fail(held)
            elif now >= self._life():
                if self._checks.open:
                    self._flags.add("in_check")
                self._fail(classify.silent(first_event=not self._heard))
            elif now >= self._suspicion():
                self._pending += self._checks.suspect()
                self._calm = False
        return self.take()

    def overdue(self, now: float) -> bool:
        """True when the next `tick` would end the attempt though a response that outlives its connection may go on: for
        silence, or for an error event without a last word, unless that is nothing to try again after.
        """
        held = self._held.failure
        if self._verdict is not None or (held is not None and not held.retryable):
            return False
        return now >= (self._life() if held is None else min(self._fault_at, self._life()))

    def wait_on(self, now: float) -> None:
        """The response is looked at again before anything is decided: how long nothing came counts from now."""
        self._heard, self._last = True, now
        if self._held.failure is not None:
            self._fault_at = now + self._limits.after_fault

    def next_tick(self) -> float:
        """The monotonic time at which `tick` must be called next; infinity after the end."""
        if self._verdict is not None:
            return math.inf
        return min(self._life(), self._suspicion(), self._fault_at)

    def stop(self, outcome: Outcome) -> list[Signal]:
        """The attempt ends by our own doing: substituted, cancelled, interrupted or timed_out by a deadline.

        A block that was already told of stays a block (promise P2). Nothing happens after the end.
        """
        if self._verdict is not None:
            return []
        if self._held.block is not None:
            self._fail(self._held.block)
        elif outcome in STOPPED_BY_VIGIL:
            self._end(outcome, None)
        else:
            self._fail(Failure(outcome, "run_deadline" if outcome is Outcome.TIMED_OUT else outcome.value, "us"))
        return self.take()

    # -- events

    def _judge(self, event: StreamEvent, now: float) -> None:  # noqa: C901, PLR0912  one row per event
        match event:
            case Delta():
                if event.text:
                    self._seen.refused |= event.kind == "refusal"
                    self.deltas += 1
                    self._output(now)
            case ItemDone() | PartDone() | CallDone():
                self._flags.update(self._seen.whole(event))
                if not isinstance(event, CallDone) or event.arguments:
                    self._output(now)
            case Keepalive():
                self._status(event.type, now)
            case CheckNotice():
                if self._held.block is None:  # after a block there is nothing left to check
                    self._pending += self._checks.notice(event)
                    self._calm = self._calm and not self._checks.open
            case Created():
                self._pending += self._seen.created(event)
                self._status(f"response.{event.status}", now)
            case Opened():
                self._opened = True
                if event.resumed:
                    self._floor = self._cursor
                if self._quiet is None:
                    self._quiet = now
                self._pending += self._seen.opened(event)
            case Served():
                self._seen.header = event.model
            case Flagged():
                if "account_flagged" not in self._flags:
                    self._flags.add("account_flagged")
                    self._pending.append(AccountFlagSignal(event.programs))
            case StreamError():
                self._on_fault(event, now)
            case Terminal():
                self._on_terminal(event)
            case Rejected():
                self._pending += self._seen.rejected(event)
                failure = classify.rejected(event, after_output=self._output_seen)
                gone = event.on == "create" or failure.outcome in (Outcome.LOST, Outcome.BLOCKED)
                self._fail(self._held.hold(failure, weight(event.problem)), may_go_on=not gone)
            case Closed():
                if event.how == "cut" and not event.opened and not self._opened:
                    self._flags.add(UNANSWERED)
                self._fail(self._held.failure or classify.closed(event, opened=self._opened))
            case _:
                assert_never(event)

    def _on_fault(self, event: StreamError, now: float) -> None:
        seen = self._seen
        failure = classify.fault(
            event, http_status=seen.http_status, request_id=seen.request_id, after_output=self._output_seen
        )
        self._held.hold(failure, weight(event.problem))
        self._fault_at = now + self._limits.after_fault
        self._calm = False
        if self._held.block is not None:
            self._pending += self._checks.close(CheckEnd.BLOCKED)

    def _on_terminal(self, event: Terminal) -> None:
        seen, held = self._seen, self._held
        self._flags.update(event.flags)
        self._pending += seen.terminal(event)
        failure = classify.terminal(
            event, http_status=seen.http_status, request_id=seen.request_id, after_output=self._output_seen
        )
        if failure is not None:
            self._fail(held.hold(failure, weight(event.problem, event.incomplete_reason)), event)
            return
        if held.failure is not None:
            self._flags.add("terminal_conflict")
        if held.block is not None:
            self._fail(held.block, event)
        elif event.status == "incomplete":
            self._end(Outcome.INCOMPLETE, None, event)
        else:
            self._end(Outcome.REFUSED if seen.refused else Outcome.COMPLETED, None, event)

    def _status(self, kind: str, now: float) -> None:
        """A queued response is silent by nature; silence counts from when it runs."""
        if kind == "response.queued" and not self._output_seen:
            self._quiet = None
        elif kind in _RUNNING and self._quiet is None:
            self._quiet = now

    def _after_end(self, event: StreamEvent) -> None:
        self._late()
        done = self._verdict
        if isinstance(event, Terminal) and done is not None:
            delivered = event.status in ("completed", "incomplete")
            if delivered != (done.outcome in DELIVERED):
                self._flag_late("terminal_conflict")

    # -- small parts

    def _jump(self, sequence: int) -> None:
        if sequence > self._cursor + 1 and self._cursor >= 0:
            self._flags.add("sequence_gap")
        self._cursor = max(self._cursor, sequence)

    def _output(self, now: float) -> None:
        self._quiet = now
        if not self._calm:
            self._stir()

    def _stir(self) -> DeltaEffect | None:
        """Output came while something was open, or for the first time."""
        if self._verdict is not None:
            self._late()
            return "late"
        self._heard = True
        self._first_event()
        if not self._output_seen:
            self._output_seen = True
            self._pending.append(FirstOutput())
        self._pending += self._checks.close(CheckEnd.OUTPUT)
        if self._held.failure is None:
            self._calm = True
        elif self._held.block is None:  # the stream goes on after an error event, so that was not the end
            self._fault_at = self._last + self._limits.after_fault
        return "signals" if self._pending else None

    def _first_event(self) -> None:
        if not self._first_told:
            self._first_told = True
            self._pending.append(ResponseKnown(first_event=True))

    def _life(self) -> float:
        """When silence is too long."""
        if not self._heard:
            return self._start + self._limits.first_event
        signalled = self._checks.evidence is Evidence.SIGNALLED
        return self._last + (max(self._limits.idle, self._limits.check_idle) if signalled else self._limits.idle)

    def _suspicion(self) -> float:
        """When silence suggests a check; never while one is open or an error is held."""
        after = self._limits.suspect_after
        if after is None or not self._checked or self._quiet is None:
            return math.inf
        if self._checks.open or self._held.failure is not None:
            return math.inf
        return self._quiet + after

    def _late(self) -> None:
        self.late_events += 1
        self._flag_late("late_events")

    def _flag_late(self, flag: str) -> None:
        if self._verdict is not None and flag not in self._verdict.flags:
            self._verdict = replace(self._verdict, flags=(*self._verdict.flags, flag))

    # -- the end

    def _fail(self, failure: Failure, event: Terminal | None = None, *, may_go_on: bool = False) -> None:
        self._end(failure.outcome, failure, event, may_go_on=may_go_on)

    def _end(
        self, outcome: Outcome, failure: Failure | None, event: Terminal | None = None, *, may_go_on: bool = False
    ) -> None:
        if failure is not None and self._checks.evidence is Evidence.SIGNALLED and self._held.unexplained:
            failure = classify.after_check(failure)
        self._pending += self._checks.close(CHECK_ENDS.get(outcome, CheckEnd.FAILED))
        self._pending += self._checks.flush()
        self._calm = False
        told_of_error = self._fault_at < math.inf
        self._verdict = self._seen.verdict(
            outcome,
            failure,
            event,
            self._flags,
            sequence=self.sequence,
            deltas=self.deltas,
            output_seen=self._output_seen,
            resumable=(outcome in MAY_RUN_ON or may_go_on) and not told_of_error,
        )
        self._pending.append(AttemptEnded(self._verdict))
