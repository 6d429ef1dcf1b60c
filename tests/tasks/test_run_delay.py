"""The delay rule: every action against every course of a check. A delay may lead to another model, a block never."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from arq.connections import ArqRedis
from in_process import LUNA, SOL, Stage, until
from waiting import stopwatch

from worker.clock import Clock
from worker.jobs.record import Job
from worker.jobs.states import Outcome, Purpose, Status
from worker.jobs.view import job_view
from worker.store.jobs.control_requests import JobControl
from worker.store.jobs.output_chunks import OutputChunks

SOON = {"after_seconds": 0.5, "silence_seconds": 0}
LATE = "[[sim: check_then_clear hold=600 tokens=20 rate=40]] go"  # a hold ends when the test lets the provider hurry
EARLY = "[[sim: check_then_clear hold=0.1 latency=0 queue=0 tokens=4000 rate=40]] go"
BLOCKED = "[[sim: check_then_block hold=600]] go"
SILENT = "[[sim: silent_delay hold=600]] go"
AGAIN = "[[sim: check_mid_output hold=600]] go"
ACTIONS = ("wait", "offer", "switch", "race", "draft")


def rule(action: str, **more: object) -> dict[str, object]:
    return {"on_delay": {"action": action, **SOON, **more}}


def purposes(job: Job) -> list[Purpose]:
    return [a.purpose for a in job.attempts]


def seconds_to(job: Job, number: int) -> float:
    return (job.attempt(number).started_at - job.checks[0].started_at).total_seconds()


def passed(after: float) -> Callable[[Job], bool]:
    """True half a second after the rule had to act on the job's newest check."""
    return lambda job: bool(job.checks) and Clock().now() - job.checks[-1].started_at > timedelta(seconds=after + 0.5)


def acted(action: str, after: float = 0.5) -> Callable[[Job], object]:
    """True when the rule has done to the job's newest check what it does while the check lasts."""
    if action == "wait":
        return passed(after)
    if action == "offer":
        return lambda job: job.offer
    return lambda job: len(job.attempts) == 2 and job.attempts[1].response_id


