"""`vigil doctor` against real servers that are set up badly: it says what is wrong, what mends it, and exits 1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import forked_vigil
import pytest
from ops_server import Server, secrets, server
from ops_tools import tool
from waiting import LIMIT

VIGIL = Path(sys.executable).parent / "vigil"
Findings = dict[str, dict[str, Any]]


def run(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}  # noqa: TID251
    ours = {**kept, "HOME": str(folder), "VIGIL_URL": "http://127.0.0.1:1", **env}
    return forked_vigil.run(["doctor", *words], cwd=folder, env=ours, timeout=LIMIT)


def findings(folder: Path, *words: str, **env: str) -> Findings:
    result = run(folder, "--json", *words, **env)
    report = json.loads(result.stdout)
    unusable = [check["name"] for check in report["checks"]] == ["settings"] * len(report["checks"])
    assert result.returncode == (2 if unusable else 1 if report["state"] == "problem" else 0)
    assert "Traceback" not in result.stderr
    for check in report["checks"]:
        assert bool(check["fix"]) == (check["state"] != "ok"), check
    return {check["name"]: check for check in report["checks"]}


def on(one: Server, tmp_path: Path, **env: str) -> Findings:
    return findings(tmp_path, VIGIL_REDIS_URL=env.pop("url", one.url), **env)


# ---- Redis


@pytest.mark.parametrize(
    ("options", "name", "state", "message"),
    [
        (["--appendfsync", "everysec"], "persistence", "warning", "a power cut may take the last second or two"),
        (["--appendfsync", "no"], "persistence", "warning", "a power cut may take the last half minute"),
        (["--appendonly", "no"], "persistence", "problem", "lost if Redis stops"),
        (["--maxmemory-policy", "allkeys-lru"], "eviction", "problem", "accepted jobs could vanish"),
        (["--maxmemory-policy", "volatile-ttl"], "eviction", "problem", "maxmemory-policy is volatile-ttl"),
        (["--maxmemory", "1100kb"], "memory", "problem", "of maxmemory"),
        ([], "persistence", "ok", "every write is on disk before the answer"),
        ([], "password", "warning", "the default user is on and has no password"),
        ([], "rights", "warning", "may do everything"),
        ([], "workers", "warning", "no worker shows a heartbeat"),
        ([], "clock", "ok", "Redis"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_a_server_that_is_set_up_badly(tmp_path: Path, options: list[str], name: str, state: str, message: str) -> None:
    with server(tmp_path / "data", *options) as one:
        found = on(one, tmp_path)[name]
    assert found["state"] == state, found
    assert message in found["detail"]


def test_with_its_users_nobody_else_gets_in_and_config_may_be_closed(tmp_path: Path) -> None:
    made = secrets(tmp_path / "secrets", "valkey:6379")
    with server(tmp_path / "data", "--aclfile", str(tmp_path / "secrets" / "users.acl")) as one:
        worker = on(one, tmp_path, url=made["redis_url_worker"].replace("valkey:6379", one.place))
        api = on(one, tmp_path, url=made["redis_url_api"].replace("valkey:6379", one.place))
        admin = f"redis://admin:{made['valkey_password_admin']}@{one.place}/0"
        assert on(one, tmp_path, url=admin)["rights"]["state"] == "warning"
        stranger = on(one, tmp_path)
    for name in ("persistence", "eviction", "password", "rights", "tls"):
        assert worker[name]["state"] == "ok", worker[name]
    assert "the user is 'worker', who may not empty" in worker["rights"]["detail"]
    assert "can't be read here" in api["persistence"]["detail"]
    assert "worker of ops/users.acl" in api["persistence"]["fix"]
    assert api["eviction"]["state"] == "ok"  # INFO tells
    assert stranger["redis"]["state"] == "problem"
    assert made["valkey_password_worker"] not in json.dumps(worker)


def test_an_old_server_is_named(tmp_path: Path) -> None:
    with server(tmp_path / "data", binary=tool("redis-server-bookworm")) as one:
        found = on(one, tmp_path)
    assert found["redis"]["state"] == "warning"
    assert "Redis 7.0" in found["redis"]["detail"]
    assert found["persistence"]["state"] == "ok"


def test_nothing_and_something_else_in_its_place(tmp_path: Path) -> None:
    assert findings(tmp_path, VIGIL_REDIS_URL="redis://127.0.0.1:1/0")["redis"]["state"] == "problem"
    with answering(200) as (port, _):
        assert findings(tmp_path, VIGIL_REDIS_URL=f"redis://127.0.0.1:{port}/0")["redis"]["state"] == "problem"


def test_the_audit_key_and_what_it_signs(tmp_path: Path) -> None:
    with server(tmp_path / "data") as one:
        assert on(one, tmp_path)["audit key"]["state"] == "warning"
        given = on(one, tmp_path, VIGIL_AUDIT_KEY="A" * 43, VIGIL_AUDIT_CHECKPOINTS=str(tmp_path / "copy"))
        assert (given["audit key"]["state"], given["audit trail"]["state"]) == ("ok", "ok")
        assert "A" * 43 not in json.dumps(given)
        file = tmp_path / ".vigil" / "audit.key"
        file.parent.mkdir(exist_ok=True)
        file.write_text("A" * 43)
        for mode, state, message in ((0o644, "problem", "chmod 600"), (0o600, "warning", "VIGIL_AUDIT_CHECKPOINTS")):
            file.chmod(mode)
            found = on(one, tmp_path)["audit key"]
            assert (found["state"], message in found["fix"]) == (state, True)
        one.client(None, None).xadd("vigil:audit", {"hash": "x", "record": "{}"}, id="1700000000000-0")
        late = on(one, tmp_path)["audit trail"]
        assert (late["state"], "records have waited" in late["detail"]) == ("warning", True)
        one.client(None, None).rpush("vigil:seals", "nonsense")
        assert on(one, tmp_path)["audit trail"]["state"] == "problem"


# ---- the world outside


@contextmanager
def answering(status: int, date: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """An HTTP server that answers everything alike; its port, and what was asked."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            requests.append(f"{self.command} {self.path} {self.rfile.read(length)!r}")
            self.send_response_only(status)
            if date:
                self.send_header("Date", date)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield listening.server_port, requests
        finally:
            listening.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "state", "message"),
    [(200, "ok", "accepts envelopes"), (403, "warning", "refuses the DSN"), (404, "warning", "answers 404")],
)
def test_sentry_is_asked_to_take_an_envelope(tmp_path: Path, status: int, state: str, message: str) -> None:
    with answering(status) as (port, requests):
        found = findings(tmp_path, SENTRY_DSN=f"http://abcdef@127.0.0.1:{port}/42")["sentry"]
    assert (found["state"], message in found["detail"]) == (state, True), found
    assert requests == ["POST /api/42/envelope/ b'{}\\n'"]
    assert "abcdef" not in found["detail"]


