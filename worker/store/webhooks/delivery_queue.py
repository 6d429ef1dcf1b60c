"""The way of a message from the outbox to its receiver, in Redis: whose turn it is, what is due, what came of a try.

Each target has a queue of its own. A message that is being sent stands in `sending` under a lease, so a dead worker's
messages are sent again by another one: at least once. Must not know: what is sent, how, or what an answer means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from arq.connections import ArqRedis

from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable
from worker.jobs.record import Job
from worker.store import keys
from worker.store.commands import Command, CommandArg
from worker.store.connection.errors import store_errors
from worker.store.connection.job_keys import ciphers_for_writing, require_object
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import keyring_of
from worker.store.envelope import PRIVATE, JobCipher, body_field, tries_field
from worker.store.jobs.stored_job import StoredJob
from worker.store.jobs.unreadable_records import parse_events, read_job
from worker.store.values import pipeline_replies, read, readable, report_unreadable, valid_members
from worker.store.webhooks.outbox import OutboxMessage, load_message, outbox_score

_ROUTER_LOCK_MS: Final = 3_000
_FULL_APP_RETRY_MS: Final = 250
_MAX_RECEIPTS: Final = 50


class OutboxBatch(NamedTuple):
    """What waits in the outbox: message ids, and `<job>:<seq>:<event>` for the app's standing endpoints."""

    now_ms: int
    entries: list[str]


class OutboxJob(NamedTuple):
    """A job as it stands: the record, and what only its app may see."""

    job: Job
    private: dict[str, Any]
    cipher: JobCipher
    unreadable: KeyMissing | ContentDamaged | None = None


class RoutedEntry(NamedTuple):
    """An entry of the outbox, and what stands in its place."""

    entry: str
    commands: Sequence[Command]


@dataclass(frozen=True, slots=True)
class ClaimedMessage:
    """A message that is ours to send while the token holds."""

    target: str
    member: str
    token: str
    message: OutboxMessage
    url: str = field(repr=False)
    body: str = field(repr=False)
    cipher: JobCipher = field(repr=False)
    unreadable: KeyMissing | ContentDamaged | None = None


