"""Submit, claim, change and read jobs in Redis.

Each change of a job is one guarded commit of its record, events, indexes, audit records and outbox. Knows nothing of
HTTP, nothing of the provider, and of a status only which queue it belongs to.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from arq.connections import ArqRedis
from redis.exceptions import OutOfMemoryError

from worker.clock import Clock, to_ms
from worker.jobs import events as ev, fold, ids
from worker.jobs.errors import (
    ContentDamaged,
    EndUserQuarantined,
    KeyMissing,
    LeaseLost,
    RecordUnreadable,
    Refused,
    StoreFull,
    StoreUnavailable,
)
from worker.jobs.events import EventDraft
from worker.jobs.record import Job
from worker.jobs.states import Status
from worker.jobs.view_schema import WaitReason
from worker.settings import Settings
from worker.store import keys
from worker.store.admission.pacing import MeterChange, read_wait
from worker.store.audit.stream_records import head_of
from worker.store.commands import Command
from worker.store.connection import capacity
from worker.store.connection.capacity import check_writable
from worker.store.connection.job_keys import ciphers_for_writing, unseal_by_job
from worker.store.connection.kept_secrets import DIGEST, KeptSecrets, output_digest
from worker.store.connection.memory_guard import MemoryGuard
from worker.store.connection.pool import keyring_of, writes_compact
from worker.store.connection.wrong_types import set_aside_wrong_types
from worker.store.end_users.ledger_entries import QuarantineLimits, must_not_be_quarantined
from worker.store.envelope import OUTPUT
from worker.store.errors import store_errors
from worker.store.jobs import inputs
from worker.store.jobs.batch_creation import create_all
from worker.store.jobs.callers import Callers
from worker.store.jobs.claims import JobClaims, RecordReader
from worker.store.jobs.commit_commands import CommitCommands, RetentionTimes, measure_commands
from worker.store.jobs.inputs import KeptMedia
from worker.store.jobs.item_references import item_commands, named_items
from worker.store.jobs.job_creation import JobCreation
from worker.store.jobs.scripts import Scripts
from worker.store.jobs.search_terms import RERUN, indexes_of_terms, value_term
from worker.store.jobs.set_aside import UnreadableJobs
from worker.store.jobs.stored_job import (
    AppLimits,
    ClaimedJob,
    NewJob,
    OutputChange,
    StoredJob,
    stored_of,
    unreadable_of,
)
from worker.store.jobs.uploads import Upload
from worker.store.values import valid_members
from worker.telemetry.events import emit
from worker.telemetry.job_events import emit_committed

DraftEvents = Callable[[Job], Sequence[EventDraft]]

_MAX_CHAIN_HEADS: Final = 20_000
_MAX_BYTES_WHEN_FULL: Final = 64 * 1024  # of content that the change of a running job may add although Redis is full


def retention_of(settings: Settings) -> RetentionTimes:
    """Return the retention times of the settings."""
    times = (settings.result_ttl, settings.prompt_ttl, settings.unstored_ttl, settings.audit_ttl)
    return RetentionTimes(*times, audit_max=settings.audit_max_ttl)


class Jobs:
    """The jobs in Redis."""

    def __init__(
        self,
        redis: ArqRedis,
        clock: Clock,
        retention: RetentionTimes | None = None,
        limits: QuarantineLimits | None = None,
        memory: MemoryGuard | None = None,
    ) -> None:
        """`memory`: refuses submits while Redis has too little memory left."""
        self._redis, self._clock, self._scripts = redis, clock, Scripts(redis)
        self._keep, self._keyring = retention or RetentionTimes(), keyring_of(redis)
        macs, self._secrets = self._keyring.macs, KeptSecrets(redis, clock)
        self.changes = CommitCommands(
            clock, self._keep, limits or QuarantineLimits(), macs, compact=writes_compact(redis)
        )
        self._unreadable_jobs = UnreadableJobs(redis, clock, self.changes, self._scripts)
        self.callers = Callers(redis, clock)
        self._heads: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._reader = RecordReader(macs, self.changes)
        self._creation = JobCreation(
            redis, clock, self._scripts, self.changes, self._keep, self.callers, self._secrets, memory, self.load
        )
        self._claims = JobClaims(redis, clock, self._scripts, self._reader, self._unreadable_jobs, self._remember)

    async def begin_upload(self, app: str, mark: str, size: int) -> Upload:
        """Return an upload for a job that is to be created; raises what `JobCreation.begin_upload` raises."""
        return await self._creation.begin_upload(app, mark, size)

    def submit(self, new: NewJob) -> Awaitable[tuple[StoredJob, bool]]:
        """Create a job; return it, and whether an earlier request with the same idempotency key had created it.

        Durable when it returns. Raises what `JobCreation.submit` raises.
        """
        return self._creation.submit(new)

    async def submit_all(self, new: Sequence[NewJob]) -> list[tuple[StoredJob, bool]]:
        """Create all of these jobs or none; return what `submit` returns of each. Raises what `create_all` raises."""
        return await create_all(self._creation, new)

    def new_id(self) -> str:
        """Return the id of a job that may be created."""
        return self._creation.new_id()

    async def find_repeated(self, app: str, idempotency_key: str, fingerprint: str) -> StoredJob | None:
        """Return the job that an earlier request with this idempotency key created, or None.

        Raises Refused when the key was used for another request.
        """
        return await self._creation.find_repeated(app, idempotency_key, fingerprint)

    async def claim(
        self,
        worker: str,
        limit: int,
        lease_seconds: float,
        circuits: Sequence[str] = (),
        limits: AppLimits | None = None,
    ) -> tuple[float, list[ClaimedJob]]:
        """Claim jobs for this worker; return the seconds until something falls due, or -1, and the jobs.

        `circuits`: the scopes of the provider's accounts; each job then says which of them are open.
        `limit`: the free slots of the worker. `limits`: how many of them an app may take; by default all.
        """
        return await self._claims.claim(worker, limit, lease_seconds, circuits, limits or AppLimits())

    async def renew(self, lease_seconds: float, claims: Sequence[tuple[str, str]]) -> list[str]:
        """Extend leases. For each (job id, token) return "" (still held), "LOST", or the API's control message."""
        async with store_errors("renew leases"):
            return await self._scripts.renew(int(lease_seconds * 1000), claims)

    async def change(
        self,
        job_id: str,
        decide: DraftEvents,
        *,
        job: Job | None = None,
        token: str = "",
        writes: Callable[[Job], Sequence[Command]] | None = None,
        output: OutputChange | None = None,
        meters: Sequence[MeterChange] = (),
    ) -> Job:
        """Commit the events that `decide` drafts for the job as it is now; return the record after them.

        `decide` is called again when another process committed first; [] means that nothing is to be done. `writes`
        returns further commands of the same commit, `output` changes the model's output in it, `meters`
        are told of the job's calls.
        Raises LeaseLost (a token was given and is no longer the job's), AlreadySettled, IllegalEvent, Refused (no such
        job), EndUserShut (a call to the model was to begin for a quarantined end user), ContentTooLarge (they hold
        more than Redis accepts), StoreUnavailable. After the last the holder of a lease may repeat the call: nothing is
        written twice.
        """
        while True:
            current = job if job is not None else await self._current(job_id, token)
            drafts = decide(current)
            if not drafts:
                return current
            now, after, trail = self._clock.now(), current, []
            for fact, attempt in drafts:
                event = ev.event(after.version + 1, now, job_id, fact, attempt)
                after = fold.apply(after, event)
                trail.append(event)
            async with store_errors("commit"):
                before = await self._head(current)
                commands = list(writes(after)) if writes is not None else []
                commands += [output.command(), *item_commands(after.app, output, self._keep.result)] if output else []
                size = capacity.largest_argument(commands)
                await capacity.must_fit(self._redis, size)
                audited = _audited_output(job_id, output, commands)
                more, head = self.changes.commands(current, after, trail, before, audited)
                commands = [*commands, *more, *measure_commands(after, since=current, writes=commands)]
                commands += [change.command() for change in meters]
                commit_id = self._commit_id(current, token, drafts)
                end_user = must_not_be_quarantined(after, trail)
                # a full Redis accepts no new work; a running job may go on and end, which frees more than it takes
                small = size <= _MAX_BYTES_WHEN_FULL and (token != "" or after.settled)
                try:
                    verdict = await self._scripts.commit(
                        job_id, current.version, token, commit_id, commands, before, end_user, although_full=small
                    )
                except OutOfMemoryError:
                    await capacity.must_fit_when_empty(self._redis, size)
                    raise
            if verdict in ("OK", "DONE"):
                emit_committed(current, after, trail)
            if verdict == "OK":
                self._remember(after, head)
                return after
            if verdict == "DONE":  # an earlier try succeeded, only its answer was lost
                return await self._current(job_id, token)
            if verdict == "LOST":
                raise LeaseLost(job_id)
            if verdict == "QUARANTINED":
                raise EndUserQuarantined(job_id)
            job = None

    def _commit_id(self, job: Job, token: str, drafts: Sequence[EventDraft]) -> str:
        """Return the same id for the same facts on the same version by the same holder, however often they are sent."""
        if not token:  # without a lease the caller reads again before it tries again
            return self._clock.random_bytes(16).hex()
        content = (job.id, job.version, token, [(f.TYPE, f.model_dump_json(), n) for f, n in drafts])
        return hashlib.sha256(repr(content).encode()).hexdigest()[:32]

    def _remember(self, job: Job, head: str) -> None:
        if job.settled:
            return
        self._heads[job.id] = (job.version, head)
        while len(self._heads) > _MAX_CHAIN_HEADS:
            self._heads.popitem(last=False)

    async def _head(self, job: Job) -> str:
        """Return the end of the audit chain at the job's version, from this process's last commit or from Redis."""
        version, head = self._heads.pop(job.id, (0, ""))
        if version == job.version:
            return head
        raw = await self._redis.hget(keys.job(job.id), "chain")
        return head_of(raw) or await self._unreadable_jobs.repair_chain_head(job, raw)

    async def current(self, job_id: str) -> Job:
        """Return the job's record; one that can't be read is set aside first. Raises Refused, RecordUnreadable."""
        return await self._current(job_id)

    async def _current(self, job_id: str, token: str = "") -> Job:
        """Return the record; one that can't be read is set aside first, unless another worker runs the job."""
        try:
            async with store_errors("read the job", keys.job(job_id)):
                record, version, tag = await self._redis.hmget(keys.job(job_id), "rec", "v", "mac")
            if record:
                return self._reader.read(job_id, record, tag, version or b"")
            job = await self._unreadable_jobs.check_missing(job_id)
        except RecordUnreadable as error:
            if token and error.why == "newer":  # a newer process changed what this worker runs: one of its kind goes on
                raise LeaseLost(job_id) from None
            job = await self._unreadable_jobs.settle(job_id, token=token)
        if job is None:
            raise Refused("job_not_found", "There is no such job.", 404)
        return job

    async def load(self, job_id: str, *, locked: bool = False) -> StoredJob | None:
        """Return the job, or None if it does not exist.

        `locked`: mark a damaged private part as unreadable instead of raising. Raises KeyMissing, ContentDamaged, and
        RecordUnreadable for a job of which nothing is known while a worker runs it.
        """
        key = keys.job(job_id)
        try:
            async with store_errors("read the job", key):
                record, tag, private, notices, waits = await self._redis.hmget(
                    key, "rec", "mac", "priv", "ntc", "waits"
                )
            if record:
                job: Job | None = self._reader.read(job_id, record, tag)
            else:
                job = await self._unreadable_jobs.check_missing(job_id)
        except RecordUnreadable as error:
            job = await self._unreadable_jobs.view(job_id, error)
            async with store_errors("read the job", key):
                tag, private, notices, waits = await self._redis.hmget(key, "mac", "priv", "ntc", "waits")
        self._reader.require_key(tag)
        try:
            return None if job is None else stored_of(self._keyring, job, private, notices, waits)
        except ContentDamaged:
            if job is None or not locked:
                raise
            emit("content.damaged", job_id=job_id)
            return unreadable_of(job, notices, waits)

    async def limit_of(self, job_id: str) -> WaitReason | None:
        """Return what keeps a waiting job from its call, or None if no limit does."""
        async with store_errors("read the job", keys.job(job_id)):
            wait = read_wait(await self._redis.hget(keys.job(job_id), "waits"))
        return None if wait is None else wait["reason"]

    async def load_input(self, job_id: str) -> dict[str, Any] | None:
        """Return the input for the model (input, instructions, params), or None if it was removed."""
        return await inputs.load(self._redis, job_id)

    async def load_request(self, job_id: str) -> dict[str, Any] | None:
        """Return the input as `load_input`, but with null for long images and files."""
        return await inputs.load(self._redis, job_id, whole=False)

    async def load_parts(self, job_id: str) -> tuple[dict[str, Any] | None, KeptMedia | None]:
        """Return (the input with placeholders for its long images and files, these or None); None if it was removed."""
        return await inputs.load_parts(self._redis, job_id)

    async def input_bytes(self, job_id: str) -> int:
        """Return about how many bytes the input has, 0 if it was removed."""
        async with store_errors("read the input", keys.job_input(job_id)):
            return int(await self._redis.strlen(keys.job_input(job_id)))

    async def output_bytes(self, job_id: str) -> int:
        """Return about how many bytes the output has, 0 if there is none."""
        async with store_errors("read the output", keys.job_output(job_id)):
            return int(await self._redis.strlen(keys.job_output(job_id)))

    async def load_output(self, job_id: str) -> dict[str, Any] | None:
        """Return the output of the model, or None if there is none."""
        async with store_errors("read the output", keys.job_output(job_id)):
            raw = await self._redis.get(keys.job_output(job_id))
        return (await unseal_by_job(self._redis, OUTPUT, {job_id: raw})).get(job_id)

    async def seal_output(self, job_id: str, content: dict[str, Any]) -> OutputChange:
        """Return the change that stores this output of the model; it goes into a commit."""
        cipher = (await ciphers_for_writing(self._redis, [job_id]))[job_id]
        try:
            digest = output_digest(await self._secrets.get(DIGEST), content)
        except (RecordUnreadable, ContentDamaged, KeyMissing, StoreFull) as error:  # the answer counts for more
            emit("audit.no_digest", job_id=job_id, code=type(error).__name__)
            digest = ""
        return OutputChange(job_id, cipher.seal(OUTPUT, content), digest, named_items(content.get("output") or ()))

    async def accepts_writes(self) -> bool:
        """Return whether Redis accepts a small write now."""
        try:
            await check_writable(self._redis)
        except StoreUnavailable:
            return False
        return True

    async def trail(self, job_id: str, after: int = 0) -> list[dict[str, Any]]:
        """Return the job's events with seq > `after`, in order; from the audit trail where its own list has gaps."""
        return await self._unreadable_jobs.events(job_id, after)

    async def is_series_blocked(self, job: Job) -> bool:
        """Return True when the provider withheld the content of a rerun of the same series as the job."""
        series = indexes_of_terms(job.app, value_term(RERUN, job.rerun_root or job.id).encode())
        names = [*series, keys.index(job.app, "status", Status.BLOCKED)]
        await set_aside_wrong_types(self._redis, dict.fromkeys(names, "zset"))
        async with store_errors("look for a blocked rerun"):
            return bool(await self._redis.zintercard(len(names), names, limit=1))

    async def overdue(self, limit: int = 100) -> list[str]:
        """Return the ids of waiting jobs whose deadline has passed."""
        async with store_errors("look for deadlines"):
            now = to_ms(self._clock.now())
            rows = await self._redis.zrangebyscore(keys.DEADLINE, "-inf", now, start=0, num=limit)
        return await valid_members(self._redis, keys.DEADLINE, rows, ids.is_job_id)

    async def remove_deadline(self, job_id: str) -> None:
        """Remove the job from the index of deadlines: it is settled, or gone."""
        async with store_errors("forget a deadline"):
            await self._redis.zrem(keys.DEADLINE, job_id)


def _audited_output(job_id: str, output: OutputChange | None, commands: Sequence[Command]) -> dict[str, str | None]:
    """Return what the audit record of a commit says of the answer that it stores or deletes, if it does."""
    if output is not None and output.sealed is not None:
        return {"output_digest": output.digest} if output.digest else {}
    name = keys.job_output(job_id)
    deleted = any(command[0] == "DEL" and name in command for command in commands)
    return {"output_digest": None} if deleted else {}
