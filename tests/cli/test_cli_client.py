"""The client's event stream over connections that break: a real socket server that plays what it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr

from worker.cli.client import Client
from worker.cli.door import Door
from worker.cli.errors import CliError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def frame(text: str) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text.encode()), text.encode())


def event(seq: int, kind: str) -> bytes:
    return frame(f'id: {seq}\nevent: {kind}\ndata: {{"seq": {seq}, "data": {{}}}}\n\n')


def delta(offset: int, text: str) -> bytes:
    return frame(f'event: job.output.delta\ndata: {{"data": {{"offset": {offset}, "delta": "{text}"}}}}\n\n')


@contextmanager
def playing(*answers: bytes) -> Iterator[tuple[Client, list[str]]]:
    """A server that gives one answer per connection and then breaks it; the heads of the requests it got."""
    heads: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += connection.recv(65536)
                    heads.append(head.decode())
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with Client(Door(f"http://127.0.0.1:{server.getsockname()[1]}", SecretStr("vgl_x"))) as client:
            yield client, heads
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_a_dropped_stream_goes_on_where_it_was() -> None:
    first = HEAD + event(1, "job.queued") + event(2, "job.started") + delta(0, "Hel")
    second = HEAD + delta(3, "lo") + event(3, "job.completed") + b"0\r\n\r\n"
    with playing(first, second) as (client, heads):
        found = list(client.events("job_1"))
    assert [e.type for e in found if e.seq] == ["job.queued", "job.started", "job.completed"]
    assert "".join(e.data["delta"] for e in found if not e.seq) == "Hello"
    assert "last-event-id" not in heads[0].lower()
    assert "last-event-id: 2" in heads[1].lower()
    assert heads[1].startswith("GET /v1/jobs/job_1/events?offset=3 ")


def test_a_clean_end_without_a_terminal_event_is_no_end() -> None:
    with playing(
        HEAD + event(1, "job.queued") + b"0\r\n\r\n",
        b"",  # a connection that is dropped at once
        HEAD + event(2, "job.cancelled") + b"0\r\n\r\n",
    ) as (client, _):
        assert [e.seq for e in client.events("job_1")] == [1, 2]


def test_a_refused_resume_is_told() -> None:
    problem = b'{"title": "Not found", "detail": "There is no job job_1.", "code": "job_not_found"}'
    gone = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%s"
    with (
        playing(HEAD + event(1, "job.queued"), gone % (len(problem), problem)) as (client, _),
        pytest.raises(CliError, match=r"There is no job job_1 \(job_not_found\)"),
    ):
        list(client.events("job_1"))


def test_something_else_on_the_port_is_told() -> None:
    other = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"
    with playing(other) as (client, _), pytest.raises(CliError, match="is that a Vigil"):
        client.job("job_1")


def test_a_key_that_cannot_be_sent_is_told_without_the_key() -> None:
    with pytest.raises(CliError, match="can't be sent") as caught:
        Client(Door("http://127.0.0.1:1", SecretStr("vgl_\u00e9")))
    assert "\u00e9" not in str(caught.value)
