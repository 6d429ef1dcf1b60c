"""Removing what an app sent and got: the record and its trail stay, they hold no content.

One commit says who removed it, replaces the job's key and drops input, answer and text. Webhook messages are emptied of
content after it, and once more a minute later: one that was just being made may have come behind. A job that is not to
be stored stands in `forget` from its end on, sooner once its app has read it, and is looked at when its time has come.
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
from worker.store.audit.legal_holds import is_held
from worker.store.commands import Command
from worker.store.connection.errors import store_errors
from worker.store.connection.pool import keyring_of
from worker.store.envelope import PRIVATE, MasterKeyring, body_field, tries_field
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import StoredJob
from worker.store.values import readable, report_unreadable, reporting_unreadable, valid_members
from worker.store.webhooks.outbox import OutboxMessage, load_message, message_ids_of

REREAD_S: Final = 60
"""After its app has read a job that is not to be stored it can ask again for so long: the answer may have got lost."""
_CONTENT: Final[dict[str, Any]] = {"output_text": None, "output": [], "draft": None, "refusal": None, "metadata": {}}
_MAX_PER_SWEEP: Final = 100


async def erase(redis: ArqRedis, jobs: Jobs, stored: StoredJob, because: Removal, by: str) -> Job:
    """The content of a settled job is gone; again changes nothing. Refused while it is not settled, or held.

    Deleted on request, metadata and the end user's name go too; the address of its webhook stays in either case.
    """
    job_id, private = stored.job.id, stored.private
    if await is_held(redis, stored.job.app, job_id):
        raise Refused("legal_hold", "The job is kept for a legal case; it can't be deleted until that is over.")
    hook = {"webhook": private.get("webhook")}
    kept = {**private, **hook} if because == "not_stored" else {"metadata": {}, "end_user": None, **hook}
    fresh = keyring_of(redis).new(stored.job.app, job_id)  # the key of what was there is gone with it

    def decide(job: Job) -> Sequence[EventDraft]:
        if not job.settled:
            raise Refused("not_settled", "The job is not over yet; cancel it first, then delete its content.")
        return [] if job.content_removed else [(ev.ContentRemoved(because=because, by=by), None)]

    def writes(job: Job) -> list[Command]:
        texts = [keys.text(job_id, attempt.number) for attempt in job.attempts]
        at = to_ms(job.content_removed_at or job.created_at) + REREAD_S * 1000
        return [
            ("HSET", keys.job(job_id), "priv", fresh.seal_with_key(PRIVATE, kept)),
            ("DEL", keys.job_input(job_id), keys.job_output(job_id), *texts),
            ("ZADD", keys.ERASURE_DUE, at, job_id),
        ]

    job = await jobs.change(job_id, decide, writes=writes)
    await _empty_messages(redis, job_id)
    return job


def is_erased(stored: StoredJob) -> bool:
    """True when its content was removed."""
    return stored.job.content_removed is not None


async def schedule_erasure(redis: ArqRedis, clock: Clock, jobs: Sequence[Job]) -> None:
    """Their app has seen what came back: what is not to be stored goes a minute from now."""
    seen = [job.id for job in jobs if job.settled and not job.store and job.content_removed is None]
    if seen:
        due = to_ms(clock.now() + timedelta(seconds=REREAD_S))
        with reporting_unreadable():  # a key that all share must not stop one app's reading
            async with store_errors("note what was read", keys.ERASURE_DUE):
                await redis.zadd(keys.ERASURE_DUE, dict.fromkeys(seen, due), lt=True)


class Eraser:
    """Removes what is not to be stored, when its time has come."""

    def __init__(self, redis: ArqRedis, jobs: Jobs, clock: Clock) -> None:
        self._redis, self._jobs, self._clock = redis, jobs, clock

    async def sweep(self) -> None:
        """Everything that is due is gone; what a webhook has yet to tell of waits another minute."""
        async with store_errors("look for what to forget"):
            due = await self._redis.zrangebyscore(
                keys.ERASURE_DUE, "-inf", to_ms(self._clock.now()), start=0, num=_MAX_PER_SWEEP
            )
        for job_id in await valid_members(self._redis, keys.ERASURE_DUE, due, ids.is_job_id):
            if await self._forget(job_id):
                async with store_errors("forget"):
                    await self._redis.zrem(keys.ERASURE_DUE, job_id)
            else:
                later = to_ms(self._clock.now() + timedelta(seconds=REREAD_S))
                async with store_errors("forget later"):
                    await self._redis.zadd(keys.ERASURE_DUE, {job_id: later}, xx=True)

    async def _forget(self, job_id: str) -> bool:
        """True when there is nothing left to do for this job."""
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
            pass  # later, or when its time to be kept is over
        return False


async def _messages(redis: ArqRedis, job_id: str) -> list[OutboxMessage]:
    async with store_errors("read the messages"):
        names = [keys.message(one) for one in await message_ids_of(redis, job_id)]
        rows = await redis.mget(names) if names else []
    return [message for _, message in readable(zip(names, rows, strict=True), load_message)]


async def _empty_messages(redis: ArqRedis, job_id: str) -> None:
    """Bodies say what happened without content, receipts no longer quote the receiver."""
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
    """A webhook's body with nothing in it of what was asked or came back."""
    told: dict[str, Any] = json.loads(body)
    data = told.get("data")
    if not isinstance(data, dict):
        return body
    data |= {name: empty for name, empty in _CONTENT.items() if name in data}
    for attempt in data.get("attempts") or []:
        attempt["provider_message"] = None
    return json.dumps(told, ensure_ascii=False)
