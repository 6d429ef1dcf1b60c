"""Serves the bytes of one wire case as a provider, and counts the requests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus

from tests.upstream.rawserver import Connection, RawServer, Request, chunk
from tests.upstream.wire_case import Answer, Case

_NOT_FOUND = Answer(
    status=404,
    headers={"content-type": "application/json"},
    body='{"error":{"message":"No such response.","type":"invalid_request_error","param":null,"code":null}}',
)
_CANCELLED = Answer(headers={"content-type": "application/json"}, body='{"id":"resp_1","status":"cancelled"}')


class WireProvider(RawServer):
    """The Nth create, poll and cancel gets the Nth answer of its kind; the last one repeats."""

    def __init__(self, case: Case) -> None:
        super().__init__(self._answer)
        self._case = case
        self.creates: list[Request] = []
        self.looks: list[Request] = []
        self.cancels: list[Request] = []

    async def _answer(self, connection: Connection) -> None:
        request = connection.request
        if request.method == "GET":
            kept, answers, other = self.looks, self._case.look, _NOT_FOUND
        elif request.path.endswith("/cancel"):
            kept, answers, other = self.cancels, self._case.cancel, _CANCELLED
        else:
            kept, answers, other = self.creates, self._case.answer, _NOT_FOUND
        kept.append(request)
        await _play(connection, _nth(answers, len(kept)) or other)


def _nth(answers: Sequence[Answer], number: int) -> Answer | None:
    return answers[min(number, len(answers)) - 1] if answers else None


async def _play(connection: Connection, answer: Answer) -> None:
    if answer.delay:
        await asyncio.sleep(answer.delay)
    headers = {"x-request-id": "req_wire", **answer.headers}
    measured = "content-length" in {name.lower() for name in headers}
    lines = [f"HTTP/1.1 {answer.status} {_phrase(answer.status)}", *(f"{k}: {v}" for k, v in headers.items())]
    if not measured:
        lines.append("transfer-encoding: chunked")
    await connection.send("\r\n".join([*lines, "", ""]).encode())
    for number, piece in enumerate(answer.pieces):
        if number:
            await asyncio.sleep(answer.pause or 0.001)  # so that each is a packet of its own
        await connection.send(piece if measured else chunk(piece))
    if answer.end == "cut":
        await asyncio.sleep(0.005)  # what was sent arrives before the reset
        connection.reset()
    elif answer.end == "hang":
        await connection.gone()
    elif not measured:
        await connection.send(b"0\r\n\r\n")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Odd"
