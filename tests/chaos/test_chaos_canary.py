"""Promise P7 in real processes at DEBUG: canaries go in everywhere, and no sink outside the app's own answers has one.

Another sink is one more line in `sinks`.
"""

from __future__ import annotations

from pathlib import Path

import httpx2
from builders import ENCRYPTION_KEYS
from processes import Processes, free_port
from stage import until

from worker.clock import Clock
from worker.store.apps import SCOPES, Apps
from worker.store.pool import connect
from worker.store.vault import Vault

KEY = "A" * 43
CANARIES = {name: f"canary-{name}-5f3a9c" for name in ("prompt", "instructions", "tool", "metadata", "user", "hook")}
SCENARIOS = (
    "normal",
    "check_then_clear hold=0.2",
    "check_then_block hold=0.2",
    "server_error times=9",
    "refusal",
    "cut",
)
ENDS = {"completed", "blocked", "failed", "cancelled", "expired"}


def asking(scenario: str, port: int) -> dict[str, object]:
    return {
        "model": "gpt-5.6-sol",
        "input": f"[[sim: {scenario}]] {CANARIES['prompt']}",
        "instructions": CANARIES["instructions"],
        "params": {"tools": [{"type": "function", "name": CANARIES["tool"], "parameters": {}}]},
        "metadata": {"note": CANARIES["metadata"]},
        "end_user": CANARIES["user"],
        "policy": {"max_attempts": 2},
        "webhook": {"url": f"http://127.0.0.1:{port}/{CANARIES['hook']}", "payload": "full"},
    }


async def sinks(stage: Processes, http: httpx2.AsyncClient, folder: Path) -> dict[str, bytes]:
    """Everywhere that content could leak to, by name."""
    await stage.redis.bgrewriteaof()
    values = b""
    for name in await stage.redis.keys("*"):
        values += name + (await stage.redis.dump(name) or b"")
    disk = b"".join(path.read_bytes() for path in (folder / "data").rglob("*") if path.is_file())
    answers = [
        await http.get(path) for path in ("/v1/status", "/metrics", "/v1/audit", "/v1/jobs/job_x", "/openapi.json")
    ]
    answers.append(await http.post("/v1/jobs", json={"model": CANARIES["prompt"], "input": CANARIES["prompt"], "x": 1}))
    return {
        "redis": values,
        "disk": disk,
        "logs": stage.logs().encode(),
        **{str(answer.request.url.path): answer.content for answer in answers},
    }


async def test_no_canary_leaves_its_cage(tmp_path: Path) -> None:
    key = ENCRYPTION_KEYS or KEY
    settings = {"VIGIL_ENCRYPTION_KEYS": key, "VIGIL_LOG_LEVEL": "DEBUG", "VIGIL_WEBHOOK_ALLOW_PRIVATE": "1"}
    async with Processes(tmp_path, speed=10, **settings) as stage:
        port, nobody = free_port(), free_port()
        await stage.start("api", "--port", str(port))
        await stage.worker()
        own = connect(stage.valkey.url, vault=Vault([bytes(32)] if key == KEY else [bytes(range(32))]))
        _, token, secret = await Apps(own, Clock()).create_key("canary", SCOPES)
        await own.aclose()
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as http:

            async def ready() -> bool:
                try:
                    return (await http.get("/healthz")).status_code == 200
                except httpx2.HTTPError:
                    return False

            await until("the API", ready)
            made = [await http.post("/v1/jobs", json=asking(scenario, nobody)) for scenario in SCENARIOS]
            names = [answer.json()["id"] for answer in made]

            async def over() -> bool:
                found = [(await http.get(f"/v1/jobs/{name}")).json() for name in names]
                return all(job["status"] in ENDS for job in found)

            await until("all jobs to end", over, 60)
            first = (await http.get(f"/v1/jobs/{names[0]}")).json()
            assert first["metadata"] == {"note": CANARIES["metadata"]}, "the app itself gets it"
            caged = {
                **CANARIES,
                "output": first["output_text"][:40],
                "key": token,
                "secret": secret,
                "provider": "sk-chaos",
            }
            leaks = [
                (sink, name)
                for sink, raw in (await sinks(stage, http, tmp_path)).items()
                for name, canary in caged.items()
                if canary.encode() in raw
            ]
        assert leaks == []
