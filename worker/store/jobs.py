"""The jobs in Redis: submit, claim, commit, read. Each change of a job is one guarded commit of record, event,
index, audit and outbox together.

Must not know: HTTP, the provider, what a status means beyond where a job stands in the queue.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from arq.connections import ArqRedis
from redis.exceptions import OutOfMemoryError

from worker.audit import chain
from worker.audit.record import record_of
from worker.clock import Clock, to_ms
from worker.jobs import events as ev, fold, ids
from worker.jobs.errors import ContentDamaged, EndUserShut, KeyMissing, LeaseLost, Refused, StoreUnavailable
from worker.jobs.record import Job
from worker.settings import Settings
from worker.store import capacity, codec, keys
from worker.store.content import boxes_to_write, opened
from worker.store.outbox import outbox_commands
from worker.store.overview import writable
from worker.store.pauses import PREFIX, Pause, load_pause
from worker.store.places import facts_for_scripts, place
from worker.store.pool import asking, vault_of
from worker.store.quarantine import Limits, ledger_commands, must_be_free
from worker.store.rates import Meter, Rate
from worker.store.refs import ref_commands
from worker.store.scripts import Claimed, Command, Scripts
from worker.store.tally import tally_commands
from worker.store.vault import ANSWER, ASKED, PRIVATE, Vault
from worker.telemetry.events import emit
from worker.telemetry.story import committed

Said = tuple[ev.Fact, int | None]
"""A fact and the number of the attempt it speaks of."""
Decide = Callable[[Job], Sequence[Said]]

_HEADS = 20_000
_SMALL = 64 * 1024  # bytes of content that the change of a running job may hold although Redis is full
_MOVES = (ev.Scheduled, ev.Released, ev.Interrupted)  # these give a waiting job its place anew


@dataclass(frozen=True, slots=True)
class Retention:
    """How long settled things stay, in seconds."""

    result: int = 7 * 86_400
    prompt: int | None = None  # what was asked, when it goes before what came back
    unstored: int = 3600  # … of a job that is not to be stored and that nobody reads
    audit: int = 400 * 86_400
    idempotency: int = 86_400


def retention_of(settings: Settings) -> Retention:
    """As the settings say."""
    return Retention(settings.result_ttl, settings.prompt_ttl, settings.unstored_ttl, settings.audit_ttl)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be: the fact that begins it, what only the app may see, and what is asked of the model."""

    fact: ev.Queued
    private: dict[str, Any] = field(repr=False)
    asked: dict[str, Any] = field(repr=False)
    idempotency_key: str | None = field(default=None, repr=False)
    fingerprint: str = ""
    meter: Meter = field(default_factory=lambda: Meter(Rate(0)))  # charged for it; told what is left


@dataclass(frozen=True, slots=True)
class Stored:
    """A job as it stands in Redis: its record, what only its app may see, and the names of notices about it."""

    job: Job
    private: dict[str, Any] = field(repr=False)
    notices: tuple[str, ...] = ()


def stored_of(vault: Vault, record: bytes, private: bytes | None, notices: bytes | None) -> Stored:
    """A job out of the fields `rec`, `priv` and `ntc` of its hash. Raises KeyMissing, ContentDamaged."""
    names = tuple(notices.decode().split()) if notices else ()
    job = codec.load_job(record)
    return Stored(job, vault.open(job.app, job.id, PRIVATE, private)[1] or {}, names)


@dataclass(frozen=True, slots=True)
class Held:
    """A job whose lease is ours, until `token` is no longer the one in Redis."""

    job: Job
    private: dict[str, Any] = field(repr=False)
    token: str
    generation: int
    crashed: bool  # its last holder died without letting go
    pause: Pause | None = None  # what stops it from starting
    gated: bool = False  # a circuit was open when it was claimed: ask before calling
    asked: dict[str, Any] | None = field(default=None, repr=False)  # what was asked, unless it is large
    unreadable: Literal["", "locked", "damaged"] = ""  # its key is not here (yet), or its content does not open


