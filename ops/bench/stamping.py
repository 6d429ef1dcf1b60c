"""A provider for the load benches: streams whose every delta is the time it was sent, so that a reader knows its lag.

    python ops/bench/stamping.py --port 9000 --rate 20 --seconds 60

The input says what a stream does: `stream` (deltas at `--rate` for `--seconds`) or `check SECONDS` (a signalled safety
check, silence, one delta). Times are those of the machine's monotonic clock. `GET /counts` tells creates and deltas.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from time import monotonic
from typing import Any

import uvloop

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_bench\r\n"
    b"openai-organization: org-bench\r\ntransfer-encoding: chunked\r\n\r\n"
)
_CHECK = {
    "type": "response.metadata",
    "metadata": {"type": "safety_buffering", "use_cases": ["cyber"], "reasons": ["user_risk"]},
}
_USAGE = {"input_tokens": 10, "output_tokens": 1000, "total_tokens": 1010}


class Provider:
    """All streams on one timer wheel: a coroutine for each would cost the machine more than its readers do."""

    def __init__(self, rate: float, seconds: float) -> None:
        self._rate, self._count = rate, int(rate * seconds)
        self._numbers = itertools.count(1)
        self.creates = self.deltas = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request after request."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")), 0)
                body = json.loads(await reader.readexactly(length) or b"{}")
                if head.startswith(b"POST") and b"/responses " in head.split(b"\r\n", 1)[0]:
                    await self._respond(writer, str(body.get("input", "")), str(body.get("model", "")))
                else:
                    counts = json.dumps({"creates": self.creates, "deltas": self.deltas, "data": []}).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(counts), counts))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _respond(self, writer: asyncio.StreamWriter, path: str, model: str) -> None:
        self.creates += 1
        answer_id = f"resp_{next(self._numbers):08d}"
        snapshot = {"id": answer_id, "object": "response", "status": "in_progress", "model": model, "output": []}
        writer.write(_HEAD + _frame(0, {"type": "response.created", "response": snapshot}))
        if path.startswith("check"):
            writer.write(_frame(1, _CHECK))
            await asyncio.sleep(float(path.split()[1]))
            number, text = 2, [self._delta(writer, 2)]
        else:
            number, text = await self._stream(writer)
        part = {"type": "output_text", "text": "".join(text), "annotations": []}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        done = {**snapshot, "status": "completed", "output": [item], "usage": _USAGE}
        writer.write(_frame(number + 1, {"type": "response.completed", "response": done}) + b"0\r\n\r\n")

    async def _stream(self, writer: asyncio.StreamWriter) -> tuple[int, list[str]]:
        loop, text = asyncio.get_running_loop(), list[str]()
        began = loop.time() + 2.0 + (hash(writer) % 997) / 997 / self._rate  # spread over the interval
        number = 1
        for number in range(1, self._count + 1):
            await asyncio.sleep(max(0.0, began + number / self._rate - loop.time()))
            text.append(self._delta(writer, number))
        return number, text

    def _delta(self, writer: asyncio.StreamWriter, number: int) -> str:
        stamp = f"{monotonic():.4f} "
        self.deltas += 1
        data = (
            'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":'
            f'{number},"item_id":"msg_1","output_index":0,"content_index":0,"delta":"{stamp}","logprobs":[]}}\n\n'
        ).encode()
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        return stamp


def _frame(number: int, data: dict[str, Any]) -> bytes:
    whole = json.dumps({**data, "sequence_number": number}, separators=(",", ":"))
    payload = f"event: {data['type']}\ndata: {whole}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(payload), payload)


async def _main(port: int, rate: float, seconds: float) -> None:
    server = await asyncio.start_server(Provider(rate, seconds).serve, "127.0.0.1", port, backlog=8192)
    await server.serve_forever()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    uvloop.run(_main(args.port, args.rate, args.seconds))


if __name__ == "__main__":
    main()
