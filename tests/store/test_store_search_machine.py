"""Whatever happens to jobs, each index holds exactly the jobs whose records say so, and a list finds what fits."""

import asyncio
from collections import defaultdict
from urllib.parse import quote

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
from thorough import cases

from worker.jobs.states import Status
from worker.store import keys
from worker.store.connection.kept_secrets import DIGEST, KeptSecrets
from worker.store.connection.pool import connect
from worker.store.jobs.commit_commands import RetentionTimes
from worker.store.jobs.list_filters import ListFilters
from worker.store.jobs.listing import list_jobs
from worker.store.jobs.repository import Jobs
from worker.store.jobs.search_terms import metadata_term
from worker.store.lifecycle.erasure import erase
from worker.store.lifecycle.retention import Retention
from worker.store.lifecycle.search_backfill import SearchBackfill

APPS = ("mall", "shop")
MODELS = ("gpt-5.6-sol", "gpt-5.6-luna", "odd/name with:signs ü")
METADATA = st.dictionaries(st.sampled_from(["ticket", "team"]), st.sampled_from(["A-17", "B", ""]), max_size=2)
END_USERS = (None, "a" * 64, "b" * 64)
picks = st.integers(0, 2**16)


def maybe(values):
    return st.none() | st.sampled_from(values)