class Jobs:
    """All that is done with jobs in Redis."""

    def __init__(
        self, redis: ArqRedis, clock: Clock, retention: Retention | None = None, shut_out: Limits | None = None
    ) -> None:
        self._redis, self._clock, self._scripts = redis, clock, Scripts(redis)
        self._keep, self._vault = retention or Retention(), vault_of(redis)
        self._shut = shut_out or Limits()
        self._heads: OrderedDict[str, tuple[int, str]] = OrderedDict()

    async def submit(self, new: NewJob) -> tuple[Stored, bool]:
        """(the job, whether an earlier request with the same idempotency key had created it).

        Durable when it returns. Raises Refused when the key was used for another request, RateLimited when the app
        must wait (a repeated request is free), StoreUnavailable.
        """
        now = self._clock.now()
        job_id = ids.new_id("job", to_ms(now), self._clock.dice(ids.DICE_BYTES))
        trail = [ev.event(1, now, job_id, new.fact)]
        job = fold.apply(None, trail[0])
        if new.fact.not_before is not None and new.fact.not_before > now:
            wait = ev.Scheduled(reason="not_before", until=new.fact.not_before)
            trail.append(ev.event(2, now, job_id, wait))
            job = fold.apply(job, trail[1])
        commands, _ = self._commands(None, job, trail, chain.GENESIS)
        box = self._vault.new(job.app, job_id)
        commands.append(("HSET", keys.job(job_id), "priv", box.seal_whole(PRIVATE, new.private)))
        commands.append(("SET", keys.asked(job_id), box.seal(ASKED, new.asked)))
        idem, remembered = "", ""
        if new.idempotency_key is not None:
            digest = hashlib.sha256(new.idempotency_key.encode()).hexdigest()
            idem, remembered = keys.idempotency(job.app, digest), f"{new.fingerprint} {job_id}"
        ttl_ms = max(self._keep.idempotency, self._keep.result) * 1000
        async with asking("take the job"):
            seen = await self._scripts.submit(job, idem, remembered, ttl_ms, new.meter, commands)
        if seen is None:
            committed(None, job, trail)
            return Stored(job, new.private), False
        fingerprint, _, first = seen.partition(" ")
        if fingerprint != new.fingerprint:
            detail = "This Idempotency-Key was used for a different request; use a new key for a new request."
            raise Refused("idempotency_key_reused", detail, 422)
        stored = await self.load(first)
        if stored is None:
            detail = "The job that this Idempotency-Key created is no longer kept; use a new key."
            raise Refused("idempotency_key_reused", detail, 422)
        return stored, True

    async def claim(
        self, worker: str, limit: int, lease_seconds: float, circuit: str = "", app_limit: int = 0
    ) -> tuple[float, list[Held]]:
        """(seconds until something falls due, or -1; the jobs that are this worker's now).

        `circuit`: the scope of the provider's account; each job then knows whether it must ask at the gate.
        `app_limit`: how many jobs of an app may run at once if its record says nothing; 0 = any number.
        """
        lease_ms = int(lease_seconds * 1000)
        async with asking("hand out jobs"):
            due, now, is_open, claimed = await self._scripts.claim(worker, limit, lease_ms, circuit, app_limit)
        wait = (due - now) / 1000 if due >= 0 else -1.0
        return wait, [self._held(c, is_open) for c in claimed]

    def _held(self, c: Claimed, gated: bool) -> Held:
        job = codec.load_job(c.record)
        private, asked = dict[str, Any](), None
        unreadable: Literal["", "locked", "damaged"] = ""
        try:
            box, private = self._vault.open(job.app, job.id, PRIVATE, c.private)
            asked = box.unseal(ASKED, c.asked)
        except KeyMissing as missing:
            emit("encryption.key_missing", job_id=job.id, code=missing.kid)
            unreadable = "locked"
        except ContentDamaged:
            emit("content.damaged", job_id=job.id)
            unreadable = "damaged"
        if c.chain:
            self._remember(job, c.chain)
        # a job that was handed over with its response under way runs, wherever it stands: it goes on
        pause = load_pause(c.pause) if c.pause and not job.open_attempts else None
        crashed = c.previous_token != ""
        return Held(job, private or {}, c.token, c.generation, crashed, pause, gated, asked, unreadable)

    async def renew(self, lease_seconds: float, held: Sequence[tuple[str, str]]) -> list[str]:
        """For each (job id, token): "" = still ours, "LOST", or what is asked of us."""
        async with asking("renew leases"):
            return await self._scripts.renew(int(lease_seconds * 1000), held)

    async def change(
        self,
        job_id: str,
        decide: Decide,
        *,
        job: Job | None = None,
        token: str = "",
        writes: Callable[[Job], Sequence[Command]] | None = None,
    ) -> Job:
        """Commits what `decide` says of the job as it stands, and gives the record after it.

        `decide` is asked again when someone else was faster; [] means nothing is to be done. `writes` are further
        commands of the same commit. Raises LeaseLost (token given and no longer ours), AlreadySettled,
        IllegalEvent, Refused (no such job), EndUserShut (a call to the model was to begin), ContentTooLarge (`writes`
        hold more than Redis takes), StoreUnavailable: then a holder may make the same call again, and nothing is
        written twice.
        """
        while True:
            seen = job if job is not None else await self._current(job_id)
            said = decide(seen)
            if not said:
                return seen
            now, after, trail = self._clock.now(), seen, []
            for fact, attempt in said:
                event = ev.event(after.version + 1, now, job_id, fact, attempt)
                after = fold.apply(after, event)
                trail.append(event)
            async with asking("commit"):
                before = await self._head(seen)
                commands = list(writes(after)) if writes is not None else []
                size = capacity.largest(commands)
                await capacity.must_fit(self._redis, size)
                more, head = self._commands(seen, after, trail, before)
                words, commit_id = [*commands, *more], self._commit_id(seen, token, said)
                person = must_be_free(after, trail)
                # a full Redis takes no new work; what runs may tell how it goes and end, which frees more than it takes
                small = size <= _SMALL and (token != "" or after.settled)
                try:
                    verdict, _ = await self._scripts.commit(
                        job_id, seen.version, token, commit_id, words, before, person, although_full=small
                    )
                except OutOfMemoryError:
                    await capacity.must_fit_when_empty(self._redis, size)
                    raise
            if verdict in ("OK", "DONE"):
                committed(seen, after, trail)
            if verdict == "OK":
                self._remember(after, head)
                return after
            if verdict == "DONE":  # an earlier try had come through, only its answer was lost
                return await self._current(job_id)
            if verdict == "LOST":
                raise LeaseLost(job_id)
            if verdict == "SHUT":
                raise EndUserShut(job_id)
            job = None

    def _commit_id(self, seen: Job, token: str, said: Sequence[Said]) -> str:
        """The same for the same facts on the same version by the same holder, however often it sends them."""
        if not token:  # who holds no lease reads again before it tries again
            return self._clock.dice(16).hex()
        words = (seen.id, seen.version, token, [(f.TYPE, f.model_dump_json(), n) for f, n in said])
        return hashlib.sha256(repr(words).encode()).hexdigest()[:32]

    def _remember(self, job: Job, head: str) -> None:
        if job.settled:
            return
        self._heads[job.id] = (job.version, head)
        while len(self._heads) > _HEADS:
            self._heads.popitem(last=False)

    async def _head(self, job: Job) -> str:
        """The audit chain's head at the job's version: remembered from our own last commit, else read."""
        version, head = self._heads.pop(job.id, (0, ""))
        if version == job.version:
            return head
        raw = await self._redis.hget(keys.job(job.id), "chain")
        return raw.decode() if raw else chain.GENESIS

    async def _current(self, job_id: str) -> Job:
        async with asking("read the job"):
            record = await self._redis.hget(keys.job(job_id), "rec")
        if not record:
            raise Refused("job_not_found", "There is no such job.", 404)
        return codec.load_job(record)

    async def load(self, job_id: str) -> Stored | None:
        """The job as it stands, or None."""
        async with asking("read the job"):
            record, private, notices = await self._redis.hmget(keys.job(job_id), "rec", "priv", "ntc")
        return stored_of(self._vault, record, private, notices) if record else None

    async def asked(self, job_id: str) -> dict[str, Any] | None:
        """What is asked of the model: input, instructions, params; None when it is gone."""
        async with asking("read what was asked"):
            raw = await self._redis.get(keys.asked(job_id))
        return (await opened(self._redis, ASKED, {job_id: raw})).get(job_id)

    async def answer(self, job_id: str) -> dict[str, Any] | None:
        """What came back, or None."""
        async with asking("read the answer"):
            raw = await self._redis.get(keys.answer(job_id))
        return (await opened(self._redis, ANSWER, {job_id: raw})).get(job_id)

    async def answered(self, job_id: str, content: dict[str, Any]) -> Command:
        """The command that keeps what came back."""
        box = (await boxes_to_write(self._redis, [job_id]))[job_id]
        return ("SET", keys.answer(job_id), box.seal(ANSWER, content))

    def unanswered(self, job_id: str) -> Command:
        """The command that drops what came back."""
        return ("DEL", keys.answer(job_id))

    async def takes_writes(self) -> bool:
        """Whether a small write is taken now."""
        try:
            await writable(self._redis)
        except StoreUnavailable:
            return False
        return True

    async def trail(self, job_id: str, after: int = 0) -> list[dict[str, Any]]:
        """The job's events with seq > `after`, in order."""
        async with asking("read the trail"):
            rows = await self._redis.lrange(keys.trail(job_id), after, -1)
        return [codec.load_event(row) for row in rows]

    async def overdue(self, limit: int = 100) -> list[str]:
        """Ids of waiting jobs whose deadline has passed."""
        async with asking("look for deadlines"):
            now = to_ms(self._clock.now())
            rows = await self._redis.zrangebyscore(keys.DEADLINE, "-inf", now, start=0, num=limit)
        return [row.decode() for row in rows]

    def _commands(self, before: Job | None, after: Job, trail: list[ev.Event], head: str) -> tuple[list[Command], str]:
        """(record, events, audit, queue place, index and outbox of one change; the audit chain's head after it)."""
        key, commands = keys.job(after.id), list[Command]()
        wires = [event.dump() for event in trail]
        for event, wire in zip(trail, wires, strict=True):
            head, body = chain.link(head, record_of(after, event, wire))
            commands.append(("NOTE", keys.audited(after.id), "XADD", keys.AUDIT, "*", "hash", head, "record", body))
        commands.append(("RPUSH", keys.trail(after.id), *(codec.dump_event(wire) for wire in wires)))
        born = facts_for_scripts(after) if before is None else ()
        commands.append(("HSET", key, "v", after.version, "rec", codec.dump_job(after), "chain", head, *born))
        moved = before is None or before.status is not after.status
        if moved or any(isinstance(event.fact, _MOVES) for event in trail):
            commands.extend(place(before, after))
        if moved:
            commands.extend(_index(before, after))
        if before is not None and before.hold is not None:
            commands.append(("ZREM", keys.held(before.hold.scope), after.id))
        if after.hold is not None:
            commands.append(("ZADD", keys.held(after.hold.scope), to_ms(after.hold.since), after.id))
            if after.hold.scope.startswith(PREFIX):
                commands.append(("SADD", keys.PAUSED, after.hold.scope))
        if after.settled and (before is None or not before.settled):
            commands.extend(self._retire(after))
        commands.extend(ref_commands(before, after, trail, self._keep.result))
        commands.extend(ledger_commands(after, trail, self._shut))
        commands.extend(tally_commands(after, trail))
        commands.extend(outbox_commands(after, trail, self._clock))
        commands.append(("PUBLISH", keys.CHANGED, f"{after.id} {after.version} {after.status}"))
        return commands, head

    def _retire(self, job: Job) -> list[Command]:
        keep = self._keep.result
        names = (keys.job(job.id), keys.trail(job.id), keys.asked(job.id), keys.answer(job.id))
        commands: list[Command] = [("EXPIRE", name, keep) for name in names]
        if self._keep.prompt is not None and self._keep.prompt < keep:
            commands.append(("EXPIRE", keys.asked(job.id), self._keep.prompt))
        if not job.store:
            commands.append(("ZADD", keys.FORGET, to_ms(self._clock.now()) + self._keep.unstored * 1000, job.id))
        for held in (job.id, chain.app_chain(job.app)):  # a legal hold keeps the content too
            commands.extend(("IF", keys.HOLDS, held, "PERSIST", name) for name in names)
        commands.extend(("DEL", keys.text(job.id, a.number)) for a in job.attempts)
        ended = job.finished_at or job.created_at
        commands.append(("ZADD", keys.SETTLED, to_ms(ended) + keep * 1000, job.id))
        return commands


def _index(before: Job | None, after: Job) -> list[Command]:
    score, commands = to_ms(after.created_at), list[Command]()
    if before is None:
        commands.append(("ZADD", keys.index(after.app), score, after.id))
        commands.append(("ZADD", keys.index(after.app, "model", after.requested_model), score, after.id))
        if after.safety_identifier:
            commands.append(("ZADD", keys.index(after.app, "user", after.safety_identifier), score, after.id))
    else:
        commands.append(("ZREM", keys.index(after.app, "status", before.status), after.id))
    commands.append(("ZADD", keys.index(after.app, "status", after.status), score, after.id))
    return commands
