"""`vigil batch` and `vigil group`: submit many jobs at once, and see how they stand, over the HTTP API."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, cast

import typer

from worker.cli.api_client import Client
from worker.cli.arguments import check_idempotency_key
from worker.cli.errors import EXIT_FAILED, EXIT_USAGE, CliError
from worker.cli.job_lists import Json
from worker.cli.rendering import clean
from worker.client import JobGroup, NewJob
from worker.client.responses import BatchRow
from worker.jobs.states import Status

_FIRST_LOOK_S: Final = 0.2
_LONGEST_LOOK_S: Final = 5.0


def batch(
    file: Annotated[
        Path, typer.Argument(help="Jobs as the API takes them: a JSON array, or one JSON object a line; - = stdin.")
    ],
    group: Annotated[str | None, typer.Option(help="The group that the jobs join.  [a new one]")] = None,
    all_or_nothing: Annotated[
        bool, typer.Option("--all-or-nothing", help="Accept all of them or none; at most 100 jobs.")
    ] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same batch sent again with this key returns the jobs of the first.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Submit up to 1,000 jobs at once.

    Prints their group, which `vigil group` counts and `vigil list --group` lists. Exits 1 if a job was refused.
    """
    jobs = _read_jobs(file)
    with Client() as client:
        key = check_idempotency_key(idempotency_key)
        rows = client.batch(jobs, idempotency_key=key, group=group, all_or_nothing=all_or_nothing)
    refused = [row for row in rows if row.problem is not None]
    made = next((row.job.group for row in rows if row.job is not None), group)
    if as_json:
        print(json.dumps({"group": made, "data": [row.raw for row in rows]}, indent=2))
    else:
        _print_rows(rows, made, len(refused))
    if refused:
        raise typer.Exit(EXIT_FAILED)


def _print_rows(rows: Sequence[BatchRow], group: str | None, refused: int) -> None:
    known = sum(row.idempotent_replayed for row in rows)
    again = f" ({known} of them earlier)" if known else ""
    print(f"group {group}: {len(rows) - refused} accepted{again}, {refused} refused")
    for row in rows:
        if row.problem is not None:
            print(f"job {row.index}: {clean(str(row.problem['detail']))} ({row.problem['code']})")


def _read_jobs(file: Path) -> list[NewJob]:
    """Return the jobs of a file. Raises CliError, without quoting the text."""
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        text = raw.decode("utf-8")
    except OSError as error:
        raise CliError(f"{file} can't be read: {error.strerror}", EXIT_USAGE) from None
    except UnicodeError:
        raise CliError(f"{file} is not UTF-8 text", EXIT_USAGE) from None
    try:
        whole = json.loads(text) if text.lstrip().startswith("[") else None
        found = whole if whole is not None else [json.loads(line) for line in text.split("\n") if line.strip()]
    except ValueError:
        raise CliError(f"{file} is neither a JSON array nor one JSON object a line", EXIT_USAGE) from None
    if not found or not all(isinstance(one, dict) for one in found):
        raise CliError(f'{file} has no jobs: each is a JSON object such as {{"model": …, "input": …}}', EXIT_USAGE)
    return cast("list[NewJob]", found)


def group(
    group_id: Annotated[str, typer.Argument(metavar="GROUP", help="The group's id.")],
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until all of its jobs have ended.")] = False,
    as_json: Json = False,
) -> None:
    """Count the jobs of a group by status.

    Exits 1 if one of them ended without an answer.
    """
    with Client() as client:
        found, delay = client.group(group_id), _FIRST_LOOK_S
        while wait and found.open:
            time.sleep(delay)
            found, delay = client.group(group_id), min(_LONGEST_LOOK_S, delay * 1.5)
    if as_json:
        print(json.dumps(found.raw, indent=2))
    else:
        print(_summary(found))
    if any(found.counts.get(status) for status in (Status.FAILED, Status.BLOCKED, Status.EXPIRED, Status.CANCELLED)):
        raise typer.Exit(EXIT_FAILED)


def _summary(found: JobGroup) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in found.counts.items() if count)
    ended: datetime | None = found.ended_at
    state = f"ended at {ended:%Y-%m-%d %H:%M:%S}Z" if ended is not None else f"{found.open} open"
    return f"{clean(found.id)}: {found.total} jobs, {state}; {counts}"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(batch)
    app.command()(group)
