"""Move webhook messages from the outbox to the queues of their targets, lease due ones to a worker, and record tries.

Each target has a queue of its own. A message that is being sent is in `sending` under a lease, so the messages of a
dead worker are sent again by another one: delivery is at least once. Nothing is sent here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from arq.connections import ArqRedis

from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable
from worker.store import keys
from worker.store.commands import Command, CommandArg
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import keyring_of
from worker.store.envelope import JobCipher, body_field, tries_field
from worker.store.errors import store_errors
from worker.store.values import needs_newer_release, read, readable, report_unreadable, valid_members
from worker.store.webhooks.failing_endpoints import FailurePatience
from worker.store.webhooks.outbox import OutboxMessage, load_message, outbox_score

_ROUTER_LOCK_MS: Final = 3_000
_FULL_APP_RETRY_MS: Final = 250
_NEWER_RETRY_S: Final = 15  # until a message is claimed again that only a newer release can read
_MAX_RECEIPTS: Final = 50
MAX_LISTED: Final = 10_000
"""The messages of an app that are listed by their last try."""
_RECEIVER_ALLOWANCE: Final = (8, 1.0, 64)
"""The allowance of a receiver: messages at first, a second while it does not acknowledge, and under way at most."""
_APP_ALLOWANCE: Final = (32, 4.0)
"""The allowance of an app, counted over its receivers that have not acknowledged the last message."""


class OutboxBatch(NamedTuple):
    """Entries of the outbox: message ids, and `<job>:<seq>:<event>` for the app's standing endpoints."""

    now_ms: int
    entries: list[str]


@dataclass(frozen=True, slots=True)
class RoutedMessage:
    """What routing does to one message: it is enqueued, dropped, or stored as never sent. Made by DeliveryQueue."""

    commands: tuple[Command, ...] = field(repr=False)


class RoutedEntry(NamedTuple):
    """An entry of the outbox, and the messages that replace it."""

    entry: str
    messages: Sequence[RoutedMessage]


@dataclass(frozen=True, slots=True)
class ClaimedMessage:
    """A message that this worker may send, as long as its token is the one in Redis."""

    target: str
    member: str
    token: str
    message: OutboxMessage
    url: str = field(repr=False)
    body: str = field(repr=False)
    cipher: JobCipher = field(repr=False)
    unreadable: KeyMissing | ContentDamaged | None = None


class RecordedTry(NamedTuple):
    """What became of a try: whether its lease was still held, and which endpoints to warn of or to disable now."""

    held: bool
    warned: tuple[str, ...] = ()
    due: tuple[str, ...] = ()


