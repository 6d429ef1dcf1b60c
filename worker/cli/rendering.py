"""Formats jobs for a terminal: one line about a job, a line that updates in place, plain tables.

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
_STATUS_COLOURS: Final = {
    Status.COMPLETED: "32",
    Status.BLOCKED: "31",
    Status.FAILED: "31",
    Status.EXPIRED: "33",
    Status.CANCELLED: "33",
    Status.CHECKING: "35",
    Status.RUNNING: "36",
}
_CLEAR_LINE: Final = "\r\x1b[2K"


def clean(text: str) -> str:
    """Remove control characters, with which an answer could control the terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cf"} or c in "\u200d\u200c")


def seconds_between(start: str | None, end: str | datetime | None = None) -> float:
    """Return the seconds from one API time to another, or to now; 0 without a start."""
    if not start:
        return 0.0
    until = datetime.fromisoformat(end) if isinstance(end, str) else end or Clock().now()
    begun = datetime.fromisoformat(start)
    return (until - begun.replace(tzinfo=begun.tzinfo or UTC)).total_seconds()


def format_duration(seconds: float) -> str:
    """Format seconds as 0:42, 12:05 or 1:00:09; negative ones as 0:00."""
    total = max(0, int(seconds))
    minutes, seconds_left = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds_left:02}" if hours else f"{minutes}:{seconds_left:02}"


def job_summary(job: dict[str, Any], characters: int = 0, now: datetime | None = None) -> str:
    """Describe the job in one line, as it is at `now`."""
    now = now or Clock().now()
    match job["status"]:
        case Status.QUEUED | Status.SCHEDULED if job.get("waiting_for"):
            return _limit_summary(job["waiting_for"], now)
        case Status.QUEUED:
            return f"queued, {format_duration(seconds_between(job['created_at'], now))}"
        case Status.SCHEDULED:
            return _scheduled_summary(job, now)
        case Status.RUNNING:
            since = next((a["started_at"] for a in reversed(job.get("attempts") or [])), None) or job.get("started_at")
            written = f", {characters} characters" if characters else ""
            return f"running, {format_duration(seconds_between(since, now))}{written}"
        case Status.CHECKING:
            return _checking_summary(job, now)
        case _:
            return _ended_summary(job)


def _limit_summary(wait: dict[str, Any], now: datetime) -> str:
    about = f", about {format_duration(-seconds_between(wait['until'], now))} more" if wait.get("until") else ""
    model = f" of {clean(wait['model'])}" if wait.get("model") else ""
    return f"waiting for {str(wait['reason']).replace('_', ' ')}{model}{about}"


def _scheduled_summary(job: dict[str, Any], now: datetime) -> str:
    reason = job.get("reason")
    if hold := job.get("hold"):
        return f"on hold, {hold.get('reason') or reason}"
    due = job.get("next_attempt_at")
    when = f" in {format_duration(-seconds_between(due, now))}" if due else ""
    what = "waiting to start" if reason == "not_before" else "waiting for retry"
    return f"{what}{when}" + (f" ({reason})" if reason else "")


def _checking_summary(job: dict[str, Any], now: datetime) -> str:
    checks = (job.get("safety") or {}).get("checks") or []
    check = next((c for c in reversed(checks) if not c.get("ended_at")), None) or (checks[-1] if checks else {})
    evidence = check.get("evidence") or "signalled"
    about = ", ".join(check.get("use_cases") or [])
    line = f"safety check running, {format_duration(seconds_between(check.get('started_at'), now))}"
    line += f" ({evidence}{f': {about}' if about else ''})"
    offer = job.get("offer")
    return f"{line}; {offer['model']} is offered" if offer and offer.get("model") else line


