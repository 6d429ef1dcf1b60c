"""Story 9: finance asks what safety cost this month, over HTTP and on the command line, and an auditor proves it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from decimal import Decimal
from pathlib import Path

import forked_vigil
from arq.connections import ArqRedis
from builders import ENCRYPTION_KEYS
from story import Story
from waiting import LIMIT

from worker.clock import Clock
from worker.store import keys
from worker.store.apps import SCOPES, Apps

SOL = "gpt-5.6-sol"
SWITCH = {"on_delay": {"action": "switch", "after_seconds": 1}}
SLOW = "[[sim: check_then_clear hold=6000]] Why is the sky blue?"


async def test_what_safety_cost_is_reported_by_week_and_model_and_proven(
    vigil: Story, redis: ArqRedis, valkey_url: str, tmp_path: Path
) -> None:
    wanted = [
        {"input": "Hello"},
        {"input": "[[sim: check_then_clear hold=6]] Hello", "end_user": "ann"},
        {"input": "[[sim: check_then_block hold=6]] Hello", "end_user": "bob"},
        {"input": SLOW, "policy": SWITCH, "end_user": "ann"},
    ]
    made = [await vigil.app.submit(model=SOL, **job) for job in wanted]  # type: ignore[arg-type]
    jobs = [await vigil.app.wait(job.id) for job in made]
    assert [job.status for job in jobs] == ["completed", "completed", "blocked", "completed"]

    report = await vigil.app.request("GET", "/v1/reports/safety?app=acme")
    [row] = report["data"]
    assert row["model"] == SOL, "what the jobs asked for"
    assert row["jobs"] == {"ended": 4, "checked": 3, "suspected": 0, "blocked": 1, "substituted": 1}
    assert row["rates"]["blocked"] == 0.25
    ways = row["checks"]["signalled"]
    assert [ways[f"by_{way}"]["count"] for way in ("answer", "block", "reroute")] == [1, 1, 1]
    assert Decimal(row["spent"]["cost"]) == sum(Decimal(job.cost.total) for job in jobs if job.cost and job.cost.total)
    wasted = sum(Decimal(job.cost.wasted) for job in jobs if job.cost and job.cost.wasted)
    assert Decimal(row["lost"]["cost"]) == wasted > 0, "nothing else was wasted"
    assert row["lost"]["seconds"] >= ways["seconds"] > 0
    assert (row["blocked"]["attempts"], row["rerouted"]["attempts"]) == (1, 1)
    assert Decimal(row["substitutions"]["saved_cost"]) > 0, "the faster model is cheaper"

    people = await vigil.app.request("GET", "/v1/reports/safety?app=acme&group_by=end_user")
    assert sorted(one["jobs"]["ended"] for one in people["data"]) == [1, 1, 2]
    assert not {"ann", "bob"} & {one["end_user"] for one in people["data"]}

    key = (await Apps(redis, Clock()).create_key("acme", SCOPES))[1]
    settings = {"VIGIL_REDIS_URL": valkey_url, "VIGIL_ENCRYPTION_KEYS": ENCRYPTION_KEYS}
    env = {"HOME": str(tmp_path), "VIGIL_URL": vigil.app.url, "VIGIL_API_KEY": key, **settings}

    async def command(*words: str) -> tuple[int, str]:
        done = await asyncio.to_thread(
            forked_vigil.run, ["report", *words], cwd=tmp_path, env=env, text=None, timeout=LIMIT
        )
        return done.returncode, done.stdout + done.stderr

    _, table = await command()
    assert table.splitlines()[1].split()[:6] == [row["week"], SOL, "4", "3", "1", "1"]
    assert table.splitlines()[2].startswith("total")
    _, text = await command("--csv")
    [line] = csv.DictReader(io.StringIO(text))
    assert (line["model"], line["lost_cost"], line["jobs_blocked"]) == (SOL, row["lost"]["cost"], "1")

    code, text = await command("--verify")
    assert (code, text.splitlines()[-1][:3]) == (0, "ok:"), text
    await redis.hincrby(keys.losses(row["week"], "acme"), f"{SOL}|blocked.usd", -1)  # somebody makes blocks cheaper
    code, text = await command("--verify", "--json")
    [difference] = json.loads(text)["differences"]
    assert (code, difference["name"], difference["by_trail"] - difference["counted"]) == (1, "blocked.usd", 1)
