"""`vigil pause`, `vigil resume` and `vigil quarantine`, over the HTTP API: the key needs the scope ops."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

from worker.cli.api_client import Client
from worker.cli.rendering import clean, print_columns

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Scope = Annotated[
    Literal["all", "app", "model", "end_user"], typer.Argument(help="all, app, model or end_user (of the key's app).")
]
Name = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="The name of the app, model or end user; none for `all`.")
]

group = typer.Typer(
    help="List, add and lift quarantined end users.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def pause(
    scope: Scope,
    name: Name = None,
    note: Annotated[str, typer.Option(help="The reason; it is kept in the audit trail.")] = "",
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="The time at which it ends, such as 2030-01-31T12:00:00Z.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Stop starting jobs. All, or those of an app, a model or an end user; running jobs continue."""
    body = {"scope": scope, "name": name, "note": note, **({"until": until} if until else {})}
    with Client() as client:
        made = client.call("POST", "/v1/pause", body)
    if as_json:
        print(json.dumps(made, indent=2))
    else:
        print(f"paused {_target(made)}" + (f" until {made['until']}" if made["until"] else ""))


def resume(scope: Scope, name: Name = None, as_json: Json = False) -> None:
    """End a pause. The jobs that it held become due now."""
    with Client() as client:
        done = client.call("POST", "/v1/resume", {"scope": scope, "name": name})
    if as_json:
        print(json.dumps(done, indent=2))
    elif done["resumed"]:
        print(f"resumed {_target(done)}; {done['released']} held jobs are due now")
    else:
        print(f"{_target(done)} was not paused")


@group.command("list")
def list_(as_json: Json = False) -> None:
    """List quarantined end users, newest first. Only those of the key's app."""
    with Client() as client:
        answer = client.call("GET", "/v1/quarantine")
    if as_json:
        print(json.dumps(answer, indent=2))
    elif not answer["data"]:
        print("No end user is in quarantine.")
    else:
        columns = ("END USER", "SOURCE", "SINCE", "UNTIL", "CHECKS", "BLOCKS", "WARNINGS", "REASON")
        print_columns(columns, [_row(row) for row in answer["data"]])


@group.command()
def add(
    end_user: Annotated[str, typer.Argument(metavar="END_USER", help="The end user's id, or safety identifier.")],
    reason: Annotated[str, typer.Option(help="The reason; it is kept in the audit trail.")] = "",
    until: Annotated[str | None, typer.Option(metavar="TIME", help="The time at which it ends.")] = None,
    shorten: Annotated[bool, typer.Option("--shorten", help="Let it end earlier than the one in force.")] = False,
    as_json: Json = False,
) -> None:
    """Quarantine an end user, or renew it. New jobs are refused, waiting ones cancelled; running ones continue."""
    body: dict[str, Any] = {"end_user": end_user, "reason": reason, **({"until": until} if until else {})}
    body |= {"shorten": True} if shorten else {}
    with Client() as client:
        made = client.call("POST", "/v1/quarantine", body)
    print(json.dumps(made, indent=2) if as_json else f"{clean(end_user)} is in quarantine")


@group.command()
def lift(
    end_user: Annotated[str, typer.Argument(metavar="END_USER", help="The end user's id or safety identifier.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept in the audit trail.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Lift the quarantine of an end user. The blocks so far no longer count."""
    with Client() as client:
        answer = dict(client.lift_quarantine(end_user, reason=reason))
    print(json.dumps(answer, indent=2) if as_json else f"{clean(_end_user(answer))} may submit again")


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    counts = tuple(str(row["ledger"][kind]) for kind in ("checks", "blocks", "warnings"))
    return (clean(_end_user(row)), row["source"], row["since"], row["until"] or "-", *counts, clean(row["reason"]))


def _end_user(row: dict[str, Any]) -> str:
    return str(row["end_user"] or row["safety_identifier"])


def _target(row: dict[str, Any]) -> str:
    return "everything" if row["name"] is None else f"{row['scope']} {clean(row['name'])}"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(pause)
    app.command()(resume)
    app.add_typer(group, name="quarantine")
