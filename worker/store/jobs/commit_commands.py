"""Build the commands of one change of a job: record, events, audit records, queue, indexes and outbox.

Pure except for random message ids. The commands are sent elsewhere, in one commit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from worker.audit import chain
from worker.audit.record import record_of
from worker.clock import Clock, to_ms
from worker.jobs import events as ev
from worker.jobs.record import Job
from worker.jobs.states import UNDER_WAY
from worker.store import channels, codec, keys
from worker.store.admission.pacing import next_call
from worker.store.admission.pauses import PREFIX
from worker.store.audit.hold_names import holders_of
from worker.store.audit.stream_records import stored_fields
from worker.store.commands import Command, CommandArg
from worker.store.end_users.ledger_entries import QuarantineLimits, ledger_commands
from worker.store.jobs.end_counts import end_commands
from worker.store.jobs.job_groups import group_commands
from worker.store.jobs.loss_counters import loss_commands
from worker.store.jobs.provider_ids import ref_commands
from worker.store.jobs.queue import queue_commands, script_fields
from worker.store.jobs.search_terms import index_commands
from worker.store.jobs.unreadable_records import record_tag, stored_event
from worker.store.provider.durations import duration_commands
from worker.store.provider.request_counts import tally_commands
from worker.store.record_mac import RecordMacs
from worker.store.webhooks.outbox import outbox_commands

_NO_OUTPUT: Final[Mapping[str, str | None]] = MappingProxyType({})
COMPACT_AFTER_MS: Final = 60_000
"""Until then a settled job is read most, and a commit whose answer was lost is told apart from a new one."""
_MAX_UNVERIFIED: Final = 20_000
_MOVES: Final = (ev.Scheduled, ev.Released, ev.Interrupted)  # these put a waiting job into a queue again


@dataclass(frozen=True, slots=True)
class RetentionTimes:
    """How long what settled jobs leave is kept, in seconds."""

    result: int = 7 * 86_400
    prompt: int | None = None  # the input, when it goes before the output
    unstored: int = 3600  # of a job with `store: false` whose output its app has not read
    audit: int = 400 * 86_400
    audit_max: int | None = None  # of apps that keep their trail longer than `audit`
    idempotency: int = 86_400

    @property
    def longest(self) -> int:
        """Return the longest time for which anything of a job may be kept."""
        return max(self.audit, self.audit_max or 0, self.result)


class CommitCommands:
    """Builds commands, with the retention times and the limits of the quarantine."""

    def __init__(
        self,
        clock: Clock,
        keep: RetentionTimes,
        limits: QuarantineLimits,
        macs: RecordMacs,
        *,
        compact: bool = False,
    ) -> None:
        """`compact`: write audit records in the compressed form, and have settled jobs compressed a minute later."""
        self._clock, self._keep, self._limits, self._macs, self._compact = clock, keep, limits, macs, compact
        self._unverified: OrderedDict[str, None] = OrderedDict()

    def commands(
        self,
        before: Job | None,
        after: Job,
        trail: list[ev.Event],
        head: str,
        output: Mapping[str, str | None] = _NO_OUTPUT,
        fields: tuple[CommandArg, ...] = (),
    ) -> tuple[list[Command], str]:
        """Return the commands of one change, and the end of the audit chain after it.

        `output`: what the last audit record says of the answer, if the change stores or deletes it. `fields`: further
        fields of the job's hash, names and values.
        """
        key, commands = keys.job(after.id), list[Command]()
        wires = [event.dump() for event in trail]
        for event, wire in zip(trail, wires, strict=True):
            more = output if event is trail[-1] else {}
            head, body = chain.link(head, {**record_of(after, event, wire), **more})
            fields_of_entry = stored_fields(head, body, compact=self._compact)
            commands.append(("NOTE", keys.chain_records(after.id), "XADD", keys.AUDIT, "*", *fields_of_entry))
        commands.append(("RPUSH", keys.trail(after.id), *(stored_event(self._macs, after.id, wire) for wire in wires)))
        initial = script_fields(after) if before is None else ()
        moved = before is None or before.status is not after.status
        if moved and after.status not in UNDER_WAY and not after.settled:
            initial += ("call", next_call(after))
        commands.append(("HSET", key, *self.record_fields(after), "chain", head, *initial, *fields))
        if moved or any(isinstance(event.fact, _MOVES) for event in trail):
            commands.extend(queue_commands(before, after))
        if moved:
            commands.extend(index_commands(before, after))
            commands.extend(group_commands(before, after, self._keep.result))
        if before is not None and before.hold is not None:
            commands.append(("ZREM", keys.held_jobs(before.hold.scope), after.id))
        if after.hold is not None:
            commands.append(("ZADD", keys.held_jobs(after.hold.scope), to_ms(after.hold.since), after.id))
            if after.hold.scope.startswith(PREFIX):
                commands.append(("SADD", keys.HOLDING_SCOPES, after.hold.scope))
        if after.settled and (before is None or not before.settled):
            commands.extend(self.retire(after))
            commands.extend(end_commands(before, after))
        commands.extend(self._compaction_commands(after))
        commands.extend(ref_commands(before, after, trail, self._keep.result))
        if before is not None or after.settled:  # a new job has no calls to count
            commands.extend(ledger_commands(after, trail, self._limits, self._macs))
            commands.extend(tally_commands(after, trail))
            commands.extend(duration_commands(after, trail))
            commands.extend(loss_commands(before, after, self._keep.longest))
        commands.extend(outbox_commands(after, trail, self._clock))
        commands.append(("PUBLISH", channels.CHANGED, f"{after.id} {after.version} {after.status}"))
        return commands, head

    def _compaction_commands(self, job: Job) -> list[Command]:
        if not job.settled or not self._compact:
            return []
        return [("ZADD", keys.COMPACTION_DUE, to_ms(self._clock.now()) + COMPACT_AFTER_MS, job.id)]

    def note_read(self, job_id: str, *, verified: bool) -> None:
        """Note whether the record that this process read last of the job could be checked."""
        self._unverified.pop(job_id, None)
        if not verified:
            self._unverified[job_id] = None
        while len(self._unverified) > _MAX_UNVERIFIED:
            self._unverified.popitem(last=False)

    def record_fields(self, job: Job) -> tuple[CommandArg, ...]:
        """Return the fields of a job's hash that hold its record: version, record and, with master keys, its tag."""
        raw = codec.dump_job(job)
        tag = record_tag(self._macs, job.id, job.version, raw, verified=job.id not in self._unverified)
        return ("v", job.version, "rec", raw, *(("mac", tag) if tag else ()))

    def retire(self, job: Job) -> list[Command]:
        """Return the commands that limit how long a settled job's data is kept."""
        keep = self._keep
        commands: list[Command] = [retire_command(job, keep)]
        if not job.store:
            commands.append(("ZADD", keys.ERASURE_DUE, to_ms(self._clock.now()) + keep.unstored * 1000, job.id))
        commands.extend(("DEL", keys.text(job.id, a.number)) for a in job.attempts)
        commands.append(measure_command(job))
        return commands


