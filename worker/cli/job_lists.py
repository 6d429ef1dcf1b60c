"""`vigil list`: the jobs that fit filters, over the HTTP API."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Final, cast

import typer

from worker.cli.api_client import Client
from worker.cli.arguments import parse_pairs
from worker.cli.errors import EXIT_USAGE, CliError
from worker.cli.rendering import format_cost, format_duration, print_columns, seconds_between
from worker.client import Filters
from worker.jobs.states import Status

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Statuses = Annotated[
    list[str] | None,
    typer.Option("--status", help=f"Only jobs of this status: {', '.join(Status)}; may be repeated."),
]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Only jobs that requested this model.")]
ServedModel = Annotated[str | None, typer.Option(help="Only jobs that this model answered.")]
Code = Annotated[str | None, typer.Option(help="Only jobs whose error or block has this code.")]
EndUser = Annotated[str | None, typer.Option(help="Only jobs of this end user.")]
Metadata = Annotated[
    list[str] | None, typer.Option(help="KEY=VALUE: only jobs with this metadata; may be repeated, all must fit.")
]
RequestId = Annotated[str | None, typer.Option(help="Only the job of this request of the provider.")]
ResponseId = Annotated[str | None, typer.Option(help="Only the job of this response, of the provider or resp_….")]
Group = Annotated[str | None, typer.Option(help="Only jobs of this group.")]
CreatedAfter = Annotated[str | None, typer.Option(metavar="TIME", help="Only jobs created then or later.")]
CreatedBefore = Annotated[str | None, typer.Option(metavar="TIME", help="Only jobs created before then.")]

_NO_JOBS: Final = "no jobs"


def job_filters(
    statuses: list[str] | None, metadata: list[str] | None, others: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return the filters that the options describe, as the client and the API take them."""
    names = [name for one in statuses or [] for name in one.split(",")]
    if unknown := [name for name in names if name not in set(Status)]:
        raise CliError(f"unknown status {unknown[0]!r}; known: {', '.join(Status)}", EXIT_USAGE)
    filters: dict[str, Any] = {name: value for name, value in others.items() if value is not None}
    if names:
        filters["status"] = names
    if metadata:
        filters["metadata"] = dict(parse_pairs("--metadata", metadata))
    return filters


def list_(
    status: Statuses = None,
    model: Model = None,
    served_model: ServedModel = None,
    code: Code = None,
    end_user: EndUser = None,
    metadata: Metadata = None,
    request_id: RequestId = None,
    response_id: ResponseId = None,
    group: Group = None,
    created_after: CreatedAfter = None,
    created_before: CreatedBefore = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most this many.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Continue where an earlier list ended.")] = None,
    as_json: Json = False,
) -> None:
    """List jobs that fit all filters, newest first."""
    others = {"model": model, "served_model": served_model, "code": code, "end_user": end_user}
    others |= {"request_id": request_id, "response_id": response_id, "group": group, "cursor": cursor}
    others |= {"created_after": created_after, "created_before": created_before}
    filters = cast("Filters", {**job_filters(status, metadata, others), "limit": limit})
    with Client() as client:
        page = client.list(**filters).raw
    if as_json:
        print(json.dumps(page, indent=2, ensure_ascii=not (sys.stdout.encoding or "").lower().startswith("utf")))
        return
    if page["data"]:
        print_columns(("ID", "STATUS", "MODEL", "AGE", "COST"), [_row(job) for job in page["data"]])
    else:
        print(f"{_NO_JOBS} in what was searched so far" if page.get("next_cursor") else _NO_JOBS, file=sys.stderr)
    if page.get("next_cursor"):
        print(f"more: --cursor {page['next_cursor']}", file=sys.stderr)


def _row(job: dict[str, Any]) -> tuple[str, ...]:
    age = format_duration(seconds_between(job["created_at"]))
    return job["id"], job["status"], job.get("served_model") or job["requested_model"], age, format_cost(job)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("list")(list_)
