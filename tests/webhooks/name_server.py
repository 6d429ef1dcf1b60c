"""A name server on a loopback socket: it answers for good names, and is silent about those of hostile domains."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import Callable
from typing import Self

_A = 1


class NameServer(asyncio.DatagramProtocol):
    """Answers each A question by `answer(name)`: an address, "" for none, None for silence. It counts the questions."""

    def __init__(self, answer: Callable[[str], str | None]) -> None:
        self.answer, self.questions = answer, Counter[str]()
        self.port = 0

    def connection_made(self, transport) -> None:
        self._transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr) -> None:
        labels, place = [], 12
        while data[place]:
            labels.append(data[place + 1 : place + 1 + data[place]].decode().lower())
            place += 1 + data[place]
        kind = struct.unpack_from(">H", data, place + 1)[0]
        question, name = data[12 : place + 5], ".".join(labels)
        if kind == _A:
            self.questions[name] += 1
        address = self.answer(name)
        if address is None:
            return
        record = b""
        if address and kind == _A:
            record = b"\xc0\x0c" + struct.pack(">HHIH", _A, 1, 60, 4) + bytes(int(part) for part in address.split("."))
        found = 0x8580 if address else 0x8583
        head = data[:2] + struct.pack(">HHHHH", found, 1, int(bool(record)), 0, 0)
        self._transport.sendto(head + question + record, addr)

    async def __aenter__(self) -> Self:
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()

    @property
    def server(self) -> str:
        return f"127.0.0.1:{self.port}"
