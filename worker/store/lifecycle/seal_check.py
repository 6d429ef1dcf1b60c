"""Count what is refused, or would be without VIGIL_ACCEPT_UNSEALED: plain values, records without their MAC."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from arq.connections import ArqRedis

from worker.jobs.errors import UNAUTHENTIC, RecordUnreadable
from worker.store import codec, keys
from worker.store.connection.pool import keyring_of
from worker.store.end_users.quarantine_rows import row_name
from worker.store.envelope import kid_in_text
from worker.store.errors import store_errors
from worker.store.jobs.unreadable_records import read_job
from worker.store.key_kinds import kind_of
from worker.store.lifecycle.record_tags import mac_name
from worker.store.record_mac import RecordMacs
from worker.store.values import pipeline_replies, reporting_unreadable

_PAGE: Final = 500
_MAX_JOBS: Final = 50_000
_MAX_NAMED: Final = 5
_MAX_KEYS_AT_START: Final = 5_000


@dataclass(slots=True)
class SealCounts:
    """How many values are plain, how many records have no MAC, and the names of the first with a wrong one."""

    plain: int = 0
    without_mac: int = 0
    wrong: int = 0
    named: list[str] = field(default_factory=list)
    all_jobs: bool = True  # False: there were more jobs than were looked at

    def note(self, key: str, error: RecordUnreadable) -> None:
        """Count a record that is refused."""
        if error.why == "no_mac":
            self.without_mac += 1
        elif error.why in UNAUTHENTIC:
            self.wrong += 1
            if len(self.named) < _MAX_NAMED:
                self.named.append(key)


async def count_unsealed(redis: ArqRedis) -> SealCounts:
    """Count over the whole store, and at most 50,000 jobs; `redis` has the master keys."""
    counts, keyring = SealCounts(), keyring_of(redis)
    macs = keyring.macs.strict()
    looked, cursor = 0, 0
    while True:
        async with store_errors("list keys"):
            cursor, names = await redis.scan(cursor, match="vigil:*", count=_PAGE)
        by_kind: dict[str, list[str]] = {}
        for name in names:
            text = name.decode(errors="replace")
            by_kind.setdefault(kind_of(text), []).append(text)
        jobs = by_kind.get("job", []) if looked < _MAX_JOBS else []
        counts.all_jobs = counts.all_jobs and len(jobs) == len(by_kind.get("job", []))
        looked += len(jobs)
        await _jobs(redis, macs, jobs, counts)
        strings = [one for kind in ("apikey", "app", "pause") for one in by_kind.get(kind, [])]
        await _strings(redis, macs, strings, counts)
        await _plain_values(redis, by_kind, counts)
        if not cursor:
            break
    async with store_errors("read the quarantine", keys.QUARANTINE):
        rows = await redis.hgetall(keys.QUARANTINE)
    for person, raw in rows.items():
        _check(macs, keys.QUARANTINE, row_name(person.decode(errors="replace")), raw, counts)
    return counts


async def count_refused_at_start(redis: ArqRedis) -> int:
    """Return how many API keys are refused, of the first 5,000; 0 without master keys or where they are accepted."""
    keyring = keyring_of(redis)
    if not keyring.enabled or keyring.accepts_plain:
        return 0
    found, counts = list[bytes](), SealCounts()
    with reporting_unreadable():
        async with store_errors("read the keys", keys.API_KEYS):
            found = (await redis.hvals(keys.API_KEYS))[:_MAX_KEYS_AT_START]
    await _strings(redis, keyring.macs, [keys.api_key(raw.decode(errors="replace")) for raw in found], counts)
    return counts.without_mac + counts.wrong


async def _jobs(redis: ArqRedis, macs: RecordMacs, names: list[str], counts: SealCounts) -> None:
    for (record, tag, private), name in zip(await _read(redis, names, "rec", "mac", "priv"), names, strict=True):
        if record is None:
            continue
        counts.plain += bool(private and codec.is_plain(private))
        try:
            read_job(macs, name.removeprefix(keys.JOB), record, tag)
        except RecordUnreadable as error:
            counts.note(name, error)


async def _read(redis: ArqRedis, names: list[str], *fields: str) -> list[list[bytes | None]]:
    async with store_errors("read the jobs"), redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.hmget(name, *fields)
        rows = await pipeline_replies(pipe, names) if names else []
    return [row or [None] * len(fields) for row in rows]


async def _strings(redis: ArqRedis, macs: RecordMacs, names: list[str], counts: SealCounts) -> None:
    async with store_errors("read the records"):
        rows = await redis.mget(names) if names else []
    for name, raw in zip(names, rows, strict=True):
        if raw is not None:
            _check(macs, name, mac_name(name), raw, counts)


async def _plain_values(redis: ArqRedis, by_kind: dict[str, list[str]], counts: SealCounts) -> None:
    names = by_kind.get("secret", [])
    async with store_errors("read the secrets"):
        rows: Iterable[Any] = await redis.mget(names) if names else []
    counts.plain += sum(_is_plain_text(raw) for raw in rows if raw is not None)
    for name in by_kind.get("endpoints", []):
        async with store_errors("read the endpoints", name):
            counts.plain += sum(map(codec.is_plain, await redis.hvals(name)))
    names = by_kind.get("appeal", [])
    async with store_errors("read the appeals"):
        rows = await redis.mget(names) if names else []
    counts.plain += sum(codec.is_plain(raw) for raw in rows if raw is not None)
    for (document,) in await _read(redis, by_kind.get("conv", []), "doc"):
        counts.plain += document is not None and codec.is_plain(document)


def _is_plain_text(raw: bytes) -> bool:
    try:
        return kid_in_text(raw.decode()) is None
    except ValueError:
        return False


def _check(macs: RecordMacs, key: str, name: str, raw: bytes, counts: SealCounts) -> None:
    try:
        macs.detach(key, name, raw)
    except RecordUnreadable as error:
        counts.note(key, error)
