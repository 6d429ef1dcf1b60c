"""The entries of the ledger that a commit writes, and the quarantine of an end user who reaches the limit.

All of it is stored under the safety identifier and without content. The block that reaches the limit quarantines in its
own commit, and so does each further one that renews it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from worker.clock import to_ms
from worker.jobs import events as ev
from worker.jobs.record import Job
from worker.settings import Settings
from worker.store import keys
from worker.store.commands import Command
from worker.store.end_users.quarantine_rows import BY_VIGIL, QuarantinedUser, automatic_command
from worker.store.record_mac import RecordMacs

LEDGER_TTL_S: Final = 90 * 86_400
"""Seconds that an entry of the ledger is kept."""
MAX_FLAGGED: Final = 10_000
"""The end users of an app that are listed for their entries in a ledger: those with the newest ones."""
LEDGERS: Final = ("checks", "blocks", "warnings")
_KINDS: Final[tuple[tuple[type[ev.Fact], str], ...]] = ((ev.CheckStarted, "checks"), (ev.Blocked, "blocks"))
_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class QuarantineLimits:
    """So many blocks within so many seconds quarantine an end user; 0 blocks = never automatically.

    `limited`: seconds of quarantine for an end user whose access the provider limits; 0 = only the ledger knows.
    `days`: how long a quarantine by blocks or by the provider's notices lasts after the last one; 0 = until it is
    lifted.
    """

    blocks: int = 3
    window: int = 86_400
    limited: int = 86_400
    days: int = 0

    def end(self, at_ms: int) -> int:
        """Return when an automatic quarantine ends that begins, or is renewed, at this time; 0 = when it is lifted."""
        return at_ms + self.days * _DAY_S * 1000 if self.days else 0


def quarantine_limits(settings: Settings) -> QuarantineLimits:
    """Return the limits of these settings."""
    return QuarantineLimits(
        settings.quarantine_blocks,
        settings.quarantine_window_seconds,
        settings.quarantine_limited_seconds,
        settings.quarantine_days,
    )


def ledger_commands(job: Job, trail: Sequence[ev.Event], limits: QuarantineLimits, macs: RecordMacs) -> list[Command]:
    """Return the commands that a commit of these events adds: ledger entries, and the quarantine at the limit."""
    commands: list[Command] = []
    end_user = job.safety_identifier
    for event in trail if end_user else ():
        kind = next((name for fact, name in _KINDS if isinstance(event.fact, fact)), None)
        if end_user is None or kind is None:
            continue
        at, ledger = to_ms(event.at), keys.ledger(end_user, kind)
        commands += ledger_entry(ledger, at, f"{job.id}:{event.seq}")
        commands += flag(job.app, end_user, at)
        if kind == "blocks" and limits.blocks:
            reason = f"{limits.blocks} blocks within {limits.window} s"
            one = QuarantinedUser(job.app, end_user, "blocks", reason, BY_VIGIL, at, limits.end(at))
            when = ("WHEN", ledger, at - limits.window * 1000, limits.blocks)
            commands.append((*when, *automatic_command(macs, one)))
        if isinstance(event.fact, ev.Blocked) and event.fact.block.scope == "end_user":
            commands += ledger_entry(keys.ledger(end_user, "limits"), at, f"{job.id}:{event.seq}")
            if limits.limited:
                reason = f"limited by the provider ({event.fact.block.code})"
                ends = at + limits.limited * 1000
                limited = QuarantinedUser(job.app, end_user, "provider", reason, "provider", at, ends)
                commands.append(automatic_command(macs, limited))
    return commands


def ledger_entry(ledger: str, at: int, member: str) -> list[Command]:
    """Return the commands that add an entry to a ledger; repeated, it stays one entry."""
    old = at - LEDGER_TTL_S * 1000
    return [("ZADD", ledger, at, member), ("ZREMRANGEBYSCORE", ledger, "-inf", old), ("EXPIRE", ledger, LEDGER_TTL_S)]


def flag(app: str, end_user: str, at: int) -> list[Command]:
    """Return the commands that list an end user among those of the app with entries in a ledger."""
    flagged, old = keys.flagged_end_users(app), at - LEDGER_TTL_S * 1000
    return [
        ("ZADD", flagged, "GT", at, end_user),
        ("ZREMRANGEBYSCORE", flagged, "-inf", old),
        ("ZREMRANGEBYRANK", flagged, 0, -MAX_FLAGGED - 1),
        ("EXPIRE", flagged, LEDGER_TTL_S),
    ]


def must_not_be_quarantined(job: Job, trail: Sequence[ev.Event]) -> str:
    """Return the end user who must not be quarantined when these events are committed, or "".

    Only the commit by which a worker begins a claimed job is checked; running jobs go on.
    """
    kinds = {type(event.fact) for event in trail}
    calls = ev.AttemptStarted in kinds and not kinds.isdisjoint({ev.Started, ev.Rescued})
    return job.safety_identifier or "" if calls else ""
