"""`vigil end-users`: who has checks, blocks, warnings or a quarantine, over the HTTP API. The key needs scope ops."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

import typer

from worker.cli.api_client import Client
from worker.cli.errors import EXIT_USAGE, CliError
from worker.cli.rendering import clean, print_columns

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
State = Literal["quarantined", "near_miss", "free"]
Kind = Literal["checks", "blocks", "warnings"]
_KINDS = ("checks", "blocks", "warnings")

group = typer.Typer(
    help="List and show end users.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.add_typer(group, name="end-users")


@group.command("list")
def list_(
    state: Annotated[State | None, typer.Option(help="Only those in this state.", show_default=False)] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only those with such an entry.", show_default=False)] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only those with an entry since then.", show_default=False)
    ] = None,
    all_apps: Annotated[bool, typer.Option("--all-apps", help="Those of all apps, for operators.")] = False,
    app: Annotated[
        str | None, typer.Option(help="With --all-apps: only those of this app.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List end users. By safety identifier, those with the newest entries first."""
    given = {"state": state, "kind": kind, "since": since}
    if all_apps and any(given.values()):
        raise CliError("--all-apps takes --app, --limit and --cursor alone", EXIT_USAGE)
    if app is not None and not all_apps:
        raise CliError("--app needs --all-apps; without it, the list is of the key's app", EXIT_USAGE)
    query = {name: value for name, value in {**given, "app": app, "cursor": cursor}.items() if value is not None}
    path = "/v1/ops/end-users" if all_apps else "/v1/end-users"
    with Client() as client:
        answer = client.call("GET", f"{path}?{urlencode({**query, 'limit': limit})}")
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    if not answer["data"]:
        print("No such end user." if query else "No end user has had a check, a block, a warning or a quarantine.")
    else:
        columns = (
            *(["APP"] if all_apps else []),
            "SAFETY IDENTIFIER",
            "STATE",
            "CHECKS",
            "BLOCKS",
            "WARNINGS",
            "NEWEST",
        )
        print_columns(columns, [_row(row, all_apps=all_apps) for row in answer["data"]])
    if answer["next_cursor"]:
        print(f"There may be more: --cursor {answer['next_cursor']}")


@group.command()
def show(
    end_user: Annotated[str, typer.Argument(metavar="END_USER", help="The end user's id or safety identifier.")],
    as_json: Json = False,
) -> None:
    """Show an end user of the key's app. Ledger, quarantine, appeals, jobs."""
    with Client() as client:
        found = client.call("GET", f"/v1/end-users/{quote(end_user, safe='')}")
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['safety_identifier']}  {_state(found)}")
    counts, ledger = found["counts"], found["ledger"]
    for kind in _KINDS:
        print(f"{kind:<10}{counts[kind]} in {counts['window_seconds']} s, {ledger[kind]} in {ledger['days']} days")
    if found["quarantine"]:
        row = found["quarantine"]
        ends = row["until"] or "it is lifted"
        print(f"quarantine since {row['since']} until {ends} by {row['by']}: {clean(row['reason'])}")
    for one in found["quarantine_log"]:
        print(f"  {one['at']}  {one['act']} by {one['by']}: {clean(one['reason'])}")
    for one in found["appeals"]:
        print(f"appeal    {one['id']}  {one['state']}" + (f", {one['outcome']}" if one["outcome"] else ""))
    for one in found["entries"]:
        print(f"  {one['at']}  {one['kind'][:-1]:<8}{one['job'] or one['notice']}")
    print(f"jobs      {found['jobs_kept']} are kept")


def _row(row: dict[str, Any], *, all_apps: bool) -> tuple[str, ...]:
    counts = tuple(str(row["ledger"][kind]) for kind in _KINDS)
    own = (clean(row["app"]),) if all_apps else ()
    return (*own, row["safety_identifier"], _state(row), *counts, row["newest_at"] or "-")


def _state(row: dict[str, Any]) -> str:
    if row["quarantine"]:
        return f"in quarantine until {row['quarantine']['until'] or 'it is lifted'}"
    missing = row["blocks_to_quarantine"]
    return "free" if missing is None else f"{missing} more block{'s' if missing != 1 else ''} to quarantine"
