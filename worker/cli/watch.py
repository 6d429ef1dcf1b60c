"""Follows one job to its end: a thread receives the events, the main thread draws the terminal. Ctrl-C ends only this.

Ctrl-C goes through the same queue as the events: raised anywhere in the main thread, it could break or keep a lock that
both threads share. A second Ctrl-C is raised at once.
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
from worker.cli.progress import JobView, apply_event
from worker.cli.rendering import TERMINAL_STATUSES, LiveLine, clean, job_summary
from worker.client import Event
from worker.clock import Clock
from worker.jobs.states import Status

OutputMode = Literal["progress", "text", "events"]
_REDRAW_S: Final = 0.25
_BURST_GAP_S: Final = 0.02  # events this close together are drawn once: a new stream sends all past events at once


class JobWatcher:
    """Shows a job until it has settled. `mode`: progress alone, the streamed text too, or each event as a JSON line."""

    def __init__(self, client: Client, job_id: str, mode: OutputMode = "progress") -> None:
        self._client, self._id, self._mode = client, job_id, mode
        self._line = LiveLine()
        self._job: JobView = {}
        self._inbox: queue.SimpleQueue[Event | BaseException | None] = (
            queue.SimpleQueue()
        )  # safe to use in a signal handler
        self._characters = 0  # of the running attempt
        self._printed = False
        self._mid_line = False  # the terminal's cursor is after text
        self._shared = sys.stdout.isatty()  # text and progress share one terminal

    def run(self, timeout: float | None = None) -> dict[str, Any]:
        """Show the job and return it once settled. Raise CliError if it has not settled within `timeout` seconds."""
        clock = Clock()
        until = None if timeout is None else clock.monotonic() + timeout
        self._job = self._client.get(self._id).raw
        with self._interruptible():
            threading.Thread(target=self._receive_events, daemon=True).start()
            ended = False
            while not ended:
                self._draw(self._job)
                left = _REDRAW_S if until is None else min(_REDRAW_S, until - clock.monotonic())
                if left <= 0:
                    self._line.clear()
                    raise CliError(f"{self._id} is still {self._job['status']} after {timeout:g} s; it continues")
                ended = self._process_inbox(left, clock)
        return self._finish(self._client.get(self._id).raw)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Put the first Ctrl-C into the inbox, unless SIGINT is ignored or has another handler."""
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

    def _receive_events(self) -> None:
        try:
            for event in self._client.events(self._id):
                self._inbox.put(event)
            self._inbox.put(None)
        except BaseException as error:  # noqa: BLE001  raised again in the main thread
            self._inbox.put(error)

    def _process_inbox(self, timeout: float, clock: Clock) -> bool:
        """Wait for an event, then take all that follow closely. Return whether the stream has ended."""
        until = clock.monotonic() + _REDRAW_S
        while True:
            try:
                item = self._inbox.get(timeout=timeout)
            except queue.Empty:
                return False
            if item is None:
                return True
            if isinstance(item, BaseException):
                self._line.clear()
                raise item
            if self._mode == "events":
                print(json.dumps(item.raw), flush=True)
            if item.delta is not None:
                self._text(item.offset, item.delta)
            else:
                self._job = apply_event(self._job, item)
            if clock.monotonic() >= until:
                return False
            timeout = _BURST_GAP_S

    def _text(self, offset: int, delta: str) -> None:
        again = offset < self._characters
        self._characters = offset + len(delta)
        if self._mode != "text" or not delta:
            return
        self._line.clear()
        if again and self._printed:
            self._end_line()
            print("the text above is withdrawn; another attempt:", file=sys.stderr, flush=True)
        print(clean(delta), end="", flush=True)
        self._printed, self._mid_line = True, not delta.endswith("\n")

    def _end_line(self) -> None:
        if self._mid_line:
            print(flush=True)
            self._mid_line = False

    def _draw(self, job: dict[str, Any]) -> None:
        if job["status"] in TERMINAL_STATUSES or (self._mode == "events" and not self._line.live):
            return
        if self._shared and self._mid_line and job["status"] == Status.RUNNING:
            return  # the text itself shows the progress
        if self._shared:
            self._end_line()
        checks = (job.get("safety") or {}).get("checks") or []
        last = checks[-1].get("evidence") if checks else None
        offer = (job.get("offer") or {}).get("model")
        kind = f"{job['status']} {job.get('reason')} {len(job.get('attempts') or [])} {len(checks)} {last} {offer}"
        self._line.show(job["status"], job_summary(job, self._characters), kind)

    def _finish(self, job: dict[str, Any]) -> dict[str, Any]:
        self._line.clear()
        answer = job.get("output_text") or job.get("refusal")
        if self._mode == "text" and not self._printed and answer:
            print(clean(answer), end="", flush=True)
            self._mid_line = not answer.endswith("\n")
        self._end_line()
        if self._printed and not answer:
            print("the text above is withdrawn", file=sys.stderr, flush=True)
        if self._mode != "events" or self._line.live:
            self._line.settle(job["status"], job_summary(job))
        return job
