"""Create webhook messages in the commit of the event that they report, so that none is lost between the two.

A job's own webhook gets its message at once. For standing endpoints the commit itself checks in Redis whether any
endpoint of the app wants the event (`IF` in run_commands.lua): an app without endpoints costs one read of a missing
key, and a new endpoint is known to every process at once. Body and receivers are looked up when it is sent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs import ids
from worker.jobs.errors import Refused
from worker.jobs.events import Event
from worker.jobs.record import Job
from worker.jobs.stored_fields import StoredFields, dump_fields, load_fields
from worker.jobs.timestamps import iso_ms
from worker.jobs.view_schema import MessageState
from worker.store import channels, keys
from worker.store.commands import Command
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import keyring_of
from worker.store.envelope import tries_field
from worker.store.errors import store_errors
from worker.store.values import pipeline_replies, read, readable

_SEQ_DIGITS: Final = 10
_STEPS_PER_MS: Final = 4096  # a float64 of today's milliseconds has that many steps between two of them
_MAX_CHANGE_TRIES: Final = 5
_OLD_FIELD: Final = "deliveries"  # receipts have a list of their own; an older release reads this field
_SPACING_MS: Final = 20
_MAX_BEHIND_MS: Final = 600_000
"""Entries of one app are so far apart, and at most so far behind their time: others come before a crowd."""


@dataclass(frozen=True, slots=True)
class OutboxMessage(StoredFields):
    """One event for one receiver. Without content: the body is stored sealed under a key of its own."""

    id: str
    job_id: str
    app: str
    type: str
    seq: int
    state: MessageState
    created_at: str
    endpoint: str = ""  # a standing endpoint's id; empty = the job's own webhook
    target: str = ""  # in whose queue it is; empty = not routed yet
    tries: int = 0  # scheduled tries made so far
    next_try_at: str | None = None
    before: MessageState | Literal[""] = ""  # its state before a manual redelivery
    planned: str | None = None  # … and when its next scheduled try would have been
    trace: str = ""  # the carrier of the submit's trace, as JSON
    receiver: str = ""  # whose allowance it is counted in; empty = its target's
    shared_with: tuple[str, ...] = ()  # more standing endpoints at the same URL, which get this message too

    @property
    def member(self) -> str:
        """Return its name in a target's queue; it sorts by job and seq."""
        return f"{self.job_id}:{self.seq:0{_SEQ_DIGITS}}:{self.id}"

    @property
    def carrier(self) -> dict[str, str]:
        """Return the trace context of the submit, for the span of a delivery."""
        carrier: dict[str, str] = json.loads(self.trace) if self.trace else {}
        return carrier

    def dump(self) -> str:
        """Encode the message for Redis."""
        return json.dumps({**dump_fields(self), _OLD_FIELD: []})


def load_message(raw: bytes) -> OutboxMessage:
    """Decode a message. Raises ValueError, TypeError, LookupError for anything else, NewerSchema."""
    body = {name: value for name, value in json.loads(raw).items() if name != _OLD_FIELD}
    message = load_fields(OutboxMessage, body, shared_with=tuple(body.get("shared_with") or ()))
    texts = [message.id, message.job_id, message.app, message.type, message.created_at, message.target, message.trace]
    texts += [message.receiver, *message.shared_with]
    if message.state not in get_args(MessageState) or not all(isinstance(text, str) for text in texts):
        raise ValueError("not a message")
    if not all(isinstance(number, int) for number in (message.seq, message.tries)):
        raise TypeError("not a message")
    return message


def outbox_commands(job: Job, trail: Sequence[Event], clock: Clock) -> list[Command]:
    """Return the commands by which a commit of these events fills the outbox."""
    commands: list[Command] = []
    pace = ("PACE", keys.OUTBOX, keys.outbox_clock(job.app), _SPACING_MS, _MAX_BEHIND_MS)
    for event in trail:
        due, wanted = to_ms(event.at), keys.endpoint_events(job.app)
        score = outbox_score(due, event.seq)  # events of one commit have one time
        commands.append(("IF", wanted, event.type, *pace, score, f"{job.id}:{event.seq}:{event.type}"))
        commands.append(("IF", wanted, event.type, "PUBLISH", channels.OUTBOX_FILLED, "1"))
        if event.type in job.webhook_events:
            message_id = ids.new_id("msg", due, clock.random_bytes(ids.RANDOM_BYTES))
            at = event.dump()["at"]
            message = OutboxMessage(
                *(message_id, job.id, job.app, event.type, event.seq, "pending", at),
                next_try_at=at,
                trace=trace_of(job),
            )
            commands.append(("SET", keys.message(message_id), message.dump()))
            commands.append(("RPUSH", keys.messages(job.id), message_id))
            commands.append((*pace, score, message_id))
            commands.append(("PUBLISH", channels.OUTBOX_FILLED, "1"))
    return commands


