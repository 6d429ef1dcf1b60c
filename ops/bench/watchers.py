"""A thousand watchers on one API process: each is told every event, in order, and what does that cost.

    python ops/bench/watchers.py [--watchers 1000] [--jobs 20] [--seconds 8] [--events 1] [--texts 2] [--json]

`vigil api` and Valkey are processes of their own; this one plays the worker: `events` commits and `texts` pieces of
text per job and second. The watchers are raw sockets in a process of their own. Each must get every event once and
in order, all of the text, and the terminal event; the API's Redis connections must stay below 20. Exits 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import uvloop
from arq.connections import ArqRedis
from report import (
    HOST,
    VIGIL,
    Deployment,
    Figure,
    Report,
    answers,
    cpu_seconds,
    free_port,
    get,
    new_key,
    percentile,
    run,
)

from worker.clock import Clock
from worker.jobs import events as ev
from worker.store.connection.pool import connect
from worker.store.jobs.output_chunks import OutputChunk, OutputChunks, PendingChunk
from worker.store.jobs.repository import Jobs
from worker.store.jobs.stored_job import NewJob

MODEL = "gpt-5.6-sol"
MOST_CONNECTIONS = 20
_WORDS = "a few words of text "
_OPENED_AT_ONCE = 50
_TERMINAL = b"event: job.completed"


# -- the watchers, in a process of their own


class Watcher(asyncio.Protocol):
    """Reads one stream: numbers and offsets are looked at, the rest is passed over."""

    def __init__(self, request: bytes, begun: asyncio.Event) -> None:
        self._request, self._begun, self._rest = request, begun, b""
        self.numbers: list[int] = []
        self.wrong: str | None = None
        self.read, self.ended_at = 0, 0.0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Lines that begin with a field; what frames chunks of HTTP stands between them."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(b"id: "):
                self.numbers.append(int(line[4:]))
                self._begun.set()
            elif line.startswith(b'data: {"type":"job.output.delta"'):
                event = json.loads(line[6:])["data"]
                if event["offset"] != self.read:
                    self.wrong = self.wrong or f"text at {event['offset']} after {self.read}"
                self.read = event["offset"] + len(event["delta"])
            elif line.startswith(_TERMINAL):
                self.ended_at = time.time()  # noqa: TID251  compared with another process
            elif line.startswith(b"HTTP/1.1 ") and b" 200 " not in line:
                self.wrong = line.decode(errors="replace")

    def connection_lost(self, _: Exception | None) -> None:
        """The end."""
        self._begun.set()
        if not self.over.done():
            self.over.set_result(None)

    def verdict(self, events: int, characters: int) -> str | None:
        """What was wrong, or None."""
        if self.wrong is None and self.numbers != list(range(1, events + 1)):
            return f"events {self.numbers} of {events}"
        if self.wrong is None and self.read != characters:
            return f"{self.read} characters of {characters}"
        return self.wrong if self.ended_at or self.wrong else "no terminal event"


async def watch(port: int, key: str, count: int, names: list[str]) -> None:
    """Opens the streams, says "ready" once each has begun, reads to the end, tells what came as JSON."""
    loop, watchers = asyncio.get_running_loop(), list[Watcher]()
    for start in range(0, count, _OPENED_AT_ONCE):
        begun = []
        for number in range(start, min(count, start + _OPENED_AT_ONCE)):
            event = asyncio.Event()
            request = get(f"/v1/jobs/{names[number % len(names)]}/events", key)
            _, watcher = await loop.create_connection(lambda r=request, e=event: Watcher(r, e), HOST, port)
            watchers.append(watcher)
            begun.append(event.wait())
        await asyncio.gather(*begun)
    print("ready", flush=True)
    events, characters = map(int, (await asyncio.to_thread(sys.stdin.readline)).split())
    for watcher in watchers:
        async with asyncio.timeout(60):
            await _until_over(watcher)
    verdicts = [(n, verdict) for n, w in enumerate(watchers) if (verdict := w.verdict(events, characters)) is not None]
    print(json.dumps({"wrong": verdicts, "ended_at": [watcher.ended_at for watcher in watchers]}), flush=True)


async def _until_over(watcher: Watcher) -> None:
    while not watcher.ended_at and not watcher.over.done():  # noqa: ASYNC110  a thousand events would cost more
        await asyncio.sleep(0.02)


# -- the worker


@dataclass
class Work:
    """Jobs that run, and what has been said of each."""

    redis: ArqRedis
    jobs: Jobs
    tokens: dict[str, int] = field(default_factory=dict)
    events: int = 0
    characters: int = 0

    async def start(self, count: int) -> list[str]:
        """So many jobs run."""
        fact = ev.Queued(app="bench", key_id="key_bench", requested_model=MODEL)
        for _ in range(count):
            await self.jobs.submit(NewJob(fact, {"metadata": {}}, {"input": "x"}))
        while len(self.tokens) < count:
            held = (await self.jobs.claim("bench", count, 600.0))[1]
            self.tokens |= {one.job.id: one.token for one in held}
        self.events = 1
        await self.say(ev.Started(worker="bench", generation=1), None)
        fact_of_attempt = ev.AttemptStarted(model=MODEL, purpose="original", mode="background", client_request_id="c")
        await self.say(fact_of_attempt, 1)
        return list(self.tokens)

    async def say(self, fact: ev.Fact, attempt: int | None) -> None:
        """One event more of every job."""
        for name, token in self.tokens.items():
            await self.jobs.change(name, lambda _: [(fact, attempt)], token=token)
        self.events += 1

    async def write(self, words: str) -> None:
        """More text of every job."""
        piece = OutputChunk(-1, self.characters, words)
        await OutputChunks(self.redis).append(
            [PendingChunk(name, token, 1, piece) for name, token in self.tokens.items()]
        )
        self.characters += len(words)

    async def run(self, seconds: float, events: float, texts: float) -> None:
        """The life of the jobs, then their end."""

        async def every(rate: float, what: Any) -> None:
            for step in range(int(seconds * rate)):
                began = time.monotonic()
                await what(step)
                await asyncio.sleep(max(0.0, 1 / rate - (time.monotonic() - began)))

        await asyncio.gather(
            every(events, lambda step: self.say(ev.AttemptUpdated(sequence=step), 1)),
            every(texts, lambda step: self.write(f"{step} {_WORDS}")),
        )
        await self.say(ev.AttemptFinished(outcome="completed", served_model=MODEL), 1)


async def finish(work: Work) -> None:
    """The terminal event of every job, with its text as the answer."""
    from worker.store import codec, keys  # noqa: PLC0415

    texts = {name: await OutputChunks(work.redis).read(name, 1) for name in work.tokens}
    for name, token in work.tokens.items():
        whole = "".join(piece.text for piece in texts[name])
        answer = [("SET", keys.job_output(name), codec.seal({"output_text": whole, "output": [], "refusal": None}))]
        drafts = [(ev.Completed(served_model=MODEL), 1)]
        await work.jobs.change(name, lambda _, s=drafts: s, token=token, writes=lambda _, a=answer: a)
    work.events += 1


def megabytes(pid: int) -> float:
    """The memory of a process that is in use."""
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def bench(args: argparse.Namespace) -> Report:
    """All of it."""
    report = Report("watchers")
    async with Deployment() as deployment:
        server = await deployment.valkey("data")
        named = connect(server.url + ("&" if "?" in server.url else "?") + "client_name=bench", max_connections=16)
        work = Work(named, Jobs(named, Clock()))
        key, port = await new_key(server.url), free_port()
        env = {"VIGIL_REDIS_URL": server.url, "VIGIL_LOG_LEVEL": "WARNING"}
        api = await deployment.start(VIGIL, "api", "--port", str(port), env=env)
        await deployment.until("the API's readiness", lambda: answers(port, "/readyz"))
        try:
            names = await work.start(args.jobs)
            before, began = megabytes(api.pid), cpu_seconds(api.pid)
            words = [sys.executable, Path(__file__), "--read", str(port), key, str(args.watchers), *names]
            child = await asyncio.create_subprocess_exec(
                *map(str, words), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 26
            )
            out, into = cast("asyncio.StreamReader", child.stdout), cast("asyncio.StreamWriter", child.stdin)
            try:
                if (await out.readline()) != b"ready\n":
                    raise RuntimeError(f"the watchers could not open their streams\n{deployment.logs()}")
                opened, after = cpu_seconds(api.pid), megabytes(api.pid)
                clients = work.redis.client_list
                seen = [len(await _apis(clients))]
                living = asyncio.create_task(work.run(args.seconds, args.events, args.texts))
                while not living.done():
                    await asyncio.wait({living}, timeout=1.0)
                    seen.append(len(await _apis(clients)))
                await living
                ending_at = time.time()  # noqa: TID251
                await finish(work)
                into.write(f"{work.events} {work.characters}\n".encode())
                result: dict[str, Any] = json.loads(await out.readline())
                used, peak = cpu_seconds(api.pid) - opened, megabytes(api.pid)
            finally:
                if child.returncode is None:
                    child.kill()
                await child.wait()
        finally:
            await named.aclose()
    writes = args.watchers * (work.events - 3 + int(args.seconds * args.texts))
    late = [at - ending_at for at in result["ended_at"]]
    report.lines.append(
        f"{args.watchers} watchers over {args.jobs} jobs, {work.events} events and {work.characters} characters each; "
        f"the last heard of the end {max(late) * 1000:.0f} ms after it was begun to be told"
        f" (p50 {percentile(late, 0.5) * 1000:.0f})"
    )
    report.lines += [f"watcher {number}: {verdict}" for number, verdict in result["wrong"][:10]]
    report.figures += [
        Figure.at_least(
            "watchers that got every event in order", args.watchers - len(result["wrong"]), args.watchers, ""
        ),
        Figure.at_most("Redis connections of the API, most", max(seen), MOST_CONNECTIONS - 1, ""),
        Figure("CPU of the API to open one stream", (opened - began) / args.watchers * 1000, "ms"),
        Figure("CPU of the API per watcher, while it lives", used / args.watchers * 1000, "ms"),
        Figure("CPU of the API per event or delta told", used / writes * 1e6, "us"),
        Figure("memory of the API per watcher, opened", (after - before) * 1024 / args.watchers, "KiB"),
        Figure("memory of the API per watcher, at the end", (peak - before) * 1024 / args.watchers, "KiB"),
    ]
    return report


async def _apis(clients: Any) -> list[dict[str, Any]]:
    return [one for one in await clients() if one.get("name") != "bench"]


def main() -> int:
    """The command."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1:2] == ["--read"]:
        port, key, count, *names = sys.argv[2:]
        uvloop.run(watch(int(port), key, int(count), names))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--events", type=float, default=1.0, help="events per job and second")
    parser.add_argument("--texts", type=float, default=2.0, help="pieces of text per job and second")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    report = run(bench(args), seconds=180)
    report.show(as_json=args.json)
    return 0 if all(figure.met is not False for figure in report.figures) else 1


if __name__ == "__main__":
    sys.exit(main())
