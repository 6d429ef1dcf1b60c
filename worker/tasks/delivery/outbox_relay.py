"""Messages on their way from the outbox into the queues of their targets: who hears of it, and in which words.

One worker at a time does this, oldest first, so messages of a job enter each queue in the order of its events. The
body is made here, once: from the record as it was at the event, so a message never says more than its event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs import events as ev, fold, ids
from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable
from worker.jobs.record import Job
from worker.store.commands import Command
from worker.store.jobs import batch_reads
from worker.store.jobs.outbox_jobs import OutboxJob, as_outbox_job, load_event_ranges, load_outbox_jobs
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import StoredJob
from worker.store.values import report_unreadable
from worker.store.webhooks.delivery_queue import DeliveryQueue, RoutedEntry
from worker.store.webhooks.endpoints import Endpoint, Endpoints
from worker.store.webhooks.outbox import OutboxMessage, iso_time, trace_of
from worker.telemetry.internal_errors import broke
from worker.webhooks.guard import AddressPolicy, check_url
from worker.webhooks.message import WebhookEvent, body_of

_BATCH: Final = 100
_LOCKED_MS: Final = 60_000


class _Entry(NamedTuple):
    """One line of the outbox: a message of a job's own webhook, or an event for its app's endpoints."""

    name: str
    job_id: str
    type: str
    seq: int
    message: OutboxMessage | None


class _EntryContext(NamedTuple):
    """What is known of one entry's job: its record, its events from the needed one on, who listens, what came back."""

    record: OutboxJob
    story: list[dict[str, Any]]
    hearers: list[Endpoint]
    answer: dict[str, Any] | None
    now_ms: int
    locked: bool  # a key that it takes is not here: it waits for it