class SearchedStore(RuleBasedStateMachine):
    """Jobs of two apps that come, change, end, lose their content and are removed."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.ids: list[str] = []

    @initialize()
    def begin(self) -> None:
        self.clock, self.redis = FakeClock(), connect(self.url)
        self.run(self.redis.flushall())
        self.jobs = Jobs(self.redis, self.clock)
        self.retention = Retention(self.redis, self.clock, RetentionTimes(60, audit=10**9))
        self.secret = self.run(KeptSecrets(self.redis, self.clock).get(DIGEST))

    def run(self, what):
        return self.runner.run(what)

    def teardown(self) -> None:
        self.run(self.redis.aclose())
        self.runner.close()

    @rule(app=st.sampled_from(APPS), model=st.sampled_from(MODELS), user=st.sampled_from(END_USERS), metadata=METADATA)
    @precondition(lambda self: len(self.ids) < 12)
    def submit(self, app, model, user, metadata) -> None:
        new = new_job(app=app, requested_model=model, safety_identifier=user)
        new.private["metadata"] = metadata
        self.ids.append(self.run(self.jobs.submit(new))[0].job.id)

    @rule(pick=picks, data=st.data())
    @precondition(lambda self: self.ids)
    def something_happens(self, pick, data) -> None:
        job = self.run(self.jobs.load(self.ids[pick % len(self.ids)])).job
        for _ in range(data.draw(st.integers(1, 6))):
            fits = [draft for draft in candidates(job, self.clock.at) if legal(job, draft)]
            if fits and not job.settled:
                draft = data.draw(st.sampled_from(fits))
                job = self.run(self.jobs.change(job.id, lambda _, draft=draft: [draft]))

    @rule(pick=picks, end=st.sampled_from([CANCELLED, EXPIRED]))
    @precondition(lambda self: self.ids)
    def ends(self, pick, end) -> None:
        job = self.run(self.jobs.load(self.ids[pick % len(self.ids)])).job
        if legal(job, (end, None)):
            self.run(self.jobs.change(job.id, lambda _: [(end, None)]))

    @rule(pick=picks, because=st.sampled_from(["deleted", "not_stored"]))
    @precondition(lambda self: self.ids)
    def content_is_deleted(self, pick, because) -> None:
        stored = self.run(self.jobs.load(self.ids[pick % len(self.ids)]))
        if stored.job.settled:
            self.run(erase(self.redis, self.jobs, stored, because, "key_1"))

    @rule(pick=picks)
    @precondition(lambda self: self.ids)
    def expires(self, pick) -> None:
        job = self.run(self.jobs.load(self.ids[pick % len(self.ids)])).job
        if job.settled:
            self.ids.remove(job.id)
            self.run(self.redis.delete(keys.job(job.id), keys.trail(job.id)))
            self.run(self.redis.zadd(keys.SETTLED, {job.id: 0}))
            self.run(self.retention.clear())

    @rule(app=st.sampled_from(APPS))
    def rows_are_lost_and_made_again(self, app) -> None:
        names = self.run(self.redis.keys(keys.index(app, "[msc][eo][tre][av]*")))
        self.run(self.redis.delete(keys.terms(app), *names))
        self.run(SearchBackfill(self.redis, self.clock).proceed([app]))

    @rule(seconds=st.sampled_from([0.0, 0.001, 5.0]))
    def time_passes(self, seconds) -> None:
        self.clock.step(seconds)

    @rule(
        app=st.sampled_from(APPS),
        filters=st.builds(
            ListFilters,
            statuses=st.lists(st.sampled_from(Status), max_size=3).map(tuple),
            model=maybe(MODELS),
            served_model=maybe(MODELS),
            code=maybe(["overloaded", "cyber_policy", "nothing"]),
            safety_identifier=st.sampled_from(END_USERS),
            metadata=METADATA.map(lambda pairs: tuple(pairs.items())),
        ),
        limit=st.integers(1, 4),
    )
    def a_list_finds_what_fits(self, app, filters, limit) -> None:
        def fits(one) -> bool:
            job, metadata = one.job, one.private["metadata"]
            codes = {job.error and job.error.code, job.block and job.block.code}
            return (
                job.app == app
                and (not filters.statuses or job.status in filters.statuses)
                and filters.model in (None, job.requested_model)
                and filters.served_model in (None, job.served_model)
                and (filters.code is None or filters.code in codes)
                and filters.safety_identifier in (None, job.safety_identifier)
                and all(metadata.get(key) == value for key, value in filters.metadata)
            )

        wanted = [one.job.id for one in map(self.run, map(self.jobs.load, self.ids)) if fits(one)]
        found, cursor = [], None
        while True:
            page, cursor = self.run(list_jobs(self.redis, app, filters, limit, cursor))
            found += [one.job.id for one in page]
            if cursor is None:
                break
        assert found == sorted(wanted, reverse=True)

    @invariant()
    def indexes_are_exact(self) -> None:
        if not hasattr(self, "redis"):
            return
        wanted, rows = defaultdict(set), defaultdict(set)
        for stored in map(self.run, map(self.jobs.load, self.ids)):
            job, own = stored.job, set()
            own |= {f"served:{quote(job.served_model, safe='')}"} if job.served_model else set()
            own |= {f"code:{job.error.code}"} if job.error else set()
            own |= {f"code:{job.block.code}"} if job.block else set()
            own |= {metadata_term(self.secret, job.app, *pair) for pair in stored.private["metadata"].items()}
            names = {"", f":status:{job.status}", f":model:{job.requested_model}", *(f":{one}" for one in own)}
            names |= {f":user:{job.safety_identifier}"} if job.safety_identifier else set()
            for name in names:
                wanted[keys.index(job.app) + name].add(job.id)
            rows[keys.terms(job.app)] |= {(job.id, frozenset(own))} if own else set()
        found = {
            name.decode(): {row.decode() for row in self.run(self.redis.zrange(name, 0, -1))}
            for name in self.run(self.redis.keys(keys.index("*")))
        }
        assert found == wanted
        for app in APPS:
            stored_rows = self.run(self.redis.hgetall(keys.terms(app)))
            stored_rows.pop(keys.COMPLETE.encode(), None)
            found_rows = {(name.decode(), frozenset(row.decode().split())) for name, row in stored_rows.items()}
            assert found_rows == rows[keys.terms(app)]


def test_indexes_hold_exactly_what_the_records_say(valkey_url):
    SearchedStore.url = valkey_url
    quiet = settings(
        max_examples=cases(8, 40),
        stateful_step_count=30,
        phases=(Phase.reuse, Phase.generate),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(SearchedStore, settings=quiet)
