"""Erase the content of jobs: what an app sent and got. The record and its trail stay; they hold no content.

One commit records who erased it, replaces the job's key and deletes input, output and text. An output in the archive
can't be read any more from then on; its object is due to be deleted. Webhook messages are
emptied after it, and once more a minute later, for those that were just being created. A job with `store: false` is in
`vigil:forget` from its end on, is due sooner once its app has received the answer, and is erased when due.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs import events as ev, ids
from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable, Refused
from worker.jobs.events import EventDraft
from worker.jobs.record import Job, Removal
from worker.store import keys
from worker.store.commands import Command
from worker.store.connection.pool import keyring_of
from worker.store.envelope import PRIVATE, MasterKeyring, body_field, tries_field
from worker.store.errors import store_errors
from worker.store.jobs.output_archive import due_object_commands
from worker.store.jobs.repository import Jobs
from worker.store.jobs.search_terms import METADATA, forget_terms_command
from worker.store.jobs.stored_job import StoredJob
from worker.store.lifecycle.legal_holds import is_held
from worker.store.values import readable, report_unreadable, reporting_unreadable, valid_members
from worker.store.webhooks.outbox import OutboxMessage, load_message, message_ids_of

REREAD_S: Final = 60
"""Once its app has read a job with `store: false`, it can read it again for so long: the response may get lost."""
_CONTENT: Final[dict[str, Any]] = {"output_text": None, "output": [], "draft": None, "refusal": None, "metadata": {}}
_MAX_PER_SWEEP: Final = 100


async def erase(redis: ArqRedis, jobs: Jobs, stored: StoredJob, because: Removal, by: str) -> Job:
    """Erase the content of a settled job; idempotent. Raises Refused while it is not settled or under a legal hold.

    On request (not for `not_stored`) metadata and the end user's name go too; the URL of its webhook always stays.
    """
    job_id, private = stored.job.id, stored.private
    await refuse_if_held(redis, stored.job)
    hook = {"webhook": private.get("webhook")}
    kept = {**private, **hook} if because == "not_stored" else {"metadata": {}, "end_user": None, **hook}
    fresh = keyring_of(redis).unremembered(stored.job.app, job_id)  # the old key is lost with this
    due = await due_object_commands(redis, job_id)

    def decide(job: Job) -> Sequence[EventDraft]:
        if not job.settled:
            raise Refused("not_settled", "The job is not over yet; cancel it first, then delete its content.")
        return [] if job.content_removed else [(ev.ContentRemoved(because=because, by=by), None)]

    def writes(job: Job) -> list[Command]:
        texts = [keys.text(job_id, attempt.number) for attempt in job.attempts]
        at = to_ms(job.content_removed_at or job.created_at) + REREAD_S * 1000
        commands: list[Command] = [
            ("HSET", keys.job(job_id), "priv", fresh.seal_with_key(PRIVATE, kept)),
            ("DEL", keys.job_input(job_id), keys.job_output(job_id), *texts),
            ("ZADD", keys.ERASURE_DUE, at, job_id),
            *due,
        ]
        if not kept.get("metadata"):
            commands.append(forget_terms_command(job.app, job_id, METADATA))
        return commands

    job = await jobs.change(job_id, decide, writes=writes)
    await _empty_messages(redis, job_id)
    return job


async def refuse_if_held(redis: ArqRedis, job: Job) -> None:
    """Raise Refused if a legal hold keeps the job's content."""
    if await is_held(redis, job):
        raise Refused("legal_hold", "The job is kept for a legal case; it can't be deleted until that is over.")


def is_erased(stored: StoredJob) -> bool:
    """Return True when its content was erased."""
    return stored.job.content_removed is not None


async def schedule_erasure(redis: ArqRedis, clock: Clock, job_ids: Sequence[str]) -> None:
    """Schedule the erasure of those of these jobs that are not to be stored for a minute from now: their app has their
    answers.
    """
    due = to_ms(clock.now() + timedelta(seconds=REREAD_S))
    with reporting_unreadable():  # an unreadable shared key must not stop one app's read
        async with store_errors("note what was read", keys.ERASURE_DUE):
            await redis.zadd(keys.ERASURE_DUE, dict.fromkeys(job_ids, due), xx=True, lt=True)


