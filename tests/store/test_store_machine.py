"""The store as a machine against a real Valkey: whatever workers, apps, crashes and lost answers do, it stays sound."""

import asyncio
import contextlib
from datetime import timedelta

from builders import CANCELLED, EXPIRED, FakeClock, candidates, legal, new_job
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from store_inspection import LostAnswers, fall_due, full, lapse, sound
from thorough import cases

from worker.jobs import events as ev, fold
from worker.jobs.errors import AlreadySettled, LeaseLost, StoreUnavailable
from worker.jobs.spec import Policy
from worker.jobs.states import UNDER_WAY
from worker.store import keys
from worker.store.admission.pauses import Pauses, scope_of, scopes_of
from worker.store.apps import Apps
from worker.store.connection.pool import connect
from worker.store.jobs.repository import Jobs
from worker.tasks.execution.attempt_start import hold_for_pause

picks = st.integers(0, 2**16)
APPS = ("mall", "shop")
APP_SAYS = (ev.CancelRequested(by="key_1"), ev.AccountFlagged())


class Store(RuleBasedStateMachine):
    """Two processes (a worker and an API), each with its own memory of the audit chains."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.ids: list[str] = []
        self.known: set[tuple[str, str]] = set()
        self.most = dict.fromkeys(APPS, 0)
        self.tokens: dict[str, str] = {}  # whose lease is out, as we believe
        self.stale: list[tuple[str, str]] = []
        self.ends: dict[str, object] = {}

    @initialize()
    def begin(self) -> None:
        self.clock = FakeClock()
        self.redis = connect(self.url)
        self.worker, self.api = Jobs(self.redis, self.clock), Jobs(self.redis, self.clock)
        self.run(self.redis.flushall())
        self.apps = Apps(self.redis, self.clock)
        self.pauses = Pauses(self.redis, self.clock)
        self.paused: set[str] = set()
        for app in APPS:
            self.run(self.apps.create_key(app, ("submit",)))

    def run(self, what):
        return self.runner.run(what)

    def teardown(self) -> None:
        self.run(self.redis.aclose())
        self.runner.close()

    def load(self, job_id):
        return self.run(self.api.load(job_id)).job

    def any_of(self, pick, names):
        return names[pick % len(names)]

    def lost_lease(self, job_id) -> None:
        if job_id in self.tokens:
            self.stale.append((job_id, self.tokens.pop(job_id)))

    @rule(
        key=st.sampled_from([None, None, "a", "b"]),
        priority=st.sampled_from(["low", "default", "high"]),
        wait=st.sampled_from([None, None, 60]),
        deadline=st.sampled_from([None, 30.0]),
        app=st.sampled_from(APPS),
    )
    @precondition(lambda self: len(self.ids) < 6)
    def submit(self, key, priority, wait, deadline, app) -> None:
        new = new_job(
            key=key,
            app=app,
            priority=priority,
            not_before=self.clock.at + timedelta(seconds=wait) if wait else None,
            policy=Policy(queue_deadline_seconds=deadline),
            webhook_events=("job.completed", "job.cancelled"),
        )
        stored, replayed = self.run(self.api.submit(new))
        assert replayed == (stored.job.id in self.ids) == ((app, key) in self.known)
        assert stored.job.app == app, "nobody gets another app's job by its key"
        if key:
            self.known.add((app, key))
        if not replayed:
            self.ids.append(stored.job.id)

    @rule(limit=st.integers(1, 3), name=st.sampled_from(["w1", "w2"]))
    def claim(self, limit, name) -> None:
        _, held = self.run(self.worker.claim(name, limit, 600))
        assert len({h.job.id for h in held}) == len(held) <= limit
        for one in held:
            assert not one.job.settled
            assert (one.job.id in self.tokens) == one.crashed, "a held job is taken from the dead alone"
            if not one.crashed and self.most[one.job.app]:
                out = sum(1 for name in self.tokens if self.load(name).app == one.job.app)
                assert out < self.most[one.job.app], "no more at once than the app may have"
            self.lost_lease(one.job.id)
            self.tokens[one.job.id] = one.token
            stops = [] if one.crashed or one.job.open_attempts else [s for s in scopes_of(one.job) if s in self.paused]
            assert (one.pause.scope if one.pause else None) == (stops[0] if stops else None), "what is paused is marked"
            if one.pause:  # as the run does
                self.run(self.worker.change(one.job.id, lambda _, p=one.pause: [hold_for_pause(p)], token=one.token))
                self.lost_lease(one.job.id)
        left = {one.job.app for one in held if one.pause}  # these left their slots behind the claim
        for app in set(APPS) - left if len(held) < limit else ():
            waits = self.run(self.redis.zcard(keys.app_queue(app)))
            assert not waits or self.run(full(self.redis, app)), "room is left, and the app is not full: nobody waits"

    @rule(app=st.sampled_from(APPS), most=st.integers(0, 2), weight=st.sampled_from([0.5, 1.0, 3.0]))
    def terms_change(self, app, most, weight) -> None:
        self.run(self.apps.set_limits(app, weight=weight, max_running=most))
        self.most[app] = most

    @rule(kind=st.sampled_from(["all", "app"]), app=st.sampled_from(APPS))
    def pause(self, kind, app) -> None:
        self.paused.add(self.run(self.pauses.pause(kind, "" if kind == "all" else app, by="key_ops")).scope)

    @rule(kind=st.sampled_from(["all", "app"]), app=st.sampled_from(APPS), forgotten=st.booleans())
    def resume(self, kind, app, forgotten) -> None:
        """Ended by hand, or by its time with only the sweeper to notice."""
        scope = scope_of(kind, app)
        held = [j for j in map(self.load, self.ids) if j.hold is not None and j.hold.scope == scope]
        if forgotten:
            self.run(self.redis.zadd(keys.PAUSES, {scope: 1}, xx=True))
            self.run(self.pauses.sweep())
        else:
            was, _ = self.run(self.pauses.resume(kind, app))
            assert was == (scope in self.paused)
        self.paused.discard(scope)
        for job in held:
            due = self.run(self.redis.zscore(keys.LATER, job.id))  # None: it had come up already, and was not begun
            assert due is None or due < 1e13, "nothing waits for a pause that is over"

    @rule()
    @precondition(lambda self: self.tokens or self.stale)
    def renew(self) -> None:
        held = [*self.tokens.items(), *self.stale]
        drafts = self.run(self.worker.renew(600, held))
        assert drafts == [""] * len(self.tokens) + ["LOST"] * len(self.stale)

    @rule(pick=picks)
    @precondition(lambda self: self.tokens)
    def crash(self, pick) -> None:
        self.run(lapse(self.redis, self.any_of(pick, list(self.tokens))))

    @rule(pick=picks)
    @precondition(lambda self: self.ids)
    def time_comes(self, pick) -> None:
        self.run(fall_due(self.redis, self.any_of(pick, self.ids)))

    @rule(seconds=st.integers(1, 40))
    def clock_step(self, seconds) -> None:
        self.clock.step(seconds)

    def facts(self, job, data, most):
        drafts = []
        for _ in range(data.draw(st.integers(1, most))):
            fits = [s for s in candidates(job, self.clock.at) if legal(job, s)]
            if not fits:
                break
            drafts.append(data.draw(st.sampled_from(fits)))
            job = fold.apply(job, ev.event(job.version + 1, self.clock.at, job.id, *drafts[-1]))
        return drafts, job

    @rule(pick=picks, data=st.data(), answer_lost=st.booleans(), interloper=st.booleans())
    @precondition(lambda self: self.tokens)
    def holder_commits(self, pick, data, answer_lost, interloper) -> None:
        """A holder says what fits; its answer may be lost, and the app may speak in between."""
        job_id = self.any_of(pick, list(self.tokens))
        token, job = self.tokens[job_id], self.load(job_id)
        drafts, expected = self.facts(job, data, 3)
        script = self.worker._scripts._commit

        def commit():
            return self.run(self.worker.change(job_id, lambda _: drafts, job=job, token=token))

        if answer_lost:
            self.worker._scripts._commit = LostAnswers(script)
            with contextlib.suppress(StoreUnavailable):
                commit()
                raise AssertionError("the answer was to be lost")
            self.worker._scripts._commit = script
            if interloper and not expected.settled:
                self.run(self.api.change(job_id, lambda _: [(ev.AccountFlagged(), None)]))
        after = commit()
        assert after == self.load(job_id)
        assert after.attempts == expected.attempts
        assert after.status == expected.status
        moved = any(isinstance(f, ev.Scheduled | ev.Released | ev.Interrupted) for f, _ in drafts)
        if after.settled or (moved and after.status not in UNDER_WAY):
            self.lost_lease(job_id)

    @rule(pick=picks, data=st.data())
    @precondition(lambda self: self.stale)
    def stale_holder_commits(self, pick, data) -> None:
        job_id, token = self.any_of(pick, self.stale)
        job = self.load(job_id)
        drafts = [(ev.AccountFlagged(), None)] if job.settled else self.facts(job, data, 2)[0]
        try:
            self.run(self.worker.change(job_id, lambda _: drafts, token=token))
        except AlreadySettled:
            assert job.settled
        except LeaseLost:
            assert not job.settled
        else:
            raise AssertionError("a stale token wrote")
        assert self.load(job_id) == job

    @rule(pick=picks, fact=st.sampled_from(APP_SAYS), late=st.booleans())
    @precondition(lambda self: self.ids)
    def app_says(self, pick, fact, late) -> None:
        """The API writes; perhaps on a record that is behind already, so that it is asked again."""
        job_id = self.any_of(pick, self.ids)
        job = self.load(job_id)
        if job.settled:
            return
        if late:
            self.run(self.worker.change(job_id, lambda _: [(ev.AccountFlagged(), None)]))
        after = self.run(self.api.change(job_id, lambda _: [(fact, None)], job=job))
        assert after.version == job.version + 1 + late

    @rule(pick=picks, end=st.sampled_from([CANCELLED, EXPIRED]))
    @precondition(lambda self: self.ids)
    def waiting_job_ends(self, pick, end) -> None:
        """The API cancels and the sweeper expires what waits; the holder of a claim, if any, has lost it."""
        job_id = self.any_of(pick, self.ids)
        if legal(self.load(job_id), (end, None)) and self.load(job_id).status not in UNDER_WAY:
            assert self.run(self.api.change(job_id, lambda _: [(end, None)])).settled
            self.lost_lease(job_id)

    @rule()
    def sweeper_looks(self) -> None:
        for job_id in self.run(self.api.overdue()):
            job = self.load(job_id)
            assert job.status not in UNDER_WAY
            assert not job.settled

    @invariant()
    def all_is_sound(self) -> None:
        for job in self.run(sound(self.redis, self.api, self.ids)):
            if job.settled:
                assert self.ends.setdefault(job.id, job) == job, "terminal is terminal"
        wanted = sum(
            1
            for job in self.ends.values()
            if job.status in {"completed", "cancelled"}  # type: ignore[attr-defined]
        )
        if hasattr(self, "redis"):
            assert self.run(self.redis.zcard(keys.OUTBOX)) == wanted, "one message for each end that was wanted"


def test_the_store_stays_sound_whatever_happens(valkey_url):
    Store.url = valkey_url
    quiet = settings(
        max_examples=cases(10, 30),
        stateful_step_count=40,
        phases=(Phase.reuse, Phase.generate),  # against a real server shrinking takes minutes; add it to look closer
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Store, settings=quiet)
