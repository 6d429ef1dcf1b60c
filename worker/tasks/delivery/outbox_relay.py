"""Relays messages from the outbox into the queues of their targets: who receives an event, and with which body.

One worker at a time does this, oldest first, so messages of a job enter each queue in the order of its events. The
body is built here, once: from the record as of the event, so that a message never contains more than its event.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, NamedTuple

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs import events as ev, fold, ids
from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable, Refused
from worker.jobs.record import Job
from worker.jobs.timestamps import iso_ms
from worker.store.jobs import batch_reads
from worker.store.jobs.outbox_jobs import OutboxJob, as_outbox_job, load_event_ranges, load_outbox_jobs
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import StoredJob
from worker.store.values import report_unreadable
from worker.store.webhooks.delivery_queue import DeliveryQueue, RoutedEntry, RoutedMessage
from worker.store.webhooks.endpoints import Endpoint, Endpoints, Listening
from worker.store.webhooks.outbox import OutboxMessage, trace_of
from worker.telemetry.internal_errors import report_internal_error
from worker.webhooks.guard import AddressPolicy, CheckedUrl, check_url
from worker.webhooks.message import WebhookEvent, base_of, body_of
from worker.webhooks.registrable_domain import receiver_of

_BATCH_SIZE: Final = 100
_MAX_COMMANDS: Final = 2_000
"""How many commands one batch writes, so that Redis is not held up; one entry may go over it."""
_MAX_BLOCK_S: Final = 0.01
"""How long messages are made before other tasks of the worker get the loop."""
_WAITING_RETRY_MS: Final = 60_000
_ONLY: Final = "@"
"""Before the endpoint, at the end of an entry that is for that one alone."""
_NOBODY: Final = Listening([], [])
_ANY_ADDRESS: Final = AddressPolicy(allow_private=True)


class _Entry(NamedTuple):
    """One line of the outbox: a message of a job's own webhook, or an event for its app's endpoints.

    `endpoint`: the only one that it is for, which the release that routed it to the others could not read. `newer`: it
    is a message that only a newer release can read.
    """

    name: str
    job_id: str
    type: str
    seq: int
    message: OutboxMessage | None
    endpoint: str = ""
    newer: bool = False


class _EntryContext(NamedTuple):
    """What one entry needs of its job: the record, its events from the needed one on, the endpoints, the answer."""

    record: OutboxJob
    trail: list[dict[str, Any]]
    listening: Listening
    answer: dict[str, Any] | None
    now_ms: int
    waits: bool  # an encryption key that it needs is not here, or only a newer release can read who receives it


class OutboxRelay:
    """Moves messages from the outbox to the queues of their targets."""

    def __init__(
        self,
        redis: ArqRedis,
        jobs: Jobs,
        deliveries: DeliveryQueue,
        endpoints: Endpoints,
        clock: Clock,
        *,
        root_path: str = "",
        public_url: str | None = None,
    ) -> None:
        """`root_path`: what comes before the paths of the API outside; `public_url`: its whole address there."""
        self._jobs, self._root_path, self._public_url = jobs, root_path, public_url
        self._redis, self._deliveries, self._endpoints, self._clock = redis, deliveries, endpoints, clock

    async def relay(self) -> bool:
        """Move one batch; return True if it was not empty, so that there may be more."""
        batch = await self._deliveries.take_outbox(_BATCH_SIZE)
        if batch is None or not batch.entries:
            return False
        entries = await self._entries(batch.entries)
        contexts = await self._contexts(entries, batch.now_ms)
        rows, waiting = [], list[str]()
        written, resumed = 0, self._clock.monotonic()
        for entry, context in zip(entries, contexts, strict=True):
            if written >= _MAX_COMMANDS:
                break  # the rest stays in the outbox for the next batch
            if entry.newer or (context is not None and context.waits):
                waiting.append(entry.name)
                continue
            try:
                messages = self._messages(entry, context)
            except Exception as error:  # noqa: BLE001  one message that can't be built must not stop all others
                report_internal_error("webhook.unmade", error, job_id=entry.job_id)
                messages = self._given_up(entry)
            rows.append(RoutedEntry(entry.name, messages))
            written += sum(len(message.commands) for message in messages)
            if self._clock.monotonic() - resumed > _MAX_BLOCK_S:  # an event for many endpoints takes milliseconds
                await asyncio.sleep(0)
                resumed = self._clock.monotonic()
        await self._deliveries.postpone(waiting, batch.now_ms + _WAITING_RETRY_MS)
        await self._deliveries.commit_routing(rows)
        return bool(rows)

    async def _entries(self, names: Sequence[str]) -> list[_Entry]:
        wanted = [name for name in names if name.startswith("msg_")]
        messages, newer = await self._deliveries.load_messages(wanted)
        out = []
        for name in names:
            message = messages.get(name)
            if message is not None:
                out.append(_Entry(name, message.job_id, message.type, message.seq, message))
                continue
            job_id, _, rest = name.partition(":")
            seq, _, kind = rest.partition(":")
            if name.startswith("msg_") or not seq.isdigit():
                # it is no longer stored, or can't be read
                out.append(_Entry(name, "", "", 0, None, newer=name in newer))
            else:
                kind, _, endpoint = kind.partition(_ONLY)
                out.append(_Entry(name, job_id, kind, int(seq), None, endpoint))
        return out

    async def _contexts(self, entries: Sequence[_Entry], now_ms: int) -> list[_EntryContext | None]:
        """Return what each entry needs of its job, read in a few round trips for all of them."""
        wanted = list({one.job_id for one in entries if one.job_id})
        records = await load_outbox_jobs(self._redis, wanted)
        for job_id in wanted:
            if job_id not in records and (stored := await self._load(job_id)) is not None:
                records[job_id] = await as_outbox_job(self._redis, stored)
        kept = [one for one in entries if one.job_id in records]
        # the record is as of the event, unless more has happened since: then it is folded again from the first event
        spans = [(e.job_id, e.seq if records[e.job_id].job.version == e.seq else 1, e.seq) for e in kept]
        trails = dict(zip((e.name for e in kept), await load_event_ranges(self._redis, spans), strict=True))
        endpoints = {app: await self._endpoints_of(app) for app in {r.job.app for r in records.values()}}
        full = {e.job_id for e in kept if _wants_full(records[e.job_id], endpoints, e)}
        answers = await self._answers(list(full))

        def context_of(one: _Entry) -> _EntryContext | None:
            if one.job_id not in records or not trails[one.name]:
                return None
            record = records[one.job_id]
            listening = endpoints[record.job.app]
            waits = isinstance(record.unreadable, KeyMissing) or listening is None or one.endpoint in listening.newer
            answer = answers.get(one.job_id)
            return _EntryContext(record, trails[one.name], listening or _NOBODY, answer, now_ms, waits)

        return [context_of(one) for one in entries]

    async def _load(self, job_id: str) -> StoredJob | None:
        """Return a job whose record can't be read as it is, with what can be read of it; None if it is gone."""
        try:
            return await self._jobs.load(job_id)
        except RecordUnreadable as error:
            report_unreadable(error)
        except (KeyMissing, ContentDamaged):
            pass
        return None

    async def _endpoints_of(self, app: str) -> Listening | None:
        """Return the app's endpoints; None while the key that they are encrypted with is missing."""
        try:
            return await self._endpoints.listening(app)
        except KeyMissing:
            return None
        except RecordUnreadable as error:
            report_unreadable(error)
            return _NOBODY

    async def _answers(self, job_ids: list[str]) -> dict[str, dict[str, Any]]:
        """Return the answers of these jobs, without those that can't be decrypted: they must not delay the others."""
        found = await batch_reads.outputs_or_none(self._redis, job_ids)
        return {job_id: answer for job_id, answer in found.items() if answer is not None}

    def _messages(self, entry: _Entry, context: _EntryContext | None) -> list[RoutedMessage]:
        """Return the messages that replace the entry; a job that is no longer stored sends nothing any more."""
        if context is None or context.record.unreadable is not None:
            return self._given_up(entry)
        job = context.record.job
        if len(context.trail) > 1 or job.version != entry.seq:
            job = fold.replay(ev.Event.load(body) for body in context.trail)
        event = WebhookEvent(entry.type, entry.seq, datetime.fromisoformat(context.trail[-1]["at"]))
        if entry.message is not None:
            own = self._own(entry.message, job, event, context)
            return self._given_up(entry) if own is None else [own]
        receivers = [one for one in context.listening.known if entry.endpoint in ("", one.id)]
        groups = _by_receiver(receivers, entry.type)
        made = (self._for_endpoint(endpoint, others, job, event, context) for endpoint, *others in groups)
        messages = [message for message in made if message is not None]
        if not entry.endpoint:  # those of a newer release get it once a worker of that release routes it
            due = context.now_ms + _WAITING_RETRY_MS
            messages += [self._deliveries.later(f"{entry.name}{_ONLY}{one}", due) for one in context.listening.newer]
        return messages

    def _for_endpoint(
        self, endpoint: Endpoint, others: Sequence[Endpoint], job: Job, event: WebhookEvent, context: _EntryContext
    ) -> RoutedMessage | None:
        name = ids.new_id("msg", context.now_ms, self._clock.random_bytes(ids.RANDOM_BYTES))
        body = self._body(endpoint.payload, name, job, event, context)
        if body is None:
            return None
        message = OutboxMessage(
            *(name, job.id, job.app, event.type, event.seq, "pending", iso_ms(event.at)),
            endpoint=endpoint.id,
            target=endpoint.id,
            next_try_at=iso_ms(event.at),
            trace=trace_of(job),
            receiver=receiver_name(job.app, endpoint.url),
            shared_with=tuple(one.id for one in others),
        )
        return self._deliveries.enqueue(message, context.record.cipher, endpoint.url, body, context.now_ms)

    def _body(self, kind: str, name: str, job: Job, event: WebhookEvent, context: _EntryContext) -> str | None:
        private = context.record.private
        base = base_of(self._public_url, self._root_path, private)
        return body_of(kind, name, job, event, private, context.answer, base)

    def _own(
        self, message: OutboxMessage, job: Job, event: WebhookEvent, context: _EntryContext
    ) -> RoutedMessage | None:
        """Return the message to the job's own webhook; None if its address is lost with the job's private part.

        The target is the receiver's origin, so a dead receiver delays no other one.
        """
        hook = context.record.private.get("webhook") or {}
        if not isinstance(hook.get("url"), str):
            return None
        body = self._body(str(hook.get("payload")), message.id, job, event, context)
        if body is None:
            return self._deliveries.drop(message)
        url = str(hook["url"])
        message = replace(message, target=target_of(job.app, url), receiver=receiver_name(job.app, url))
        return self._deliveries.enqueue(message, context.record.cipher, url, body, context.now_ms)

    def _given_up(self, entry: _Entry) -> list[RoutedMessage]:
        if entry.message is None:
            return []
        return [self._deliveries.settle(replace(entry.message, state="exhausted", next_try_at=None))]