class Eraser:
    """Erases jobs with `store: false` when they are due."""

    def __init__(self, redis: ArqRedis, jobs: Jobs, clock: Clock) -> None:
        self._redis, self._jobs, self._clock = redis, jobs, clock

    async def sweep(self) -> None:
        """Erase everything that is due; a job with pending webhook messages waits another minute."""
        async with store_errors("look for what to erase"):
            due = await self._redis.zrangebyscore(
                keys.ERASURE_DUE, "-inf", to_ms(self._clock.now()), start=0, num=_MAX_PER_SWEEP
            )
        for job_id in await valid_members(self._redis, keys.ERASURE_DUE, due, ids.is_job_id):
            if await self._erase(job_id):
                async with store_errors("end an erasure"):
                    await self._redis.zrem(keys.ERASURE_DUE, job_id)
            else:
                later = to_ms(self._clock.now() + timedelta(seconds=REREAD_S))
                async with store_errors("postpone an erasure"):
                    await self._redis.zadd(keys.ERASURE_DUE, {job_id: later}, xx=True)

    async def _erase(self, job_id: str) -> bool:
        """Erase the job; return True when there is nothing left to do for it."""
        try:
            stored = await self._jobs.load(job_id)
            if stored is None:
                return True
            if is_erased(stored):
                await _empty_messages(self._redis, job_id)
                return True
            if not any(message.state == "pending" for message in await _messages(self._redis, job_id)):
                await erase(self._redis, self._jobs, stored, "not_stored", "vigil")
        except RecordUnreadable as error:
            report_unreadable(error)
        except (KeyMissing, ContentDamaged, Refused):
            pass  # tried again later, or its retention time ends
        return False


async def _messages(redis: ArqRedis, job_id: str) -> list[OutboxMessage]:
    async with store_errors("read the messages"):
        names = [keys.message(one) for one in await message_ids_of(redis, job_id)]
        rows = await redis.mget(names) if names else []
    return [message for _, message in readable(zip(names, rows, strict=True), load_message)]


async def _empty_messages(redis: ArqRedis, job_id: str) -> None:
    """Remove content from the bodies of messages, and the receiver's words from their receipts."""
    keyring = keyring_of(redis)
    for one in await _messages(redis, job_id):
        try:
            await _empty(redis, keyring, one)
        except (ContentDamaged, RecordUnreadable, ValueError, LookupError, TypeError, AttributeError):
            async with store_errors("remove a message that can't be emptied"):
                await redis.delete(keys.body(one.id), keys.tries(one.id))


async def _empty(redis: ArqRedis, keyring: MasterKeyring, one: OutboxMessage) -> None:
    field = body_field(one.id)
    async with store_errors("empty a message", keys.tries(one.id)):
        raw, tries = await redis.get(keys.body(one.id)), await redis.lrange(keys.tries(one.id), 0, -1)
        if raw:
            cipher, sealed = keyring.open(one.app, one.job_id, field, raw)
            sealed["body"] = without_content(sealed["body"])
            await redis.set(keys.body(one.id), cipher.seal_with_key(field, sealed), xx=True, keepttl=True)
        for number, row in enumerate(tries):
            cipher, receipt = keyring.open(one.app, one.job_id, tries_field(one.id), row)
            if receipt.get("response_excerpt"):
                emptied = cipher.seal_with_key(tries_field(one.id), {**receipt, "response_excerpt": None})
                await redis.lset(keys.tries(one.id), number, emptied)


def without_content(body: str) -> str:
    """Return a webhook's body without the input and output."""
    message: dict[str, Any] = json.loads(body)
    data = message.get("data")
    if not isinstance(data, dict):
        return body
    data |= {name: empty for name, empty in _CONTENT.items() if name in data}
    for attempt in data.get("attempts") or []:
        attempt["provider_message"] = None
    return json.dumps(message, ensure_ascii=False)
