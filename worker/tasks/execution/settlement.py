"""The end of a job: one commit, then the provider is asked to stop what still runs."""

from __future__ import annotations

from collections.abc import Sequence

from worker.jobs import events as ev
from worker.jobs.events import EventDraft
from worker.store.jobs.stored_job import OutputChange
from worker.tasks.execution.active_attempts import ActiveAttempts
from worker.tasks.execution.run_recorder import RunRecorder


async def settle(
    recorder: RunRecorder,
    attempts: ActiveAttempts,
    drafts: Sequence[EventDraft],
    end: ev.Fact,
    output: OutputChange | None = None,
) -> None:
    """End the job with `end`, or as blocked if `drafts` say that an attempt was (promise P2), and cancel upstream."""
    blocked = any(isinstance(fact, ev.Blocked) for fact, _ in drafts)
    for number, reader in list(attempts.readers.items()):  # stopped, perhaps after an error had been reported
        words = await attempts.provider_message(recorder.job, reader)
        output = await recorder.add_provider_message(number, words) or output  # contains all that came before
    if recorder.job.draft_attempt is not None:
        output = await recorder.update_content(draft=None)
    await recorder.commit(drafts if blocked else [*drafts, (end, None)], output)
    await attempts.cancel_upstream()
