"""Incidents are counted once for all processes, in the commit if there is one, and reported within one budget."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from arq.connections import ArqRedis
from hypothesis import HealthCheck, given, settings, strategies as st
from in_process import Stage

from worker.clock import Clock
from worker.store import keys
from worker.store.stats.incidents import IncidentReporter
from worker.telemetry import sentry_issues
from worker.telemetry.incidents import INCIDENTS, IncidentReport, Incidents, Occurrence
from worker.telemetry.report_budget import INTERVALS_S, QUIET_S, Budget

LOST = "lease-lost"
FAILED = "job-failed|server_error|gpt-5.6"


class Process:
    """One process that reports: its own incidents, the shared Redis."""

    def __init__(self, redis: ArqRedis) -> None:
        self.incidents, self.sent = Incidents(), list[IncidentReport]()
        self.incidents.install(self.sent.append)
        self.reporter = IncidentReporter(redis, Clock(), self.incidents)

    async def meets(self, group: str, times: int = 1, at: float = 0.0, **exception: object) -> None:
        with self.incidents.sharing():
            for _ in range(times):
                self.incidents.add(group, Occurrence({"job_id": "job_1"}, {}, exception or None), at)

    async def reports(self) -> list[tuple[str, int, int]]:
        """(group, occurrences, number) of the reports that it may send now."""
        self.sent.clear()
        await self.reporter.report()
        return [(one.group, one.count, one.number) for one in self.sent]


async def pass_time(redis: ArqRedis, seconds: float) -> None:
    for field, value in (await redis.hgetall(keys.INCIDENTS)).items():
        if field.startswith(b"t:"):
            number, due, last = map(int, value.split())
            shifted = f"{number} {max(0, due - int(seconds * 1000))} {max(1, last - int(seconds * 1000))}"
            await redis.hset(keys.INCIDENTS, field, shifted)


async def test_one_report_stands_for_what_all_processes_met(redis: ArqRedis) -> None:
    one, other = Process(redis), Process(redis)
    await one.meets(LOST, 3)
    assert await one.reports() == [(LOST, 3, 0)]
    await one.meets(LOST, 4_000)
    await other.meets(LOST, 6_000)
    assert await one.reports() == await other.reports() == [], "within the minute"
    await pass_time(redis, 61)
    assert await other.reports() == [(LOST, 10_000, 1)]
    assert await one.reports() == []
    await pass_time(redis, QUIET_S + 1)
    assert await one.reports() == []
    assert await redis.hgetall(keys.INCIDENTS) == {}, "it is over"
    await other.meets(LOST)
    assert await other.reports() == [(LOST, 1, 0)], "and the next one is reported at once"


async def test_a_bug_is_reported_by_a_process_that_has_its_exception(redis: ArqRedis) -> None:
    bug = sentry_issues.group_of("run.broke", {"error": "KeyError", "at": "worker.x:7"})
    assert bug == "run.broke|KeyError|worker.x"
    one, other = Process(redis), Process(redis)
    await one.meets(bug, values=["frames"])
    assert await one.reports() == [(bug, 1, 0)]
    await one.meets(bug, values=["frames"])
    await one.reports()
    await pass_time(redis, 61)
    assert await other.reports() == [], "it could show no stack"
    assert await one.reports() == [(bug, 1, 1)]
    assert one.sent[0].occurrence.exception == {"values": ["frames"]}


async def test_without_redis_a_process_keeps_to_a_budget_of_its_own(
    redis: ArqRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redis.exceptions import ConnectionError as Refused

    one = Process(redis)

    async def refuse(**_: object) -> None:
        raise Refused("away")

    monkeypatch.setattr(one.reporter, "_script", refuse)
    for _ in range(3):
        await one.meets("store-away", 5)
        with one.incidents.sharing():
            await one.reporter.report()
    assert [(report.group, report.count) for report in one.sent] == [("store-away", 5)]


async def test_many_receivers_are_few_issues(redis: ArqRedis) -> None:
    one = Process(redis)
    for number in range(100):
        await one.meets(sentry_issues.group_of("webhook-dead", {"host": f"h{number}"}))
    reports = await one.reports()
    assert len(reports) <= 41
    assert ("webhook-dead|other", 60, 0) in reports
    tomorrow = sentry_issues.group_of("webhook-dead", {"host": "another"})
    await one.meets(tomorrow, at=QUIET_S + 1.0)
    assert (tomorrow, 1, 0) in await one.reports(), "those of yesterday are over"


async def test_what_vigil_did_not_write_is_not_sent(redis: ArqRedis) -> None:
    forged = {"n:CANARY prompt": 3, "n:job-failed|CANARY text|x": 1, "junk": "x", f"n:{LOST}": "many"}
    await redis.hset(keys.INCIDENTS, mapping=forged)
    described = json.dumps({"tags": {"job_id": "CANARY text", "prompt": "CANARY", "code": "x"}, "trace": "CANARY-text"})
    await redis.hset(keys.INCIDENTS, mapping={f"n:{FAILED}": 2, f"d:{FAILED}": described, "t:job-failed": "CANARY"})
    one = Process(redis)
    assert await one.reports() == [(FAILED, 2, 0)]
    assert one.sent[0].occurrence == Occurrence({"job_id": "other", "code": "x"}, {})
    assert await one.reports() == []
    await redis.delete(keys.INCIDENTS)
    await redis.set(keys.INCIDENTS, "of another type")
    await one.meets(LOST)
    assert await one.reports() == [(LOST, 1, 0)]


@pytest.fixture
def own_reports() -> Iterator[list[IncidentReport]]:
    """The reports of this process, in which the stage's workers run."""
    sent: list[IncidentReport] = []
    INCIDENTS.install(sent.append)
    yield sent
    INCIDENTS.install(None)


