"""Manage apps and their API keys. A key is shown once; only its SHA-256 is stored, and looked up (`key_text.py`)."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final, NamedTuple

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs import ids
from worker.jobs.errors import ContentNotSealed, RecordUnreadable, Refused
from worker.jobs.states import Status
from worker.jobs.stored_fields import StoredFields, dump_fields, load_fields
from worker.jobs.timestamps import iso_utc
from worker.store import channels, keys
from worker.store.admission import app_limits, app_quota, app_retention, rate_limit
from worker.store.admission.app_quota import AppQuota, QuotaUse
from worker.store.admission.app_retention import AppRetention
from worker.store.admission.rate_limit import RateLimit
from worker.store.app_records import app_content, dump_app, load_app, secret_name
from worker.store.audit.acts import APP_CHANGED, KEY_CREATED, KEY_REVOKED, Actor, Acts
from worker.store.audit.record_notes import RecordNotes
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import keyring_of
from worker.store.errors import store_errors
from worker.store.key_text import digest_of, is_well_formed, new_key
from worker.store.record_mac import RecordMacs
from worker.store.values import count_of, read, report_unreadable

SCOPES: Final = ("submit", "read", "audit", "ops", "content")
"""`content` shows prompts and outputs in the console; over HTTP, `read` does."""
SOON_MS: Final = 14 * 86_400_000
"""Operators are told of a key that ends within such a time."""
_SCAN: Final = 1_000
_OF_THE_APP: Final = frozenset({"rate", "quota", "retention", "require_end_user"})
_PERSON: Final = re.compile(r"\S(?:[^\x00-\x1f\x7f]{0,98}\S)?")
_APP: Final = re.compile(r"[^\s:\x00-\x1f\x7f]{1,100}")  # a colon could make one app's index another's


@dataclass(frozen=True, slots=True)
class App:
    """The limits of an app: it gets claims in proportion to its weight, and may run so many jobs at once, and so many
    of one end user (0 = any number, None = what the settings say). `retention`: its own times, None = what the settings
    say. `require_end_user`: each of its jobs must name its end user.
    """

    name: str
    weight: float = 1.0
    max_running: int | None = None
    retention: AppRetention | None = None
    require_end_user: bool = False
    end_user_max: int | None = None


@dataclass(frozen=True, slots=True)
class ApiKey(StoredFields):
    """An API key. Times in ms; `revoked_at` 0 = not revoked, `expires_at` 0 = never. `person`: who has it, "" = not
    stated. What comes after it is its app's own, None = the default.
    """

    id: str
    app: str
    scopes: tuple[str, ...]
    created_at: int
    last4: str
    revoked_at: int = 0
    person: str = ""
    expires_at: int = 0
    rate: RateLimit | None = None
    quota: AppQuota | None = None
    retention: AppRetention | None = None
    require_end_user: bool = False

    def is_expired(self, now_ms: int) -> bool:
        """Return whether its time is over."""
        return 0 < self.expires_at <= now_ms

    def is_live(self, now_ms: int) -> bool:
        """Return whether it may be used."""
        return not self.revoked_at and not self.is_expired(now_ms)


class RefusedKey(NamedTuple):
    """A key whose record is refused: the id and app that it claims ("" = none), and why."""

    id: str
    app: str
    why: str


class Apps:
    """The API keys and apps in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock, actor: Actor | None = None) -> None:
        """`actor`: who makes and changes keys and apps; each such act is then a record of the audit trail."""
        self._redis, self._clock, self._keyring = redis, clock, keyring_of(redis)
        self._macs = self._keyring.macs
        self._acts = Acts(redis, clock, actor) if actor is not None else None

    @cached_property
    def _notes(self) -> RecordNotes:
        return RecordNotes(self._redis, self._clock)

    async def _act(self, act: str, app: str, **data: Any) -> None:
        if self._acts is not None:
            await self._acts.record(act, app=app, **data)

    async def create_key(
        self,
        app: str,
        scopes: tuple[str, ...],
        rate: RateLimit | None = None,
        by: str = "operator",
        *,
        person: str = "",
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str, str]:
        """Create a key, and its app when that is new; return (the record, the key, the app's webhook secret).

        `rate` becomes the app's own limit; None leaves the one it has. Raises Refused for a bad name, scope or time.
        """
        unknown = [s for s in scopes if s not in SCOPES]
        if unknown:
            raise Refused("unknown_scope", f"Unknown scope {', '.join(unknown)}; known: {', '.join(SCOPES)}.", 422)
        if _APP.fullmatch(app) is None:
            raise Refused("invalid_app", "An app's name is 1-100 characters without spaces and colons.", 422)
        if person and _PERSON.fullmatch(person) is None:
            raise Refused("invalid_person", "A person's name is 1-100 printable characters.", 422)
        now, ends = to_ms(self._clock.now()), to_ms(expires_at) if expires_at is not None else 0
        if expires_at is not None and ends <= now:
            raise Refused("invalid_expiry", "A key expires in the future.", 422)
        key = new_key(self._clock.random_bytes(24))
        key_id = ids.new_id("key", now, self._clock.random_bytes(ids.RANDOM_BYTES))
        record = ApiKey(key_id, app, scopes, now, key[-4:], person=person, expires_at=ends)
        secret = "whsec_" + base64.b64encode(self._clock.random_bytes(32)).decode()
        expiry = None if expires_at is None else iso_utc(expires_at, "seconds")
        await self._act(KEY_CREATED, app, key_id=key_id, scopes=list(scopes), person=person, expires_at=expiry)
        async with store_errors("keep the key"):
            sealed = self._keyring.seal_text(secret_name(app), secret)
            fresh = dump_app(self._macs, {"name": app, "webhook_secret": sealed})
            if await self._redis.set(keys.app(app), fresh, nx=True):
                await self._notes.written("app", app, app, {"name": app, "webhook_secret": secret}, by=by)
            stored = load_app(self._macs, app, await self._redis.get(keys.app(app)) or b"")
            if rate is not None:
                await self._update(app, {"rate": rate_limit.dump(rate)}, by)
            await self._notes.written("api_key", record.id, app, key_content(record), by=by)
            async with self._redis.pipeline() as pipe:
                pipe.set(keys.api_key(digest_of(key)), dump_key(self._macs, digest_of(key), record))
                pipe.hset(keys.API_KEYS, record.id, digest_of(key))
                await pipe.execute()
        return record, key, self._keyring.unseal_text(secret_name(app), str(stored["webhook_secret"]))

    async def find(self, key: str) -> ApiKey | None:
        """Return the record of a key, revoked or not; None for an unknown key.

        Raises RecordUnreadable, also for a record that Vigil did not write.
        """
        return await self._find(digest_of(key)) if is_well_formed(key) else None

    async def find_by_id(self, key_id: str) -> ApiKey | None:
        """Return the record of the key with this id, revoked or not; None for an unknown one. Raises as `find` does."""
        async with store_errors("look up the key", keys.API_KEYS):
            digest = await self._redis.hget(keys.API_KEYS, key_id)
        found = await self._find(digest.decode(errors="replace")) if digest else None
        return found if found is not None and found.id == key_id else None

    async def _find(self, digest: str) -> ApiKey | None:
        name = keys.api_key(digest)
        async with store_errors("look up the key", name):
            raw = await self._redis.get(name)
        if raw is None:
            return None
        found = read(name, raw, lambda raw: load_key(self._macs, digest, raw))
        try:
            async with store_errors("look up the app", keys.app(found.app)):
                app = await self._redis.get(keys.app(found.app))
            if not app:
                return found
            name, record = keys.app(found.app), self._checked(found.app, app)
            rate, quota = read(name, record, rate_limit.load), read(name, record, app_quota.load)
            own, required = read(name, record, app_retention.load), bool(json.loads(record).get("require_end_user"))
            return replace(found, rate=rate, quota=quota, retention=own, require_end_user=required)
        except RecordUnreadable as error:  # then the app has the default limits
            report_unreadable(error)
            return found

    async def rate(self, app: str) -> RateLimit | None:
        """Return the app's own rate, None = the default. Raises Refused when there is no such app."""
        async with store_errors("look up the app", keys.app(app)):
            return read(keys.app(app), self._checked(app, await self._app(app)), rate_limit.load)

    def _checked(self, app: str, raw: bytes) -> bytes:
        """Return an app's record as JSON, once its MAC is checked. Raises RecordUnreadable."""
        return json.dumps(load_app(self._macs, app, raw)).encode()

    async def set_rate(self, app: str, rate: RateLimit | None, by: str = "operator") -> None:
        """Set the app's own rate, or None for the default; API processes see it within three seconds."""
        async with store_errors("keep the app"):
            await self._update(app, {"rate": rate_limit.dump(rate)}, by)

    async def quota(self, app: str) -> AppQuota | None:
        """Return the app's own quota, None = the default. Raises Refused when there is no such app."""
        async with store_errors("look up the app", keys.app(app)):
            return read(keys.app(app), self._checked(app, await self._app(app)), app_quota.load)

    async def set_quota(self, app: str, quota: AppQuota | None, by: str = "operator") -> None:
        """Set the app's own quota, or None for the default; API processes see it within three seconds."""
        async with store_errors("keep the app"):
            await self._update(app, {"quota": app_quota.dump(quota)}, by)

    async def retention(self, app: str) -> AppRetention:
        """Return the app's own retention times. Raises Refused when there is no such app."""
        async with store_errors("look up the app", keys.app(app)):
            found = read(keys.app(app), self._checked(app, await self._app(app)), app_retention.load)
        return found or app_retention.NOTHING_OWN

    async def set_retention(self, app: str, own: AppRetention, by: str = "operator") -> None:
        """Set the app's own retention times; API processes see them within three seconds.

        The caller checks the bounds, and applies them to what there is (`lifecycle/retention_change.py`).
        """
        async with store_errors("keep the app"):
            await self._update(app, {"retention": app_retention.dump(own)}, by)

    async def quota_use(self, app: str) -> QuotaUse:
        """Return what the app has waiting and stored now."""
        async with store_errors("count what the app has"), self._redis.pipeline(transaction=True) as pipe:
            for status in (Status.QUEUED, Status.SCHEDULED):
                pipe.zcard(keys.index(app, "status", status))
            pipe.hmget(keys.content_sizes(app), "total", "events")
            pipe.hlen(keys.content_sizes(app))
            queued, scheduled, sums, fields = await pipe.execute()
        size, events = (count_of((text or b"0").decode(errors="replace")) or 0 for text in sums)
        return QuotaUse(queued + scheduled, size, max(0, fields - 2), events)  # two fields are the sums

    async def _app(self, app: str) -> bytes:
        raw: bytes | None = await self._redis.get(keys.app(app))
        if raw is None:
            raise Refused("app_not_found", f"There is no app {app}; `vigil keys create --app` makes one.", 404)
        return raw

    async def list_keys(self) -> list[ApiKey]:
        """Return every key ever created, oldest first; without those whose records Vigil did not write."""
        async with store_errors("list keys"):
            found = (await self._redis.hgetall(keys.API_KEYS)).values()
            digests = [digest.decode(errors="replace") for digest in found]
            rows = await self._redis.mget([keys.api_key(digest) for digest in digests]) if digests else []
        out = list[ApiKey]()
        for digest, raw in zip(digests, rows, strict=True):
            try:
                out += [] if raw is None else [read_key(self._macs, digest, raw)]
            except RecordUnreadable as error:
                report_unreadable(error)
        return sorted(out, key=lambda k: k.id)

    async def refused_keys(self) -> list[RefusedKey]:
        """Return the keys whose records are refused, listed or not, by what they say of themselves."""
        out = list[RefusedKey]()
        async with store_errors("list keys"):
            async for name in self._redis.scan_iter(match=keys.api_key("*"), count=_SCAN):
                raw = await self._redis.get(name)
                try:
                    if raw is not None:
                        read_key(self._macs, name.decode(errors="replace").removeprefix(keys.api_key("")), raw)
                except RecordUnreadable as error:
                    out.append(_refused(raw, error))
        return sorted(out)

    async def revoke(self, key_id: str, by: str = "operator") -> ApiKey:
        """Revoke a key for good; idempotent. Raises Refused when there is no such key, RecordUnreadable."""
        async with store_errors("revoke the key"):
            digest = await self._redis.hget(keys.API_KEYS, key_id)
            raw = await self._redis.get(keys.api_key(digest.decode())) if digest else None
            if raw is None:
                raise Refused("key_not_found", f"There is no key {key_id}; `vigil keys list` shows them.", 404)
            name = keys.api_key(digest.decode())
            key = read_key(self._macs, digest.decode(), raw)
            revoked = replace(key, revoked_at=key.revoked_at or to_ms(self._clock.now()))
            if key.revoked_at != revoked.revoked_at:
                await self._act(KEY_REVOKED, key.app, key_id=key.id, person=key.person)
                await self._notes.written("api_key", key.id, key.app, key_content(revoked), by=by)
            await self._redis.set(name, dump_key(self._macs, digest.decode(), revoked))
        return revoked

    async def app(self, name: str) -> App:
        """Return an app. Raises Refused when there is none of this name."""
        async with store_errors("look up the app"):
            return _app_of(load_app(self._macs, name, await self._app(name)))

    async def list_apps(self) -> list[App]:
        """Return every app that has ever had a key, by name."""
        names = sorted({key.app for key in await self.list_keys()})
        async with store_errors("list apps"):
            names_of_keys = [keys.app(name) for name in names]
            rows = await self._redis.mget(names_of_keys) if names_of_keys else []
        out = list[App]()
        for name, raw in zip(names, rows, strict=True):
            try:
                out += [] if raw is None else [_app_of(load_app(self._macs, name, raw))]
            except RecordUnreadable as error:
                report_unreadable(error)
        return out

    async def set_limits(
        self,
        name: str,
        *,
        weight: float | None = None,
        max_running: int | None = None,
        default_max: bool = False,
        end_user_max: int | None = None,
        default_end_user_max: bool = False,
        require_end_user: bool | None = None,
        by: str = "operator",
    ) -> App:
        """Change what is given, for all jobs claimed from now on; `default_…`: as the settings say. Raises Refused
        for a value out of range and for an app that does not exist.
        """
        app_limits.refuse_bad(weight, max_running, end_user_max)
        given: dict[str, Any] = {"weight": weight, "require_end_user": require_end_user}
        changes = {field: value for field, value in given.items() if value is not None}
        changes |= {"max_running": max_running} if default_max or max_running is not None else {}
        changes |= {"end_user_max": end_user_max} if default_end_user_max or end_user_max is not None else {}
        async with store_errors("change the app"):
            record = await self._update(name, changes, by)
            await self._redis.zadd(keys.RING, {name: 0}, nx=True)  # a full app has left the ring
            await self._redis.publish(channels.WAKE, "1")
        return _app_of(record)

    async def _update(self, name: str, changes: dict[str, Any], by: str) -> dict[str, Any]:
        """Update fields of the app's record, keeping concurrent changes of others; return the record."""
        while True:
            before = await self._app(name)
            known = load_app(self._macs, name, before)
            record = known | changes
            if changed := {field: [known.get(field), record[field]] for field in changes}:
                await self._act(APP_CHANGED, name, changes=changed)
            await self._notes.written("app", name, name, app_content(self._keyring, record), by=by)
            swap = script(self._redis, "lifecycle/compare_and_set")
            if await swap(keys=[keys.app(name)], args=["", before, dump_app(self._macs, record)]):
                return record

    async def webhook_secret(self, app: str) -> str | None:
        """Return the secret that signs the app's per-job webhooks, or None when there is no such app."""
        async with store_errors("look up the app", keys.app(app)):
            raw = await self._redis.get(keys.app(app))
        if not raw:
            return None
        try:
            return self._keyring.unseal_text(secret_name(app), str(load_app(self._macs, app, raw)["webhook_secret"]))
        except ContentNotSealed:  # its webhooks wait, as for a record without a MAC
            raise RecordUnreadable(keys.app(app), "no_mac") from None


