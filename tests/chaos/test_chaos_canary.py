"""Promise P7 in real processes, every log and Sentry on: canaries go in everywhere, no sink outside the app has one.

Jobs of all outcomes over all faces, bugs and outages in both processes, faults of the provider that quote the prompt.
Another sink is one more line in `AllProcesses.sinks`, another secret one in `AllProcesses.caged`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx2
import pytest
from canaries import canary, found
from in_process import until
from ingest import Ingest, Receiver
from processes import Processes, free_port
from waiting import LIMIT

from worker.clock import Clock
from worker.simulator import errors
from worker.store.apps import SCOPES, Apps
from worker.store.connection.pool import connect
from worker.store.envelope import MasterKeyring

FAULTS: Final = Path(__file__).with_name("faults")
CONTENT = {
    n: canary(n) for n in ("prompt", "instructions", "params", "tool", "metadata", "user", "hook", "description")
}
RAW: Final = bytes(range(7, 39))
PASSWORD: Final = "canary-redis-5f3a9c"
PROVIDER_KEY: Final = "sk-proj-canary5f3a9cAAAABBBBCCCCDDDDEEEEFFFF"
WEBHOOK_SECRET: Final = "whsec_" + base64.b64encode(b"canary-heard-5f3a9c-0123456789ab").decode()
SECRETS = {
    "encryption key": base64.urlsafe_b64encode(RAW).decode().rstrip("="),
    "audit key": base64.urlsafe_b64encode(RAW[::-1]).decode().rstrip("="),
    "identifier secret": "canary-identifier-5f3a9c-0123456789abcdef",
    "provider key": PROVIDER_KEY,
    "heard secret": WEBHOOK_SECRET,
    "redis password": PASSWORD,
}
OUTPUT = {word: word for word in ("harbour", "lighthouse", "librarian", "patient host", "orchard", "traveller")}
"""What the simulator says, in answers and drafts; nothing of ours says it."""
SCENARIOS: Final = (
    ("normal tokens=120", "completed", {}),
    ("normal tool=1", "completed", {}),
    ("refusal", "completed", {}),
    ("max_tokens", "completed", {}),
    ("check_then_clear hold=1 tokens=120", "completed", {}),
    ("cut tokens=120", "completed", {}),
    ("rerouted tokens=120", "completed", {}),
    ("bad_json tokens=120", "completed", {}),
    ("check_then_block hold=1 notify=identifier_blocked", "blocked", {"end_user": CONTENT["user"] + "4"}),
    ("misalignment_mid_stream partial=120", "blocked", {}),
    ("prompt_block hold=0", "blocked", {}),
    ("server_error times=9", "failed", {"policy": {"max_attempts": 2}}),
    ("context_too_long times=9", "failed", {}),
    ("model_not_found times=9", "failed", {"policy": {"fallback": []}}),
    ("queued_forever", "expired", {"policy": {"run_deadline_seconds": 1}}),
    ("normal tokens=120", "completed", {"store": False}),
    ("[[bug: worker]]", "failed", {}),
)
DRAFTED: Final = {"policy": {"on_delay": {"action": "draft", "after_seconds": 1, "model": "gpt-5.6-luna"}}}
QUOTING: Final = ("server_error", "context_length_exceeded", "invalid_prompt", "model_not_found", "cyber_policy")


class AllProcesses:
    """Every process of Vigil, and every hand on it: an app, a provider, a receiver, a person with a shell."""

    def __init__(self, folder: Path, stage: Processes, ingest: Ingest, hooks: Receiver, full: Receiver) -> None:
        self.folder, self.stage, self.ingest, self.hooks, self.full = folder, stage, ingest, hooks, full
        self.http: httpx2.AsyncClient
        self.caged: dict[str, str] = {}
        self.seen: dict[str, bytes] = {"problems": b""}
        self.worker_port = 0

    def asking(self, prompt: str, **more: Any) -> dict[str, Any]:
        function = {"type": "function", "name": "look", "description": CONTENT["tool"], "parameters": {}}
        return {
            "model": "gpt-5.6-sol",
            "input": f"{prompt} {CONTENT['prompt']}",
            "instructions": CONTENT["instructions"],
            "params": {"tools": [function], "user_note": CONTENT["params"]},
            "metadata": {"note": CONTENT["metadata"]},
            "end_user": CONTENT["user"],
            "webhook": {"url": self.address(self.hooks), "payload": "thin"},
            **more,
        }

    def address(self, receiver: Receiver) -> str:
        return f"{receiver.url.partition('?')[0]}?sig={CONTENT['hook'].partition(' ')[0]}"

    async def ask(self, method: str, path: str, **more: Any) -> Any:
        answer = await self.http.request(method, path, **more)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def submit(self, scenario: str, **more: Any) -> str:
        prompt = scenario if scenario.startswith("[[") else f"[[sim: {scenario}]]"
        return str((await self.ask("POST", "/v1/jobs", json=self.asking(prompt, **more)))["id"])

    async def refused(self, status: int, method: str, path: str, **more: Any) -> None:
        """An answer that is a problem; what it says is a sink."""
        answer = await self.http.request(method, path, **more)
        assert answer.status_code == status, answer.text
        self.seen["problems"] += answer.content + repr(answer.headers.raw).encode()

    async def ends(self, name: str, status: str) -> dict[str, Any]:
        async def over() -> bool:
            return (await self.ask("GET", f"/v1/jobs/{name}"))["status"] in ("completed", "blocked", "failed", status)

        await until(f"{name} to be {status}", over)
        job: dict[str, Any] = await self.ask("GET", f"/v1/jobs/{name}")
        assert job["status"] == status, job
        return job

    async def shell(self, *words: str) -> None:
        """What a person with a shell prints is a sink."""
        process = await self.stage.start(*words)
        assert await process.wait() == 0, self.stage.logs()[-2000:]

    async def native(self) -> list[str]:
        """Jobs of all outcomes, one by one and in a batch."""
        made = [await self.submit(scenario, **more) for scenario, _, more in SCENARIOS]
        full = {"webhook": {"url": self.address(self.full), "payload": "full"}}
        many = [self.asking("[[sim: normal tokens=120]]"), self.asking("[[sim: refusal]]", **full)]
        rows = await self.ask("POST", "/v1/jobs/batch", json={"jobs": many})
        slow = await self.submit("normal tokens=900 rate=2")
        drafted = await self.submit("check_then_clear hold=60 tokens=120", **DRAFTED)

        async def draft() -> bool:
            return "harbour" in str((await self.ask("GET", f"/v1/jobs/{drafted}"))["draft"])

        await until("the draft", draft)
        for one in (slow, drafted):
            await self.ask("POST", f"/v1/jobs/{one}/cancel")
            await self.ends(one, "cancelled")
        for name, (_, status, _) in zip(made, SCENARIOS, strict=True):
            await self.ends(name, status)
        for row in rows:
            await self.ends(row["job"]["id"], "completed")
        first = await self.ask("GET", f"/v1/jobs/{made[0]}")
        assert first["metadata"] == {"note": CONTENT["metadata"]}, "the app itself gets it"
        assert "harbour" in first["output_text"]
        deleted = rows[0]["job"]["id"]
        assert (await self.http.delete(f"/v1/jobs/{deleted}")).status_code in (200, 204)
        return made

    async def openai_face(self) -> None:
        """A conversation with tool calls, over the face of the provider's SDK."""
        conversation = [
            {"role": "user", "content": f"[[sim: normal tokens=120]] {CONTENT['prompt']}"},
            {
                "type": "function_call",
                "call_id": "c1",
                "name": "look",
                "arguments": f'{{"a": "{CONTENT["tool"][:20]}"}}',
            },
            {"type": "function_call_output", "call_id": "c1", "output": CONTENT["tool"]},
        ]
        native = self.asking("")
        body = {name: native[name] for name in ("model", "instructions", "metadata")}
        body |= {"input": conversation, "tools": native["params"]["tools"], "safety_identifier": CONTENT["user"]}
        answer = await self.ask("POST", "/v1/responses", json=body)
        assert answer["status"] == "completed"
        body["input"] = f"[[sim: prompt_block hold=0]] {CONTENT['prompt']}"
        assert (await self.ask("POST", "/v1/responses", json=body))["status"] == "failed"
        await self.refused(404, "POST", "/v1/responses", json={**body, "conversation": CONTENT["prompt"]})
        await self.refused(422, "POST", "/v1/responses", json={**body, "model": CONTENT["prompt"]})

    async def faults(self) -> None:
        """Bugs, bad requests, a Redis that is killed."""
        await self.refused(500, "POST", "/v1/jobs", json=self.asking("[[bug: api]]"))
        await self.refused(
            422, "POST", "/v1/jobs", json={"model": CONTENT["prompt"], "input": CONTENT["prompt"], "x": 1}
        )
        raw = {"content": b'{"input": canary-prompt-5f3a9c', "headers": {"Content-Type": "application/json"}}
        await self.refused(400, "POST", "/v1/jobs", **raw)
        await self.refused(404, "GET", f"/v1/jobs/job_{'0' * 26}")
        wrong = self.asking("x", webhook={"url": f"ftp://x/?{CONTENT['hook']}"})
        await self.refused(422, "POST", "/v1/jobs", json=wrong)
        await self.refused(401, "GET", "/v1/jobs", headers={"Authorization": f"Bearer {self.caged['api key']}x"})
        forged = {"webhook-id": "w", "webhook-timestamp": "1", "webhook-signature": WEBHOOK_SECRET}
        await self.refused(400, "POST", "/hooks/openai", json={"type": CONTENT["prompt"]}, headers=forged)

        running = await self.submit("normal tokens=120 rate=5")
        assert self.stage.valkey.pid is not None
        os.kill(self.stage.valkey.pid, signal.SIGKILL)
        await self.stage.valkey.stop()
        await self.refused(503, "POST", "/v1/jobs", json=self.asking("[[sim: normal]]"))
        await self.stage.valkey.start()
        await locked(self.stage)
        await self.ends(running, "completed")

    async def operators(self, job: str, blocked: str) -> None:
        """What operators and the provider's support see."""
        secrets = f"{self.caged['api key']} {PROVIDER_KEY}"
        await self.ask("POST", "/v1/quarantine", json={"end_user": CONTENT["user"] + "2", "reason": "ops"})
        await self.ask("POST", "/v1/pause", json={"scope": "end_user", "name": CONTENT["user"] + "3", "note": "ops"})
        packet = f"/v1/jobs/{blocked}/support-packet"
        for kind in ("text/plain", "application/json"):
            await self.look(packet, Accept=kind)
            answer = await self.http.post(packet, json={"description": secrets}, headers={"Accept": kind})
            assert answer.status_code == 200
            self.seen[f"described {kind}"] = answer.content
        for path in ("/v1/status", "/metrics", "/v1/audit?limit=100", f"/v1/jobs/{job}/audit", "/openapi.json"):
            await self.look(path)
        await self.look(f"http://127.0.0.1:{self.worker_port}/metrics")
        self.seen["receipts"] = (await self.http.get(f"/v1/jobs/{job}/deliveries")).content
        await self.shell("support-packet", blocked)
        await self.shell("support-packet", blocked, "--json")
        await self.shell("support-packet", blocked, "--description-file", "told")
        await self.shell("status", "--json")
        await self.shell("audit", "export", "--out", "trail.ndjson")
        await self.shell("audit", "verify")

    async def look(self, path: str, **headers: str) -> None:
        answer = await self.http.get(path, headers=headers)
        assert answer.status_code == 200, answer.text
        self.seen[f"{path} {''.join(headers.values())}"] = answer.content

    async def sinks(self) -> dict[str, bytes]:
        """Everywhere that content could leak to, by name."""
        redis = self.stage.redis
        disk = files(self.folder / "data")
        await redis.save()
        values = b"".join([name + (await redis.dump(name) or b"") for name in await redis.keys("*")])
        return {
            **self.seen,
            "redis": values,
            "disk": disk + files(self.folder / "data"),
            "logs": self.stage.logs().encode(),
            "sentry": b"\n".join(self.ingest.raw),
            "checkpoints": files(self.folder / "checkpoints"),
            "export": b"".join(path.read_bytes() for path in self.folder.glob("trail.*")),
            "thin": b"\n".join([*self.hooks.bodies, repr(self.hooks.got).encode()]),
            "full": b"\n".join([*self.full.bodies, repr(self.full.got).encode()]),
        }