def test_a_dsn_that_is_none_and_a_sentry_that_is_away(tmp_path: Path) -> None:
    assert "SENTRY_DSN" in findings(tmp_path, SENTRY_DSN="https://sentry.example/1")["settings"]["detail"]
    assert findings(tmp_path, SENTRY_DSN="http://key@127.0.0.1:1/1")["sentry"]["state"] == "warning"
    assert findings(tmp_path)["sentry"]["state"] == "ok"


def test_the_providers_clock_is_compared(tmp_path: Path) -> None:
    with answering(200, "Sat, 01 Jan 2022 00:00:00 GMT") as (port, _):
        found = findings(tmp_path, OPENAI_API_KEY="sk-x", OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1")
    assert found["provider"]["state"] == "ok"
    assert found["their clock"]["state"] == "problem"
    assert "ahead of the provider" in found["their clock"]["detail"]


def test_a_key_that_is_refused(tmp_path: Path) -> None:
    with answering(401) as (port, _):
        found = findings(tmp_path, OPENAI_API_KEY="sk-wrong-key", OPENAI_BASE_URL=f"http://127.0.0.1:{port}/v1")
    assert found["provider"]["state"] == "problem"
    assert "sk-wrong-key" not in json.dumps(found)


def test_a_receiver_is_judged_and_tried(tmp_path: Path) -> None:
    with answering(401) as (port, requests):
        url = f"http://127.0.0.1:{port}/hooks"
        closed = findings(tmp_path, "--webhook", url)
        opened = findings(tmp_path, "--webhook", url, VIGIL_WEBHOOK_ALLOW_PRIVATE="1")
        away = findings(tmp_path, "--webhook", "http://127.0.0.1:1/", VIGIL_WEBHOOK_ALLOW_PRIVATE="1")
    assert closed["receiver"]["state"] == "problem"
    assert "answers (an unsigned {} got 401)" in opened["receiver"]["detail"]
    assert opened["webhooks"]["state"] == "warning"
    assert away["receiver"]["state"] == "problem"
    assert requests == ["POST /hooks b'{}'"]


def test_it_fits_a_narrow_terminal(tmp_path: Path) -> None:
    for width in (40, 80):
        result = run(tmp_path, COLUMNS=str(width))
        lines = result.stdout.splitlines()
        # an address or a path is one word, which stays whole
        assert max(len(line) for line in lines if " " in line.strip() and "http" not in line) <= width
        assert "\x1b" not in result.stdout
        assert "identifiers" in result.stdout


def test_wrong_settings_are_all_told(tmp_path: Path) -> None:
    result = run(tmp_path, "--json", VIGIL_PORT="x", VIGIL_MAX_JOBS="0")
    assert result.returncode == 2
    assert [check["state"] for check in json.loads(result.stdout)["checks"]] == ["problem", "problem"]
    assert len(result.stderr.splitlines()) == 1
    assert "VIGIL_PORT" in result.stderr
    assert "VIGIL_MAX_JOBS" in result.stderr


def test_health_says_when_nothing_answers(tmp_path: Path) -> None:
    def health(*words: str, **env: str) -> tuple[int, str]:
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}  # noqa: TID251
        result = forked_vigil.run(["health", *words], cwd=tmp_path, env={**kept, **env}, timeout=LIMIT)
        return result.returncode, result.stdout + result.stderr

    assert health("api", VIGIL_PORT="1") == (1, "api: nothing answers on port 1 (ConnectionRefusedError)\n")
    assert health("worker")[0] == 1
    with answering(503) as (port, requests):
        assert health("api", VIGIL_PORT=str(port)) == (1, "api: /readyz answers 503\n")
        assert health("worker", VIGIL_WORKER_PORT=str(port))[0] == 1
    assert [line.split()[1] for line in requests] == ["/readyz", "/healthz"]
    assert health("nonsense")[0] == 2
