"""A fake Sentry: receives envelopes over HTTP and keeps every byte of them, decoded, for tests to search."""

from __future__ import annotations

import gzip
import json
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Ingest:
    """`with Ingest() as ingest:` then a process with SENTRY_DSN=ingest.dsn."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self.raw))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def dsn(self) -> str:
        return f"http://public@127.0.0.1:{self._server.server_port}/7"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def items(self, kind: str) -> list[dict[str, Any]]:
        """The payloads of one kind of item, in order."""
        return [body for raw in list(self.raw) for head, body in _items(raw) if head["type"] == kind]

    @property
    def spans(self) -> list[dict[str, Any]]:
        """Every transaction and every span in one, alike: name, op, status, ids, attributes."""
        found = []
        for one in self.items("transaction"):
            trace = one["contexts"]["trace"]
            times = {key: one[key] for key in ("start_timestamp", "timestamp")}
            found.append({**trace, **times, "name": one["transaction"], "attributes": trace.get("data", {})})
            found += [{**span, "name": span["description"], "attributes": span["data"]} for span in one["spans"]]
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every issue event."""
        return self.items("event")

    def everything(self) -> str:
        """All bytes that arrived, as text."""
        return b"\n".join(self.raw).decode(errors="replace")


def _items(raw: bytes) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    _, _, rest = raw.partition(b"\n")
    out = []
    while rest.strip():
        line, _, rest = rest.partition(b"\n")
        head = json.loads(line)
        size = head.get("length")
        body, rest = (rest[:size], rest[size:].lstrip(b"\n")) if size is not None else rest.split(b"\n", 1)
        out.append((head, json.loads(body)))
    return out


def _handler(raw: list[bytes]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            match self.headers.get("content-encoding"):
                case "gzip":
                    body = gzip.decompress(body)
                case "deflate":
                    body = zlib.decompress(body)
                case None:
                    pass
                case other:
                    raise AssertionError(other)
            raw.append(body)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class Receiver(Ingest):
    """A webhook receiver: keeps the headers and the body of every POST, and says the body back."""

    def __init__(self, status: int = 200) -> None:
        self.got: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _keeper(self.got, self.bodies, status))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/hooks?sig=CANARY-query"


def _keeper(got: list[dict[str, str]], bodies: list[bytes], status: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            got.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            self.end_headers()
            self.wfile.write(bodies[-1])

        def log_message(self, *_: object) -> None:
            pass

    return Handler
