"""Vigil as it is deployed: separate processes with settings from files, each as its own user of Valkey."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import forked_vigil
import httpx2
from ops_server import free_port
from waiting import LIMIT, wait_for

__all__ = ["Deployment", "deployed", "wait_for"]

VIGIL = Path(sys.executable).parent / "vigil"


@dataclass
class Deployment:
    """An API, a worker and the simulator; `http` speaks to the API with a key of all scopes."""

    folder: Path
    redis_urls: dict[str, str]
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    sim_port: int = field(default_factory=free_port)
    http: httpx2.Client = field(default_factory=httpx2.Client)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def env(self, role: str) -> dict[str, str]:
        secret = self.folder / f"redis_url_{role}"
        secret.write_text(self.redis_urls[role])
        return {
            "PATH": os.environ["PATH"],  # noqa: TID251
            "HOME": str(self.folder),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),  # noqa: TID251
            "VIGIL_REDIS_URL_FILE": str(secret),
            "VIGIL_PORT": str(self.port),
            "VIGIL_LOG_FORMAT": "json",
            "VIGIL_WEBHOOK_ALLOW_PRIVATE": "1",
            "OPENAI_API_KEY": "sk-deployed",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self.sim_port}/v1",
            **self.settings,
        }

    def vigil(self, role: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """A command that ends by itself."""
        return forked_vigil.run([*words], cwd=self.folder, env={**self.env(role), **env}, timeout=LIMIT)

    @contextmanager
    def process(self, role: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process that is told to end when the block does, and does."""
        with (self.folder / f"{words[0]}.log").open("ab") as log:
            running = subprocess.Popen([VIGIL, *words], cwd=self.folder, env=self.env(role), stdout=log, stderr=log)
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(LIMIT)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def submit(self, prompt: str, **more: Any) -> str:
        answer = self.http.post("/v1/jobs", json={"model": "gpt-5.6-sol", "input": prompt, **more})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def settled(self, job_id: str) -> dict[str, Any]:
        ends = {"completed", "blocked", "failed", "cancelled", "expired"}

        def look() -> dict[str, Any] | None:
            job: dict[str, Any] = self.get(f"/v1/jobs/{job_id}?wait=5")
            return job if job["status"] in ends else None

        job: dict[str, Any] = wait_for(f"{job_id} to settle", look)
        return job

    def answers(self, url: str) -> bool:
        try:
            return httpx2.get(url).status_code == 200
        except httpx2.HTTPError:
            return False


@contextmanager
def deployed(folder: Path, redis_urls: dict[str, str], **settings: str) -> Iterator[Deployment]:
    """All of it answers inside the block."""
    one = Deployment(folder, redis_urls, settings)
    with ExitStack() as stack:
        sim = ("simulator", "--port", str(one.sim_port), "--speed", "20")
        stack.enter_context(one.process("worker", *sim))
        wait_for("the simulator", lambda: one.answers(f"http://127.0.0.1:{one.sim_port}/sim/healthz"))
        made = one.vigil("api", "keys", "create", "--app", "ops", "--json", *_every_scope())
        assert made.returncode == 0, made.stderr
        key = json.loads(made.stdout)["key"]
        stack.enter_context(one.process("api", "api"))
        stack.enter_context(one.process("worker", "worker"))
        one.http = stack.enter_context(
            httpx2.Client(base_url=one.url, headers={"Authorization": f"Bearer {key}"}, timeout=LIMIT)
        )
        wait_for("the API", lambda: one.answers(f"{one.url}/readyz"))
        wait_for("a worker", lambda: one.get("/v1/status")["workers"])
        yield one


def _every_scope() -> list[str]:
    return [word for scope in ("submit", "read", "audit", "ops") for word in ("--scope", scope)]
