"""Real `vigil` processes: each test speaks to the command as a person does, in a folder and a home of its own."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked_vigil
import pytest
from waiting import LIMIT

VIGIL = Path(sys.executable).parent / "vigil"
Vigil = Callable[..., subprocess.CompletedProcess[str]]


def environment(home: Path, **more: str) -> dict[str, str]:
    ours = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}  # noqa: TID251
    return {**ours, "HOME": str(home), "LANG": "C.UTF-8", **more}


def run(folder: Path, *words: str, text: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return forked_vigil.run([*words], cwd=folder, env=environment(folder, **env), text=text, timeout=LIMIT)


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """The only line on stderr; no traceback."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("vigil")
    return lines[0]


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def read_until(process: subprocess.Popen[str], words: str, seconds: float = LIMIT) -> str:
    """What the process has printed up to the line with `words`."""
    assert process.stdout is not None
    output, until = "", time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while words not in output:
            if not selector.select(until - time.monotonic()):
                pytest.fail(f"no {words!r} within {seconds} s; it said: {output}")
            piece = os.read(process.stdout.fileno(), 65536).decode()
            if not piece:
                pytest.fail(f"it ended before {words!r}; it said: {output}")
            output += piece
    return output


@dataclass
class Up:
    """A running `vigil up`; its folder is where the client commands find URL and key."""

    folder: Path
    url: str
    output: str
    process: subprocess.Popen[str]

    def __call__(self, *words: str, text: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return run(self.folder, *words, text=text, **env)

    def json(self, *words: str, **more: Any) -> Any:
        result = self(*words, "--json", **more)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def key(self) -> str:
        return str(json.loads((self.folder / ".vigil" / "cli.json").read_text())["key"])


def start_up(folder: Path, port: int, *words: str, **env: str) -> Up:
    process = subprocess.Popen(
        [VIGIL, "up", "--port", str(port), *words],
        cwd=folder,
        env=environment(folder, VIGIL_DRAIN_SECONDS="2", VIGIL_AUDIT_SEAL_SECONDS="0.5", **env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output = read_until(process, "Ctrl-C drains")
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return Up(folder, f"http://127.0.0.1:{port}", output, process)
