"""The compose stack on a real engine: the machine's own, or one that engine.sh makes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
PATIENCE_S: Final = 240.0


def engine() -> dict[str, str]:
    """Return the environment in which `docker` reaches an engine. Raises RuntimeError with why there is none."""
    done = subprocess.run([ROOT / "tests/containers/engine.sh", "up"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return {**os.environ, **dict(word.split("=", 1) for word in shlex.split(done.stdout))}  # noqa: TID251


class Stack:
    """The project's compose file with secrets of its own, in a folder, against the simulator."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        shutil.copy(ROOT / "docker-compose.yml", folder)
        shutil.copytree(ROOT / "ops", folder / "ops")
        subprocess.run(["ops/secrets.sh"], cwd=folder, check=True, capture_output=True)
        (folder / "secrets" / "openai_api_key").write_text("sk-test")
        self.settings("demo")

    def settings(self, profiles: str, **more: str) -> None:
        """Write `.env`, as the head of the compose file says."""
        rows = {"COMPOSE_PROFILES": profiles, "OPENAI_BASE_URL": "http://simulator:8790/v1", **more}
        (self.folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in rows.items()))

    def docker(self, *words: str, check: bool = True) -> str:
        """Run `docker …` in the folder and return what it printed; without `check` also its errors."""
        done = subprocess.run(
            ["docker", *words], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"docker {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout if check else done.stdout + done.stderr

    def compose(self, *words: str, check: bool = True) -> str:
        return self.docker("compose", *words, check=check)

    def up(self, *words: str) -> None:
        self.compose("up", "-d", "--no-build", "--wait", *words)

    def build(self, context: Path, image: str) -> None:
        self.docker(
            *("build", "-q", "--network", "host", "-f", str(context / "ops" / "Dockerfile"), "-t", image, str(context))
        )

    def vigil(self, *words: str, check: bool = True, **environment: str) -> str:
        """Run a command of `vigil` in the API's container."""
        given = [f"-e{name}={value}" for name, value in environment.items()]
        return self.compose("exec", "-T", *given, "api", "vigil", *words, check=check)

    def crash(self, service: str) -> None:
        """kill -9 for what runs in the container; the engine starts it again."""
        self.compose("exec", "-T", service, "sh", "-c", "kill -9 -1", check=False)

    def states(self, service: str) -> list[str]:
        """Return the health of each container of the service, "" for one that does not run."""
        rows = [json.loads(line) for line in self.compose("ps", "-a", "--format", "json", service).splitlines()]
        return [str(row.get("Health", "")) if row["State"] == "running" else "" for row in rows]

    def healthy(self, service: str, count: int = 1) -> None:
        wait(f"{service} to be healthy", lambda: self.states(service) == ["healthy"] * count)

    def calls(self) -> dict[str, Any]:
        """Return what the simulator has counted."""
        ask = "import urllib.request as r; print(r.urlopen('http://simulator:8790/sim/calls').read().decode())"
        found: dict[str, Any] = json.loads(self.compose("exec", "-T", "api", "python", "-c", ask))
        return found


def wait(what: str, condition: Callable[[], Any]) -> Any:
    """Return the condition's value once it is true."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.3)
    raise AssertionError(f"waited {PATIENCE_S:.0f} s in vain for {what}")
