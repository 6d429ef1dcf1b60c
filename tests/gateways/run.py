"""Run one job in each mode through each installed server, and print the table of ops/gateways.md.

    .venv/bin/python tests/gateways/run.py FOLDER [--only WORD] [--mode MODE] [--keep]

FOLDER is where `install.sh` put the servers. Everything listens on loopback, each Vigil lives in a throw-away folder.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).parent))
import exact
from servers import KEY, PROMPT, SERVERS, Server

VIGIL = Path(sys.executable).parent / "vigil"
START_SECONDS = 400.0  # vLLM loads for minutes
JOB_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@contextlib.contextmanager
def process(words: list[str], folder: Path, env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        running = subprocess.Popen(
            words,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", **env},  # noqa: TID251
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield running
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(10)
                break


def until(what: str, check: Any, running: subprocess.Popen[bytes], log: Path, seconds: float = START_SECONDS) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if running.poll() is not None:
            break
        with contextlib.suppress(httpx2.HTTPError, OSError):
            if check():
                return
        time.sleep(0.2)
    raise RuntimeError(f"{what} did not get ready: {log.read_text(errors='replace')[-300:]!r}")


@contextlib.contextmanager
def serving(server: Server, home: Path, folder: Path) -> Iterator[str]:
    """Run the server, and the simulator behind it if it needs one; yield the base URL for OPENAI_BASE_URL."""
    with contextlib.ExitStack() as stack:
        port, upstream = free_port(), free_port()
        filled = {"home": str(home), "port": str(port), "upstream": str(upstream)}
        if server.behind:
            log = folder / "simulator.log"
            words = [str(VIGIL), "simulator", "--port", str(upstream), "--speed", "5"]
            fake = stack.enter_context(process(words, folder, {}, log))
            until(
                "the simulator", lambda: httpx2.get(f"http://127.0.0.1:{upstream}/sim/scenarios").is_success, fake, log
            )
        for name, text in server.files.items():
            (folder / name).write_text(text.format(**filled))
        env = {name: value.format(**filled) for name, value in server.env.items()}
        log = folder / "server.log"
        running = stack.enter_context(process([word.format(**filled) for word in server.command], folder, env, log))
        url = f"http://127.0.0.1:{port}"
        until("it", lambda: httpx2.get(url + server.ready, timeout=5).status_code < 500, running, log)
        yield url + server.base


@contextlib.contextmanager
def vigil_up(base: str, mode: str, folder: Path, model: str) -> Iterator[httpx2.Client]:
    """Run `vigil up` with this server; yield a client of its API."""
    port = free_port()
    models = folder / "models.toml"
    models.write_text(f'[models."{model}"]\n')
    env = {
        "OPENAI_BASE_URL": base,
        "OPENAI_API_KEY": KEY,
        "VIGIL_UPSTREAM": mode,
        "VIGIL_DRAIN_SECONDS": "1",
        "VIGIL_MODELS_FILE": str(models),
    }
    log = folder / "up.log"
    with process([str(VIGIL), "up", "--port", str(port)], folder, env, log) as running:
        until("vigil up", lambda: "Ctrl-C drains" in log.read_text(), running, log)
        key = re.search(r"key +(vgl_\S+)", log.read_text())
        assert key, log.read_text()
        with httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key[1]}"}, timeout=JOB_SECONDS
        ) as client:
            yield client


def streamed(client: httpx2.Client, job: str) -> str:
    """Return the text in the events of a job."""
    text = ""
    with client.stream("GET", f"/v1/jobs/{job}/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("data:"):
                event = json.loads(line[5:])
                if event["type"] == "job.output.delta":
                    text += event["data"]["delta"]
    return text


def one_job(client: httpx2.Client, server: Server, model: str, mode: str) -> dict[str, Any]:
    body = {
        "model": model,
        "input": PROMPT,
        "params": {"max_output_tokens": 200},
        "policy": {"max_attempts": 2, "run_deadline_seconds": 45},
    }
    made = client.post("/v1/jobs", json=body)
    if made.status_code != 202:
        return {"verdict": f"not accepted: {made.status_code} {made.text[:300]}"}
    made = made.json()
    pieces = streamed(client, made["id"])
    job = client.get(f"/v1/jobs/{made['id']}").json()
    faced = client.post(
        "/v1/responses", json={"model": model, "input": PROMPT, "max_output_tokens": 200, "stream": False}
    ).json()
    return judged(server, mode, job, pieces, faced)


def judged(server: Server, mode: str, job: dict[str, Any], pieces: str, faced: dict[str, Any]) -> dict[str, Any]:
    """Return the result, and what of it is wrong."""
    attempt = job["attempts"][-1] if job["attempts"] else {}
    usage, error = job.get("usage") or {}, job.get("error") or {}
    if mode in server.refuses:
        wrong = refused(server.refuses[mode], job, error)
    elif job["status"] != "completed":
        wrong = [f"{job['status']}: {error.get('code')}; {error.get('advice')}"]
    else:
        wrong = answered(server, mode, job, pieces, faced)
    return {
        "verdict": "; ".join(wrong) or (f"refused, {error['code']}" if mode in server.refuses else "ok"),
        "right": not wrong,
        "status": job["status"],
        "reason": job.get("reason"),
        "served": job.get("served_model"),
        "usage": [usage.get("input_tokens"), usage.get("output_tokens")],
        "response_id": attempt.get("response_id"),
        "request_id": attempt.get("request_id"),
        "cost": job.get("cost"),
        "attempts": [(a["outcome"], a["http_status"], (a["error"] or {}).get("provider")) for a in job["attempts"]],
    }


def refused(code: str, job: dict[str, Any], error: dict[str, Any]) -> list[str]:
    """Return what is wrong with a job in a mode that the server can't serve: it must fail once and name the setting."""
    if (job["status"], error.get("code"), len(job["attempts"])) != ("failed", code, 1):
        return [f"{job['status']}: {error.get('code')}, {len(job['attempts'])} attempts"]
    return [] if "VIGIL_UPSTREAM" in error["advice"] else [error["advice"]]


