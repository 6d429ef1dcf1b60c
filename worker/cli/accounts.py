"""`vigil accounts`: the accounts at the provider, what is bound to each, and its state."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from worker.cli.api_client import Client
from worker.cli.rendering import clean, print_columns


def accounts(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the accounts at the provider. Shows who uses each, its circuit and state; no key. Needs the scope ops.

    They are in the file of VIGIL_ACCOUNTS_FILE; `default` is the one of OPENAI_API_KEY. An app's own account comes
    first, then the model's, then that of its family.
    """
    with Client() as client:
        body = client.call("GET", "/v1/accounts")
    if as_json:
        print(json.dumps(body, indent=2))
        return
    rows = [
        (one["name"], one["organization"] or "-", one["project"] or "-", one["state"], _circuit(one), _used_by(one))
        for one in body["data"]
    ]
    print_columns(("ACCOUNT", "ORGANISATION", "PROJECT", "STATE", "CIRCUIT", "USED BY"), rows)


def _circuit(account: dict[str, Any]) -> str:
    reason = account["circuit_reason"]
    return str(account["circuit"]) + (f" ({clean(reason)})" if reason else "")


def _used_by(account: dict[str, Any]) -> str:
    bound = [
        f"{what} {', '.join(clean(name) for name in account[field])}"
        for what, field in (("apps", "apps"), ("models", "models"), ("families", "model_families"))
        if account[field]
    ]
    return "; ".join(bound) or ("all others" if account["name"] == "default" else "nobody")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(accounts)
