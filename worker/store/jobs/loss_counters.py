"""Add what safety cost a job to the counters of the week in which it ended, in the commit that ended it.

A job ends once, and a commit that is sent again runs once: so each job counts once. What a later commit corrects is
counted as the difference, in the same week. No content, no job's id.
"""

from __future__ import annotations

from typing import Final

from worker.jobs.record import Job
from worker.safety.loss_counts import loss_counts, rank_of, week_of
from worker.store import keys
from worker.store.commands import Command

OTHER_MODELS: Final = "*"
"""The model as which all count that come after the first ones of a week."""
MODEL_COUNT: Final = "|models"
"""The field of a week's counts that says how many models it has."""
MAX_MODELS: Final = 100
"""The models of an app and a week that have counts of their own."""
MAX_END_USERS: Final = 10_000
"""The end users of an app and a week that have counts of their own; all others count in the app's sums alone."""
KEPT_LONGER_S: Final = 8 * 86_400
"""Seconds that counters are kept longer than audit records: they begin with the first job of a week."""


def loss_commands(before: Job | None, after: Job, kept: int) -> list[Command]:
    """Return the command by which the commit that leads to `after` counts it: none before the job's end.

    `kept`: the seconds that audit records are kept, and the counters as long.
    """
    if not after.settled:
        return []
    counts = dict(loss_counts(after))
    rank = rank_of(counts)
    if before is not None and before.settled:
        counted = loss_counts(before)
        rank -= rank_of(counted)
        counts = {name: counts.get(name, 0) - counted.get(name, 0) for name in {**counts, **counted}}
        counts = {name: count for name, count in sorted(counts.items()) if count}
        if not counts:
            return []
    app, end_user = after.app, after.safety_identifier or ""
    week = week_of(after.finished_at or after.created_at)
    names = (
        keys.loss_apps(week),
        keys.losses(week, app),
        keys.loss_end_users(week, app),
        keys.end_user_losses(week, app, end_user),
    )
    limits = (kept + KEPT_LONGER_S, MAX_MODELS, MAX_END_USERS)
    pairs = (word for pair in counts.items() for word in pair)
    return [("COUNT", *names, *limits, app, end_user, after.requested_model, rank, *pairs)]


def split_field(field: str) -> tuple[str, str]:
    """Return the model and the name of a count; the name is "" for what is none."""
    model, _, name = field.rpartition("|")
    return (model, name) if field != MODEL_COUNT else ("", "")
