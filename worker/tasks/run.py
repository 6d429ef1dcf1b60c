"""One wake-up of one job, from the claim until it lets go: open the stream, hear the watch, commit, decide.

The only loop that drives attempts. What happens comes as notes into one inbox, so nothing here races with itself;
every change is one commit, fenced by the lease. Must not know: Redis, JSON of the provider, HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from worker.jobs import events as ev
from worker.jobs.deadline import deadline_of
from worker.jobs.errors import AlreadySettled, Failure, LeaseLost, StoreUnavailable
from worker.jobs.record import Job
from worker.jobs.states import DELIVERED, UNDER_WAY, CheckEnd, Outcome, Purpose, ScheduledReason
from worker.safety import retry, signals as sg, words
from worker.store import codec, keys
from worker.store.account import Gate
from worker.store.jobs import Held, Said
from worker.store.scripts import Command
from worker.tasks import facts
from worker.tasks.attempts import Attempts, check_to_go_on
from worker.tasks.lease import LOST
from worker.tasks.workshop import Workshop
from worker.telemetry.log import log

CANCEL, DRAIN, INTERRUPT = "cancel", "drain", "interrupt"
_LOOK = "look"  # a reader broke: look at it
_AGAIN = 0.25  # seconds between two tries of a commit while Redis is away

Note = tuple[int, sg.Signal] | str
"""A signal of attempt n, or a word of control."""


class Run:
    """The state of one wake-up. `await run()` returns when the job is settled, waits, or is someone else's."""

    def __init__(self, shop: Workshop, held: Held) -> None:
        self._shop, self._job, self._token, self._generation = shop, held.job, held.token, held.generation
        self._inbox: asyncio.Queue[Note] = asyncio.Queue()
        self._attempts = Attempts(
            shop, held.job.id, held.token, lambda n, s: self._inbox.put_nowait((n, s)), lambda: self.tell(_LOOK)
        )
        self._draining = self._done = self._trial = False

    def tell(self, word: str) -> None:
        """A word of control: CANCEL, DRAIN, INTERRUPT, or the lease's LOST."""
        self._inbox.put_nowait(word)

    # -- the loop

    async def __call__(self) -> None:
        """Runs the job as far as it goes. Raises nothing but CancelledError."""
        job_id = self._job.id
        self._shop.leases.hold(job_id, self._token, self.tell)
        try:
            await self._begin()
            while not self._done:
                await self._step(await self._notes())
        except LeaseLost:
            log("lease.lost", logging.WARNING, job=job_id)
        except AlreadySettled as settled:
            log("job.settled_elsewhere", job=job_id, status=settled.status)
        except Exception as error:  # noqa: BLE001  a fault of ours must not leave the job in the air
            log("run.broke", logging.ERROR, job=job_id, error=type(error).__name__)
            await self._give_up()
        finally:
            self._shop.leases.release(job_id, self._token)
            await self._attempts.close()

    async def _notes(self) -> list[Note]:
        """What has come in; waits for the next note or the next time that matters."""
        now = self._shop.clock.monotonic()
        wait = min(self._attempts.next_tick() - now, self._until_deadline())
        notes: list[Note] = []
        try:
            async with asyncio.timeout(max(0.0, wait) if math.isfinite(wait) else None):
                notes.append(await self._inbox.get())
        except TimeoutError:
            self._attempts.tick()
        while not self._inbox.empty():
            notes.append(self._inbox.get_nowait())
        return notes

    def _until_deadline(self) -> float:
        deadline = deadline_of(self._job)
        return math.inf if deadline is None else (deadline.at - self._shop.clock.now()).total_seconds()

    async def _step(self, notes: list[Note]) -> None:
        """Commits what the notes say, and does what they ask."""
        said: list[Said] = []
        for note in notes:
            if isinstance(note, str):
                await self._commit(said)
                said = []
                await self._obey(note)
            elif isinstance(note[1], sg.Ended):
                await self._ended(note[0], note[1].verdict, said)
                said = []
            else:
                said += self._said(*note)
            if self._done:
                return
        await self._commit(said)
        if self._draining and self._can_hand_over():
            await self._hand_over()
        elif self._until_deadline() <= 0:
            await self._expire()

    def _said(self, number: int, signal: sg.Signal) -> list[Said]:
        fact = facts.of_signal(signal, self._shop.clock.now())
        reader = self._attempts.readers.get(number)
        if fact is None or reader is None:
            return []
        said: list[Said] = [(fact, None if isinstance(fact, ev.AccountFlagged) else number)]
        if isinstance(fact, ev.CheckStarted | ev.CheckEnded) and reader.text.safe and reader.watch.sequence is not None:
            said.append((ev.AttemptUpdated(sequence=reader.watch.sequence), number))
        return said

    async def _obey(self, word: str) -> None:
        match word:
            case "cancel":
                await self._cancel()
            case "drain":
                self._draining = True
            case "interrupt":
                await self._interrupt()
            case "look":
                broke = self._attempts.broke()
                if broke is not None:
                    raise broke
            case _ if word == LOST:
                raise LeaseLost(self._job.id)
            case _:
                log("control.unknown", logging.WARNING, job=self._job.id)

    async def _commit(self, said: Sequence[Said], writes: Callable[[Job], Sequence[Command]] | None = None) -> None:
        """The facts are on record. While Redis is away it tries on: only Redis can say that the lease is lost."""
        if not said:
            return
        said = facts.merged(said)
        while True:
            try:
                self._job = await self._shop.jobs.change(
                    self._job.id, lambda _: said, job=self._job, token=self._token, writes=writes
                )
                break
            except StoreUnavailable:
                await asyncio.sleep(_AGAIN)
        self._done = self._job.status not in UNDER_WAY
        if self._job.settled:
            log("job.settled", job=self._job.id, status=self._job.status.value, attempts=len(self._job.attempts))

    # -- beginning

    async def _begin(self) -> None:
        job, shop = self._job, self._shop
        rescued = job.status in UNDER_WAY
        who = {"worker": shop.worker_id, "generation": self._generation}
        said: list[Said] = [(ev.Rescued(**who) if rescued else ev.Started(**who), None)]
        if self._until_deadline() > 0 or job.open_attempts:
            goes_on = [a for a in job.open_attempts if a.mode == "background" and a.response_id]
            for attempt in job.open_attempts:
                if attempt not in goes_on:
                    said += facts.broken_off(job, attempt.number, Outcome.LOST, 0, shop.catalogue)
            for attempt in goes_on:
                check = check_to_go_on(job, attempt.number)
                if check is not None and check.ended_at is not None:
                    said.append((facts.check_again(check), attempt.number))
            if not goes_on and job.cancel_requested_at is None and self._until_deadline() > 0:
                await self._try_again(said)
                return
            await self._commit(said)
            for attempt in goes_on:
                await self._attempts.take_up(self._job, self._job.attempt(attempt.number))
            if self._job.cancel_requested_at is not None:
                await self._cancel()
            return
        await self._expire()

    async def _try_again(self, said: list[Said]) -> None:
        """The next attempt on the model that was last tried, or a hold, or the end when there were enough."""
        job = self._job
        gate = await self._ask_gate()
        if gate.state == "open":
            said = [s for s in said if not isinstance(s[0], ev.Started)]  # it waits: it has not started
            await self._commit([*said, self._held(gate.reason)])
            return
        self._trial = gate.state == "trial"
        lost = sum(1 for fact, _ in said if isinstance(fact, ev.AttemptFinished))
        if lost and retry.counted([a.outcome for a in job.attempts]) >= job.policy.max_attempts:
            await self._commit([*said, (ev.Failed(error=words.job_error("attempts_exhausted")), None)])
            return
        model = job.attempts[-1].model if job.attempts else job.requested_model
        await self._open(said, model, Purpose.RETRY if job.attempts else Purpose.ORIGINAL)

    async def _ask_gate(self) -> Gate:
        while True:
            try:
                return await self._shop.circuit.gate(self._job.id)
            except StoreUnavailable:
                await asyncio.sleep(_AGAIN)

    def _held(self, reason: str) -> Said:
        scope = self._shop.circuit.scope
        return ev.Scheduled(reason=ScheduledReason.HOLD, hold_scope=scope, hold_reason=reason), None

    async def _open(self, said: list[Said], model: str, purpose: Purpose) -> None:
        """Records the intent to call, then calls: a crash in between leaves a trace."""
        number = len(self._job.attempts) + 1
        intent = ev.AttemptStarted(
            model=model,
            purpose=purpose,
            mode=self._shop.mode,
            client_request_id=f"{self._job.id}-{number}",
            proxied=self._shop.provider.proxy is not None,
        )
        asked, _ = await asyncio.gather(self._attempts.asked(), self._commit([*said, (intent, number)]))
        if asked is None:
            gone = facts.broken_off(self._job, number, Outcome.BAD_REQUEST, 0, self._shop.catalogue)
            await self._commit([*gone, (ev.Failed(error=words.job_error("content_unreadable")), None)])
            return
        self._attempts.start(self._job, self._job.attempt(number), asked)

    # -- ending

    async def _ended(self, number: int, verdict: sg.Verdict, said: list[Said]) -> None:
        """The attempt is over: the job settles, or tries again."""
        shop, job = self._shop, self._job
        reader = await self._attempts.finish(number)
        now = shop.clock.now()
        said = [*said, (facts.finished(shop.catalogue, job.attempt(number), verdict, now), number)]
        await self._tell_circuit(verdict.failure)
        if verdict.block is not None:
            said += self._stop_all(Outcome.CANCELLED)
            await self._commit([*said, (ev.Blocked(block=verdict.block), number)])
            await self._attempts.cancel_upstream()
        elif verdict.outcome in DELIVERED:
            end = facts.delivered(job, shop.catalogue, number, verdict, now)
            writes: list[Command] = []
            if isinstance(end[0][0], ev.Completed):
                answer = facts.answer_of(verdict, str(reader.text))
                writes.append(("SET", keys.answer(job.id), codec.seal(answer)))
            await self._commit([*said, *end], lambda _: writes)
        else:
            failure = verdict.failure or Failure(verdict.outcome, "cancelled_upstream", "provider")
            await self._failed(number, failure, said, output_seen=verdict.first_output_seen)

    async def _tell_circuit(self, failure: Failure | None) -> None:
        """An account at fault opens the circuit; a trial that met no such fault closes it."""
        circuit = self._shop.circuit
        try:
            if failure is not None and failure.scope == "account":
                if await circuit.trip(self._job.id, failure.code):
                    log("circuit.opened", logging.ERROR, code=failure.code)
            elif self._trial:
                log("circuit.closed", count=await circuit.close())
                self._trial = False
        except StoreUnavailable:
            pass  # the next job that meets the fault says it again; a trial's time runs out

    async def _failed(self, number: int, failure: Failure, said: list[Said], *, output_seen: bool) -> None:
        job, shop = self._job, self._shop
        if failure.outcome is Outcome.LOST:  # truly lost, and said so: the only way to an answer is a new response
            failure, output_seen = replace(failure, retryable=True), False
        if failure.scope == "account":
            await self._commit([*said, self._held(failure.code)])
            return
        tried = retry.counted([a.outcome for a in job.attempts])
        stand_in = facts.stand_in(job, shop.catalogue, failure, output_seen=output_seen, now=shop.clock.now())
        if stand_in is not None and tried < job.policy.max_attempts:
            await self._open([*said, (stand_in, number)], stand_in.disclosure.served_model, Purpose.FALLBACK)
            return
        verdict = retry.decide(
            tried,
            job.policy.max_attempts,
            failure,
            output_seen,
            shop.clock.chance(),
            shop.clock.monotonic(),
            None,  # a deadline ends the job as expired, whatever it waits for
            same_code_before=sum(1 for a in job.attempts if a.error is not None and a.error.code == failure.code),
        )
        if isinstance(verdict, retry.GiveUp):
            await self._commit([*said, (ev.Failed(error=words.failure_error(failure)), number)])
            return
        until = shop.clock.now() + timedelta(seconds=verdict.seconds)
        await self._commit([*said, (ev.Scheduled(reason=ScheduledReason.BACKOFF, until=until), None)])

    async def _cancel(self) -> None:
        """On request: ends every attempt, settles, and asks the provider to stop."""
        under_way = bool(self._attempts.readers)
        billed = any(a.response_id for a in self._job.attempts)
        end = ev.Cancelled(upstream_under_way=under_way, billed=billed)
        await self._commit(self._or_blocked(self._stop_all(Outcome.CANCELLED), end))
        await self._attempts.cancel_upstream()

    async def _expire(self) -> None:
        """A deadline has passed."""
        deadline = deadline_of(self._job)
        which = deadline.kind if deadline else "run_deadline"
        said = self._stop_all(Outcome.TIMED_OUT)
        for attempt in self._job.open_attempts:
            if attempt.number not in self._attempts.readers:
                said += facts.broken_off(self._job, attempt.number, Outcome.TIMED_OUT, 0, self._shop.catalogue)
        end = ev.Expired(deadline=which, error=words.job_error(which))
        await self._commit(self._or_blocked(said, end))
        await self._attempts.cancel_upstream()

    def _or_blocked(self, said: list[Said], end: ev.Fact) -> list[Said]:
        """`end`, unless one of the attempts turned out to be blocked: then that is the job's end (promise P2)."""
        return said if any(isinstance(fact, ev.Blocked) for fact, _ in said) else [*said, (end, None)]

    def _stop_all(self, outcome: Outcome) -> list[Said]:
        """The facts that end every attempt that still runs; a block that was already told of stays a block."""
        said: list[Said] = []
        blocked: list[Said] = []
        for number, signal in self._attempts.stop(outcome):
            if isinstance(signal, sg.Ended):
                now = self._shop.clock.now()
                done = facts.finished(self._shop.catalogue, self._job.attempt(number), signal.verdict, now)
                said.append((done, number))
                if signal.verdict.block is not None:
                    blocked = [(ev.Blocked(block=signal.verdict.block), number)]
            else:
                said += self._said(number, signal)
        return said + blocked

    # -- letting go

    def _can_hand_over(self) -> bool:
        """True when another worker can take up every response where it stands."""
        attempts = [self._job.attempt(number) for number in self._attempts.readers]
        return all(a.mode == "background" and a.response_id for a in attempts)

    async def _hand_over(self) -> None:
        """Our own shutdown: the responses go on without us, and the next holder takes them up. No attempt is burnt."""
        await self._shop.flusher.flush()
        said: list[Said] = [
            (ev.CheckEnded(ended_by=CheckEnd.INTERRUPTED, repeats=check.repeats), check.attempt)
            for check in self._job.open_checks
        ]
        for number, reader in self._attempts.readers.items():
            if reader.text.safe and reader.watch.sequence is not None:
                said.append((ev.AttemptUpdated(sequence=reader.watch.sequence), number))
        await self._commit([*said, (ev.Interrupted(worker=self._shop.worker_id), None)])

    async def _interrupt(self) -> None:
        """The time to drain is over: what can't be handed over is broken off and runs again; no attempt is counted."""
        if self._can_hand_over():
            await self._hand_over()
            return
        said = self._stop_all(Outcome.INTERRUPTED)
        await self._commit(self._or_blocked(said, ev.Interrupted(worker=self._shop.worker_id)))
        await self._attempts.cancel_upstream()

    async def _give_up(self) -> None:
        """After a fault of ours: the job ends as failed and says so, if that can still be written."""
        with contextlib.suppress(Exception):
            said: list[Said] = []
            for attempt in self._job.open_attempts:
                said += facts.broken_off(self._job, attempt.number, Outcome.LOST, 0, self._shop.catalogue)
            await self._commit([*said, (ev.Failed(error=words.job_error("internal_error")), None)])
