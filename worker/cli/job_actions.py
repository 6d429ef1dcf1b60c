"""`vigil actions`: one action on many jobs, by ids or by filters, over the HTTP API."""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Annotated, Any, Final, Literal

import typer

from worker.cli import job_lists
from worker.cli.api_client import Client
from worker.cli.arguments import check_idempotency_key
from worker.cli.errors import EXIT_FAILED, EXIT_USAGE, CliError
from worker.cli.rendering import clean

Action = Literal["cancel", "rerun", "redeliver", "delete-content"]
_PATH: Final = "/v1/jobs/actions"
_AT_ONCE: Final = 500
_DONE: Final = {
    "cancel": "cancelled",
    "rerun": "run again",
    "redeliver": "with messages that are sent again",
    "delete_content": "without content now",
}


def actions(
    action: Annotated[Action, typer.Argument(help="What to do to each job.")],
    job_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Jobs; or give filters.")] = None,
    status: job_lists.Statuses = None,
    model: job_lists.Model = None,
    served_model: job_lists.ServedModel = None,
    code: job_lists.Code = None,
    end_user: job_lists.EndUser = None,
    metadata: job_lists.Metadata = None,
    request_id: job_lists.RequestId = None,
    response_id: job_lists.ResponseId = None,
    group: job_lists.Group = None,
    created_after: job_lists.CreatedAfter = None,
    created_before: job_lists.CreatedBefore = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count the jobs.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Of a rerun: each job is run again once for each key.")
    ] = None,
    as_json: job_lists.Json = False,
) -> None:
    """Do something to many jobs.

    To those with these ids, or to all that fit the filters. Counts them first and asks.
    Exits 0 if no job refused it. Without --status, filters find only jobs on which the action can have an effect.
    """
    others = {"model": model, "served_model": served_model, "code": code, "end_user": end_user}
    others |= {"request_id": request_id, "response_id": response_id, "group": group}
    others |= {"created_after": created_after, "created_before": created_before}
    filters = job_lists.job_filters(status, metadata, others)
    if bool(job_ids) == bool(filters):
        raise CliError("give either ids of jobs or filters, such as --status failed", EXIT_USAGE)
    wanted: dict[str, Any] = {"action": action.replace("-", "_")}
    given = [{**wanted, "ids": one} for one in _parts(job_ids or [])] or [{**wanted, "filter": filters}]
    headers = {"Idempotency-Key": key} if (key := check_idempotency_key(idempotency_key)) else {}
    with Client() as client:
        counted = [client.request("POST", _PATH, {**one, "dry_run": True}, repeatable=True) for one in given]
        matched, is_all = sum(one["matched"] for one in counted), all(one["matched_all"] for one in counted)
        if dry_run:
            _print_count(action, matched, is_all=is_all, as_json=as_json)
            return
        if not matched and is_all and not job_ids:
            rows: list[dict[str, Any]] = []
        else:
            if not yes:
                _confirm(action, matched, is_all=is_all)
            rows = [row for one in given for row in _act(client, one, headers)]
    _print_rows(wanted["action"], rows, as_json=as_json)


def _parts(job_ids: list[str]) -> list[list[str]]:
    return [job_ids[start : start + _AT_ONCE] for start in range(0, len(job_ids), _AT_ONCE)]


def _act(client: Client, wanted: dict[str, Any], headers: dict[str, str]) -> list[dict[str, Any]]:
    """Act until there are no more jobs; return what became of each."""
    out: list[dict[str, Any]] = []
    body = wanted if "ids" in wanted else {**wanted, "limit": _AT_ONCE}
    while True:
        page = client.request("POST", _PATH, body, headers, repeatable=True)
        out += page["data"]
        if page["next_cursor"] is None:
            return out
        body = {**body, "cursor": page["next_cursor"]}


def _confirm(action: str, matched: int, *, is_all: bool) -> None:
    if not sys.stdin.isatty():
        raise CliError(f"{_count(matched, is_all=is_all)} would be meant; add --yes to do it", EXIT_USAGE)
    typer.confirm(f"{action}: {_count(matched, is_all=is_all)}. Go on?", abort=True, err=True)


def _count(matched: int, *, is_all: bool) -> str:
    return f"{'' if is_all else 'at least '}{matched} job{'' if matched == 1 else 's'}"


def _print_count(action: str, matched: int, *, is_all: bool, as_json: bool) -> None:
    if as_json:
        found = {"action": action.replace("-", "_"), "dry_run": True, "matched": matched, "matched_all": is_all}
        print(json.dumps(found, indent=2))
    else:
        print(f"{action}: {_count(matched, is_all=is_all)}")


def _print_rows(action: str, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print what became of the jobs; exit 1 if any refused it."""
    counts = Counter(row["outcome"] for row in rows)
    outcomes = {name: counts[name] for name in ("done", "unchanged", "refused")}
    if as_json:
        print(json.dumps({"action": action, **outcomes, "data": rows}, indent=2))
    else:
        print(f"{outcomes['done']} {_DONE[action]}, {outcomes['unchanged']} unchanged, {outcomes['refused']} refused")
        for row in rows:
            if row["outcome"] == "refused":
                print(f"{row['id']}: {clean(str(row['problem']['detail']))} ({row['problem']['code']})")
            elif new := row.get("new_job"):
                print(f"{row['id']} -> {new}")
    if outcomes["refused"]:
        raise typer.Exit(EXIT_FAILED)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(actions)