async def test_a_check_that_clears_early_changes_nothing(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        ids = {action: await stage.submit(EARLY, policy=rule(action, after_seconds=3)) for action in ACTIONS}
        for job_id in ids.values():
            await stage.reaches(job_id, "the time at which the rule would act", passed(3))
        stage.hurry()
        for action, job_id in ids.items():
            job = await stage.settled(job_id)
            assert (job.status, job.served_model, job.disclosure) == (Status.COMPLETED, SOL, None), action
            assert purposes(job) == [Purpose.ORIGINAL], action
            assert "job.offer.made" not in await stage.types(job.id), action


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_block_is_never_routed_around(redis: ArqRedis, valkey_url: str, action: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        on_luna = "tokens=4000 rate=1"  # still running when the block comes
        job_id = await stage.submit(f"[[sim: check_then_block hold=600 {on_luna}]] go", policy=rule(action))
        await stage.reaches(job_id, action, acted(action))
        if action == "switch":  # the original was stopped before the block came: the delay was rerouted, no block
            stage.hurry()
            job = await stage.settled(job_id)
            assert (job.status, job.served_model) == (Status.COMPLETED, LUNA)
            return
        stage.sim.set_speed(1000)
        job = await stage.settled(job_id)
        assert job.status is Status.BLOCKED
        assert job.block is not None
        assert job.block.category == "cyber"
        assert await stage.output(job_id) is None
        creates = stage.sim.calls()["creates"]
        blocked_at = next(a.finished_at for a in job.attempts if a.outcome is Outcome.BLOCKED)
        assert blocked_at is not None
        assert all(a.started_at < blocked_at for a in job.attempts)
        assert creates == len(job.attempts) == (1 if action in {"wait", "offer"} else 2)


async def test_wait_waits(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        job_id = await stage.submit(LATE, policy=rule("wait"))
        await stage.reaches(job_id, "the time at which others act", passed(0.5))
        stage.hurry()
        job = await stage.settled(job_id)
        assert (job.status, job.served_model, purposes(job)) == (Status.COMPLETED, SOL, [Purpose.ORIGINAL])


async def test_switch_stops_the_original_and_says_so(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage, stopwatch(redis) as watch:
        await stage.worker()
        at_once = "[[sim: check_then_clear hold=600 latency=0 queue=0 tokens=20 rate=40]] go"
        job = await stage.settled(await stage.submit(at_once, policy=rule("switch")))
        assert (job.status, job.served_model) == (Status.COMPLETED, LUNA)
        assert [a.outcome for a in job.attempts] == [Outcome.SUBSTITUTED, Outcome.COMPLETED]
        assert purposes(job) == [Purpose.ORIGINAL, Purpose.FASTER]
        # not from the check's start: a busy machine notes that later than the rule counts from
        between = (job.attempt(2).started_at - job.attempt(1).started_at).total_seconds()
        assert between >= 0.5, "no sooner than the setting after anything was sent"
        assert seconds_to(job, 2) < 1.0 + watch.lost, "within half a second of the setting"
        assert job.disclosure is not None
        assert (job.disclosure.reason, job.disclosure.decided_by) == ("safety_check_delay", "policy")
        assert (job.disclosure.requested_model, job.disclosure.capability) == (SOL, "lower")
        assert job.checks[0].ended_by == "substituted"
        assert job.checks[0].retry_model == LUNA

        async def stopped() -> bool:
            calls = stage.sim.calls()
            return calls["cancels"] == 1 and calls["open_streams"] == 0

        await until("the original to be cancelled upstream", stopped)


async def test_race_the_faster_wins(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        job = await stage.settled(await stage.submit(LATE, policy=rule("race")))
        assert (job.status, job.served_model, job.winner) == (Status.COMPLETED, LUNA, 2)
        assert [a.outcome for a in job.attempts] == [Outcome.CANCELLED, Outcome.COMPLETED]
        assert job.disclosure is not None
        assert job.disclosure.reason == "safety_check_delay"
        assert job.wasted_cost is not None
        assert job.total_cost is not None
        assert 0 <= job.wasted_cost < job.total_cost
        substituted = [e for e in await stage.jobs.trail(job.id) if e["type"] == "job.model.substituted"]
        assert [(e["attempt"], e["data"]["disclosure"]["served_model"]) for e in substituted] == [(1, LUNA)]


async def test_race_the_original_wins(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        stage.sim.set_speed(50)
        # half of the answer (200 s), a check, the other half: 50 s before Luna, who writes all of it from the start.
        # The check lasts 3 s of ours at this speed, so a busy machine sees it too.
        prompt = "[[sim: check_again hold=1 again=150 tokens=400 rate=1]] go"
        job_id = await stage.submit(prompt, policy=rule("race"))
        await stage.reaches(job_id, "the check", lambda j: len(j.checks) == 2)
        stage.sim.set_speed(1)
        await stage.reaches(job_id, "the race", acted("race"))
        stage.sim.set_speed(50)
        job = await stage.settled(job_id)
        assert (job.status, job.served_model, job.winner, job.disclosure) == (Status.COMPLETED, SOL, 1, None)
        assert purposes(job) == [Purpose.ORIGINAL, Purpose.RACE]
        assert job.attempts[1].outcome is Outcome.CANCELLED


async def test_draft_is_published_and_then_replaced(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        job_id = await stage.submit(LATE, policy=rule("draft"))
        drafted = await stage.reaches(job_id, "a draft", lambda j: j.draft_attempt is not None)
        assert not drafted.settled
        kept = await stage.jobs.load_output(job_id)
        assert kept is not None
        assert kept["draft"]
        assert kept["output_text"] is None
        stage.hurry()
        job = await stage.settled(job_id)
        assert (job.status, job.served_model, job.winner, job.disclosure) == (Status.COMPLETED, SOL, 1, None)
        answer = await stage.jobs.load_output(job_id)
        assert answer is not None
        assert answer["draft"] == kept["draft"]
        assert answer["output_text"]
        view = job_view(job, {}, answer, None, "")
        shown = (view["draft"], view["draft_model"], view["draft_state"])
        assert shown == (kept["draft"], LUNA, "superseded")
        assert "job.draft.ready" in await stage.types(job_id)


async def test_a_draft_is_withdrawn_when_the_original_is_blocked(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        job_id = await stage.submit(BLOCKED, policy=rule("draft"))
        await stage.reaches(job_id, "a draft", lambda j: j.draft_attempt is not None)
        stage.hurry()
        job = await stage.settled(job_id)
        assert job.status is Status.BLOCKED
        assert job.draft_withdrawn
        types = await stage.types(job_id)
        assert types.index("job.draft.withdrawn") < types.index("job.blocked")
        assert await stage.output(job_id) is None


async def test_an_offer_stands_while_the_check_lasts(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        job_id = await stage.submit(LATE, policy=rule("offer"))
        offered = await stage.reaches(job_id, "an offer", lambda j: j.offer)
        assert offered.offer is not None
        assert offered.offer.model == LUNA
        stage.hurry()
        job = await stage.settled(job_id)
        assert (job.status, job.served_model, job.offer) == (Status.COMPLETED, SOL, None)
        assert "job.offer.expired" in await stage.types(job_id)


async def test_an_accepted_offer_switches_and_names_the_app(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        job_id = await stage.submit(LATE, policy=rule("offer"))
        await stage.reaches(job_id, "an offer", lambda j: j.offer)
        await JobControl(stage.jobs).accept_offer(job_id, LUNA, by="key_stage")
        job = await stage.settled(job_id)
        assert (job.status, job.served_model) == (Status.COMPLETED, LUNA)
        assert job.disclosure is not None
        assert (job.disclosure.reason, job.disclosure.decided_by) == ("offer_accepted", "app")


@pytest.mark.parametrize("action", ["switch", "race", "draft", "offer"])
async def test_silence_is_acted_on_and_called_silence(redis: ArqRedis, valkey_url: str, action: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        job_id = await stage.submit(SILENT, policy=rule(action, silence_seconds=0.7, after_seconds=60))
        await stage.reaches(job_id, action, acted(action))
        if action != "race":  # there both would answer at once
            stage.hurry()
        job = await stage.settled(job_id)
        assert job.status is Status.COMPLETED
        assert job.checks[0].evidence == "suspected"
        if action in {"switch", "race"}:
            assert job.disclosure is not None
            assert (job.served_model, job.disclosure.reason) == (LUNA, "silence")
        else:
            assert (job.served_model, job.disclosure) == (SOL, None)


async def test_a_check_in_the_middle_of_the_output_is_answered_too(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        job = await stage.settled(await stage.submit(AGAIN, policy=rule("switch")))
        assert (job.status, job.served_model) == (Status.COMPLETED, LUNA)
        answer = await stage.jobs.load_output(job.id)
        assert answer is not None
        assert answer["output_text"], "the answer is the faster model's alone"


@pytest.mark.parametrize(
    ("why", "prompt", "policy"),
    [
        ("the provider said none", "[[sim: check_then_clear hold=600 retry_model=none]] go", {}),
        ("only the requested model will do", "[[sim: check_then_clear hold=600]] go", {"require_model": True}),
    ],
)
async def test_no_action_when(
    redis: ArqRedis, valkey_url: str, why: str, prompt: str, policy: dict[str, object]
) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        job_id = await stage.submit(prompt, policy={**rule("switch"), **policy})
        await stage.reaches(job_id, "the time at which others act", passed(0.5))
        stage.hurry()
        job = await stage.settled(job_id)
        assert (job.status, job.served_model, len(job.attempts)) == (Status.COMPLETED, SOL, 1), why


async def test_a_reroute_is_disclosed_or_fails_where_the_model_is_required(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        free = await stage.settled(await stage.submit("[[sim: rerouted]] go"))
        assert free.disclosure is not None
        assert (free.disclosure.reason, free.disclosure.decided_by) == ("provider_reroute", "provider")
        strict = await stage.settled(await stage.submit("[[sim: rerouted]] go", policy={"require_model": True}))
        assert (strict.status, strict.error and strict.error.code) == (Status.FAILED, "model_mismatch")
        assert await stage.output(strict.id) is None, "the output is withheld"


async def test_the_fallback_chain_follows_access_denials_only(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url) as stage:
        await stage.worker()
        denied = "[[sim: model_not_found only=gpt-5.6-sol]] go"
        job = await stage.settled(await stage.submit(denied))
        assert (job.status, job.served_model) == (Status.COMPLETED, "gpt-5.6-terra")
        assert job.disclosure is not None
        assert (job.disclosure.reason, job.disclosure.decided_by) == ("access_denied", "policy")
        none = await stage.settled(await stage.submit(denied, policy={"fallback": ()}))
        assert (none.status, len(none.attempts)) == (Status.FAILED, 1)
        required = await stage.settled(await stage.submit(denied, policy={"require_model": True}))
        assert (required.status, len(required.attempts)) == (Status.FAILED, 1)


async def test_the_cost_cap_counts_what_a_lost_attempt_has_cost(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1, upstream="stream") as stage:
        first = await stage.worker()
        # 16 tokens of output fit beside the input, and not once more; slow, so that it crashes before their end
        job_id = await stage.submit("[[sim: normal tokens=4000 rate=2]] go", policy={"max_cost_usd": 0.001})
        await stage.reaches(job_id, "output", lambda job: job.attempts and job.attempts[0].first_output_at)

        async def some_text_is_stored() -> bool:
            return sum(len(chunk.text) for chunk in await OutputChunks(redis).read(job_id, 1)) >= 32

        await until("text that is stored", some_text_is_stored)
        await stage.crash(first)
        await stage.lapse(job_id)
        await stage.worker()
        job = await stage.settled(job_id)  # the lost attempt has cost something
        assert (job.status, job.error and job.error.code) == (Status.FAILED, "cost_limit")


async def test_a_crash_in_the_middle_of_a_race_takes_up_both(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        first = await stage.worker()
        prompt = "[[sim: check_then_clear hold=6000 tokens=4000 rate=40]] go"
        job_id = await stage.submit(prompt, policy=rule("race"))
        await stage.reaches(job_id, "two attempts", acted("race"))
        await stage.crash(first)
        await stage.lapse(job_id)
        await stage.worker()

        async def both_taken_up() -> bool:
            return bool(stage.sim.calls()["resumes"] == 2)

        await until("both to be taken up", both_taken_up)
        stage.sim.set_speed(100)
        job = await stage.settled(job_id)
        assert (job.status, len(job.attempts), stage.sim.calls()["creates"]) == (Status.COMPLETED, 2, 2)
        assert job.served_model == LUNA
        assert job.disclosure is not None


async def test_a_check_that_cleared_and_comes_again_is_answered_from_its_own_start(
    redis: ArqRedis, valkey_url: str
) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage, stopwatch(redis) as watch:
        await stage.worker()
        prompt = "[[sim: check_again hold=0.3 again=600 latency=0 queue=0 tokens=20 rate=40]] go"
        ids = {action: await stage.submit(prompt, policy=rule(action, after_seconds=2)) for action in ACTIONS}
        for action, job_id in ids.items():
            await stage.reaches(job_id, "the second check", lambda j: len(j.checks) == 2)
            await stage.reaches(job_id, action, acted(action, 2))
        await stage.reaches(ids["draft"], "the draft", lambda j: j.draft_attempt)
        await stage.settled(ids["race"])
        stage.hurry()
        for action, job_id in ids.items():
            job = await stage.settled(job_id)
            first, second = job.checks
            assert (job.status, first.ended_by) == (Status.COMPLETED, "output"), action
            types = await stage.types(job_id)
            waited = [event for event in await stage.jobs.trail(job_id) if event["type"] == "job.offer.made"]
            match action:
                case "wait" | "offer":
                    assert (job.served_model, job.disclosure, len(job.attempts)) == (SOL, None, 1)
                    assert len(waited) == (action == "offer")
                case "switch" | "race":
                    assert job.disclosure is not None
                    assert (job.served_model, job.disclosure.reason) == (LUNA, "safety_check_delay")
                case _:
                    assert (job.served_model, job.disclosure) == (SOL, None)
                    assert "job.draft.ready" in types
            if len(job.attempts) == 2:
                took = (job.attempts[1].started_at - second.started_at).total_seconds()
                assert 2 <= took < 2.5 + watch.lost, "within half a second of the setting, from the second check"


async def test_a_check_that_cleared_and_comes_again_may_still_block(redis: ArqRedis, valkey_url: str) -> None:
    async with Stage(redis, valkey_url, speed=1) as stage:
        await stage.worker()
        # Luna writes for 1000 s, the block comes after 60
        options = "hold=0.3 again=60 tokens=40000 rate=40 partial=20 carrier=error_event code=cyber_policy"
        ids = {
            action: await stage.submit(f"[[sim: check_again {options}]] go", policy=rule(action, after_seconds=2))
            for action in ACTIONS
            if action != "switch"
        }
        for action, job_id in ids.items():
            await stage.reaches(job_id, "the second check", lambda j: len(j.checks) == 2)
            await stage.reaches(job_id, action, acted(action, 2))
        stage.sim.set_speed(100)
        for action, job_id in ids.items():
            job = await stage.settled(job_id)
            assert (job.status, len(job.checks)) == (Status.BLOCKED, 2), action
            assert job.block is not None
            assert job.block.after_output
            assert await stage.output(job_id) is None
        rows = [await stage.job(job_id) for job_id in ids.values()]
        assert stage.sim.calls()["creates"] == sum(len(job.attempts) for job in rows) == 6