def retire_command(job: Job, keep: RetentionTimes, *, passed: int = 0, least: int = 0) -> Command:
    """Return what a script runs to let a settled job expire, unless a legal hold keeps it.

    `passed`: the seconds since its end; nothing expires within the next `least` seconds.
    """
    names = (keys.job(job.id), keys.trail(job.id), keys.job_input(job.id), keys.job_output(job.id))
    prompt = keep.result if keep.prompt is None else min(keep.prompt, keep.result)
    times = (to_ms(job.finished_at or job.created_at), passed, least, keep.result, prompt)
    shared = (keys.SETTLED, keys.LEGAL_HOLDS, keys.RETENTION_TIMES)
    return ("RETIRE", *names, *shared, job.app, job.id, *times, *holders_of(job))


def measure_commands(job: Job, *, since: Job, writes: Sequence[Command]) -> list[Command]:
    """Return what a change must run to state the job's content again: nothing without writes, or if `retire` does."""
    ends = job.settled and not since.settled
    return [measure_command(job)] if writes and not ends else []


def measure_command(job: Job) -> Command:
    """Return what a script runs to state how much content of the job is stored; it comes after what changes that."""
    names = (keys.content_sizes(job.app), keys.content_expiry(job.app))
    return ("MEASURE", *names, keys.job(job.id), keys.job_input(job.id), keys.job_output(job.id), job.id)