class DeliveryQueue:
    """The queues in Redis, as the sending worker uses them."""

    def __init__(
        self,
        redis: ArqRedis,
        worker_id: str,
        *,
        per_target: int,
        rate: float,
        keep: int,
        max_pending: int,
        patience: FailurePatience,
    ) -> None:
        """Load the scripts.

        `rate`: messages a second that an app may send to one receiver, 0 = no limit; `keep`: seconds that a settled
        message is kept; `max_pending`: seconds that one may stay unsettled. `patience`: with endpoints that only fail.
        """

        def load(*names: str) -> Any:
            return script(redis, *names)

        self._redis, self._worker_id, self._per_target, self._rate = redis, worker_id, per_target, rate
        self._keyring, self._patience = keyring_of(redis), patience
        self._keep, self._keep_pending = keep, keep + max_pending
        self._take_outbox, self._commit_routing, self._claim_due = (
            load("webhooks/take_outbox"),
            load("webhooks/commit_routing"),
            load("webhooks/allowance", "webhooks/claim_due"),
        )
        self._record_try = load("webhooks/allowance", "webhooks/record_try")
        self._extend_lease = load("webhooks/extend_lease")

    async def take_outbox(self, limit: int) -> OutboxBatch | None:
        """Return the oldest entries of the outbox; None while another worker routes them."""
        async with store_errors("read the outbox"):
            rows = await self._take_outbox(
                keys=[keys.ROUTER_LOCK, keys.OUTBOX], args=[self._worker_id, _ROUTER_LOCK_MS, limit]
            )
        return (
            None if rows is None else OutboxBatch(int(rows[0]), await valid_members(self._redis, keys.OUTBOX, rows[1:]))
        )

    async def load_messages(self, message_ids: Sequence[str]) -> tuple[dict[str, OutboxMessage], list[str]]:
        """Return (the messages by id, without those that are gone; the ids of those only a newer release can read)."""
        if not message_ids:
            return {}, []
        names = {keys.message(one): one for one in message_ids}
        async with store_errors("read the messages"):
            rows = dict(zip(names, await self._redis.mget(list(names)), strict=True))
        found = {names[key]: message for key, message in readable(rows.items(), load_message)}
        unread = ((key, raw) for key, raw in rows.items() if raw is not None and names[key] not in found)
        return found, [names[key] for key, raw in unread if needs_newer_release(key, raw, load_message)]

    def enqueue(self, message: OutboxMessage, cipher: JobCipher, url: str, body: str, now_ms: int) -> RoutedMessage:
        """Return a message that goes into its target's queue, due at once; `cipher`: its job's."""
        sealed = cipher.seal_with_key(body_field(message.id), {"url": url, "body": body})
        commands: list[Command] = [
            ("SET", keys.message(message.id), message.dump(), "EX", self._keep_pending),
            ("SET", keys.body(message.id), sealed, "EX", self._keep_pending),
            ("ZADD", keys.target_queue(message.target), now_ms, message.member),
            ("ZADD", keys.TARGETS, "LT", now_ms, message.target),
        ]
        if message.endpoint:
            commands.append(("RPUSH", keys.endpoint_messages(message.job_id), message.id))
            commands.append(("EXPIRE", keys.endpoint_messages(message.job_id), self._keep_pending))
        return RoutedMessage(tuple(commands))

    @staticmethod
    def later(entry: str, at_ms: int) -> RoutedMessage:
        """Return a command by which another entry comes into the outbox, at that time."""
        return RoutedMessage((("ZADD", keys.OUTBOX, at_ms, entry),))

    def settle(self, message: OutboxMessage) -> RoutedMessage:
        """Return a message that is stored in its last state and never sent."""
        return RoutedMessage((("SET", keys.message(message.id), message.dump(), "EX", self._keep),))

    @staticmethod
    def drop(message: OutboxMessage) -> RoutedMessage:
        """Return a message that is deleted."""
        remove = ("LREM", keys.messages(message.job_id), 0, message.id)
        return RoutedMessage((("DEL", keys.message(message.id)), remove))

    async def postpone(self, entries: Sequence[str], at_ms: int) -> None:
        """Move these entries of the outbox behind those that came before that time."""
        if entries:
            async with store_errors("postpone messages"):
                later = {entry: outbox_score(at_ms, place) for place, entry in enumerate(entries)}
                await self._redis.zadd(keys.OUTBOX, later, xx=True)

    async def commit_routing(self, rows: Sequence[RoutedEntry]) -> int:
        """Replace the entries by their messages; return how many no other worker had routed in the meantime."""
        args: list[CommandArg] = [self._worker_id]
        for entry, messages in rows:
            commands = [command for message in messages for command in message.commands]
            args += [entry, len(commands)]
            for command in commands:
                args += [len(command), *command]
        async with store_errors("route messages to their targets"):
            return int(await self._commit_routing(keys=[keys.ROUTER_LOCK, keys.OUTBOX], args=args))

    async def claim_due(
        self, room: int, lease: float, failing_after: int, running: Mapping[str, int]
    ) -> tuple[float, list[ClaimedMessage]]:
        """Lease messages; return the seconds until something falls due, or -1, and the messages to send now.

        `running`: how many messages this worker is sending, by app.
        """
        args: list[CommandArg] = [self._worker_id, room, int(lease * 1000), self._per_target, failing_after]
        args += [keys.TARGET_QUEUE, keys.IN_FLIGHT, keys.MESSAGE, keys.BODY, _FULL_APP_RETRY_MS]
        base, refill, _ = _RECEIVER_ALLOWANCE
        args += [keys.ALLOWANCE, keys.DELAYED, base, refill, self._rate, *_APP_ALLOWANCE]
        for app, number in running.items():
            args += [app, number]
        names = [keys.TARGETS, keys.SENDING, keys.PAUSED_TARGETS, keys.TARGET_FAILURES, keys.SEND_COUNTER]
        async with store_errors("claim messages"):
            wait, rows = await self._claim_due(keys=names, args=args)
        claimed = list[ClaimedMessage]()
        for row in rows:
            try:
                claimed.append(self._claimed_message(row))
            except RecordUnreadable as error:
                report_unreadable(error)
                target, member = (part.decode(errors="replace") for part in row[:2])
                await (self._put_back if error.why == "newer" else self._drop_unreadable)(target, member)
        return (int(wait) / 1000 if wait >= 0 else -1.0), claimed

    async def _put_back(self, target: str, member: str) -> None:
        """Put a message back that only a newer release can read, and free its target for the next one."""
        async with store_errors("put a message back", keys.target_queue(target)):
            seconds, _ = await self._redis.time()
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hdel(keys.in_flight(target), member.partition(":")[0])
                pipe.zrem(keys.SENDING, f"{target}|{member}")
                pipe.zadd(keys.target_queue(target), {member: (seconds + _NEWER_RETRY_S) * 1000})
                pipe.zadd(keys.TARGETS, {target: 0}, lt=True)
                await pipe.execute()

    async def _drop_unreadable(self, target: str, member: str) -> None:
        """Set aside a message that can't be read, and free its target for the next one."""
        job_id, name = member.partition(":")[0], keys.message(member.rpartition(":")[2])
        async with store_errors("drop a message", name), self._redis.pipeline(transaction=True) as pipe:
            pipe.hdel(keys.in_flight(target), job_id)
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
        content = {"url": "", "body": ""}
        if isinstance(sealed, dict) and isinstance(sealed.get("url"), str) and isinstance(sealed.get("body"), str):
            content = sealed
        elif sealed is not None:
            error = ContentDamaged(message.job_id, body_field(message.id))
        target, member, token = row[0].decode(), row[1].decode(), row[2].decode()
        return ClaimedMessage(target, member, token, message, content["url"], content["body"], cipher, error)

    async def extend_lease(self, claimed: Sequence[ClaimedMessage], lease: float) -> int:
        """Extend the leases of messages; 0 seconds gives them back. Return how many this worker still held."""
        if not claimed:
            return 0
        names, args = [keys.SENDING], list[CommandArg]([int(lease * 1000)])
        for one in claimed:
            names.append(keys.in_flight(one.target))
            args += [one.target, one.member, one.token]
        async with store_errors("extend the leases of messages"):
            return int(await self._extend_lease(keys=names, args=args))

    async def record_try(
        self,
        claimed: ClaimedMessage,
        after: OutboxMessage,
        *,
        retry_in: float | None = None,
        first: bool = False,
        result: Literal["ok", "gone", "failed", ""] = "",
        receipt: dict[str, Any] | None = None,
        endpoints: Sequence[str] = (),
    ) -> RecordedTry:
        """Record a try: the message becomes `after`, and is tried again in `retry_in` seconds unless that is None.

        `first`: at once, and before all others of its target.

        `endpoints`: those that the try was for. Return what became of it.
        """
        m, target = claimed.message, claimed.target
        job_messages = keys.endpoint_messages(m.job_id) if m.endpoint else keys.messages(m.job_id)
        names = [keys.TARGETS, keys.SENDING, keys.TARGET_FAILURES, keys.target_queue(target), keys.in_flight(target)]
        names += [keys.message(m.id), keys.body(m.id), keys.tries(m.id), job_messages]
        receiver, app = m.receiver or target, f"app:{m.app}"
        names += [keys.ALLOWANCE + receiver, keys.ALLOWANCE + app]
        names += [keys.tried_messages(m.app), keys.undelivered_messages(m.app), keys.FAILING_ENDPOINTS]
        keep = self._keep if retry_in is None and not first else self._keep_pending
        wait = -1 if retry_in is None else max(0, round(retry_in * 1000))
        sealed = claimed.cipher.seal_with_key(tries_field(m.id), receipt) if receipt is not None else b""
        args = [target, claimed.member, claimed.token, after.dump(), keep, -2 if first else wait, result, sealed]
        base, refill, most = _RECEIVER_ALLOWANCE
        args += [_MAX_RECEIPTS, receiver, m.app, base, refill, self._rate, most, *_APP_ALLOWANCE, m.id, MAX_LISTED]
        args += [*self._patience.as_ms(), *endpoints]
        async with store_errors("keep a receipt"):
            held, *actions = await self._record_try(keys=names, args=args)
        by_endpoint = list(zip(actions[::2], (name.decode(errors="replace") for name in actions[1::2]), strict=True))
        return RecordedTry(
            bool(held),
            warned=tuple(name for action, name in by_endpoint if action == b"warn"),
            due=tuple(name for action, name in by_endpoint if action == b"disable"),
        )

    async def set_refused(self, job_id: str) -> None:
        """Record that the job's own webhook answered 410: nothing more is sent to it."""
        async with store_errors("note a refusal"):
            await self._redis.set(keys.webhook_refused(job_id), "1", ex=self._keep_pending)

    async def is_refused(self, job_id: str) -> bool:
        """Return True once the job's own webhook has answered 410."""
        async with store_errors("look for a refusal"):
            return bool(await self._redis.exists(keys.webhook_refused(job_id)))
