"""Manage apps and their API keys. A key is shown once; only its SHA-256 is stored, and looked up.

190 random bits need no slow hash: it would only let an attacker use up CPU.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Final, NamedTuple

from arq.connections import ArqRedis

from worker.clock import Clock, to_ms
from worker.jobs import ids
from worker.jobs.errors import ContentNotSealed, RecordUnreadable, Refused
from worker.jobs.states import Status
from worker.store import channels, keys
from worker.store.admission import app_quota, rate_limit
from worker.store.admission.app_quota import AppQuota, QuotaUse
from worker.store.admission.rate_limit import RateLimit
from worker.store.audit.record_notes import RecordNotes
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import keyring_of
from worker.store.envelope import MasterKeyring
from worker.store.errors import store_errors
from worker.store.record_mac import RecordMacs
from worker.store.values import count_of, read, report_unreadable

SCOPES: Final = ("submit", "read", "audit", "ops", "content")
"""`content` shows prompts and outputs in the console; over HTTP, `read` does."""
MIN_WEIGHT, MAX_WEIGHT, MAX_RUNNING = 0.01, 1000.0, 1_000_000
_SCAN: Final = 1_000
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY, _CHECK = 32, 6
_APP: Final = re.compile(r"[^\s:\x00-\x1f\x7f]{1,100}")  # a colon could make one app's index another's


@dataclass(frozen=True, slots=True)
class App:
    """The limits of an app: it gets claims in proportion to its weight, and may run so many jobs at once, and so many
    of one end user (0 = any number, None = what the settings say).
    """

    name: str
    weight: float = 1.0
    max_running: int | None = None
    end_user_max: int | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key. `revoked_at` in ms, 0 = live. `rate` and `quota` are its app's own, None = the default."""

    id: str
    app: str
    scopes: tuple[str, ...]
    created_at: int
    last4: str
    revoked_at: int = 0
    rate: RateLimit | None = None
    quota: AppQuota | None = None


class RefusedKey(NamedTuple):
    """A key whose record is refused: the id and app that it claims ("" = none), and why."""

    id: str
    app: str
    why: str


def _base62(value: int, width: int) -> str:
    out = ""
    for _ in range(width):
        value, low = divmod(value, 62)
        out = _BASE62[low] + out
    return out


def new_key(random_bytes: bytes) -> str:
    """Return `vgl_`, 32 random characters, and a checksum of 6: scanners recognise a key without asking Vigil."""
    body = _base62(int.from_bytes(random_bytes, "big"), _BODY)
    return f"vgl_{body}{_base62(zlib.crc32(body.encode()), _CHECK)}"


def is_well_formed(key: str) -> bool:
    """Return False for text that can't be a key, so that junk costs no call to Redis."""
    if not key.startswith("vgl_") or len(key) != 4 + _BODY + _CHECK or not key.isascii():
        return False
    body = key[4 : 4 + _BODY]
    return key[4 + _BODY :] == _base62(zlib.crc32(body.encode()), _CHECK)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


