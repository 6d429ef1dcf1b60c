"""Following one job to its end: events arrive in a thread, the terminal is drawn here. Ctrl-C leaves the job alone.

Ctrl-C arrives as the events do: raised wherever the main thread stands, it could leave a lock that both threads share
broken or taken. A second one is raised at once.
"""

from __future__ import annotations

import json
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from worker.cli.api_client import Client
from worker.cli.errors import CliError
from worker.cli.progress import Shown, after
from worker.cli.rendering import TERMINAL_STATUSES, LiveLine, clean, sentence
from worker.client import Event
from worker.clock import Clock
from worker.jobs.states import Status

Show = Literal["progress", "text", "events"]
_TICK: Final = 0.25
_BURST: Final = 0.02  # what comes this close together is drawn once: all that was before comes at once


class Follower:
    """Shows a job until it has settled. `show`: progress alone, the streamed text too, or each event as a JSON line."""

    def __init__(self, client: Client, job_id: str, show: Show = "progress") -> None:
        self._client, self._id, self._show = client, job_id, show
        self._line = LiveLine()
        self._job: Shown = {}
        self._inbox: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()  # a handler may put
        self._characters = 0  # written by the attempt that runs
        self._printed = False
        self._mid_line = False  # the terminal's cursor stands behind text
        self._shared = sys.stdout.isatty()  # text and progress share one terminal

    def run(self, timeout: float | None = None) -> dict[str, Any]:
        """The settled job; CliError when it has not settled within `timeout` seconds."""
        clock = Clock()
        until = None if timeout is None else clock.monotonic() + timeout
        self._job = self._client.get(self._id).raw
        with self._interruptible():
            threading.Thread(target=self._listen, daemon=True).start()
            over = False
            while not over:
                self._draw(self._job)
                left = _TICK if until is None else min(_TICK, until - clock.monotonic())
                if left <= 0:
                    self._line.clear()
                    raise CliError(f"{self._id} is still {self._job['status']} after {timeout:g} s; it goes on")
                over = self._take(left, clock)
        return self._finish(self._client.get(self._id).raw)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """The first Ctrl-C is an item of the inbox; where somebody else minds SIGINT, or nobody shall, it stays so."""
        before = signal.getsignal(signal.SIGINT)
        if before is not signal.default_int_handler:
            yield
            return

        def interrupted(*_: object) -> None:
            signal.signal(signal.SIGINT, before)
            self._inbox.put(KeyboardInterrupt())

        signal.signal(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _listen(self) -> None:
        try:
            for event in self._client.events(self._id):
                self._inbox.put(event)
            self._inbox.put(None)
        except BaseException as error:  # noqa: BLE001  carried to the thread that can tell it
            self._inbox.put(error)

    def _take(self, patience: float, clock: Clock) -> bool:
        """Whether it was the end; waits for what comes, then takes all of a burst."""
        until = clock.monotonic() + _TICK
        while True:
            try:
                item = self._inbox.get(timeout=patience)
            except queue.Empty:
                return False
            if item is None:
                return True
            if isinstance(item, BaseException):
                self._line.clear()
                raise item
            if self._show == "events":
                print(json.dumps(item.raw), flush=True)
            if item.delta is not None:
                self._text(item.offset, item.delta)
            else:
                self._job = after(self._job, item)
            if clock.monotonic() >= until:
                return False
            patience = _BURST

    def _text(self, offset: int, delta: str) -> None:
        again = offset < self._characters
        self._characters = offset + len(delta)
        if self._show != "text" or not delta:
            return
        self._line.clear()
        if again and self._printed:
            self._end_line()
            print("the text above does not stand; another attempt:", file=sys.stderr, flush=True)
        print(clean(delta), end="", flush=True)
        self._printed, self._mid_line = True, not delta.endswith("\n")

    def _end_line(self) -> None:
        if self._mid_line:
            print(flush=True)
            self._mid_line = False

    def _draw(self, job: dict[str, Any]) -> None:
        if job["status"] in TERMINAL_STATUSES or (self._show == "events" and not self._line.live):
            return
        if self._shared and self._mid_line and job["status"] == Status.RUNNING:
            return  # the growing text is the progress
        if self._shared:
            self._end_line()
        checks = (job.get("safety") or {}).get("checks") or []
        last = checks[-1].get("evidence") if checks else None
        offer = (job.get("offer") or {}).get("model")
        kind = f"{job['status']} {job.get('reason')} {len(job.get('attempts') or [])} {len(checks)} {last} {offer}"
        self._line.show(job["status"], sentence(job, self._characters), kind)

    def _finish(self, job: dict[str, Any]) -> dict[str, Any]:
        self._line.clear()
        answer = job.get("output_text") or job.get("refusal")
        if self._show == "text" and not self._printed and answer:
            print(clean(answer), end="", flush=True)
            self._mid_line = not answer.endswith("\n")
        self._end_line()
        if self._printed and not answer:
            print("the text above does not stand", file=sys.stderr, flush=True)
        if self._show != "events" or self._line.live:
            self._line.settle(job["status"], sentence(job))
        return job