def outbox_score(ms: int, number: int) -> float:
    """Return the score of an entry of the outbox: by time, and within a millisecond by number."""
    return ms + min(number, _STEPS_PER_MS - 1) / _STEPS_PER_MS


def trace_of(job: Job) -> str:
    """Encode the job's trace context for a message."""
    return json.dumps(job.trace) if job.trace else ""


async def message_ids_of(redis: ArqRedis, job_id: str) -> list[str]:
    """Return the ids of the job's messages, those of its own webhook first."""
    names = [keys.messages(job_id), keys.endpoint_messages(job_id)]
    async with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.lrange(name, 0, -1)
        return [raw.decode(errors="replace") for row in await pipeline_replies(pipe, names) for raw in row or ()]


class Outbox:
    """The messages of jobs, as their app reads and redelivers them."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock = redis, clock
        self._redeliver: Any = script(redis, "webhooks/redeliver")

    async def of_job(self, job_id: str) -> list[tuple[OutboxMessage, list[dict[str, Any]]]]:
        """Return every message of the job with its receipts, by seq."""
        async with store_errors("read the messages"):
            found = await message_ids_of(self._redis, job_id)
        pairs = (await self.named(found)).values()
        return sorted(pairs, key=lambda pair: (pair[0].seq, pair[0].id))

    async def named(
        self, message_ids: Sequence[str], *, receipts: bool = True
    ) -> dict[str, tuple[OutboxMessage, list[dict[str, Any]]]]:
        """Return the messages by id, each with its receipts if they are wanted; leave out those that are gone."""
        names = [name for one in message_ids for name in (keys.message(one), keys.tries(one))]
        async with store_errors("read the messages"), self._redis.pipeline(transaction=False) as pipe:
            for one in message_ids:
                pipe.get(keys.message(one))
                pipe.lrange(keys.tries(one), 0, -1 if receipts else 0)
            rows = await pipeline_replies(pipe, names)
        tries = dict(zip(names[::2], rows[1::2], strict=True))
        messages = readable(zip(names[::2], rows[::2], strict=True), load_message)
        pairs = [
            (message, self._receipts(message, tries[name] or []) if receipts else []) for name, message in messages
        ]
        return {message.id: (message, deliveries) for message, deliveries in pairs}

    def _receipts(self, message: OutboxMessage, rows: list[bytes]) -> list[dict[str, Any]]:
        field, keyring, key = tries_field(message.id), keyring_of(self._redis), keys.tries(message.id)
        opened = readable(
            ((key, raw) for raw in rows), lambda raw: dict(keyring.open(message.app, message.job_id, field, raw)[1])
        )
        return [receipt for _, receipt in opened]

    async def redeliver(self, job_id: str, message_id: str) -> OutboxMessage:
        """Make the message due now and return it; one that is being sent stays as it is. Raises Refused."""
        for _ in range(_MAX_CHANGE_TRIES):
            async with store_errors("read the message", keys.message(message_id)):
                raw = await self._redis.get(keys.message(message_id))
            current = read(keys.message(message_id), raw, load_message) if raw else None
            if current is None or current.job_id != job_id:
                raise Refused("message_not_found", "The job has no such message.", 404)
            if not current.target or current.before:
                return current  # it is about to be sent
            at = iso_ms(self._clock.now())
            due = replace(current, state="pending", next_try_at=at, before=current.state, planned=current.next_try_at)
            async with store_errors("send the message again"):
                verdict = await self._redeliver(
                    keys=[keys.TARGETS, keys.SENDING, keys.target_queue(current.target), keys.message(message_id)],
                    args=[current.target, current.member, raw, due.dump()],
                )
                await self._redis.publish(channels.OUTBOX_FILLED, "1")
            if verdict == b"UNDER_WAY":
                return current
            if verdict == b"OK":
                return due
        raise Refused("message_busy", "The message is changing right now; read it again before you retry.", 409)
