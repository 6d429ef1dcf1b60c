"""`vigil probe`: shows which models this organisation may call, since when, and what to do about the others."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from worker.cli.api_client import Client
from worker.cli.errors import EXIT_FAILED
from worker.cli.rendering import clean, print_columns


def probe(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, as POST /v1/models/probe and GET /v1/ops/endpoint return it.")
    ] = False,
) -> None:
    """Ask the provider which models may be called. Exits 1 if any may not.

    Also checks whether VIGIL_UPSTREAM fits the provider; exits 1 if it does not. A worker asks, with its own key;
    VIGIL_API_KEY needs the scope ops. Nothing is generated, so nothing is billed.
    """
    with Client() as client:
        found = client.call("POST", "/v1/models/probe")
        endpoint: dict[str, Any] = client.call("GET", "/v1/ops/endpoint")
    models: list[dict[str, Any]] = found["data"]
    if as_json:
        print(json.dumps({**found, "endpoint": endpoint}, indent=2))
    else:
        print_columns(("MODEL", "STATUS", "SINCE", "ADVICE"), [_row(model) for model in models])
    if not as_json:
        fits = {True: "fits", False: "does not fit"}.get(endpoint["fits"], "may fit")
        print(f"\nVIGIL_UPSTREAM={clean(str(endpoint['upstream']))} {fits} this provider. {clean(endpoint['advice'])}")
    if any(model["access"]["status"] != "ok" for model in models) or endpoint["fits"] is False:
        raise typer.Exit(EXIT_FAILED)


def _row(model: dict[str, Any]) -> tuple[str, str, str, str]:
    access = model["access"]
    since = str(access["since"] or "-")
    advice = str(access["advice"])
    if access.get("request_id") and access["status"] != "ok":
        advice += f" (request id {access['request_id']})"
    if model.get("shutdown_date"):
        advice += f" The model shuts down on {model['shutdown_date']}."
    return (clean(model["id"]), access["status"], f"{since[:19]}Z" if access["since"] else since, clean(advice))


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(probe)