def _by_receiver(endpoints: Sequence[Endpoint], event_type: str) -> Iterable[list[Endpoint]]:
    """Return the endpoints that want an event, those with one URL and payload together: they get one message.

    Those that are paused are alone, as each gets what it missed once it is active again.
    """
    groups: dict[tuple[str, ...], list[Endpoint]] = {}
    for one in endpoints:
        if event_type in one.events and one.state != "gone":
            groups.setdefault((one.url, one.payload) if one.state == "active" else (one.id,), []).append(one)
    return groups.values()


def target_of(app: str, url: str) -> str:
    """Return the name of the queue for an app's per-job webhooks to one origin."""
    parsed = _parsed(url)
    return "wu_" + _digest(app, parsed.origin if parsed else url)


def receiver_name(app: str, url: str) -> str:
    """Return under which name an app's messages to a URL are counted, "" if it can't be called; it reveals neither."""
    parsed = _parsed(url)
    return "to_" + _digest(app, receiver_of(parsed)) if parsed else ""


def _parsed(url: str) -> CheckedUrl | None:
    """Return the parts of a URL, or None if it can't be called; whether it may be is judged when it is called."""
    try:
        return check_url(url, _ANY_ADDRESS)
    except Refused:
        return None


def _digest(app: str, name: str) -> str:
    return hashlib.sha256(f"{app}\0{name}".encode()).hexdigest()[:24]


def _wants_full(record: OutboxJob, endpoints: dict[str, Listening | None], entry: _Entry) -> bool:
    if entry.message is not None:
        return (record.private.get("webhook") or {}).get("payload") == "full"
    return any(
        one.payload == "full" and entry.type in one.events for one in (endpoints[record.job.app] or _NOBODY).known
    )
