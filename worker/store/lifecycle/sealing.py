"""Seal what is older than the master keys, or than MACs: trust what Redis holds now, once, by an operator's decision.

Afterwards nothing plain is left but the content of jobs that are not over yet, and every record that grants something
has a MAC and a note in the audit trail. It may be repeated, and workers may run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable
from typing import Any, Final

from arq.connections import ArqRedis

from worker.clock import Clock
from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable
from worker.jobs.record import Job
from worker.store import codec, keys, media
from worker.store.app_records import app_content, dump_app, load_app, secret_name as app_secret
from worker.store.apps import key_content, read_key
from worker.store.audit.record_notes import Kind, RecordNote, RecordNotes, latest_notes
from worker.store.commands import Command
from worker.store.connection.kept_secrets import secret_name
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import keyring_of
from worker.store.conversations.documents import conversation_name
from worker.store.end_users.appeal_notes import note_name
from worker.store.end_users.appeals import appeal_name
from worker.store.end_users.quarantine_rows import secret_name as end_user_name
from worker.store.envelope import INPUT, OUTPUT, PRIVATE, JobCipher, body_field, kid_in_text, tries_field
from worker.store.errors import store_errors
from worker.store.jobs.scripts import Scripts
from worker.store.jobs.unreadable_records import read_job
from worker.store.lifecycle.record_tags import RecordTags, names_of
from worker.store.record_mac import split
from worker.store.webhooks.endpoints import Endpoints, endpoint_content, endpoint_name
from worker.store.webhooks.outbox import message_ids_of

_TALLIES: Final = ("sealed", "tagged", "noted", "jobs_not_over", "changed_meanwhile", "unreadable")
_WHY: Final = "sealed by vigil store seal"


class StoreSealing:
    """One pass over everything. `counts`: what was sealed, and why other things were not.

    `accepted`: which keys, apps, pauses and quarantines had no MAC.
    """

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        """`redis`: a client whose keyring has keys and accepts what is plain."""
        self._redis, self._clock, self._keyring = redis, clock, keyring_of(redis)
        self._scripts, self._notes = Scripts(redis), RecordNotes(redis, clock)
        self._swap: Any = script(redis, "lifecycle/compare_and_set")
        self._known: dict[tuple[str, str], RecordNote] | None = None
        self.accepted: list[str] = []
        self.counts: Counter[str] = Counter(dict.fromkeys(_TALLIES, 0))

    async def run(self) -> Counter[str]:
        """Seal everything that can be sealed now; return the counts."""
        for prefix, seal in (
            (keys.secret(""), self._secret),
            (keys.app(""), self._app),
            (keys.endpoints(""), self._endpoints),
            (keys.CONVERSATION, self._conversation),
            (keys.APPEALS, self._appeals),
            (keys.APPEAL, self._appeal),
        ):
            async for name in names_of(self._redis, prefix):
                await self._one(name, seal(name))
        await self._one(keys.QUARANTINE, self._quarantine())
        tags = RecordTags(self._redis, adopt=True)
        await tags.run()
        self.accepted = tags.accepted
        for tally in ("tagged", "changed_meanwhile", "unreadable"):
            self.counts[tally] += tags.counts[tally]
        async for name in names_of(self._redis, keys.JOB):
            await self._one(name, self._job(name.removeprefix(keys.JOB)))
        await self._note_all()
        return self.counts

    async def _one(self, name: str, work: Awaitable[None]) -> None:
        """Await the work on one key; count a value that can't be read, so that it does not stop the others."""
        try:
            async with store_errors("seal values", name):
                await work
        except (RecordUnreadable, ContentDamaged, KeyMissing, ValueError, LookupError, TypeError, AttributeError):
            self.counts["unreadable"] += 1

    async def _secret(self, key: str) -> None:
        raw = await self._redis.get(key)
        name = secret_name(key.removeprefix(keys.secret("")))
        text = self._keyring.unseal_text(name, raw.decode()) if raw else ""
        if raw and raw.decode() == text:
            await self._replace(key, "", raw, self._keyring.seal_text(name, text))

    async def _app(self, key: str) -> None:
        raw, name = await self._redis.get(key), key.removeprefix(keys.app(""))
        if raw is None:
            return
        try:
            body = load_app(self._keyring.macs, name, raw)
        except RecordUnreadable:
            return  # counted with the tags
        secret = self._keyring.unseal_text(app_secret(name), body["webhook_secret"])
        if secret == body["webhook_secret"]:
            sealed = {**body, "webhook_secret": self._keyring.seal_text(app_secret(name), secret)}
            await self._replace(key, "", raw, dump_app(self._keyring.macs, sealed))

    async def _endpoints(self, key: str) -> None:
        app = key.removeprefix(keys.endpoints(""))
        for field, raw in (await self._redis.hgetall(key)).items():
            if codec.is_plain(raw):
                sealed = self._keyring.seal_named(endpoint_name(app, field.decode()), codec.unseal(raw))
                await self._replace(key, field.decode(), raw, sealed)

    async def _conversation(self, key: str) -> None:
        raw = await self._redis.hget(key, "doc")
        if raw and codec.is_plain(raw):
            sealed_as = conversation_name(*key.removeprefix(keys.CONVERSATION).rsplit(":", 1))
            await self._replace(key, "doc", raw, self._keyring.seal_named(sealed_as, codec.unseal(raw)))

    async def _appeals(self, key: str) -> None:
        app, _, end_user = key.removeprefix(keys.APPEALS).partition(":")
        for field, raw in (await self._redis.hgetall(key)).items():
            if codec.is_plain(raw):
                sealed = self._keyring.seal_named(note_name(app, end_user, field.decode()), codec.unseal(raw))
                await self._replace(key, field.decode(), raw, sealed)

    async def _appeal(self, key: str) -> None:
        raw = await self._redis.get(key)
        if raw and codec.is_plain(raw):
            sealed_as = appeal_name(*key.removeprefix(keys.APPEAL).split(":", 1))
            await self._replace(key, "", raw, self._keyring.seal_named(sealed_as, codec.unseal(raw)))

    async def _quarantine(self) -> None:
        """Seal the names of end users; the rows get their MAC with all others."""
        for field, raw in (await self._redis.hgetall(keys.QUARANTINE)).items():
            content, tag = split(raw)
            body, sealed_as = json.loads(content), end_user_name(field.decode())
            if tag is None and body["name"] is not None and kid_in_text(body["name"]) is None:
                body["name"] = self._keyring.seal_text(sealed_as, body["name"])
                await self._replace(keys.QUARANTINE, field.decode(), raw, json.dumps(body, separators=(",", ":")))

    async def _job(self, job_id: str) -> None:
        """Encrypt the content of a job that is over; a running one may be written by a process that has it plain."""
        record, tag, private = await self._redis.hmget(keys.job(job_id), "rec", "mac", "priv")
        if not record or not private or not codec.is_plain(private):
            return
        job = read_job(self._keyring.macs, job_id, record, tag)
        if not job.settled:
            self.counts["jobs_not_over"] += 1
            return
        cipher = self._keyring.unremembered(job.app, job_id)
        commands: list[Command] = [
            ("HSET", keys.job(job_id), "priv", cipher.seal_with_key(PRIVATE, codec.unseal(private)))
        ]
        for key, field in ((keys.job_input(job_id), INPUT), (keys.job_output(job_id), OUTPUT)):
            raw = await self._redis.get(key)
            if raw and media.is_plain(raw):
                plain = JobCipher(job.app, job_id, self._clock.random_bytes)
                content = await media.open_input(plain, job_id, raw) if field == INPUT else codec.unseal(raw)
                commands.append(("SET", key, cipher.seal(field, content), "XX", "KEEPTTL"))
        verdict = await self._scripts.commit(job_id, job.version, "", self._clock.random_bytes(16).hex(), commands)
        self.counts["sealed" if verdict in ("OK", "DONE") else "changed_meanwhile"] += 1
        await self._messages(job, cipher)

    async def _messages(self, job: Job, cipher: JobCipher) -> None:
        for message in await message_ids_of(self._redis, job.id):
            body = await self._redis.get(keys.body(message))
            if body and codec.is_plain(body):
                sealed = cipher.seal_with_key(body_field(message), codec.unseal(body))
                await self._swap(keys=[keys.body(message)], args=["", body, sealed])
            for number, row in enumerate(await self._redis.lrange(keys.tries(message), 0, -1)):
                if codec.is_plain(row):
                    sealed = cipher.seal_with_key(tries_field(message), codec.unseal(row))
                    await self._redis.lset(keys.tries(message), number, sealed)

    async def _note_all(self) -> None:
        """Record in the audit trail what the records are that have no note yet: they are older than notes."""
        macs, endpoints = self._keyring.macs, Endpoints(self._redis, self._clock)
        async for key in names_of(self._redis, keys.api_key("")):
            raw = await self._redis.get(key)
            try:
                one = read_key(macs, key.removeprefix(keys.api_key("")), raw or b"")
            except RecordUnreadable:
                continue  # counted above
            await self._note("api_key", one.id, one.app, key_content(one))
        async for key in names_of(self._redis, keys.app("")):
            app = key.removeprefix(keys.app(""))
            try:
                record = load_app(macs, app, await self._redis.get(key) or b"")
            except RecordUnreadable:
                continue
            await self._note("app", app, app, app_content(self._keyring, record))
        async for key in names_of(self._redis, keys.endpoints("")):
            for hook in await endpoints.of_app(key.removeprefix(keys.endpoints(""))):
                await self._note("webhook_endpoint", hook.id, hook.app, endpoint_content(hook))

    async def _note(self, kind: Kind, name: str, app: str, content: dict[str, Any]) -> None:
        if self._known is None:
            self._known = await latest_notes(self._redis, self._clock)
        if (kind, name) not in self._known:  # one that differs from its note is for `vigil audit verify --records`
            await self._notes.written(kind, name, app, content, by="operator", why=_WHY)
            self.counts["noted"] += 1

    async def _replace(self, key: str, field: str, before: bytes, after: bytes | str) -> None:
        done = await self._swap(keys=[key], args=[field, before, after])
        self.counts["sealed" if done else "changed_meanwhile"] += 1
