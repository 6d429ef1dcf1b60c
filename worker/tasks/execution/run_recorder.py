"""Records what happens in one run: holds the job as of the last commit, and makes every commit of the run.

It turns facts into commits and keeps content that Redis does not take from blocking the end of a job. It decides
nothing, and does not know the attempts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

from worker.jobs.deadline import deadline_of
from worker.jobs.errors import ContentTooLarge, StoreFull, StoreUnavailable
from worker.jobs.events import EventDraft
from worker.jobs.record import Job
from worker.jobs.states import UNDER_WAY
from worker.safety import event_mapping
from worker.safety.provider_message import ProviderMessage
from worker.store.admission.pacing import MeterChange
from worker.store.connection.capacity import ALWAYS_TAKEN
from worker.store.jobs.stored_job import ClaimedJob, OutputChange
from worker.tasks.execution.context import RunContext
from worker.tasks.execution.unstored_change import RetryWait, ends_job, without_content
from worker.tasks.store_retry import retry_store
from worker.telemetry.events import emit
from worker.telemetry.tracing import committing

_EMPTY_CONTENT: Final[dict[str, Any]] = {
    "output_text": None,
    "output": [],
    "refusal": None,
    "draft": None,
    "provider_messages": {},  # exactly as they came
    "shown_messages": {},  # what of them the app and the support packet show
}

_TOO_LARGE_AFTER: Final = 3  # lost large writes, each followed by a small one that passed


class RunRecorder:
    """`job` is the record as of our last commit; `done` is True once the job is settled, waits, or was handed over."""

    def __init__(self, context: RunContext, claimed: ClaimedJob) -> None:
        self._context, self._token = context, claimed.token
        self.job = claimed.job
        self.done = False
        self._meters: list[MeterChange] = []
        self._content: dict[str, Any] | None = None

    def tell(self, changes: Sequence[MeterChange]) -> None:
        """Make these changes with the next commit."""
        self._meters += changes

    async def commit(self, drafts: Sequence[EventDraft], output: OutputChange | None = None) -> None:
        """Record the facts and what follows from them, in one commit; retry while Redis is unavailable.

        Content that Redis does not accept, or not before the job's deadline, is left out, and an answer that had to be
        left out ends the job as failed, with that reason. Raises LeaseLost if another worker holds the lease (only
        Redis can say so), AlreadySettled if the job has ended.
        """
        if not drafts:
            return
        if output is not None and ends_job(drafts):
            output = await self._context.jobs.archive_output(output)
        meters, self._meters = self._meters, []
        retry_wait, lost, left_out = RetryWait(self._context.clock), 0, False
        while True:
            try:
                self.job = await self._change(drafts, output, meters)
                break
            except ContentTooLarge as error:
                fault: ContentTooLarge | StoreUnavailable = error
            except StoreUnavailable as error:
                fault = error
            full = isinstance(fault, StoreFull)
            lost = lost + 1 if not full and await self._only_large_writes_fail(output) else 0
            late = full and self.seconds_to_deadline() <= 0
            if not left_out and (isinstance(fault, ContentTooLarge) or lost == _TOO_LARGE_AFTER or (late and output)):
                size = fault.size if isinstance(fault, ContentTooLarge) else _size(output)
                emit("answer.too_large", size_bytes=size, reason="full" if late else "too_large")
                drafts, output, left_out = self._without_content(drafts)
            elif isinstance(fault, StoreUnavailable):
                await retry_wait.wait(fault, self.seconds_to_deadline())
            else:
                raise fault
        self.done = self.job.status not in UNDER_WAY

    async def _change(
        self, drafts: Sequence[EventDraft], output: OutputChange | None, meters: Sequence[MeterChange]
    ) -> Job:
        with committing():
            return await self._context.jobs.change(
                self.job.id,
                lambda job: event_mapping.with_consequences(job, drafts),
                job=self.job,
                token=self._token,
                output=output,
                meters=meters,
            )

    async def _only_large_writes_fail(self, output: OutputChange | None) -> bool:
        """Return whether a large write fails while small ones pass.

        A server that does not let us read its limits just closes the connection on a value that is too large.
        """
        return _size(output) > ALWAYS_TAKEN and await self._context.jobs.accepts_writes()

    def _without_content(
        self, drafts: Sequence[EventDraft]
    ) -> tuple[list[EventDraft], OutputChange | None, Literal[True]]:
        self._content = None  # it is read again: the copy here is not what is stored
        kept = without_content(drafts)
        return kept, OutputChange(self.job.id, None) if ends_job(kept) else None, True

    def seconds_to_deadline(self) -> float:
        """Return the seconds until the job's deadline; inf if it has none."""
        deadline = deadline_of(self.job)
        return math.inf if deadline is None else (deadline.at - self._context.clock.now()).total_seconds()

    async def update_content(self, **changes: Any) -> OutputChange:
        """Return the job's content with `changes`, sealed: output, refusal, draft, provider messages.

        It goes into the next commit, and contains all earlier changes. The content is read once, if an earlier attempt
        may have left some.
        """
        jobs, job_id = self._context.jobs, self.job.id
        content = self._content = {**await self._stored_content(), **changes}
        return await retry_store(lambda: jobs.seal_output(job_id, content))

    async def _stored_content(self) -> dict[str, Any]:
        jobs, job_id = self._context.jobs, self.job.id
        if self._content is None and len(self.job.attempts) <= 1:
            self._content = dict(_EMPTY_CONTENT)  # there was no earlier attempt to leave any
        if self._content is None:
            self._content = await retry_store(lambda: jobs.load_output(job_id)) or dict(_EMPTY_CONTENT)
        return self._content

    async def add_provider_message(self, number: int, words: ProviderMessage | None) -> OutputChange | None:
        """Return the job's content with the provider's own words on attempt `number`; None if there are none."""
        if words is None:
            return None
        content = await self._stored_content()
        exact = {**content.get("provider_messages", {}), str(number): words.exact}
        shown = {**content.get("shown_messages", {}), str(number): {"text": words.shown, "cut": list(words.cut)}}
        return await self.update_content(provider_messages=exact, shown_messages=shown)

    async def reload(self) -> None:
        """Read the record again: the API may have written to it."""
        stored = await retry_store(lambda: self._context.jobs.load(self.job.id))
        self.job = stored.job if stored is not None else self.job


def _size(output: OutputChange | None) -> int:
    return 0 if output is None else output.size
