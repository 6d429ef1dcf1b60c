"""`vigil pause` and `vigil resume`, over the HTTP API: the key needs the scope ops."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

from worker.cli.client import Client
from worker.cli.show import clean

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Scope = Annotated[
    Literal["all", "app", "model", "end_user"], typer.Argument(help="all, app, model or end_user (of the key's app).")
]
Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Which one; nothing for all.")]


def pause(
    scope: Scope,
    name: Name = None,
    note: Annotated[str, typer.Option(help="Why, for whoever asks; goes into the audit trail.")] = "",
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it ends by itself, such as 2030-01-31T12:00:00Z.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Start nothing more of everything, an app, a model or an end user. What runs goes on."""
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


def _words(row: dict[str, Any]) -> str:
    return "everything" if row["name"] is None else f"{row['scope']} {clean(row['name'])}"


def register(app: typer.Typer) -> None:
    """Put the commands on the root."""
    app.command()(pause)
    app.command()(resume)