class DeliveryQueue:
    """All that the sending worker does in Redis."""

    def __init__(self, redis: ArqRedis, worker_id: str, *, per_target: int, keep: int, max_pending: int) -> None:
        """`keep`: seconds that a settled message is kept; `max_pending`: seconds that one may stay unsettled."""

        def load(name: str) -> Any:
            return script(redis, name)

        self._redis, self._worker_id, self._per_target = redis, worker_id, per_target
        self._keyring = keyring_of(redis)
        self._keep, self._unsettled = keep, keep + max_pending
        self._route, self._routed, self._take = (
            load("webhooks/take_outbox"),
            load("webhooks/commit_routing"),
            load("webhooks/claim_due"),
        )
        self._sent, self._hold = load("webhooks/record_try"), load("webhooks/extend_lease")

    async def take_outbox(self, most: int) -> OutboxBatch | None:
        """The oldest entries of the outbox; None while another worker carries them."""
        async with store_errors("look into the outbox"):
            rows = await self._route(
                keys=[keys.ROUTER_LOCK, keys.OUTBOX], args=[self._worker_id, _ROUTER_LOCK_MS, most]
            )
        return (
            None if rows is None else OutboxBatch(int(rows[0]), await valid_members(self._redis, keys.OUTBOX, rows[1:]))
        )

    async def load_messages(self, message_ids: Sequence[str]) -> dict[str, OutboxMessage]:
        """The messages by id; missing ones are missing."""
        if not message_ids:
            return {}
        async with store_errors("read the messages"):
            rows = await self._redis.mget([keys.message(one) for one in message_ids])
        names = {keys.message(one): one for one in message_ids}
        return {names[key]: message for key, message in readable(zip(names, rows, strict=True), load_message)}

    async def load_jobs(self, job_ids: Sequence[str]) -> dict[str, OutboxJob]:
        """The jobs as they stand, in one trip; those that are no longer kept, or can't be read, are missing."""
        async with store_errors("read the jobs"), self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hmget(keys.job(job_id), "rec", "priv")
            rows = await pipeline_replies(pipe, map(keys.job, job_ids))
        found: dict[str, OutboxJob] = {}
        for job_id, row in zip(job_ids, rows, strict=True):
            if row is not None and row[0]:
                try:
                    found[job_id] = self._outbox_job(read_job(job_id, row[0]), row[1])
                except RecordUnreadable as error:
                    report_unreadable(error)
        return found

    async def as_outbox_job(self, stored: StoredJob) -> OutboxJob:
        """The same for a job that was read otherwise, because its record can't be read as it is."""
        ciphers = await ciphers_for_writing(self._redis, [stored.job.id])
        return OutboxJob(stored.job, stored.private, ciphers[stored.job.id])

    def _outbox_job(self, job: Job, private: bytes | None) -> OutboxJob:
        try:
            cipher, opened = self._keyring.open(job.app, job.id, PRIVATE, private)
            return OutboxJob(job, require_object(job.id, PRIVATE, opened) or {}, cipher)
        except (KeyMissing, ContentDamaged) as error:
            return OutboxJob(job, {}, self._keyring.ephemeral(job.id), error)

    async def load_events(self, wanted: Sequence[tuple[str, int, int]]) -> list[list[dict[str, Any]]]:
        """For each (job id, from seq, to seq) those events of the job, in one trip."""
        async with store_errors("read the trails"), self._redis.pipeline(transaction=False) as pipe:
            for job_id, first, last in wanted:
                pipe.lrange(keys.trail(job_id), first - 1, last - 1)
            rows = await pipeline_replies(pipe, (keys.trail(job_id) for job_id, _, _ in wanted))
        return [parse_events(row or ()) for row in rows]

    def enqueue_commands(
        self, message: OutboxMessage, cipher: JobCipher, url: str, body: str, now_ms: int
    ) -> list[Command]:
        """The commands by which a message stands in its target's queue, due at once; `cipher`: its job's."""
        sealed = cipher.seal_with_key(body_field(message.id), {"url": url, "body": body})
        commands: list[Command] = [
            ("SET", keys.message(message.id), message.dump(), "EX", self._unsettled),
            ("SET", keys.body(message.id), sealed, "EX", self._unsettled),
            ("ZADD", keys.target_queue(message.target), now_ms, message.member),
            ("ZADD", keys.TARGETS, "LT", now_ms, message.target),
        ]
        if message.endpoint:
            commands.append(("RPUSH", keys.endpoint_messages(message.job_id), message.id))
            commands.append(("EXPIRE", keys.endpoint_messages(message.job_id), self._unsettled))
        return commands

    def settle_commands(self, message: OutboxMessage) -> list[Command]:
        """The commands by which a message is kept as it is and never sent."""
        return [("SET", keys.message(message.id), message.dump(), "EX", self._keep)]

    @staticmethod
    def drop_commands(message: OutboxMessage) -> list[Command]:
        """The commands by which a message never was."""
        return [("DEL", keys.message(message.id)), ("LREM", keys.messages(message.job_id), 0, message.id)]

    async def postpone(self, entries: Sequence[str], at_ms: int) -> None:
        """These entries stay in the outbox, and are looked at again behind those that came before that time."""
        if entries:
            async with store_errors("postpone messages"):
                later = {entry: outbox_score(at_ms, place) for place, entry in enumerate(entries)}
                await self._redis.zadd(keys.OUTBOX, later, xx=True)

    async def commit_routing(self, rows: Sequence[RoutedEntry]) -> int:
        """The entries are in their queues now; the number of those that nobody else had carried away."""
        args: list[CommandArg] = [self._worker_id]
        for entry, commands in rows:
            args += [entry, len(commands)]
            for command in commands:
                args += [len(command), *command]
        async with store_errors("carry messages to their targets"):
            return int(await self._routed(keys=[keys.ROUTER_LOCK, keys.OUTBOX], args=args))

    async def claim_due(
        self, room: int, lease: float, failing_after: int, under_way: Mapping[str, int]
    ) -> tuple[float, list[ClaimedMessage]]:
        """(seconds until something falls due, or -1; the messages to send now). `under_way`: how many, by app."""
        args: list[CommandArg] = [self._worker_id, room, int(lease * 1000), self._per_target, failing_after]
        args += [keys.TARGET_QUEUE, keys.IN_FLIGHT, keys.MESSAGE, keys.BODY, _FULL_APP_RETRY_MS]
        for app, number in under_way.items():
            args += [app, number]
        names = [keys.TARGETS, keys.SENDING, keys.PAUSED_TARGETS, keys.TARGET_FAILURES, keys.SEND_COUNTER]
        async with store_errors("take messages"):
            wait, rows = await self._take(keys=names, args=args)
        taken = list[ClaimedMessage]()
        for row in rows:
            try:
                taken.append(self._claimed_message(row))
            except RecordUnreadable as error:
                report_unreadable(error)
                await self._drop_unreadable(*(word.decode(errors="replace") for word in row[:2]))
        return (int(wait) / 1000 if wait >= 0 else -1.0), taken

    async def _drop_unreadable(self, target: str, member: str) -> None:
        """Nobody sends a message that can't be read; it is kept as it is, and its target is free for the next."""
        lane, name = member.partition(":")[0], keys.message(member.rpartition(":")[2])
        async with store_errors("drop a message", name), self._redis.pipeline(transaction=True) as pipe:
            pipe.hdel(keys.in_flight(target), lane)
            pipe.zrem(keys.SENDING, f"{target}|{member}")
            pipe.zadd(keys.TARGETS, {target: 0}, lt=True)
            pipe.copy(name, keys.aside(name), replace=True)
            pipe.expire(keys.aside(name), keys.ASIDE_SECONDS)
            pipe.delete(name)
            await pipe.execute()

    def _claimed_message(self, row: list[bytes]) -> ClaimedMessage:
        name = keys.message(row[1].decode(errors="replace").rpartition(":")[2])
        message, sealed, error = read(name, row[3], load_message), None, None
        cipher = self._keyring.ephemeral(message.job_id)
        try:
            cipher, sealed = self._keyring.open(message.app, message.job_id, body_field(message.id), row[4])
        except (KeyMissing, ContentDamaged) as fault:
            error = fault
        what = {"url": "", "body": ""}
        if isinstance(sealed, dict) and isinstance(sealed.get("url"), str) and isinstance(sealed.get("body"), str):
            what = sealed
        elif sealed is not None:
            error = ContentDamaged(message.job_id, body_field(message.id))
        ours = (row[0].decode(), row[1].decode(), row[2].decode())
        return ClaimedMessage(*ours, message, what["url"], what["body"], cipher, error)

    async def extend_lease(self, taken: Sequence[ClaimedMessage], lease: float) -> int:
        """The leases of these go on; with 0 seconds they are given back at once. How many were still ours."""
        if not taken:
            return 0
        args: list[CommandArg] = [int(lease * 1000), keys.IN_FLIGHT]
        for one in taken:
            args += [one.target, one.member, one.token]
        async with store_errors("hold messages"):
            return int(await self._hold(keys=[keys.SENDING], args=args))

    async def record_try(
        self,
        taken: ClaimedMessage,
        after: OutboxMessage,
        *,
        retry_in: float | None = None,
        result: Literal["ok", "failed", ""] = "",
        receipt: dict[str, Any] | None = None,
    ) -> bool:
        """The message stands as `after`, tried again in so many seconds; False when the lease was lost before."""
        m, target = taken.message, taken.target
        own = keys.endpoint_messages(m.job_id) if m.endpoint else keys.messages(m.job_id)
        names = [keys.TARGETS, keys.SENDING, keys.TARGET_FAILURES, keys.target_queue(target), keys.in_flight(target)]
        names += [keys.message(m.id), keys.body(m.id), keys.tries(m.id), own]
        keep = self._keep if retry_in is None else self._unsettled
        wait = -1 if retry_in is None else max(0, round(retry_in * 1000))
        sealed = taken.cipher.seal_with_key(tries_field(m.id), receipt) if receipt is not None else b""
        args = [target, taken.member, taken.token, after.dump(), keep, wait, result, sealed, _MAX_RECEIPTS]
        async with store_errors("keep a receipt"):
            return bool(await self._sent(keys=names, args=args))

    async def set_refused(self, job_id: str) -> None:
        """The job's own webhook wants to hear no more."""
        async with store_errors("note a refusal"):
            await self._redis.set(keys.webhook_refused(job_id), "1", ex=self._unsettled)

    async def is_refused(self, job_id: str) -> bool:
        """True once the job's own webhook has refused."""
        async with store_errors("look for a refusal"):
            return bool(await self._redis.exists(keys.webhook_refused(job_id)))
