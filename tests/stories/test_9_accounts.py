"""Story 9: two accounts at the provider. One runs out of quota and the other goes on; a killed worker's response is
read on with the account that began it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import forked_vigil
from arq.connections import ArqRedis
from in_process import LIMIT, SOL
from two_accounts import RESEARCH_KEY, accounts_file, two_accounts

sys.path.append(str(Path(__file__).resolve().parent.parent / "chaos"))
from in_process import until
from processes import Processes
from promise_checks import submit

from worker.client import AsyncVigil
from worker.clock import Clock
from worker.jobs.record import Job
from worker.jobs.states import Outcome, Status
from worker.simulator import Simulator
from worker.store.jobs.repository import Jobs


async def test_one_account_is_out_of_quota_and_the_other_goes_on(
    tmp_path: Path, redis: ArqRedis, valkey_url: str
) -> None:
    async with two_accounts(tmp_path, redis, valkey_url, probe_seconds=0) as both:
        await both.running.stage.worker()
        base = str(both.running.app.base_url)
        acme_key = both.running.app.headers["Authorization"].removeprefix("Bearer ")

        async def vigil(*words: str) -> str:
            env = {"VIGIL_URL": base, "VIGIL_API_KEY": acme_key, "HOME": str(tmp_path)}
            done = await asyncio.to_thread(forked_vigil.run, list(words), cwd=tmp_path, env=env, timeout=LIMIT)
            assert done.returncode == 0, done.stderr
            return str(done.stdout)

        async with AsyncVigil(base, both.lab_key) as lab, AsyncVigil(base, acme_key) as acme:
            first = await lab.submit(model=SOL, input="[[sim: quota]] Hello")

            async def is_held() -> bool:
                return (await lab.get(first.id)).hold is not None

            await until("the account of lab to be found out of quota", is_held)
            second = await lab.submit(model=SOL, input="Hello")
            fine = await acme.wait((await acme.submit(model=SOL, input="Hello")).id)
            assert (fine.status, fine.attempts[0].account) == ("completed", "default")

            waiting = await lab.get(second.id)
            assert (waiting.status, waiting.attempts) != ("completed", ())
            status = await acme.status()
            assert (status.accounts[0].name, status.accounts[0].circuit) == ("default", "closed")
            assert status.accounts[1].circuit_reason == "quota_exhausted"
            listed = json.loads(await vigil("accounts", "--json"))["data"]
            assert [(one["name"], one["apps"], one["models"]) for one in listed][1] == (
                "research",
                ["lab"],
                ["gpt-5.6-luna"],
            )
            shown = await vigil("accounts")
            assert "org-research" in shown
            assert "quota_exhausted" in shown
            assert RESEARCH_KEY not in shown
            assert "account  research: normal, circuit" in await vigil("status")

            await lab.cancel(first.id)  # the next trial of the account is the second job, and it works again
            done = await lab.wait(second.id)
            assert (done.status, done.attempts[-1].account) == ("completed", "research")
            records = [record.raw for record in await lab.audit(second.id)]
            assert [row["call"]["account"] for row in records if row["type"] == "job.attempt.finished"] == ["research"]
            assert RESEARCH_KEY not in str(records)


async def test_a_killed_workers_response_is_read_on_with_the_account_that_began_it(tmp_path: Path) -> None:
    research = Simulator(speed=1)
    await research.start()
    file = accounts_file(tmp_path, research.url)
    file.write_text(file.read_text().replace("lab =", "chaos ="))
    (tmp_path / "key").write_text(RESEARCH_KEY)
    accounts = {
        "VIGIL_ACCOUNTS_FILE": str(file),
        "VIGIL_ACCOUNT_RESEARCH_API_KEY_FILE": str(tmp_path / "key"),
    }
    try:
        async with Processes(tmp_path, speed=1, lease=2.0, **accounts) as machine:
            jobs = Jobs(machine.redis, Clock())
            first = await machine.worker()
            job_id = await submit(machine.redis, "[[sim: check_then_clear hold=600 tokens=3]] A long question.")

            async def job() -> Job:
                stored = await jobs.load(job_id)
                assert stored is not None
                return stored.job

            async def is_checking() -> bool:
                return (await job()).status is Status.CHECKING

            await until("a safety check to hold the response", is_checking)
            await machine.kill(first)  # kill -9
            file.write_text(file.read_text().replace('chaos = "research"', 'chaos = "default"'))
            await machine.worker()

            async def is_read_on() -> bool:
                return (await job()).attempts[0].resumed >= 1

            await until("the second worker to read on", is_read_on)
            research.set_speed(1e6)

            async def is_settled() -> bool:
                return (await job()).settled

            await until("the second worker to finish the job", is_settled)
            done = await job()
            assert done.status is Status.COMPLETED
            assert [(a.account, a.outcome) for a in done.attempts] == [("research", Outcome.COMPLETED)]
            assert (research.calls()["creates"], machine.sim.calls()["creates"]) == (1, 0)
            assert RESEARCH_KEY not in machine.logs()
    finally:
        research.set_speed(1e6)
        await research.stop()