def _ended_summary(job: dict[str, Any]) -> str:
    status, error, served = job["status"], job.get("error") or {}, job.get("served_model")
    block = (job.get("safety") or {}).get("block") or {}
    took = (
        f" after {format_duration(seconds_between(job['created_at'], job['finished_at']))}"
        if job.get("finished_at")
        else ""
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
    why = " ".join(text for text in (error.get("message"), error.get("advice")) if text)
    return f"{status}{took}" + (f" ({error['code']})" if error.get("code") else "") + (f": {why}" if why else "")


def use_colours(stream: TextIO) -> bool:
    """Return whether colours may be used on this stream."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"  # noqa: TID251


def colour_status(status: str, text: str, stream: TextIO) -> str:
    """Return `text` in the colour of a status, if colours may be used."""
    colour = _STATUS_COLOURS.get(Status(status)) if status in set(Status) else None
    return f"\x1b[{colour}m{text}\x1b[0m" if colour and use_colours(stream) else text


def truncate(text: str, width: int) -> str:
    """Return `text` cut to one line of a terminal."""
    flat = " ".join(text.split())
    return flat if len(flat) < width else flat[: max(1, width - 2)] + "…"


class LiveLine:
    """A line on stderr that is rewritten in place; without a terminal each change is printed as a line."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._out = stream or sys.stderr
        self.live = self._out.isatty() and os.environ.get("TERM") != "dumb"  # noqa: TID251
        self._kind, self._up = "", False

    def show(self, status: str, line: str, kind: str) -> None:
        """Show `line`. Without a terminal it is printed only if `kind` differs from the last one's."""
        if self.live:
            width = shutil.get_terminal_size().columns
            self._out.write(_CLEAR_LINE + colour_status(status, truncate(line, width), self._out))
            self._out.flush()
            self._up = True
        elif kind != self._kind:
            print(line, file=self._out, flush=True)
        self._kind = kind

    def clear(self) -> None:
        """Remove the line."""
        if self._up:
            self._out.write(_CLEAR_LINE)
            self._out.flush()
            self._up = False

    def settle(self, status: str, line: str) -> None:
        """Print the final line, which stays."""
        self.clear()
        print(colour_status(status, line, self._out), file=self._out, flush=True)


def print_columns(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: bool = False) -> None:
    """Print a plain table with two spaces between columns; `right` aligns all but the first column to the right."""
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    for row in [head, *rows]:
        cells = [cell.rjust(widths[n]) if right and n else cell.ljust(widths[n]) for n, cell in enumerate(row)]
        print("  ".join(cells).rstrip())


def format_cost(job: dict[str, Any]) -> str:
    """Return the job's cost, or `-` without a price."""
    total = (job.get("cost") or {}).get("total")
    return f"${total}" if total is not None else "-"


def billed_summary(billed: dict[str, Any]) -> str:
    """Return whether the provider bills what ran when a job was cancelled, in one line."""
    cost = "" if billed["cost"] is None else f", {'about ' if billed['estimated'] else ''}${billed['cost']}"
    return f"{billed['state']}{cost}: {clean(billed['message'])}"


def dry_run_lines(found: dict[str, Any]) -> list[str]:
    """Return what a dry run has found, one line for each subject."""
    cost, access, queue = found["cost"], found["access"], found["queue"]
    lowest, highest = cost["lowest"], cost["highest"]
    if lowest is None:
        price = "unknown: models.toml has no price for this model"
    else:
        price = f"${lowest} to " + (
            f"${highest}" if highest else "no known limit: set max_output_tokens or max_cost_usd"
        )
        since = (cost["price"] or {}).get("valid_from")
        price += f", prices since {since[:10]}" if since else ""
    lines = [
        f"model     {clean(found['model'])}",
        f"cost      {price}",
        f"input     about {cost['input_tokens']['likely']} tokens, at most {cost['input_tokens']['highest']}",
        f"access    {access['status']}: {clean(access['advice'])}",
        f"queue     place {queue['position']} of this app's jobs; {queue['queued']} wait, {queue['running']} run",
    ]
    for one in found["stand_ins"]:
        refused = "" if one["effort_accepted"] else ", refuses the request's effort"
        limit = f", at most ${one['highest']}" if one["highest"] else ""
        lines.append(f"{one['purpose']:<9} {clean(one['model'])}: access {one['access']}{limit}{refused}")
    return lines + [f"warning   {clean(one['detail'])}" for one in found["warnings"]]