def answered(server: Server, mode: str, job: dict[str, Any], pieces: str, faced: dict[str, Any]) -> list[str]:
    """Return what is wrong with an answer."""
    text, attempt = job.get("output_text") or "", job["attempts"][-1]
    right = server.text or ""
    faults = {
        f"text {text[:60]!r}": not text or right not in text,
        f"streamed {pieces[:60]!r}, whole {text[:60]!r}": pieces != text,
        "no usage": not (job.get("usage") or {}).get("output_tokens") and mode not in server.uncounted,
        "no response id": not attempt.get("response_id"),
        f"{len(job['attempts'])} attempts": len(job["attempts"]) != 1,
        "another text as a Response": right not in json.dumps(faced.get("output"), ensure_ascii=False),
    }
    return [fault for fault, found in faults.items() if found]


def version(server: Server, home: Path) -> str:
    words = [word.format(home=home) for word in server.version]
    env = {**os.environ, **{k: v.format(home=home, port="", upstream="") for k, v in server.env.items()}}  # noqa: TID251
    result = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    found = re.search(r"(?:Version: |nginx/|HAProxy version |@)(\d[^\s]*)", result.stdout + result.stderr)
    return found[1] if found else "?"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="Servers whose name contains this.")
    parser.add_argument("--mode", default="", help="One mode only.")
    parser.add_argument("--keep", action="store_true", help="Keep the folders with their logs.")
    given = parser.parse_args()
    home, bad = given.folder.resolve(), 0
    print("| server | version | mode | result | usage | ids |\n|---|---|---|---|---|---|", flush=True)
    for server in SERVERS:
        if given.only.lower() not in server.name.lower():
            continue
        if not (home / server.needs).exists():
            print(f"{server.name}: not installed", file=sys.stderr)
            continue
        folder = Path(tempfile.mkdtemp(prefix="vigil-gateway-"))
        model = server.model.format(home=home)
        try:
            with serving(server, home, folder) as base:
                for mode in server.modes:
                    if given.mode and mode != given.mode:
                        continue
                    inner = folder / mode
                    inner.mkdir()
                    with vigil_up(base, mode, inner, model) as client:
                        row = one_job(client, server, model, mode)
                        if server.says is not None and mode not in server.refuses:
                            own = exact.direct(base, KEY, model, PROMPT)
                            counts = mode not in server.uncounted
                            wrong = list(exact.faults(client, own, server, model, PROMPT, counts=counts))
                            row |= {"exact": wrong, "right": row["right"] and not wrong}
                            row["verdict"] = "; ".join([row["verdict"], *wrong] if wrong else [row["verdict"], "exact"])
                    bad += not row.get("right")
                    print(
                        f"| {server.name} | {version(server, home)} | {mode} | {row['verdict']} | {row.get('usage')} "
                        f"| {row.get('response_id')}, {row.get('request_id')} |",
                        flush=True,
                    )
                    print(json.dumps(row), file=sys.stderr, flush=True)
        except RuntimeError as error:
            bad += 1
            print(f"| {server.name} | {version(server, home)} | - | {error} | | |", flush=True)
        finally:
            if given.keep:
                print(folder, file=sys.stderr)
            else:
                shutil.rmtree(folder, ignore_errors=True)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
