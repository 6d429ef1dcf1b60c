"""What a person sees: one line about a job, a live line on a terminal, plain tables. Knows the API's JSON, asks nobody.

Progress goes to stderr and results to stdout, so that output can be piped. Colours only on a terminal without NO_COLOR.
"""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from worker.clock import Clock
from worker.jobs.states import TERMINAL, Status

TERMINAL_STATUSES: Final = frozenset(str(status) for status in TERMINAL)
_COLOURS: Final = {
    Status.COMPLETED: "32",
    Status.BLOCKED: "31",
    Status.FAILED: "31",
    Status.EXPIRED: "33",
    Status.CANCELLED: "33",
    Status.CHECKING: "35",
    Status.RUNNING: "36",
}
_CLEAR: Final = "\r\x1b[2K"


def clean(text: str) -> str:
    """Text without the control characters by which an answer could play with the terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cf"} or c in "\u200d\u200c")


def seconds_between(start: str | None, end: str | datetime | None = None) -> float:
    """Seconds from one API time to another, or to now; 0 without a start."""
    if not start:
        return 0.0
    until = datetime.fromisoformat(end) if isinstance(end, str) else end or Clock().now()
    begun = datetime.fromisoformat(start)
    return (until - begun.replace(tzinfo=begun.tzinfo or UTC)).total_seconds()


def clock_face(seconds: float) -> str:
    """0:42, 12:05, 1:00:09; never negative."""
    whole = max(0, int(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def sentence(job: dict[str, Any], characters: int = 0, now: datetime | None = None) -> str:
    """The job in one line, as it is `now`."""
    now = now or Clock().now()
    match job["status"]:
        case Status.QUEUED:
            return f"queued, {clock_face(seconds_between(job['created_at'], now))}"
        case Status.SCHEDULED:
            return _waiting(job, now)
        case Status.RUNNING:
            since = next((a["started_at"] for a in reversed(job.get("attempts") or [])), None) or job.get("started_at")
            written = f", {characters} characters" if characters else ""
            return f"running, {clock_face(seconds_between(since, now))}{written}"
        case Status.CHECKING:
            return _checking(job, now)
        case _:
            return _ended(job)


def _waiting(job: dict[str, Any], now: datetime) -> str:
    reason = job.get("reason")
    if hold := job.get("hold"):
        return f"on hold, {hold.get('reason') or reason}"
    due = job.get("next_attempt_at")
    when = f" in {clock_face(-seconds_between(due, now))}" if due else ""
    what = "waiting to start" if reason == "not_before" else "waiting for retry"
    return f"{what}{when}" + (f" ({reason})" if reason else "")


def _checking(job: dict[str, Any], now: datetime) -> str:
    checks = (job.get("safety") or {}).get("checks") or []
    check = next((c for c in reversed(checks) if not c.get("ended_at")), None) or (checks[-1] if checks else {})
    evidence = check.get("evidence") or "signalled"
    about = ", ".join(check.get("use_cases") or [])
    line = f"safety check running, {clock_face(seconds_between(check.get('started_at'), now))}"
    line += f" ({evidence}{f': {about}' if about else ''})"
    offer = job.get("offer")
    return f"{line}; {offer['model']} is offered" if offer and offer.get("model") else line


def _ended(job: dict[str, Any]) -> str:
    status, error, served = job["status"], job.get("error") or {}, job.get("served_model")
    block = (job.get("safety") or {}).get("block") or {}
    took = (
        f" after {clock_face(seconds_between(job['created_at'], job['finished_at']))}" if job.get("finished_at") else ""
    )
    if status == Status.COMPLETED:
        line = f"completed{took}"
        if job.get("refusal"):
            line += ", the model declined"
        elif job.get("reason"):
            line += f" ({job['reason']})"
        if job.get("disclosure"):
            line += f", served by {served} in place of {job['requested_model']} ({job['disclosure']['reason']})"
        return line
    if status == Status.BLOCKED:
        advice = block.get("advice") or error.get("advice")
        return f"blocked{took}: {block.get('category', 'unknown')} ({block.get('code')})" + (
            f". {advice}" if advice else ""
        )
    why = " ".join(word for word in (error.get("message"), error.get("advice")) if word)
    return f"{status}{took}" + (f" ({error['code']})" if error.get("code") else "") + (f": {why}" if why else "")


def coloured(stream: TextIO) -> bool:
    """Whether colours may be used on this stream."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"  # noqa: TID251


def paint(status: str, text: str, stream: TextIO) -> str:
    """`text` in the colour of a status, where colours may be used."""
    colour = _COLOURS.get(Status(status)) if status in set(Status) else None
    return f"\x1b[{colour}m{text}\x1b[0m" if colour and coloured(stream) else text


def fit(text: str, width: int) -> str:
    """`text` cut so that it stays on one line of a terminal."""
    flat = " ".join(text.split())
    return flat if len(flat) < width else flat[: max(1, width - 2)] + "…"


class LiveLine:
    """One line on stderr that is rewritten in place; without a terminal each change is a line of its own."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._out = stream or sys.stderr
        self.live = self._out.isatty() and os.environ.get("TERM") != "dumb"  # noqa: TID251
        self._kind, self._up = "", False

    def show(self, status: str, line: str, kind: str) -> None:
        """Show `line`; `kind` says what it is about: without a terminal only a new kind is told."""
        if self.live:
            width = shutil.get_terminal_size().columns
            self._out.write(_CLEAR + paint(status, fit(line, width), self._out))
            self._out.flush()
            self._up = True
        elif kind != self._kind:
            print(line, file=self._out, flush=True)
        self._kind = kind

    def clear(self) -> None:
        """Take the line away."""
        if self._up:
            self._out.write(_CLEAR)
            self._out.flush()
            self._up = False

    def settle(self, status: str, line: str) -> None:
        """The last line: it stays."""
        self.clear()
        print(paint(status, line, self._out), file=self._out, flush=True)


def print_columns(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: bool = False) -> None:
    """A plain table, two spaces between columns; `right` puts all but the first column to the right."""
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    for row in [head, *rows]:
        cells = [cell.rjust(widths[n]) if right and n else cell.ljust(widths[n]) for n, cell in enumerate(row)]
        print("  ".join(cells).rstrip())


def money(job: dict[str, Any]) -> str:
    """The job's cost for a person; `-` without a price."""
    total = (job.get("cost") or {}).get("total")
    return f"${total}" if total is not None else "-"
