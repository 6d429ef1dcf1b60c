"""Story 9: a batch is accepted whole, each of its jobs ends in its own way, and `vigil why` says what became of it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from story import Story
from typer.testing import CliRunner

from worker.cli.main import assemble
from worker.client import ApiError

SOL = "gpt-5.6-sol"


async def test_a_batch_accepted_whole_is_counted_and_each_end_explained(
    vigil: Story, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    app = vigil.app
    monkeypatch.setenv("VIGIL_URL", app.url)
    monkeypatch.setenv("VIGIL_API_KEY", app._http.headers["Authorization"].removeprefix("Bearer "))
    commands = assemble(["batch", "jobs", "job_lists"])

    async def run(*words: str, code: int = 0) -> str:
        done = await asyncio.to_thread(CliRunner().invoke, commands, list(words))
        assert done.exit_code == code, done.output
        return done.stdout

    # one job that can't be accepted keeps the others out
    prompts = [
        "[[sim: check_then_block]] a",
        "[[sim: filter_down]] b\u2028\u0085",
        "[[sim: normal tokens=4000 rate=2]] c",
    ]
    jobs = [{"model": SOL, "input": prompt, "policy": {"on_delay": {"action": "wait"}}} for prompt in prompts]
    with pytest.raises(ApiError, match="None of the 4 jobs was accepted, because job 3 is refused"):
        await app.batch([*jobs, {"model": "no-such", "input": "d"}], group="night-7", all_or_nothing=True)
    assert (await app.list()).data == ()

    file = tmp_path / "jobs.ndjson"
    file.write_text("\n".join(json.dumps(job, ensure_ascii=False) for job in jobs))
    words = ("batch", str(file), "--group", "night-7", "--all-or-nothing", "--idempotency-key", "k")
    assert "group night-7: 3 accepted, 0 refused" in await run(*words)
    again = json.loads(await run(*words, "--json"))["data"]  # the same batch again makes nothing new
    assert [row["idempotent_replayed"] for row in again] == [True, True, True]
    blocked, unfiltered, endless = (row["job"]["id"] for row in again)
    assert {job.id for job in (await app.list(group="night-7")).data} == {blocked, unfiltered, endless}

    # the one that would take too long is cancelled: nobody knows yet what the provider bills for it
    while not any(attempt.first_output_at for attempt in (await app.get(endless)).attempts):
        await asyncio.sleep(0.02)
    await run("cancel", endless)
    ended = await app.wait(endless)
    assert (ended.status, ended.billed is not None and ended.billed.state) == ("cancelled", "unknown")
    assert "billed    unknown, about $" in await run("get", endless)
    assert "not known whether it bills that" in await run("why", endless)

    # the answer that no filter saw says so
    assert (await app.wait(unfiltered)).unfiltered
    assert "safety filter was not available" in await run("why", unfiltered)

    # and the block is explained as one, with what can be done
    assert (await app.wait(blocked)).status == "blocked"
    shown = " ".join((await run("why", blocked)).split())
    explained = await app.why(blocked)
    assert shown == explained.text
    assert explained.checks is not None
    assert explained.checks.startswith("The provider announced a safety check (about cyber), which lasted")
    assert explained.advice is not None
    assert "a block is no finding of a violation" in explained.advice
    assert "vigil rerun" not in shown, "a block is never routed around"

    group = await app.group("night-7")
    assert (group.total, group.open) == (3, 0)
    assert {status: count for status, count in group.counts.items() if count} == {
        "blocked": 1,
        "completed": 1,
        "cancelled": 1,
    }
    assert "3 jobs, ended at" in await run("group", "night-7", "--wait", code=1)


async def test_an_accepted_offer_says_who_agreed_to_what(vigil: Story) -> None:
    app = vigil.app
    offered = {"action": "offer", "after_seconds": 0.01}
    job = await app.submit(
        model=SOL, input="[[sim: check_then_clear hold=4000]] Hello", policy={"on_delay": offered, "fallback": []}
    )
    while (open_offer := (await app.get(job.id)).offer) is None:
        await asyncio.sleep(0.02)
    await app.retry(job.id, open_offer.model)
    ended = await app.wait(job.id)
    assert ended.consent is not None
    assert (ended.consent.model, ended.consent.terms_digest) == (open_offer.model, open_offer.terms_digest)
    explained = await app.why(job.id)
    assert explained.substitution is not None
    assert f"The key {ended.consent.by} accepted that" in explained.substitution
    (note,) = [one for one in await app.audit(job.id) if one.type == "job.offer.accepted"]
    assert note.decision is not None
    assert note.decision.policy_version == ended.consent.policy_version
