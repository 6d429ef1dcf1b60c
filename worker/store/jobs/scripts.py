"""The Lua scripts of jobs as typed functions. The contract of each is in the header of its .lua file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from redis.asyncio import Redis

from worker.jobs.record import Job
from worker.jobs.states import Status
from worker.store import channels, keys
from worker.store.admission import app_quota
from worker.store.admission.app_quota import AppQuota
from worker.store.admission.pacing import Charge, read_charge
from worker.store.admission.rate_limit import RateMeter
from worker.store.commands import Command, CommandArg, flatten
from worker.store.connection.lua_scripts import ALLOW_OOM, RUN_COMMANDS, RUN_NEW_JOB_COMMANDS, script
from worker.store.connection.pool import require_permissions
from worker.store.connection.script_batch import ScriptBatch
from worker.store.end_users.quarantine_ends import end_quarantine
from worker.store.jobs.stored_job import AppLimits, Caller, PreparedJob

_ARQ_JOB: Final = "arq:job:"
_MAX_INPUT_WITH_CLAIM: Final = 64 * 1024  # bytes of input that a claim returns; a larger one is read on its own
ARQ_FUNCTION: Final = "run_job"
ALIVE_MS: Final = 2000
"""How long an API process counts as alive after it said so."""
_LONGEST_WAIT_S: Final = 3600  # after it, a caller that has not gone is forgotten

_QUARANTINE: Final = "admission/quarantine_of"
_PREFIXES: Final = (keys.JOB, keys.job_input(""), keys.job_output(""))
_NO_CALLER: Final = ("", "first", 0)
_QUEUED, _SCHEDULED = Status.QUEUED.value, Status.SCHEDULED.value

Verdict = Literal["OK", "DONE", "CONFLICT", "LOST", "QUARANTINED"]


class SubmitReply(NamedTuple):
    """What became of a submit; `remembered` is what the idempotency key of an earlier one holds."""

    verdict: Literal["created", "exists", "quarantined", "joined", "open"]
    remembered: str = ""
    """Of a key; of a request that joined a job, the job's id."""


class SubmitAllReply(NamedTuple):
    """What became of a batch; `number`, from 0, is the job whose end user is quarantined.

    `seen`: what the idempotency keys of jobs hold that were used before; then none was created.
    """

    verdict: Literal["created", "seen", "quarantined"]
    number: int = 0
    seen: Mapping[int, str] = MappingProxyType({})


class ClaimReply(NamedTuple):
    """One job that this worker now holds."""

    job_id: str
    generation: int
    token: str
    previous_token: str  # not empty: its last holder died without releasing it
    record: bytes
    tag: bytes  # of the record
    private: bytes
    chain: str  # the end of its audit chain
    input: bytes  # empty when it is large
    pause: bytes  # what stops it from starting, if anything does
    charge: Charge | None = None  # what its call was counted as


class ClaimReplies(NamedTuple):
    """What a claim returned: the next due time in ms or -1, the server's time in ms, which circuits are open, the
    claimed jobs, and the records of the apps whose limits it read.
    """

    due: int
    now: int
    open_circuits: frozenset[str]
    jobs: list[ClaimReply]
    apps: dict[str, bytes]


class SealedChunk(NamedTuple):
    """A chunk of an attempt's text as it is stored, and the lease under which it is."""

    job_id: str
    token: str
    attempt: int
    sealed: bytes


