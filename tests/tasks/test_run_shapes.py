"""What the shapes of signals and blocks seen since June do to a job, in every mode (wire-news sections 1.1 and 1.2)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from arq.connections import ArqRedis
from full_stack import full_stack
from in_process import Stage

from worker.store import keys
from worker.store.end_users.quarantine import Quarantine

NEXT_YEARS = datetime(2100, 1, 1, tzinfo=UTC)
MODES = ["background", "stream", "chat"]
END_USER = "e" * 64
CHECKS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str | None]] = {
    "check_reasons_only": ((), ("user_risk",), None),
    "check_retry_model_only": ((), (), "gpt-5.6-luna"),
    "check_no_reasons": (("cyber",), (), None),
    "check_one_reason": ((), ("user_risk",), None),
    "check_enabled": ((), (), None),
    "check_typed": (("cyber",), ("user_risk",), "gpt-5.6-luna"),
    "check_duplicate_keys": (("cyber",), ("user_risk",), None),
    "check_proto": (("cyber",), ("user_risk",), "gpt-5.6-luna"),
}


@pytest.mark.parametrize("mode", MODES)
async def test_every_shape_of_a_signal_says_what_it_holds_and_no_more(redis: ArqRedis, valkey_url: str, mode: str):
    async with Stage(redis, valkey_url, upstream=mode, speed=200) as stage:
        await stage.worker()
        silent = ("buffering_disabled", "buffering_string")
        ids = {name: await stage.submit(f"[[sim: {name}]] go") for name in (*CHECKS, *silent)}
        for name, job_id in ids.items():
            job = await stage.settled(job_id)
            assert job.status.value == "completed", name
            if name in silent:
                assert [c for c in job.checks if c.evidence.value == "signalled"] == [], name
                continue
            (check,) = job.checks
            reported = (check.use_cases, check.reasons, check.retry_model)
            assert (check.evidence.value, reported) == ("signalled", CHECKS[name]), name


@pytest.mark.parametrize("mode", MODES)
async def test_a_limited_end_user_is_in_the_ledger_and_in_quarantine_and_their_job_is_not_tried_again(
    redis: ArqRedis, valkey_url: str, mode: str
):
    async with Stage(redis, valkey_url, upstream=mode, speed=200) as stage:
        worker = await stage.worker()
        name = await stage.submit("[[sim: end_user_limited]] go", safety_identifier=END_USER)
        waiting = await stage.submit("hello", safety_identifier=END_USER, not_before=NEXT_YEARS)
        job = await stage.settled(name)
        assert job.block is not None
        assert (job.block.category, job.block.code, job.block.scope) == ("cyber", "cyber_policy_violation", "end_user")
        assert job.error is not None
        assert "end user" in job.error.message
        assert (len(job.attempts), job.disclosure, stage.sim.calls()["creates"] + stage.sim.calls()["chats"]) == (
            1,
            None,
            1,
        )
        quarantine = Quarantine(redis, worker.components.context.clock)
        row = await quarantine.find("stage", END_USER)
        assert row is not None
        assert (row.source, row.until_ms - row.since_ms) == ("provider", 86_400_000)
        counted = (await quarantine.limits(END_USER, 3600), (await quarantine.counts(END_USER, 3600))["blocks"])
        assert counted == (1, 1)
        assert (await stage.settled(waiting)).status.value == "cancelled"


async def test_the_ledger_alone_knows_a_limit_if_the_setting_says_so(redis: ArqRedis, valkey_url: str):
    async with Stage(redis, valkey_url, speed=200, quarantine_limited_seconds=0) as stage:
        worker = await stage.worker()
        limited = await stage.settled(await stage.submit("[[sim: end_user_limited]] go", safety_identifier=END_USER))
        request = await stage.settled(await stage.submit("[[sim: failed_only]] go", safety_identifier=END_USER))
        assert limited.block is not None
        assert request.block is not None
        assert (limited.block.scope, request.block.scope) == ("end_user", "request")
        quarantine = Quarantine(redis, worker.components.context.clock)
        assert await quarantine.find("stage", END_USER) is None
        assert await quarantine.limits(END_USER, 3600) == 1


@pytest.mark.parametrize("mode", MODES)
async def test_a_failure_without_a_code_is_not_sent_again_where_it_may_be_a_block(
    redis: ArqRedis, valkey_url: str, mode: str
):
    async with Stage(redis, valkey_url, upstream=mode, speed=200) as stage:
        await stage.worker()
        codes = {}
        for name in ("worded_block", "check_then_status"):
            job = await stage.settled(await stage.submit(f"[[sim: {name} retry_after=0]] go"))
            assert (job.status.value, len(job.attempts), job.block) == ("failed", 1, None), name
            assert job.error is not None
            codes[name] = job.error.code
        assert codes == {"worded_block": "may_be_withheld", "check_then_status": "failed_after_check"}
        again = await stage.settled(await stage.submit("[[sim: check_then_status signal=none times=1]] go"))
        assert (again.status.value, len(again.attempts)) == ("completed", 2), "without a check it is a rate limit"


@pytest.mark.parametrize("mode", MODES)
async def test_what_the_provider_reports_beside_answers_and_blocks_is_on_the_job_and_in_the_audit(
    redis: ArqRedis, valkey_url: str, mode: str
):
    async with full_stack(redis, valkey_url, upstream=mode, speed=200) as running:
        await running.stage.worker()

        async def done(name: str) -> dict[str, Any]:
            job_id = await running.submit(f"[[sim: {name}]] go")
            await running.stage.settled(job_id)
            return await running.view(job_id)

        stopped = await done("websocket_error")
        assert stopped["safety"]["block"]["misalignment"] == {
            "error_type": "potentially_unintended_data_access",
            "review_target": None,
        }
        assert (await done("misalignment_error"))["safety"]["block"]["misalignment"] is not None
        assert (await done("moderation_block"))["safety"]["block"]["category"] == "content_filter"
        scored, down = await done("moderation_score"), await done("filter_down")
        assert (scored["status"], scored["unfiltered"]) == ("completed", False)
        assert (down["status"], down["unfiltered"]) == ("completed", True)
        assert "unfiltered" in down["attempts"][0]["flags"]
        assert (await done("cache_written"))["status"] == "completed"
        job = await done("input_removed removed=2")
        records = [fields[b"record"] for _, fields in await redis.xrange(keys.AUDIT)]
        assert any(b"potentially_unintended_data_access" in record for record in records)
        assert not any(b"simulated instruction" in record for record in records)
        marked = [record for record in records if b'"unfiltered":true' in record]
        assert marked
        assert all(down["id"].encode() in record for record in marked)
        if mode == "chat":
            assert job["input_changes"] is None
            return
        assert job["input_changes"]["removed"] == 2
        assert "2 items of earlier reasoning" in job["input_changes"]["message"]
        assert [row["id"] for row in job["attempts"][0]["input_transformations"]] == ["rs_sim0", "rs_sim1"]
        assert "input_removed" in job["attempts"][0]["flags"]
        assert any(b"model_mismatch" in record for record in records)
