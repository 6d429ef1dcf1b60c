"""Compare each job in Redis with its audit records: record, events, prompt and answer, legal holds.

A page of jobs at a time, so the memory it takes does not grow with their number. A job that seems to differ is looked
at again: it may have changed in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from arq.connections import ArqRedis

from worker.audit import compare
from worker.audit.diagnose import AuditFault, TamperKind
from worker.audit.report import Report
from worker.clock import Clock
from worker.jobs.errors import ArchiveUnavailable, ContentDamaged, KeyMissing, RecordUnreadable
from worker.jobs.record import Job
from worker.store import keys, media
from worker.store.audit.trail import Trail
from worker.store.connection.kept_secrets import DIGEST, KeptSecrets, input_digest, output_digest
from worker.store.connection.pool import keyring_of
from worker.store.envelope import OUTPUT, PRIVATE, MasterKeyring
from worker.store.errors import store_errors
from worker.store.jobs.archived_output import is_archived
from worker.store.jobs.output_archive import archive_of
from worker.store.jobs.queue import script_fields
from worker.store.jobs.unreadable_records import parse_events, read_job
from worker.store.lifecycle.faults import FaultList, explain
from worker.store.values import pipeline_replies

_PAGE: Final = 25  # with their content
_SCAN: Final = 500
_LARGE_INPUT: Final = 64 * 1024
_LOOKS: Final = 3
_REPLIES: Final = 6  # for each job


class _Snapshot(NamedTuple):
    """What Redis holds of a job, read at one moment, and its audit records."""

    record: bytes | None
    tag: bytes | None
    version: bytes | None
    private: bytes | None
    events: list[bytes]
    bodies: list[dict[str, Any]]
    held: bool
    prompt: bytes | None
    answer: bytes | None
    fields: tuple[bytes | None, ...]  # what scripts read of the job: app, rank, scopes of pauses


class JobVerification:
    """One comparison of all jobs with the trail."""

    def __init__(self, redis: ArqRedis, clock: Clock, report: Report, faults: FaultList) -> None:
        self._redis, self._keyring, self._trail = redis, keyring_of(redis), Trail(redis, clock)
        self._secrets, self._report, self._faults = KeptSecrets(redis, clock), report, faults
        self._archive = archive_of(redis)
        names = ("deleted", "expired", "without_digest", "locked", "unavailable")
        self._tallies = {f"content_{name}": 0 for name in names}

    async def run(self) -> dict[str, int]:
        """Compare all jobs; return how many there were, and how often content could not be compared, and why."""
        cursor, count = 0, 0
        while True:
            async with store_errors("read the jobs"):
                cursor, names = await self._redis.scan(cursor, match=f"{keys.JOB}*", count=_SCAN)
            job_ids = [name.decode(errors="replace").removeprefix(keys.JOB) for name in names]
            for start in range(0, len(job_ids), _PAGE):
                page = job_ids[start : start + _PAGE]
                await self._page(page)
                count += len(page)
            if not cursor:
                return {"jobs": count, **self._tallies}

    async def _page(self, job_ids: list[str]) -> None:
        suspects = job_ids
        for look in range(_LOOKS):
            before, found = dict(self._tallies), list[AuditFault]()
            for job_id, snapshot in zip(suspects, await self._read(suspects), strict=True):
                found += await self._compare(job_id, snapshot)
            named = list(dict.fromkeys(fault.job_id for fault in found if fault.job_id))
            if look:
                self._tallies = before  # each job is counted once
            if not found or look == _LOOKS - 1:
                self._faults.add(found)
                return
            suspects = named

    async def _read(self, job_ids: list[str]) -> list[_Snapshot]:
        names = [name for job_id in job_ids for name in _keys_of(job_id)]
        async with store_errors("read the jobs"), self._redis.pipeline(transaction=True) as pipe:
            for job_id in job_ids:
                pipe.hmget(keys.job(job_id), "rec", "mac", "v", "priv", "app", "rank", "stops")
                pipe.lrange(keys.trail(job_id), 0, -1)
                pipe.lrange(keys.chain_records(job_id), 0, -1)
                pipe.sismember(keys.LEGAL_HOLDS, job_id)
                pipe.get(keys.job_input(job_id))
                pipe.get(keys.job_output(job_id))
            replies = await pipeline_replies(pipe, names)
        per_job = [replies[at : at + _REPLIES] for at in range(0, len(replies), _REPLIES)]
        places = [[raw.decode(errors="replace") for raw in reply[2] or ()] for reply in per_job]
        rows = {row.id: row for row in await self._trail.records_at([one for page in places for one in page])}
        return [
            _Snapshot(
                *_fields(fields),
                events=events or [],
                bodies=compare.bodies_of(rows[one] for one in place if one in rows),
                held=bool(held),
                prompt=prompt,
                answer=answer,
                fields=tuple((fields or [None] * 7)[4:]),
            )
            for (fields, events, _, held, prompt, answer), place in zip(per_job, places, strict=True)
        ]

    async def _compare(self, job_id: str, found: _Snapshot) -> list[AuditFault]:
        if found.record is None and not found.events:
            return []  # it has expired since it was listed
        texts: list[str] = []
        macs, job = self._keyring.macs, None
        try:
            job = read_job(macs, job_id, found.record, found.tag, found.version)
        except RecordUnreadable as error:
            texts.append(f"its record {explain(error)}")
        audited = compare.events_of(found.bodies)
        if compare.is_whole(audited):
            expected = compare.replay(audited)
            stored = parse_events(macs, job_id, found.events)
            texts += compare.event_differences(stored, audited)
            if job is not None and expected is not None and (names := compare.record_differences(job, expected)):
                texts.append(f"its record differs from its trail in {', '.join(names)}")
            job = expected or job  # the trail is signed
        if job is not None and found.record is not None and found.fields != _script_fields(job):
            texts.append("its fields for scripts (app, rank, pauses) are not what its record says")
        held = compare.is_held(found.bodies)
        if held is not None and held != found.held:
            texts.append("a legal hold on it was removed" if held else "a legal hold on it was never placed")
        if job is not None:
            texts += await self._content(job, found)
        return [AuditFault(TamperKind.RECORD, f"{job_id}: {text}", job_id=job_id) for text in texts]

    async def _content(self, job: Job, found: _Snapshot) -> list[str]:
        """Compare prompt and answer with the digests in the trail."""
        prompt, answer = found.prompt, found.answer
        if job.content_removed is not None:
            self._tallies["content_deleted"] += 1
            return [f"its {name} is there, but was deleted" for name, raw in _named(prompt, answer) if raw]
        try:
            return [*await self._prompt(job, found, prompt), *await self._answer(job, found, answer)]
        except KeyMissing:
            self._tallies["content_locked"] += 1
            return []

    async def _prompt(self, job: Job, found: _Snapshot, raw: bytes | None) -> list[str]:
        if raw is None:
            self._tallies["content_expired"] += 1
            return []
        if job.input_digest is None:
            return []
        try:
            cipher, _ = self._keyring.open(job.app, job.id, PRIVATE, found.private)
            content = await media.open_input(cipher, job.id, raw)
            given = {"model": job.requested_model, **content}
            large = len(raw) > _LARGE_INPUT
            same = input_digest(await self._secrets.get(DIGEST), given, large=large) == job.input_digest
        except (ContentDamaged, TypeError, ValueError) as error:
            return [_damaged("prompt", error)]
        return [] if same else ["its prompt is not the one that was accepted"]

    async def _answer(self, job: Job, found: _Snapshot, raw: bytes | None) -> list[str]:
        known, digest = compare.last_output_digest(found.bodies)
        if raw is None:
            lost = known and digest is not None and job.settled
            return ["its answer is gone, and no record says that it was deleted"] if lost else []
        if not known:
            self._tallies["content_without_digest"] += 1  # an earlier release wrote it
        try:
            content = self._open(job, OUTPUT, found.private, await self._sealed(job, found.private, raw))
            same = not known or output_digest(await self._secrets.get(DIGEST), content) == digest
        except ArchiveUnavailable:
            self._tallies["content_unavailable"] += 1
            return []
        except (ContentDamaged, TypeError, ValueError) as error:
            return [_damaged("answer", error)]
        return [] if same else ["its answer is not the one that was stored"]

    async def _sealed(self, job: Job, private: bytes | None, raw: bytes) -> bytes:
        """Return a stored output, sealed, from the archive if it is there. Raises KeyMissing, ContentDamaged,
        ArchiveUnavailable.
        """
        if not is_archived(raw):
            return raw
        if self._archive is None:
            raise ArchiveUnavailable("VIGIL_ARCHIVE is not set here")
        cipher, _ = self._keyring.open(job.app, job.id, PRIVATE, private)
        return await self._archive.read(cipher, job.id, raw)

    def _open(self, job: Job, field: str, private: bytes | None, raw: bytes) -> Any:
        """Decrypt content of the job. Raises KeyMissing, ContentDamaged."""
        return open_content(self._keyring, job, field, private, raw)


def open_content(keyring: MasterKeyring, job: Job, field: str, private: bytes | None, raw: bytes) -> Any:
    """Decrypt a value of the job with the key in its private part. Raises KeyMissing, ContentDamaged."""
    cipher, _ = keyring.open(job.app, job.id, PRIVATE, private)
    return cipher.unseal(field, raw)


def _fields(reply: list[bytes | None] | None) -> tuple[bytes | None, bytes | None, bytes | None, bytes | None]:
    record, tag, version, private = (reply or [None] * 4)[:4]
    return record, tag, version, private


def _script_fields(job: Job) -> tuple[bytes, ...]:
    return tuple(str(value).encode() for value in script_fields(job)[1::2])


def _keys_of(job_id: str) -> tuple[str, ...]:
    content = keys.job_input(job_id), keys.job_output(job_id)
    return keys.job(job_id), keys.trail(job_id), keys.chain_records(job_id), keys.LEGAL_HOLDS, *content


def _named(prompt: bytes | None, answer: bytes | None) -> Sequence[tuple[str, bytes | None]]:
    return ("prompt", prompt), ("answer", answer)


def _damaged(what: str, error: Exception) -> str:
    return f"its {what} can't be opened: {error if isinstance(error, ContentDamaged) else type(error).__name__}"
