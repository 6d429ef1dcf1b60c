"""`vigil pause`, `vigil resume` and `vigil quarantine`, over the HTTP API: the key needs the scope ops."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer

from worker.cli.api_client import Client
from worker.cli.rendering import clean, print_columns

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Scope = Annotated[
    Literal["all", "app", "model", "end_user"], typer.Argument(help="all, app, model or end_user (of the key's app).")
]
Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Which one; nothing for all.")]

room = typer.Typer(
    help="List end users shut out, add and lift.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def pause(
    scope: Scope,
    name: Name = None,
    note: Annotated[str, typer.Option(help="Why, for whoever asks; goes into the audit trail.")] = "",
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it ends by itself, such as 2030-01-31T12:00:00Z.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Start nothing more of what is named. Everything, an app, a model or an end user; what runs goes on."""
    body = {"scope": scope, "name": name, "note": note, **({"until": until} if until else {})}
    with Client() as client:
        made = client.call("POST", "/v1/pause", body)
    if as_json:
        print(json.dumps(made, indent=2))
    else:
        print(f"paused {_words(made)}" + (f" until {made['until']}" if made["until"] else ""))


def resume(scope: Scope, name: Name = None, as_json: Json = False) -> None:
    """End a pause: what it held falls due now."""
    with Client() as client:
        done = client.call("POST", "/v1/resume", {"scope": scope, "name": name})
    if as_json:
        print(json.dumps(done, indent=2))
    elif done["resumed"]:
        print(f"resumed {_words(done)}; {done['released']} held jobs fall due now")
    else:
        print(f"{_words(done)} was not paused")


@room.command("list")
def list_(as_json: Json = False) -> None:
    """List the end users shut out. Those of the key's app, newest first."""
    with Client() as client:
        found = client.call("GET", "/v1/quarantine")
    if as_json:
        print(json.dumps(found, indent=2))
    elif not found["data"]:
        print("Nobody is in quarantine.")
    else:
        columns = ("END USER", "SOURCE", "SINCE", "UNTIL", "CHECKS", "BLOCKS", "WARNINGS", "REASON")
        print_columns(columns, [_row(row) for row in found["data"]])


@room.command()
def add(
    end_user: Annotated[str, typer.Argument(metavar="END_USER", help="As the key's app names the person.")],
    reason: Annotated[str, typer.Option(help="Why; goes into the audit trail.")] = "",
    until: Annotated[str | None, typer.Option(metavar="TIME", help="When it ends by itself.")] = None,
    as_json: Json = False,
) -> None:
    """Shut an end user out. New jobs are refused, waiting ones cancelled; what runs goes on."""
    body = {"end_user": end_user, "reason": reason, **({"until": until} if until else {})}
    with Client() as client:
        made = client.call("POST", "/v1/quarantine", body)
    print(json.dumps(made, indent=2) if as_json else f"{clean(end_user)} is in quarantine")


@room.command()
def lift(
    end_user: Annotated[str, typer.Argument(metavar="END_USER", help="The person, or the safety identifier.")],
    as_json: Json = False,
) -> None:
    """Let an end user in again. The blocks so far no longer count."""
    with Client() as client:
        found = client.call("DELETE", f"/v1/quarantine/{quote(end_user, safe='')}")
    print(json.dumps(found, indent=2) if as_json else f"{clean(_person(found))} may submit again")


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    counts = tuple(str(row["ledger"][kind]) for kind in ("checks", "blocks", "warnings"))
    return (clean(_person(row)), row["source"], row["since"], row["until"] or "-", *counts, clean(row["reason"]))


def _person(row: dict[str, Any]) -> str:
    return str(row["end_user"] or row["safety_identifier"])


def _words(row: dict[str, Any]) -> str:
    return "everything" if row["name"] is None else f"{row['scope']} {clean(row['name'])}"


def register(app: typer.Typer) -> None:
    """Put the commands on the root."""
    app.command()(pause)
    app.command()(resume)
    app.add_typer(room, name="quarantine")
