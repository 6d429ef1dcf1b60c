"""Run foreign OpenAI clients, unchanged, against `vigil up` with the simulator; print client x feature x result.

    .venv/bin/python tests/clients/run.py [CLIENT ...]

Each client is installed once into .tools/clients/NAME, with the versions of its lock, and gets a Vigil of its own in a
throw-away folder. Exit 1 when a feature fails; a client that can't be installed here is skipped, with the reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOOLS = ROOT / ".tools" / "clients"
VIGIL = Path(sys.executable).parent / "vigil"
SPEED = "50"
SETTINGS = {"VIGIL_DRAIN_SECONDS": "2", "VIGIL_WEBHOOK_ALLOW_PRIVATE": "1"}
INSTALL_SECONDS, START_SECONDS, CLIENT_SECONDS = 900, 120, 600
LOCKS = ("requirements.lock", "package-lock.json")
OWN = {"typescript": ROOT / "ops" / "clients" / "typescript"}
"""Clients that are part of Vigil: their packages are named beside their source, and they are built here."""
_RESULTS = {"pass": "ok", "fail": "FAILED"}
_NOT_FOUND = 404


class SkippedClient(Exception):
    """A client that can't run on this machine; the message says why."""


def clients() -> list[str]:
    """Return the names of all clients."""
    others = [folder.name for folder in HERE.iterdir() if any((folder / lock).exists() for lock in LOCKS)]
    return sorted([*OWN, *others])


def source_of(name: str) -> Path:
    """Return the folder that has the client's lock."""
    return OWN.get(name, HERE / name)