ENDS = [
    ("server_error", {"max_attempts": 1}, "failed", "job-failed|server_error|gpt-5.6"),
    ("queued_forever", {"run_deadline_seconds": 1}, "expired", "job-expired|run_deadline|gpt-5.6"),
    ("check_then_clear hold=900", {"run_deadline_seconds": 1}, "expired", "job-checked|gpt-5.6"),
    ("check_then_nameless hold=1", {}, "failed", None),
    ("bio_block", {}, "blocked", None),
    ("max_tokens", {}, "completed", None),
]


async def test_an_end_is_counted_by_its_commit_and_reported_by_whoever_is_left(
    redis: ArqRedis, valkey_url: str, own_reports: list[IncidentReport]
) -> None:
    async with Stage(redis, valkey_url) as stage:
        worker = await stage.worker()

        async def dies_first() -> None:
            pass

        worker.components.incident_reporter.report = dies_first  # type: ignore[method-assign]
        ids = [await stage.submit(f"[[sim: {scenario}]] CANARY", policy=policy) for scenario, policy, _, _ in ENDS]
        statuses = [(await stage.settled(job_id)).status.value for job_id in ids]
        assert statuses == [status for _, _, status, _ in ENDS]
        counted = await redis.hgetall(keys.INCIDENTS)
        await stage.crash(worker)
    assert "CANARY" not in repr(counted)
    assert own_reports == []
    survivors = [Process(redis), Process(redis)]
    reports = [row for survivor in survivors for row in await survivor.reports()]
    assert sorted(reports) == sorted((group, 1, 0) for _, _, _, group in ENDS if group is not None)
    assert {report.occurrence.tags["job_id"] for one in survivors for report in one.sent} <= set(ids)


async def test_a_cause_that_has_an_issue_of_its_own_is_not_told_twice(
    redis: ArqRedis, valkey_url: str, own_reports: list[IncidentReport]
) -> None:
    async with Stage(redis, valkey_url) as stage:
        worker = await stage.worker()

        def broken(*_: object) -> None:
            raise RuntimeError

        worker.components.accounts.all[0].access.observe = broken  # type: ignore[method-assign]
        assert (await stage.settled(await stage.submit("[[sim: normal]]"))).status.value == "failed"
        await worker.components.incident_reporter.report()
    assert {sentry_issues.cause_of(report.group) for report in own_reports} <= {"run.broke"}
    assert await redis.hkeys(keys.INCIDENTS) == []


async def test_who_tells_nobody_counts_nothing(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        await stage.settled(await stage.submit("[[sim: server_error]]", policy={"max_attempts": 1}))
    assert await redis.exists(keys.INCIDENTS) == 0


STEPS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([1, 59, 61, 301, 901, 3601, QUIET_S + 1])), max_size=12)


@given(STEPS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_redis_and_a_process_alone_decide_the_same(redis: ArqRedis, steps: list[tuple[int, int]]) -> None:
    await redis.delete(keys.INCIDENTS)
    budget, one, now = Budget(), Process(redis), 0.0
    for count, seconds in steps:
        await one.meets(LOST, count)
        alone = budget.take(LOST, count, now)
        assert [(n, number) for _, n, number in await one.reports()] == ([] if alone is None else [alone])
        now += seconds
        await pass_time(redis, seconds)


def test_an_outage_of_three_hours_is_six_reports() -> None:
    budget = Budget()
    times = [second for second in range(3 * 3600) if budget.take(FAILED, 1, float(second)) is not None]
    assert [second // 60 for second in times] == [0, 1, 6, 21, 81, 141]
    assert times[1] == INTERVALS_S[0]
