"""P2 and P3 over many interleavings at once: checks, blocks, silences and races of random lengths, no mocks."""

from __future__ import annotations

import asyncio
import random  # noqa: TID251  seeded, so that a failure can be repeated

import pytest
from arq.connections import ArqRedis
from in_process import SOL, Stage
from thorough import cases

from worker.jobs import fold
from worker.jobs.events import Event
from worker.jobs.states import Outcome, Status

ACTIONS = ("wait", "offer", "switch", "race", "draft")
SCENARIOS = ("check_then_block", "check_then_clear", "silent_block", "silent_delay", "check_mid_output", "rerouted")


def prompt(rng: random.Random) -> str:
    scenario = rng.choice(SCENARIOS)
    hold = rng.uniform(0.05, 1.2)
    anywhere = " any=1" if rng.random() < 0.3 else ""  # the faster model is checked and blocked as well
    options = f"hold={hold:.2f} tokens={rng.choice((3, 20))} latency=0.1 queue=0.05{anywhere}"
    return f"[[sim: {scenario} {options}]] go {rng.random()}"


@pytest.mark.parametrize("seed", range(1, 1 + cases(1, 2)))
async def test_no_call_and_no_output_after_a_block_and_no_silent_substitution(
    redis: ArqRedis, valkey_url: str, seed: int
) -> None:
    rng = random.Random(seed)
    async with Stage(redis, valkey_url, speed=1) as stage:
        await asyncio.gather(stage.worker(), stage.worker())
        ids = []
        for _ in range(80):
            delay = {
                "action": rng.choice(ACTIONS),
                "after_seconds": round(rng.uniform(0.05, 0.8), 2),
                "silence_seconds": round(rng.uniform(0.1, 0.8), 2),
            }
            policy = {"on_delay": delay, "require_model": rng.random() < 0.1}
            ids.append(await stage.submit(prompt(rng), policy=policy))
        blocked = substituted = 0
        for job_id in ids:
            job = await stage.settled(job_id)
            trail = [Event.load(body) for body in await stage.jobs.trail(job_id)]
            assert fold.replay(trail) == job
            finished = next((a.finished_at for a in job.attempts if a.outcome is Outcome.BLOCKED), None)
            if finished is not None:
                blocked += 1
                assert job.status is Status.BLOCKED
                assert all(a.started_at <= finished for a in job.attempts), "no attempt after the block"
                assert await stage.output(job_id) is None, "nothing of a blocked job is delivered"
            if job.status is Status.COMPLETED:
                assert await stage.output(job_id)
                differs = job.served_model != SOL
                assert differs == (job.disclosure is not None), "no silent substitution"
                assert not (differs and job.policy.require_model)
                substituted += differs
        assert blocked > 5, "the seed made blocks"
        assert substituted > 5, "the seed made substitutions"
        rows = [await stage.job(job_id) for job_id in ids]
        assert stage.sim.calls()["creates"] == sum(len(job.attempts) for job in rows)