def key_content(key: ApiKey) -> dict[str, Any]:
    """Return a key's record as it is stored: without the limits, which are stored with the app, and without what an
    older release does not know unless it is set.
    """
    stored = {name: value for name, value in dump_fields(key).items() if name not in _OF_THE_APP}
    return {name: value for name, value in stored.items() if value or name not in {"person", "expires_at"}}


def dump_key(macs: RecordMacs, digest: str, key: ApiKey) -> bytes:
    """Encode the record of the key with this digest."""
    return macs.attach(keys.api_key(digest), json.dumps(key_content(key), separators=(",", ":")))


def read_key(macs: RecordMacs, digest: str, raw: bytes) -> ApiKey:
    """Decode the record of the key with this digest. Raises RecordUnreadable, also if Vigil did not write it."""
    return read(keys.api_key(digest), raw, lambda raw: load_key(macs, digest, raw))


def load_key(macs: RecordMacs, digest: str, raw: bytes) -> ApiKey:
    """Decode the record of the key with this digest. Raises RecordUnreadable, ValueError."""
    body = json.loads(macs.detach(keys.api_key(digest), keys.api_key(digest), raw))
    key = load_fields(ApiKey, body, scopes=tuple(body["scopes"]))
    texts, times = (key.id, key.app, key.person, *key.scopes), (key.revoked_at, key.expires_at)
    if not all(isinstance(text, str) for text in texts) or any(type(time) is not int for time in times):
        raise ValueError("not a key's record")
    return key


def _app_of(record: dict[str, Any]) -> App:
    own, required = app_retention.load(json.dumps(record).encode()), bool(record.get("require_end_user"))
    limits = (record.get("weight", 1.0), record.get("max_running"))
    return App(record["name"], *limits, own, required, record.get("end_user_max"))


def _refused(raw: bytes | None, error: RecordUnreadable) -> RefusedKey:
    try:
        body = json.loads(raw or b"")
        return RefusedKey(str(body["id"]), str(body["app"]), error.why)
    except (ValueError, LookupError, TypeError, RecursionError):
        return RefusedKey("", "", error.why)
