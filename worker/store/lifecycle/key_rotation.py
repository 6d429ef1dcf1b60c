"""Rotate master keys: wrap every job key, encrypt every secret and tag every record with the first key.

Workers may run meanwhile.

Content is not touched, only the wrapped keys before it. Each change is a compare-and-set of one value, and values that
use the first key already are skipped: so a rotation may be stopped and started rewrapped at any time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from arq.connections import ArqRedis

from worker.jobs.errors import ContentDamaged, KeyMissing, RecordUnreadable
from worker.store import codec, keys
from worker.store.app_records import dump_app, load_app, secret_name as app_secret
from worker.store.connection.kept_secrets import secret_name
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import keyring_of
from worker.store.conversations.documents import conversation_name
from worker.store.end_users.appeal_notes import note_name
from worker.store.end_users.appeals import appeal_name
from worker.store.end_users.quarantine_rows import row_name, secret_name as end_user_name
from worker.store.envelope import kid_in, kid_in_text
from worker.store.errors import store_errors
from worker.store.lifecycle.record_tags import RecordTags
from worker.store.webhooks.endpoints import endpoint_name
from worker.store.webhooks.outbox import load_message

_BATCH: Final = 500


class KeyRotation:
    """One pass over all sealed values. `counts`: how many were rewrapped or skipped, and why."""

    def __init__(self, redis: ArqRedis) -> None:
        self._redis, self._keyring = redis, keyring_of(redis)
        self._swap: Any = script(redis, "lifecycle/compare_and_set")
        self.counts: Counter[str] = Counter(
            {"under_first_key": 0, "rewrapped": 0, "plain": 0, "changed_meanwhile": 0, "unreadable": 0}
        )

    async def run(self) -> Counter[str]:
        """Rotate everything; return the counts. All is done when `changed_meanwhile` and `unreadable` are 0."""
        kinds = {
            keys.JOB: self._job,
            keys.BODY: self._body,
            keys.tries(""): self._tries,
            keys.endpoints(""): self._endpoints,
            keys.APPEALS: self._appeals,
            keys.APPEAL: self._appeal,
            keys.app(""): self._app,
            keys.secret(""): self._secret,
            keys.CONVERSATION: self._conversation,
        }
        for prefix, rewrap in kinds.items():
            async for name in self._names(prefix):
                await self._count_unreadable(name, rewrap(name))
        await self._count_unreadable(keys.QUARANTINE, self._quarantine())
        tags = RecordTags(self._redis, adopt=False)
        await tags.run()
        self.counts["changed_meanwhile"] += tags.counts["changed_meanwhile"]
        refused = tags.counts["unreadable"] + tags.counts["without_mac"]
        self.counts["unreadable"] = max(self.counts["unreadable"], refused)  # most of them are the same values
        return self.counts

    async def _count_unreadable(self, name: str, one: Awaitable[None]) -> None:
        """Await the rotation of one value; count one that can't be read, so that it does not stop the others."""
        try:
            async with store_errors("replace wrapped keys", name):
                await one
        except (RecordUnreadable, ContentDamaged, ValueError, LookupError, TypeError, AttributeError):
            self.counts["unreadable"] += 1

    async def _secret(self, name: str) -> None:
        raw = await self._redis.get(name)
        if raw:
            sealed_as = secret_name(name.removeprefix(keys.secret("")))
            await self._text(name, raw, raw.decode(), sealed_as, lambda text: text)

    async def _names(self, prefix: str) -> AsyncIterator[str]:
        async with store_errors("list keys"):
            async for name in self._redis.scan_iter(match=prefix + "*", count=_BATCH):
                yield name.decode(errors="replace")

    async def _job(self, name: str) -> None:
        record, private = await self._redis.hmget(name, "rec", "priv")
        if record and private:
            job = codec.load_job(record)
            await self._rewrap(name, "priv", private, job.app, job.id)

    async def _body(self, name: str) -> None:
        raw = await self._redis.get(name)
        message = await self._redis.get(keys.message(name.removeprefix(keys.BODY)))
        if raw and message:
            one = load_message(message)
            await self._rewrap(name, "", raw, one.app, one.job_id)

    async def _tries(self, name: str) -> None:
        """Rewrap receipts in place: the list is only ever appended to."""
        message = await self._redis.get(keys.message(name.removeprefix(keys.tries(""))))
        for number, raw in enumerate(await self._redis.lrange(name, 0, -1) if message else ()):
            if self._needs_rewrap(kid_in(raw)):
                one = load_message(message)
                try:
                    rewrapped = self._keyring.rewrap(one.app, one.job_id, raw)
                except (KeyMissing, ContentDamaged):
                    self.counts["unreadable"] += 1
                    continue
                if await self._redis.lindex(name, number) == raw:
                    await self._redis.lset(name, number, rewrapped)
                    self.counts["rewrapped"] += 1
                else:
                    self.counts["changed_meanwhile"] += 1

    async def _rewrap(self, name: str, field: str, raw: bytes, app: str, job_id: str) -> None:
        if self._needs_rewrap(kid_in(raw)):
            try:
                rewrapped = self._keyring.rewrap(app, job_id, raw)
            except (KeyMissing, ContentDamaged):
                self.counts["unreadable"] += 1
                return
            await self._replace(name, field, raw, rewrapped)

    async def _endpoints(self, name: str) -> None:
        app = name.removeprefix(keys.endpoints(""))
        await self._named_fields(name, lambda field: endpoint_name(app, field))

    async def _appeals(self, name: str) -> None:
        app, _, end_user = name.removeprefix(keys.APPEALS).partition(":")
        await self._named_fields(name, lambda field: note_name(app, end_user, field))

    async def _appeal(self, name: str) -> None:
        raw = await self._redis.get(name)
        if raw and self._needs_rewrap(kid_in(raw)):
            sealed_as = appeal_name(*name.removeprefix(keys.APPEAL).split(":", 1))
            await self._named_value(name, "", raw, sealed_as)

    async def _named_value(self, name: str, field: str, raw: bytes, sealed_as: str) -> None:
        try:
            rewrapped = self._keyring.seal_named(sealed_as, self._keyring.unseal_named(sealed_as, raw))
        except (KeyMissing, ContentDamaged):
            self.counts["unreadable"] += 1
            return
        await self._replace(name, field, raw, rewrapped)

    async def _named_fields(self, name: str, sealed_name: Callable[[str], str]) -> None:
        """Rewrap the values of a hash that belong to no job; `sealed_name` gives the name of each by its field."""
        for field, raw in (await self._redis.hgetall(name)).items():
            if self._needs_rewrap(kid_in(raw)):
                await self._named_value(name, field.decode(), raw, sealed_name(field.decode()))

    async def _conversation(self, name: str) -> None:
        raw = await self._redis.hget(name, "doc")
        if raw and self._needs_rewrap(kid_in(raw)):
            sealed_as = conversation_name(*name.removeprefix(keys.CONVERSATION).rsplit(":", 1))
            await self._named_value(name, "doc", raw, sealed_as)

    async def _quarantine(self) -> None:
        for person, raw in (await self._redis.hgetall(keys.QUARANTINE)).items():
            name, sealed_as = row_name(person.decode(errors="replace")), end_user_name(person.decode())
            body = json.loads(self._keyring.macs.detach(keys.QUARANTINE, name, raw))
            if body["name"] is not None and self._needs_rewrap(kid_in_text(body["name"])):
                try:
                    body["name"] = self._keyring.seal_text(
                        sealed_as, self._keyring.unseal_text(sealed_as, body["name"])
                    )
                except (KeyMissing, ContentDamaged):
                    self.counts["unreadable"] += 1
                    continue
                await self._replace(
                    keys.QUARANTINE, person.decode(), raw, self._keyring.macs.attach(name, _dumps(body))
                )

    async def _app(self, name: str) -> None:
        raw = await self._redis.get(name)
        if raw:
            app, macs = name.removeprefix(keys.app("")), self._keyring.macs
            body = load_app(macs, app, raw)
            sealed_as = app_secret(app)

            def dump(text: str) -> bytes:
                return dump_app(macs, {**body, "webhook_secret": text})

            await self._text(name, raw, body["webhook_secret"], sealed_as, dump)

    async def _text(self, name: str, raw: bytes, text: str, sealed_as: str, dump: Any) -> None:
        if self._needs_rewrap(kid_in_text(text)):
            try:
                rewrapped = self._keyring.seal_text(sealed_as, self._keyring.unseal_text(sealed_as, text))
            except (KeyMissing, ContentDamaged):
                self.counts["unreadable"] += 1
                return
            await self._replace(name, "", raw, dump(rewrapped))

    def _needs_rewrap(self, kid: bytes | None) -> bool:
        """Return whether a value must be rewrapped; count those that need not."""
        if kid is None:
            self.counts["plain"] += 1
        elif kid == self._keyring.first:
            self.counts["under_first_key"] += 1
        else:
            return True
        return False

    async def _replace(self, name: str, field: str, raw: bytes, rewrapped: bytes | str) -> None:
        done = await self._swap(keys=[name], args=[field, raw, rewrapped])
        self.counts["rewrapped" if done else "changed_meanwhile"] += 1


def _dumps(body: dict[str, Any]) -> str:
    return json.dumps(body, separators=(",", ":"))