class Scripts:
    """All scripts of jobs on one connection pool. They are loaded again when Redis has forgotten them."""

    def __init__(self, redis: Redis) -> None:
        def load(*names: str) -> Any:
            return script(redis, *names)

        self._redis = redis
        self._commit = load(ALLOW_OOM, _QUARANTINE, *RUN_COMMANDS, "jobs/commit")
        self._commit_unless_full = load(_QUARANTINE, *RUN_COMMANDS, "jobs/commit")
        admission = (_QUARANTINE, "admission/token_bucket", "admission/app_quota")
        self._submit = ScriptBatch(redis, load(*admission, *RUN_NEW_JOB_COMMANDS, "jobs/callers", "jobs/submit"))
        self._submit_all = load(*admission, *RUN_NEW_JOB_COMMANDS, "jobs/submit_all")
        self._claim = load("admission/pace", "jobs/limits", "jobs/claim")
        self._renew = load(ALLOW_OOM, "jobs/renew")
        self._append_output = load("jobs/append_output")

    async def commit(
        self,
        job_id: str,
        version: int | str | bytes,
        token: str | bytes,
        commit_id: str,
        commands: Sequence[Command],
        head: str | bytes = "",
        end_user: str = "",
        *,
        although_full: bool = False,
    ) -> Verdict:
        """Run the commands if the job is unchanged and still held; see commit.lua for the verdicts.

        `head`: the end of the audit chain that the commands extend. `end_user`: who must not be quarantined.
        `although_full`: commit even when Redis has reached its maxmemory.
        """
        require_permissions(self._redis)
        args = [version, token, commit_id, head, end_user, *flatten(commands)]
        run = self._commit if although_full else self._commit_unless_full
        reply = await run(keys=[keys.job(job_id), keys.QUARANTINE], args=args)
        while reply[0] == b"ENDED" and await end_quarantine(self._redis, end_user):
            reply = await run(keys=[keys.job(job_id), keys.QUARANTINE], args=args)
        verdict: Verdict = "QUARANTINED" if reply[0] == b"ENDED" else reply[0].decode()
        return verdict

    async def submit(
        self,
        job: Job,
        idempotency_key: str,
        remembered: str,
        ttl_ms: int,
        meter: RateMeter,
        quota: AppQuota,
        size: int,
        commands: Sequence[Command],
        caller: Caller | None = None,
    ) -> SubmitReply:
        """Create the job unless its idempotency key has created one, or its caller joins one. `size`: bytes of its
        content.

        Raises RateExceeded when the app must wait, QueueFull when its quota is used up, ContentTooLarge when this job
        alone is more than that.
        """
        require_permissions(self._redis)
        job_key, rate = keys.job(job.id), meter.rate
        args = [
            *(remembered, ttl_ms, rate.interval_us, rate.capacity, job.safety_identifier or ""),
            *(quota.waiting or 0, quota.bytes or 0, quota.memory, app_quota.JOB_BYTES, app_quota.EVENT_BYTES),
            *(size, app_quota.EVENTS_OF_A_LIFE, job.id, *_PREFIXES),
            *((caller.name, caller.turn, _callers_kept_ms(caller)) if caller else _NO_CALLER),
            *(ALIVE_MS, *flatten(commands)),
        ]
        names = [
            *(idempotency_key or job_key, job_key, keys.rate(job.app), keys.QUARANTINE),
            *(keys.index(job.app, "status", _QUEUED), keys.index(job.app, "status", _SCHEDULED)),
            *(keys.content_sizes(job.app), keys.content_expiry(job.app)),
            *(keys.callers(job.app, caller.digest) if caller else job_key, keys.API_PROCESSES),
        ]
        verdict, *rest = await self._submit(keys=names, args=args)
        while verdict == b"ENDED" and await end_quarantine(self._redis, job.safety_identifier or ""):
            verdict, *rest = await self._submit(keys=names, args=args)
        if verdict in {b"QUARANTINED", b"ENDED"}:
            return SubmitReply("quarantined")
        if verdict == b"WAIT":
            raise meter.exceeded(*rest)
        if verdict == b"FULL":
            raise app_quota.exceeded(rest[0].decode(), int(rest[1]), size, quota)
        if verdict == b"OPEN":
            return SubmitReply("open")
        if verdict == b"JOINED":
            return SubmitReply("joined", rest[0].decode(errors="replace"))
        if verdict == b"SEEN":
            return SubmitReply("exists", str(rest[0].decode(errors="replace")))
        if rest:
            meter.record_charge(*rest)
        return SubmitReply("created")

    async def submit_all(
        self, made: Sequence[PreparedJob], remembered: Sequence[tuple[str, str]], remember_ms: int, quota: AppQuota
    ) -> SubmitAllReply:
        """Create all of these jobs of one app, or none; raises what `submit` raises.

        `remembered`: of each, the name of its idempotency key and what that will hold, or "" and "".
        """
        require_permissions(self._redis)
        app, meter = made[0].job.app, made[0].new.meter
        args: list[CommandArg] = [
            *(remember_ms, meter.rate.interval_us, meter.rate.capacity),
            *(quota.waiting or 0, quota.bytes or 0, quota.memory, app_quota.JOB_BYTES, app_quota.EVENT_BYTES),
            *_PREFIXES,
        ]
        names = [
            *(
                keys.rate(app),
                keys.QUARANTINE,
                keys.index(app, "status", _QUEUED),
                keys.index(app, "status", _SCHEDULED),
            ),
            *(keys.content_sizes(app), keys.content_expiry(app)),
        ]
        for one, (name, value) in zip(made, remembered, strict=True):
            words = flatten(one.commands)
            args += [value, one.job.safety_identifier or "", one.held, app_quota.EVENTS_OF_A_LIFE]
            args += [one.job.id, len(words), *words]
            names += [name or keys.job(one.job.id), keys.job(one.job.id)]
        verdict, *rest = await self._submit_all(keys=names, args=args)
        while verdict == b"ENDED":
            if not await end_quarantine(self._redis, made[int(rest[0]) - 1].job.safety_identifier or ""):
                break
            verdict, *rest = await self._submit_all(keys=names, args=args)
        if verdict in {b"QUARANTINED", b"ENDED"}:
            return SubmitAllReply("quarantined", int(rest[0]) - 1)
        if verdict == b"WAIT":
            raise meter.exceeded(*rest)
        if verdict == b"FULL":
            raise app_quota.exceeded(rest[0].decode(), int(rest[1]), sum(one.held for one in made), quota)
        if verdict == b"SEEN":
            seen = {int(number) - 1: _text(raw) for number, raw in zip(rest[::2], rest[1::2], strict=True)}
            return SubmitAllReply("seen", seen=seen)
        if rest:
            meter.record_charge(*rest)
        return SubmitAllReply("created")

    async def claim(
        self,
        worker: str,
        limit: int,
        lease_ms: int,
        circuits: Sequence[str],
        limits: AppLimits,
        refused: Iterable[str] = (),
    ) -> ClaimReplies:
        """Claim jobs. `refused`: the apps whose records are not believed; they get the default limits."""
        require_permissions(self._redis)
        head, tail = f'{{"t":null,"f":"{ARQ_FUNCTION}","a":["', '"],"k":{},"et":0}'
        args = [worker, limit, lease_ms, keys.JOB, _ARQ_JOB, head, tail, keys.job_input(""), _MAX_INPUT_WITH_CLAIM]
        args += [keys.app_queue(""), keys.slots(""), keys.app(""), limits.running, keys.PAUSE]
        held = [part for pair in limits.held.items() for part in pair]
        args += [limits.share, limits.rules, keys.meter(""), keys.limit_apps(""), keys.LIMIT_LINE, keys.places("")]
        args += [len(limits.held), *held, *refused]
        names = [keys.READY, keys.LATER, keys.LEASED, keys.RING, keys.RING_POSITION, keys.PAUSES]
        names += [keys.LIMITS, keys.METERS, *map(keys.circuit, circuits)]
        due, now, states, rows, apps = await self._claim(keys=names, args=args)
        claimed = [_claim_reply(row) for row in rows]
        records = {_text(name): raw for name, raw in zip(apps[::2], apps[1::2], strict=True) if raw}
        open_circuits = frozenset(scope for scope, is_open in zip(circuits, states, strict=True) if is_open)
        return ClaimReplies(int(due), int(now), open_circuits, claimed, records)

    async def renew(self, lease_ms: int, claims: Sequence[tuple[str, str]]) -> list[str]:
        """Extend leases. For each (job id, token) return "" (still held), "LOST", or the API's control message."""
        names = [keys.LEASED, *(keys.job(job_id) for job_id, _ in claims)]
        flat = [argument for pair in claims for argument in pair]
        reply = await self._renew(keys=names, args=[lease_ms, *flat])
        return [message.decode(errors="replace") for message in reply]

    async def append_output(self, chunks: Sequence[SealedChunk]) -> tuple[set[str], list[str]]:
        """Append and publish chunks.

        Return the jobs that somebody watches, and those whose lease is lost, of which nothing was stored.
        """
        names, args = list[str](), list[CommandArg]([channels.OUTPUT_CHUNKS])
        for job_id, token, attempt, sealed in chunks:
            names += (keys.job(job_id), keys.text(job_id, attempt))
            args += (token, f"{job_id}:{attempt}", sealed)
        watched, lost = await self._append_output(keys=names, args=args)
        return {chunks[number - 1].job_id for number in watched}, [chunks[number - 1].job_id for number in lost]


def _claim_reply(row: Sequence[bytes]) -> ClaimReply:
    job_id, generation, token, previous, record, tag, private, chain, input_, pause, charge = row
    claimed = (job_id.decode(), int(generation), token.decode(), _text(previous), record, tag, private, _text(chain))
    return ClaimReply(*claimed, input_, pause, read_charge(charge))


def _callers_kept_ms(caller: Caller) -> int:
    return int((_LONGEST_WAIT_S + caller.window_seconds) * 1000)


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