class OutboxRelay:
    """Carries messages to their targets."""

    def __init__(
        self, redis: ArqRedis, jobs: Jobs, deliveries: DeliveryQueue, endpoints: Endpoints, clock: Clock
    ) -> None:
        self._jobs = jobs
        self._redis, self._deliveries, self._endpoints, self._clock = redis, deliveries, endpoints, clock

    async def carry(self) -> bool:
        """One turn; True when there was something to carry, so there may be more."""
        turn = await self._deliveries.take_outbox(_BATCH)
        if turn is None or not turn.entries:
            return False
        entries = await self._entries(turn.entries)
        known = await self._known(entries, turn.now_ms)
        rows, locked = [], list[str]()
        for entry, about in zip(entries, known, strict=True):
            if about is not None and about.locked:
                locked.append(entry.name)
                continue
            try:
                commands = self._commands(entry, about)
            except Exception as error:  # noqa: BLE001  one message that can't be made must not stop all others
                broke("webhook.unmade", error, job_id=entry.job_id)
                commands = self._given_up(entry)
            rows.append(RoutedEntry(entry.name, commands))
        await self._deliveries.postpone(locked, turn.now_ms + _LOCKED_MS)
        await self._deliveries.commit_routing(rows)
        return bool(rows)

    async def _entries(self, names: Sequence[str]) -> list[_Entry]:
        messages = await self._deliveries.load_messages([name for name in names if name.startswith("msg_")])
        out = []
        for name in names:
            message = messages.get(name)
            if message is not None:
                out.append(_Entry(name, message.job_id, message.type, message.seq, message))
                continue
            job_id, _, rest = name.partition(":")
            seq, _, kind = rest.partition(":")
            if name.startswith("msg_") or not seq.isdigit():
                out.append(_Entry(name, "", "", 0, None))  # it is no longer kept, or can't be read
            else:
                out.append(_Entry(name, job_id, kind, int(seq), None))
        return out

    async def _known(self, entries: Sequence[_Entry], now_ms: int) -> list[_EntryContext | None]:
        """What is known of each entry's job, read in a few trips for all of them."""
        wanted = list({one.job_id for one in entries if one.job_id})
        records = await load_outbox_jobs(self._redis, wanted)
        for job_id in wanted:
            if job_id not in records and (stored := await self._otherwise(job_id)) is not None:
                records[job_id] = await as_outbox_job(self._redis, stored)
        kept = [one for one in entries if one.job_id in records]
        # the record is the one as of the event, unless more has happened since: then it is made again from the start
        spans = [(e.job_id, e.seq if records[e.job_id].job.version == e.seq else 1, e.seq) for e in kept]
        stories = dict(zip((e.name for e in kept), await load_event_ranges(self._redis, spans), strict=True))
        hearers = {app: await self._hearers(app) for app in {r.job.app for r in records.values()}}
        full = {e.job_id for e in kept if _wants_all(records[e.job_id], hearers, e)}
        answers = await self._answers(list(full))

        def about(one: _Entry) -> _EntryContext | None:
            if one.job_id not in records or not stories[one.name]:
                return None
            record = records[one.job_id]
            listening = hearers[record.job.app]
            locked = isinstance(record.unreadable, KeyMissing) or listening is None
            return _EntryContext(record, stories[one.name], listening or [], answers.get(one.job_id), now_ms, locked)

        return [about(one) for one in entries]

    async def _otherwise(self, job_id: str) -> StoredJob | None:
        """A job whose record can't be read as it is, as it can be told of all the same; None when it is gone."""
        try:
            return await self._jobs.load(job_id)
        except RecordUnreadable as error:
            report_unreadable(error)
        except (KeyMissing, ContentDamaged):
            pass
        return None

    async def _hearers(self, app: str) -> list[Endpoint] | None:
        """The app's endpoints; None while the key that they are sealed under is missing."""
        try:
            return await self._endpoints.of_app(app)
        except KeyMissing:
            return None
        except RecordUnreadable as error:
            report_unreadable(error)
            return []

    async def _answers(self, job_ids: list[str]) -> dict[str, dict[str, Any]]:
        """What came back; an answer that can't be opened must not hold up the others."""
        found = await batch_reads.outputs_or_none(self._redis, job_ids)
        return {job_id: answer for job_id, answer in found.items() if answer is not None}

    def _commands(self, entry: _Entry, known: _EntryContext | None) -> list[Command]:
        """What stands in the entry's place; a job that is no longer kept has nothing left to tell."""
        if known is None or known.record.unreadable is not None:
            return self._given_up(entry)
        job = known.record.job
        if len(known.story) > 1 or job.version != entry.seq:
            job = fold.replay(ev.Event.load(body) for body in known.story)
        told = WebhookEvent(entry.type, entry.seq, datetime.fromisoformat(known.story[-1]["at"]))
        if entry.message is not None:
            own = self._own(entry.message, job, told, known)
            return self._given_up(entry) if own is None else own
        commands: list[Command] = []
        for endpoint in known.hearers:
            if entry.type in endpoint.events and endpoint.state != "gone":
                commands += self._for_endpoint(endpoint, job, told, known)
        return commands

    def _for_endpoint(self, endpoint: Endpoint, job: Job, told: WebhookEvent, known: _EntryContext) -> list[Command]:
        name = ids.new_id("msg", known.now_ms, self._clock.dice(ids.DICE_BYTES))
        body = body_of(endpoint.payload, name, job, told, known.record.private, known.answer)
        if body is None:
            return []
        message = OutboxMessage(
            *(name, job.id, job.app, told.type, told.seq, "pending", iso_time(told.at)),
            endpoint=endpoint.id,
            target=endpoint.id,
            next_try_at=iso_time(told.at),
            trace=trace_of(job),
        )
        return self._deliveries.enqueue_commands(message, known.record.cipher, endpoint.url, body, known.now_ms)

    def _own(self, message: OutboxMessage, job: Job, told: WebhookEvent, known: _EntryContext) -> list[Command] | None:
        """The job's own webhook: its target is the receiver's origin, so a dead one holds up nobody else's. None when
        its address is lost with the job's private part.
        """
        hook = known.record.private.get("webhook") or {}
        if not isinstance(hook.get("url"), str):
            return None
        body = body_of(str(hook.get("payload")), message.id, job, told, known.record.private, known.answer)
        if body is None:
            return self._deliveries.drop_commands(message)
        url = str(hook["url"])
        message = replace(message, target=target_of(job.app, url))
        return self._deliveries.enqueue_commands(message, known.record.cipher, url, body, known.now_ms)

    def _given_up(self, entry: _Entry) -> list[Command]:
        if entry.message is None:
            return []
        return self._deliveries.settle_commands(replace(entry.message, state="exhausted", next_try_at=None))


def target_of(app: str, url: str) -> str:
    """The queue of an app's per-job webhooks to one origin."""
    origin = check_url(url, AddressPolicy(allow_private=True)).origin  # whether it may be called is judged when it is
    return "wu_" + hashlib.sha256(f"{app}\0{origin}".encode()).hexdigest()[:24]


def _wants_all(record: OutboxJob, hearers: dict[str, list[Endpoint] | None], entry: _Entry) -> bool:
    if entry.message is not None:
        return (record.private.get("webhook") or {}).get("payload") == "full"
    return any(one.payload == "full" and entry.type in one.events for one in hearers[record.job.app] or ())