def files(folder: Path) -> bytes:
    """Names and bytes of all files; a history that Redis is about to drop counts as well."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return b"".join(str(path.relative_to(folder)).encode() + path.read_bytes() for path in paths)


async def locked(stage: Processes) -> None:
    """Redis wants the password, and packs nothing: what is compressed could hide a canary."""
    plain = connect(stage.valkey.url)
    await plain.config_set("rdbcompression", "no")
    await plain.config_set("requirepass", PASSWORD)
    await plain.aclose()


@pytest.fixture
async def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AllProcesses]:
    for code in QUOTING:  # the provider says what it was asked
        monkeypatch.setitem(errors._TABLE, code, replace(errors._TABLE[code], message=f"in: {CONTENT['prompt']}"))
    port, worker_port = free_port(), free_port()
    with Ingest() as ingest, Receiver() as hooks, Receiver() as full:
        settings = {
            "VIGIL_ENCRYPTION_KEYS": SECRETS["encryption key"] + "=",
            "VIGIL_AUDIT_KEY": SECRETS["audit key"] + "=",
            "VIGIL_IDENTIFIER_SECRET": SECRETS["identifier secret"],
            "VIGIL_AUDIT_CHECKPOINTS": str(tmp_path / "checkpoints"),
            "VIGIL_AUDIT_SEAL_SECONDS": "0.5",
            "VIGIL_LOG_LEVEL": "DEBUG",
            "VIGIL_WEBHOOK_ALLOW_PRIVATE": "1",
            "VIGIL_QUARANTINE_BLOCKS": "0",
            "VIGIL_WORKER_PORT": str(worker_port),
            "OPENAI_API_KEY": PROVIDER_KEY,
            "OPENAI_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "SENTRY_DSN": ingest.dsn,
            "PYTHONPATH": os.pathsep.join([str(FAULTS), os.environ.get("PYTHONPATH", "")]),  # noqa: TID251
        }
        (tmp_path / "checkpoints").mkdir()
        async with Processes(tmp_path, speed=10, **settings) as stage:
            await locked(stage)
            address = stage.valkey.url.replace("unix://", f"unix://default:{PASSWORD}@")
            stage.redis = connect(address, keyring=MasterKeyring([RAW]))
            _, token, secret = await Apps(stage.redis, Clock()).create_key("canary", SCOPES)
            at = f"http://127.0.0.1:{port}"
            stage._settings |= {"VIGIL_REDIS_URL": address, "VIGIL_URL": at, "VIGIL_API_KEY": token}
            stage.sim.world.webhooks.url, stage.sim.world.webhooks.secret = f"{at}/hooks/openai", WEBHOOK_SECRET
            (tmp_path / "told").write_text(f"{token} {PROVIDER_KEY}")
            one = AllProcesses(tmp_path, stage, ingest, hooks, full)
            one.worker_port = worker_port
            one.caged = {**CONTENT, **SECRETS, **OUTPUT, "api key": token, "webhook secret": secret}
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx2.AsyncClient(base_url=at, headers=headers, trust_env=False, timeout=LIMIT) as one.http:
                yield one


async def test_no_canary_leaves_its_cage(processes: AllProcesses) -> None:
    stage = processes.stage
    api = await stage.start("api", "--port", processes.http.base_url.netloc.decode().partition(":")[2])
    worker = await stage.worker()

    async def ready() -> bool:
        try:
            return (await processes.http.get("/readyz")).status_code == 200
        except httpx2.HTTPError:
            await asyncio.sleep(0.05)
            return False

    await until("the API", ready)
    jobs = await processes.native()
    await processes.openai_face()
    await processes.faults()
    await until("the provider's webhooks", lambda: stage.redis.exists("vigil:heard"))
    await until("checkpoints", lambda: _true(list((processes.folder / "checkpoints").iterdir())))
    await processes.operators(jobs[0], jobs[8])
    assert processes.hooks.bodies
    assert processes.full.bodies
    assert await stage.term(worker) == 0
    assert await stage.term(api) == 0

    allowed = {"thin": {"metadata"}, "receipts": {"metadata", "hook"}, "full": {*CONTENT, *OUTPUT} - {"prompt"}}
    sinks = await processes.sinks()
    assert all(sinks.values()), "each was looked into"
    leaks = found(sinks, processes.caged, allowed)
    assert not leaks, "\n".join(leaks)
    bugs = [event["tags"]["vigil.event"] for event in processes.ingest.events if event.get("exception")]
    assert (bugs.count("api.broke"), bugs.count("run.broke")) == (1, 1), bugs
    assert {span["attributes"].get("vigil.ended") for span in processes.ingest.spans} >= {
        "completed", "blocked", "failed", "expired", "cancelled",
    }  # fmt: skip
    assert '"event": "attempt.finished"' in stage.logs(), "every log was on"


@pytest.mark.parametrize(
    "leak",
    [
        str.encode,
        lambda text: repr({"note": text}).encode(),
        lambda text: json.dumps({"note": text}).encode(),
        lambda text: json.dumps(json.dumps({"note": text})).encode(),
        lambda text: quote(f"https://x/?note={text}").encode(),
        lambda text: base64.b64encode(f"..{text}.".encode()),
        lambda text: text.encode().hex().encode(),
        lambda text: text[:22].encode(),
    ],
)
def test_a_canary_is_known_in_every_form(leak: Callable[[str], bytes]) -> None:
    assert found({"a": b"..", "b": leak(CONTENT["prompt"])}, CONTENT, {}) == ["b: prompt"]


async def _true(value: object) -> bool:
    return bool(value)
