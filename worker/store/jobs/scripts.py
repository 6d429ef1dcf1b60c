"""The Lua scripts as typed functions; the contract of each stands at the head of its file in lua/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis

from worker.jobs.errors import Refused
from worker.jobs.record import Job
from worker.store import channels, keys
from worker.store.admission.rate_limit import RateMeter
from worker.store.commands import Command, CommandArg, flatten
from worker.store.connection.lua_scripts import script
from worker.store.connection.pool import require_permissions
from worker.store.connection.script_batch import ScriptBatch

_ARQ_JOB = "arq:job:"
_MAX_INPUT_WITH_CLAIM = 64 * 1024  # bytes of input that a claim brings along; more is read by itself
_QUARANTINED = (
    "Jobs of this end user are not sent, because of recent blocks, a notice of the provider, or an operator's word."
)
ARQ_FUNCTION = "run_job"


class ClaimReply(NamedTuple):
    """One job that is ours now."""

    job_id: str
    generation: int
    token: str
    previous_token: str  # not empty: its holder died without letting go
    record: bytes
    private: bytes
    chain: str  # the audit chain's head
    input: bytes  # what was asked, unless it is large
    pause: bytes  # what stops it from starting, if anything does


class Scripts:
    """All scripts on one connection pool; loaded again by themselves when Redis forgot them."""

    def __init__(self, redis: Redis) -> None:
        def load(*names: str) -> Any:
            return script(redis, *names)

        self._redis = redis
        self._commit, self._claim = (
            load("connection/allow_oom", "admission/is_quarantined", "jobs/commit"),
            load("jobs/claim"),
        )
        self._commit_if_room = load("admission/is_quarantined", "jobs/commit")
        self._submit = ScriptBatch(redis, load("admission/is_quarantined", "admission/token_bucket", "jobs/submit"))
        self._renew, self._pieces = load("connection/allow_oom", "jobs/renew"), load("jobs/append_output")

    async def commit(
        self,
        job_id: str,
        version: int | str | bytes,
        token: str | bytes,
        commit_id: str,
        commands: Sequence[Command],
        head: str | bytes = "",
        person: str = "",
        *,
        although_full: bool = False,
    ) -> str:
        """OK, DONE, CONFLICT, LOST or SHUT.

        `head`: the end of the audit chain gone on from. `person`: the end user who must not be shut out.
        `although_full`: also when Redis has reached its maxmemory.
        """
        require_permissions(self._redis)
        args = [version, token, commit_id, head, person, *flatten(commands)]
        run = self._commit if although_full else self._commit_if_room
        reply = await run(keys=[keys.job(job_id), keys.QUARANTINE], args=args)
        return str(reply[0].decode())

    async def submit(
        self,
        job: Job,
        idempotency_key: str,
        remembered: str,
        ttl_ms: int,
        meter: RateMeter,
        commands: Sequence[Command],
    ) -> str | None:
        """None when the job was created, else what the idempotency key remembers; RateLimited when none may be."""
        require_permissions(self._redis)
        name, rate = keys.job(job.id), meter.rate
        args = [remembered, ttl_ms, rate.interval_us, rate.capacity, job.safety_identifier or "", *flatten(commands)]
        places = [idempotency_key or name, name, keys.rate(job.app), keys.QUARANTINE]
        verdict, *said = await self._submit(keys=places, args=args)
        if verdict == b"SHUT":
            raise Refused("end_user_quarantined", _QUARANTINED, 403)
        if verdict == b"WAIT":
            raise meter.exceeded(*said)
        if verdict == b"SEEN":
            return str(said[0].decode(errors="replace"))
        if said:
            meter.record_charge(*said)
        return None

    async def claim(
        self, worker: str, limit: int, lease_ms: int, circuit: str, app_limit: int
    ) -> tuple[int, int, bool, list[ClaimReply]]:
        """(next due time in ms or -1, the server's time in ms, whether the circuit is open, the jobs now ours)."""
        require_permissions(self._redis)
        head, tail = f'{{"t":null,"f":"{ARQ_FUNCTION}","a":["', '"],"k":{},"et":0}'
        args = [worker, limit, lease_ms, keys.JOB, _ARQ_JOB, head, tail, keys.job_input(""), _MAX_INPUT_WITH_CLAIM]
        args += [keys.app_queue(""), keys.slots(""), keys.app(""), app_limit, keys.PAUSE]
        places = [
            keys.READY,
            keys.LATER,
            keys.LEASED,
            keys.circuit(circuit),
            keys.RING,
            keys.RING_POSITION,
            keys.PAUSES,
        ]
        due, now, is_open, rows = await self._claim(keys=places, args=args)
        claimed = [
            ClaimReply(r[0].decode(), int(r[1]), r[2].decode(), _text(r[3]), r[4], r[5], _text(r[6]), r[7], r[8])
            for r in rows
        ]
        return int(due), int(now), bool(is_open), claimed

    async def renew(self, lease_ms: int, held: Sequence[tuple[str, str]]) -> list[str]:
        """For each (job id, token): "" = ours, "LOST" = not ours any more, else what the API asks for."""
        flat = [word for pair in held for word in pair]
        reply = await self._renew(keys=[keys.LEASED], args=[lease_ms, keys.JOB, *flat])
        return [word.decode(errors="replace") for word in reply]

    async def append_output(self, pieces: Sequence[CommandArg]) -> tuple[int, list[str]]:
        """Keeps pieces (job id, token, "id:attempt", piece, …): (how many watch, the jobs whose lease is lost)."""
        watching, *lost = await self._pieces(keys=[], args=[keys.JOB, keys.TEXT, channels.OUTPUT_CHUNKS, *pieces])
        return int(watching), [job_id.decode() for job_id in lost]


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