def install(name: str) -> Path:
    """Install the pinned versions of a client unless they are there; return its folder. Raises SkippedClient."""
    source, target = source_of(name), TOOLS / name
    lock = next(source / lock for lock in LOCKS if (source / lock).exists())
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    marker = target / ".installed"
    if marker.exists() and marker.read_text() == digest:
        build(name, target)
        return target
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    print(f"installing {name}", file=sys.stderr, flush=True)
    if lock.name == "requirements.lock":
        _command([sys.executable, "-m", "venv", str(target)], target)
        pip = [str(target / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        _command([*pip, "--no-deps", "-r", str(lock)], target)
    else:
        for program in ("npm", "node"):
            if shutil.which(program) is None:
                raise SkippedClient(f"{program} is not installed")
        for file in ("package.json", "package-lock.json"):
            shutil.copy(source / file, target / file)
        _command(["npm", "ci", "--no-audit", "--no-fund"], target)
    marker.write_text(digest)
    build(name, target)
    return target


def build(name: str, target: Path) -> None:
    """Build a client of our own from its source as it is now."""
    if name not in OWN:
        return
    for kept in ("src", "dist"):
        shutil.rmtree(target / kept, ignore_errors=True)
    shutil.copytree(OWN[name] / "src", target / "src")
    shutil.copy(OWN[name] / "tsconfig.json", target / "tsconfig.json")
    words = ["npx", "tsc"]
    done = subprocess.run(words, cwd=target, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode:
        raise SystemExit(f"{name} does not compile:\n{done.stdout[-4000:]}{done.stderr[-1000:]}")


def _command(words: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise SkippedClient(f"{words[0]} took more than {INSTALL_SECONDS} s") from None
    if done.returncode:
        last = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()][-1:]
        raise SkippedClient(f"could not be installed: {' '.join(last)[:160] or done.returncode}")


@contextlib.contextmanager
def vigil(folder: Path) -> Iterator[dict[str, str]]:
    """Yield how to reach a running `vigil up`."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = int(trial.getsockname()[1])
    process = subprocess.Popen(
        [VIGIL, "up", "--port", str(port), "--speed", SPEED],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", **SETTINGS},  # noqa: TID251
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        _read_until(process, b"Ctrl-C drains")
        url, key = f"http://127.0.0.1:{port}", json.loads((folder / ".vigil" / "cli.json").read_text())["key"]
        with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
            yield {"VIGIL_URL": url, "VIGIL_API_KEY": key, "VIGIL_MISSING": ",".join(missing_parts(client))}
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def missing_parts(client: httpx2.Client) -> list[str]:
    """Return the parts of OpenAI's API that some clients need and this Vigil does not have."""
    missing = []
    if client.post("/v1/chat/completions", json={}).status_code == _NOT_FOUND:
        missing.append("chat")
    made = client.post("/v1/responses", json={"model": "gpt-5.6-sol", "input": "Hello"}).json()
    named = {"type": "item_reference", "id": made["output"][0]["id"]}
    answer = client.post("/v1/responses", json={"model": "gpt-5.6-sol", "input": [named], "background": True})
    if (answer.json().get("error") or {}).get("code") == "unsupported_parameter":
        missing.append("item references")
    return missing


def _read_until(process: subprocess.Popen[bytes], words: bytes) -> None:
    assert process.stdout is not None
    output, until = b"", time.monotonic() + START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while words not in output:
            piece = os.read(process.stdout.fileno(), 65536) if selector.select(until - time.monotonic()) else b""
            if not piece:
                raise SystemExit(f"vigil up did not start: {output.decode()[-2000:]}")
            output += piece


def check(name: str, folder: Path) -> list[dict[str, str]]:
    """Run a client's script; return its rows."""
    script = HERE / name / "check.py"
    if script.exists():
        words = [str(folder / "bin" / "python"), str(script)]
    else:
        script = folder / "check.mjs"  # Node looks for packages beside the script
        for file in [*(HERE / name).glob("*.mjs"), *(HERE / name).glob("*.ts")]:
            shutil.copy(file, folder / file.name)
        shutil.copy(HERE / "checks.mjs", folder / "checks.mjs")
        words = ["node", str(script)]
    declared = re.findall(r'feature\("([^"]+)"', (HERE / name / script.name).read_text())
    with tempfile.TemporaryDirectory(prefix="vigil-clients-") as scratch, vigil(Path(scratch)) as reach:
        env = {
            "PATH": os.environ["PATH"],  # noqa: TID251
            "HOME": scratch,
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            **reach,
        }
        log = TOOLS / f"{name}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                words, cwd=scratch, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True,
            )  # fmt: skip
            try:
                out, _ = process.communicate(timeout=CLIENT_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                out, _ = process.communicate()
    rows = [json.loads(line) for line in out.decode().splitlines() if line.startswith('{"feature"')]
    reported = {row["feature"] for row in rows}
    why = f"the script ended before it; see {log.relative_to(ROOT)}"
    return rows + [{"feature": each, "result": "fail", "detail": why} for each in declared if each not in reported]


def version_of(name: str) -> str:
    """Return the client's own pinned version."""
    if name in OWN:
        return str(json.loads((OWN[name] / "package.json").read_text())["version"])
    lock = HERE / name / "requirements.lock"
    if lock.exists():
        first = (HERE / name / "requirements.txt").read_text().split()[0]
        return re.sub(r"\[.*\]", "", first).partition("==")[2]
    return str(next(iter(json.loads((HERE / name / "package.json").read_text())["dependencies"].values())))


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    heads = ("client", "version", "feature", "result")
    widths = [max(len(head), *(len(row[head]) for row in rows)) for head in heads]
    print("  ".join(head.ljust(width) for head, width in zip(heads, widths, strict=True)).rstrip())
    for row in rows:
        cells = [row[head].ljust(width) for head, width in zip(heads, widths, strict=True)]
        print("  ".join([*cells, row.get("detail", "")]).rstrip())


def main(names: list[str]) -> int:
    """Check the named clients, or all; return the exit status."""
    unknown = sorted(set(names) - set(clients()))
    if unknown:
        print(f"No such client: {', '.join(unknown)}. There are: {', '.join(clients())}.", file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = []
    for name in names or clients():
        try:
            found = check(name, install(name))
        except SkippedClient as reason:
            found = [{"feature": "-", "result": "skipped", "detail": str(reason)}]
        for row in found:
            result = _RESULTS.get(row["result"], row["result"])
            rows.append({**row, "client": name, "version": version_of(name), "result": result})
    show(rows)
    failed = sum(row["result"] == "FAILED" for row in rows)
    passed, skipped = (sum(row["result"] == kind for row in rows) for kind in ("ok", "skipped"))
    waiting = len(rows) - passed - failed - skipped
    print(f"\n{passed} ok, {failed} failed, {waiting} need what this Vigil doesn't have, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
