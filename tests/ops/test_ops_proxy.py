"""ops/proxy/nginx.conf before a server: it is a valid configuration, and a slow client is sent away."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ops_server import ROOT, free_port
from ops_tools import tool
from waiting import LIMIT

CONF = ROOT / "ops" / "proxy" / "nginx.conf"


def plain(folder: Path, port: int, upstream: int, deadline: int = 1) -> Path:
    """The shipped file on ports of the test, without TLS and with short deadlines."""
    text = CONF.read_text()
    text = text.replace("listen 8443 ssl http2;", f"listen 127.0.0.1:{port};")
    text = re.sub(r"^\s+ssl_.*\n", "", text, flags=re.MULTILINE)
    text = text.replace("127.0.0.1:8700", f"127.0.0.1:{upstream}").replace("timeout 10s;", f"timeout {deadline}s;")
    head = f"daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
    kept = "".join(f"    {n}_temp_path {folder}/{n};\n" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    path = folder / "nginx.conf"
    path.write_text(head + text.replace("http {\n", "http {\n" + kept, 1))
    return path


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        seen_headers = [self.headers.get(name, "-") for name in ("Host", "X-Forwarded-Proto", "X-Forwarded-For")]
        self.send_header("X-Seen", " ".join(seen_headers))
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def proxied(folder: Path) -> Iterator[int]:
    nginx = tool("nginx")
    port = free_port()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as upstream:
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        conf = plain(folder, port, upstream.server_port)
        checked = subprocess.run([nginx, "-t", "-c", conf, "-p", folder], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        process = subprocess.Popen([nginx, "-c", conf, "-p", folder], stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + LIMIT
            while time.monotonic() < end:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.02)
            yield port
        finally:
            process.terminate()
            process.wait(LIMIT)
            upstream.shutdown()


@pytest.mark.parametrize(
    "drops",
    [
        b"GET /healthz HTTP/1.1\r\nHost: vigil.example\r\nX-Slow: ",
        b"POST /v1/jobs HTTP/1.1\r\nHost: vigil.example\r\nContent-Length: 100000\r\n\r\n{",
    ],
    ids=["headers", "body"],
)
def test_a_slow_client_is_sent_away(tmp_path: Path, drops: bytes) -> None:
    with proxied(tmp_path) as port, socket.create_connection(("127.0.0.1", port), 45) as line:
        line.sendall(drops)
        began = time.monotonic()
        try:
            answer = line.recv(100)
        except ConnectionResetError:
            answer = b""
        assert answer == b"" or b" 408 " in answer
        assert 0.5 < time.monotonic() - began < 45, "nginx would wait 60 s by itself"


def test_what_is_allowed_passes_and_the_rest_does_not(tmp_path: Path) -> None:
    with proxied(tmp_path) as port:
        for request, status in (
            (b"GET /healthz HTTP/1.1\r\nHost: vigil.example\r\n\r\n", b" 200 "),
            (b"GET /metrics HTTP/1.1\r\nHost: vigil.example\r\n\r\n", b" 200 "),  # from this machine
            (b"POST /v1/jobs HTTP/1.1\r\nHost: vigil.example\r\nContent-Length: 9000000\r\n\r\n", b" 413 "),
            (b"GET / HTTP/1.1\r\nHost: vigil.example\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", b" 400 "),
        ):
            with socket.create_connection(("127.0.0.1", port), 10) as line:
                line.sendall(request)
                assert status in line.recv(200).split(b"\r\n")[0]


def test_the_api_is_told_how_the_caller_came(tmp_path: Path) -> None:
    with proxied(tmp_path) as port, socket.create_connection(("127.0.0.1", port), 10) as line:
        line.sendall(
            b"GET /healthz HTTP/1.1\r\nHost: vigil.example:8443\r\n"
            b"X-Forwarded-Proto: gopher\r\nX-Forwarded-For: 10.0.0.1\r\nConnection: close\r\n\r\n"
        )
        received = b""
        while chunk := line.recv(4096):
            received += chunk
    assert b"X-Seen: vigil.example:8443 http 127.0.0.1" in received