class Apps:
    """The API keys and apps in Redis."""

    def __init__(self, redis: ArqRedis, clock: Clock) -> None:
        self._redis, self._clock, self._keyring = redis, clock, keyring_of(redis)
        self._macs = self._keyring.macs

    @cached_property
    def _notes(self) -> RecordNotes:
        return RecordNotes(self._redis, self._clock)

    async def create_key(
        self, app: str, scopes: tuple[str, ...], rate: RateLimit | None = None, by: str = "operator"
    ) -> tuple[ApiKey, str, str]:
        """Create a key, and its app when that is new; return (the record, the key, the app's webhook secret).

        `rate` becomes the app's own limit; None leaves the one it has. Raises Refused for a bad name or scope.
        """
        unknown = [s for s in scopes if s not in SCOPES]
        if unknown:
            raise Refused("unknown_scope", f"Unknown scope {', '.join(unknown)}; known: {', '.join(SCOPES)}.", 422)
        if _APP.fullmatch(app) is None:
            raise Refused("invalid_app", "An app's name is 1-100 characters without spaces and colons.", 422)
        now = to_ms(self._clock.now())
        key = new_key(self._clock.random_bytes(24))
        record = ApiKey(ids.new_id("key", now, self._clock.random_bytes(ids.RANDOM_BYTES)), app, scopes, now, key[-4:])
        secret = "whsec_" + base64.b64encode(self._clock.random_bytes(32)).decode()
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
                pipe.set(keys.api_key(_digest(key)), dump_key(self._macs, _digest(key), record))
                pipe.hset(keys.API_KEYS, record.id, _digest(key))
                await pipe.execute()
        return record, key, self._keyring.unseal_text(secret_name(app), str(stored["webhook_secret"]))

    async def find(self, key: str) -> ApiKey | None:
        """Return the record of a key, revoked or not; None for an unknown key.

        Raises RecordUnreadable, also for a record that Vigil did not write.
        """
        return await self._find(_digest(key)) if is_well_formed(key) else None

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
            return replace(found, rate=read(name, record, rate_limit.load), quota=read(name, record, app_quota.load))
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
                text = name.decode(errors="replace")
                raw = await self._redis.get(text)
                try:
                    if raw is not None:
                        read_key(self._macs, text.removeprefix(keys.api_key("")), raw)
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
        by: str = "operator",
    ) -> App:
        """Change the given limits, for every job that is claimed from now on; `default_…`: as the settings say.

        Raises Refused for a value out of range and for an app that does not exist.
        """
        if weight is not None and not MIN_WEIGHT <= weight <= MAX_WEIGHT:
            raise Refused("invalid_weight", f"A weight is a number from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}.", 422)
        if max_running is not None and not 0 <= max_running <= MAX_RUNNING:
            raise Refused("invalid_max_running", f"max_running is a whole number from 0 to {MAX_RUNNING}.", 422)
        if end_user_max is not None and not 0 <= end_user_max <= MAX_RUNNING:
            raise Refused("invalid_end_user_max", f"end_user_max is a whole number from 0 to {MAX_RUNNING}.", 422)
        given: dict[str, Any] = {"weight": weight, "max_running": max_running, "end_user_max": end_user_max}
        changes = {field: value for field, value in given.items() if value is not None}
        changes |= {"end_user_max": None} if default_end_user_max else {}
        async with store_errors("change the app"):
            record = await self._update(name, changes | ({"max_running": None} if default_max else {}), by)
            await self._redis.zadd(keys.RING, {name: 0}, nx=True)  # a full app has left the ring
            await self._redis.publish(channels.WAKE, "1")
        return _app_of(record)

    async def _update(self, name: str, changes: dict[str, Any], by: str) -> dict[str, Any]:
        """Update fields of the app's record, keeping concurrent changes of others; return the record."""
        while True:
            before = await self._app(name)
            record = load_app(self._macs, name, before) | changes
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


def secret_name(app: str) -> str:
    """Return the name under which an app's webhook secret is sealed."""
    return f"app:{app}"


def key_content(key: ApiKey) -> dict[str, Any]:
    """Return a key's record as it is stored, without the limits: they are stored with the app."""
    return {name: value for name, value in asdict(key).items() if name not in {"rate", "quota"}}


def dump_key(macs: RecordMacs, digest: str, key: ApiKey) -> bytes:
    """Encode the record of the key with this digest."""
    return macs.attach(keys.api_key(digest), json.dumps(key_content(key), separators=(",", ":")))


def read_key(macs: RecordMacs, digest: str, raw: bytes) -> ApiKey:
    """Decode the record of the key with this digest. Raises RecordUnreadable, also if Vigil did not write it."""
    return read(keys.api_key(digest), raw, lambda raw: load_key(macs, digest, raw))


def load_key(macs: RecordMacs, digest: str, raw: bytes) -> ApiKey:
    """Decode the record of the key with this digest. Raises RecordUnreadable, ValueError."""
    body = json.loads(macs.detach(keys.api_key(digest), keys.api_key(digest), raw))
    key = ApiKey(**{**body, "scopes": tuple(body["scopes"])})
    if not all(isinstance(text, str) for text in (key.id, key.app, *key.scopes)) or type(key.revoked_at) is not int:
        raise ValueError("not a key's record")
    return key


def app_content(keyring: MasterKeyring, record: dict[str, Any]) -> dict[str, Any]:
    """Return an app's record with its webhook secret as it is, which the rotation of master keys does not change."""
    secret = keyring.unseal_text(secret_name(record["name"]), record["webhook_secret"])
    return {**record, "webhook_secret": secret}


def dump_app(macs: RecordMacs, record: dict[str, Any]) -> bytes:
    """Encode an app's record."""
    return macs.attach(keys.app(record["name"]), json.dumps(record, separators=(",", ":")))


def load_app(macs: RecordMacs, name: str, raw: bytes) -> dict[str, Any]:
    """Decode an app's record. Raises RecordUnreadable, also if Vigil did not write it."""
    key = keys.app(name)

    def load(raw: bytes) -> dict[str, Any]:
        body = json.loads(macs.detach(key, key, raw))
        if not isinstance(body, dict) or not isinstance(body["webhook_secret"], str) or body["name"] != name:
            raise TypeError("not an app's record")
        return body

    return read(key, raw, load)


def _app_of(record: dict[str, Any]) -> App:
    return App(record["name"], record.get("weight", 1.0), record.get("max_running"), record.get("end_user_max"))


def _refused(raw: bytes | None, error: RecordUnreadable) -> RefusedKey:
    try:
        body = json.loads(raw or b"")
        return RefusedKey(str(body["id"]), str(body["app"]), error.why)
    except (ValueError, LookupError, TypeError, RecursionError):
        return RefusedKey("", "", error.why)
