"""`vigil up`, `doctor` and `probe` at a compatible server that Vigil does not know: no key, other models, one API."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from vigil_process import free_port, run, start_up

MODEL = "llama3"


class ChatOnly(BaseHTTPRequestHandler):
    """A local server with Chat Completions and a list of models, as most are; it echoes the last message."""

    protocol_version = "HTTP/1.1"
    requests: list[tuple[str, dict[str, Any], str | None]]

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._json(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).requests.append((self.path, body, self.headers.get("Authorization")))
        if self.path != "/v1/chat/completions":
            self._json(404, {"detail": "Not Found"})
        elif not body.get("messages"):
            self._json(422, {"detail": [{"loc": ["body", "messages"], "msg": "Field required"}]})
        else:
            chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": body["model"]}
            text = body["messages"][-1]["content"]
            usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            chunks = [
                {**chunk, "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}}]},
                {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage},
            ]
            frames = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
            self._send(200, "text/event-stream", frames.encode())

    def _json(self, status: int, body: Any) -> None:
        self._send(status, "application/json", json.dumps(body).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def chat_only() -> Iterator[tuple[str, list[tuple[str, dict[str, Any], str | None]]]]:
    handler = type("Handler", (ChatOnly,), {"requests": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", handler.requests
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def short_file(tmp_path: Path) -> str:
    path = tmp_path / "models.toml"
    path.write_text(f'[models."{MODEL}"]\n')
    return str(path)


def test_up_at_a_server_without_a_key_completes_a_job_as_it_says(tmp_path: Path, short_file: str) -> None:
    with chat_only() as (base, requests):
        env = {"OPENAI_BASE_URL": base, "VIGIL_MODELS_FILE": short_file, "VIGIL_UPSTREAM": "chat"}
        up = start_up(tmp_path, free_port(), **env)
        try:
            assert f"{base}, Chat Completions, without a key" in up.output
            assert "[[sim:" not in up.output
            line = re.search(r"vigil (submit --wait --model \S+) '([^']*)'", up.output)
            assert line is not None
            done = up(*line[1].split(), line[2])
            assert (done.returncode, done.stdout.strip()) == (0, line[2])
            (job,) = up.json("list")["data"]
            job = up.json("get", job["id"])
            assert (job["status"], job["usage"]["total_tokens"], job["cost"]) == ("completed", 5, None)
            assert job["attempts"][0]["response_id"] == "chatcmpl-1"
            found = {model["id"]: model for model in up.json("probe")["data"]}
            assert (found[MODEL]["access"]["status"], found[MODEL]["input_per_million"]) == ("ok", None)
            refused = up("submit", "x", "--model", "gpt-9")
            assert "VIGIL_MODELS_FILE" in refused.stderr
            assert "VIGIL_ALLOW_UNKNOWN_MODELS" in refused.stderr
            prompts = [body["messages"] for path, body, _ in requests if body.get("messages")]
            assert prompts == [[{"role": "user", "content": line[2]}]], "probing sends no prompt"
        finally:
            up.process.terminate()
            up.process.communicate(timeout=30)


def doctor(folder: Path, *words: str, **env: str) -> dict[str, dict[str, str]]:
    result = run(folder, "doctor", "--json", *words, VIGIL_URL="http://127.0.0.1:1", **env)
    return {check["name"]: check for check in json.loads(result.stdout)["checks"]}


def test_the_doctor_says_which_mode_fits_and_tries_it_on_request(tmp_path: Path, short_file: str) -> None:
    with chat_only() as (base, requests):
        env = {"OPENAI_BASE_URL": base, "VIGIL_MODELS_FILE": short_file}
        found = doctor(tmp_path, **env)
        assert found["endpoint"]["state"] == "problem"
        assert "VIGIL_UPSTREAM=chat" in found["endpoint"]["fix"]
        assert found["their models"]["state"] == "ok"
        prompts = [body.get("messages") or body.get("input") for _, body, _ in requests]
        assert not any(prompts), "nothing is generated without --try"
        found = doctor(tmp_path, "--try", MODEL, VIGIL_UPSTREAM="chat", **env)
        assert (found["endpoint"]["state"], found["trial"]["state"]) == ("ok", "ok")
        assert "5 tokens, id chatcmpl-1" in found["trial"]["detail"]
        assert len([body for _, body, _ in requests if body.get("messages") or body.get("input")]) == 1
        found = doctor(tmp_path, "--try", MODEL, **env)
        assert found["trial"]["state"] == "problem"
        assert "VIGIL_UPSTREAM=chat" in found["trial"]["fix"]


def test_the_doctor_judges_the_catalogue_in_use(tmp_path: Path) -> None:
    with chat_only() as (base, _):
        found = doctor(tmp_path, OPENAI_BASE_URL=base)
        assert found["their models"]["state"] == "warning"
        assert f'[models."{MODEL}"]' in found["their models"]["fix"]
        found = doctor(tmp_path, OPENAI_BASE_URL=base, VIGIL_ALLOW_UNKNOWN_MODELS="1")
        assert found["their models"]["state"] == "ok"


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("http://127.0.0.1:1/v1", "Nothing listens at the provider's address"),
        ("http://no-such-host.invalid/v1", "host name could not be resolved"),
    ],
)
def test_the_doctor_says_why_there_is_no_connection(tmp_path: Path, base: str, message: str) -> None:
    found = doctor(tmp_path, OPENAI_BASE_URL=base)
    assert found["provider"]["state"] == "problem"
    assert message in found["provider"]["detail"]
    assert "endpoint" not in found
