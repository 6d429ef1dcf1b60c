"""What the commands say when the API can't be asked: one line, over a real socket server that plays what it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import SecretStr
from waiting import LIMIT

from worker.cli.api_client import Client
from worker.cli.errors import CliError
from worker.cli.profile import Profile

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"seq": 1, "type": "job.queued", "data": {}}\n\n'


@contextmanager
def playing(*answers: bytes) -> Iterator[Profile]:
    """A server that gives one answer per connection and then breaks it."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Profile(f"http://127.0.0.1:{server.getsockname()[1]}", SecretStr("vgl_x"))
        thread.join(timeout=LIMIT)
        assert not thread.is_alive()


def problem(status: int, code: str, detail: str) -> bytes:
    body = f'{{"title": "T", "detail": "{detail}", "code": "{code}"}}'.encode()
    return b"HTTP/1.1 %d X\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%s" % (
        status,
        len(body),
        body,
    )


def test_a_refused_resume_is_reported() -> None:
    cut = HEAD + b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
    with playing(cut, problem(404, "job_not_found", "There is no job job_1.")) as profile:
        with (
            pytest.raises(CliError, match=r"There is no job job_1 \(job_not_found\)") as caught,
            Client(profile) as client,
        ):
            list(client.events("job_1"))
        assert caught.value.code == 1


@pytest.mark.parametrize(
    ("answer", "words", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "is that a Vigil", 1),
        (problem(401, "unknown_key", "No."), r"doesn't know this API key \(VIGIL_API_KEY\)", 2),
        (
            problem(403, "insufficient_scope", "This key lacks ops."),
            r"lacks ops; `vigil keys create .* has it \(insuff",
            1,
        ),
        (problem(422, "validation_error", "Bad."), r"Bad \(validation_error\)", 2),
        (problem(409, "no_offer", "None."), r"None \(no_offer\)", 1),
    ],
)
def test_a_refusal_is_one_line_and_a_code(answer: bytes, words: str, code: int) -> None:
    with playing(answer) as profile:
        with pytest.raises(CliError, match=words) as caught, Client(profile) as client:
            client.get("job_1")
        assert (caught.value.code, "\n" in str(caught.value)) == (code, False)


@pytest.mark.parametrize("profile", [("http://127.0.0.1:1", "vgl_\u00e9"), ("http://127.0.0.1:1\u0000", "vgl_x")])
def test_what_cannot_be_sent_is_reported_without_it(profile: tuple[str, str]) -> None:
    with pytest.raises(CliError, match="can't be sent") as caught:
        Client(Profile(profile[0], SecretStr(profile[1])))
    assert "\u00e9" not in str(caught.value)
