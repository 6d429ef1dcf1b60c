"""`vigil webhooks`: the app's the endpoints of an app and the webhook messages of a job, over the HTTP API."""

from __future__ import annotations

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from worker.cli.api_client import Client
from worker.cli.rendering import clean, print_columns

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, job_….")]

group = typer.Typer(
    help="List, redeliver, rotate secrets.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.add_typer(group, name="webhooks")


@group.command("list")
def list_(
    job: Annotated[str | None, typer.Option("--job", help="List the messages of this job instead.")] = None,
    as_json: Json = False,
) -> None:
    """List endpoints, or the messages of a job."""
    with Client() as client:
        path = "/v1/webhook-endpoints" if job is None else f"/v1/jobs/{quote(job, safe='')}/deliveries"
        body = client.call("GET", path)
    if as_json:
        _print(body)
    elif job is None:
        _endpoints(body["data"])
    else:
        _messages(body["data"])


@group.command()
def redeliver(
    job: JobId,
    message: Annotated[
        str | None, typer.Argument(metavar="[MESSAGE]", help="Its id, msg_…; by default all that were not delivered.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Send a message of a job again now."""
    path = f"/v1/jobs/{quote(job, safe='')}/deliveries"
    with Client() as client:
        names = [message]
        if message is None:
            names = [one["id"] for one in client.call("GET", path)["data"] if one["state"] != "delivered"]
        sent = [client.call("POST", f"{path}/{quote(name or '', safe='')}/redeliver") for name in names]
    if as_json:
        _print(sent[0] if message is not None else {"object": "list", "data": sent})
    elif not sent:
        print("Every message of this job was delivered; give the id of one to send it again.")
    for one in sent if not as_json else []:
        print(
            f"{one['id']} is sent again to {clean(str(one['url']))}; `vigil webhooks list --job {job}` shows the result"
        )


@group.command("rotate-secret")
def rotate_secret(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint's id, we_….")],
    as_json: Json = False,
) -> None:
    """Give an endpoint a new secret. The old one stays valid for 24 hours: both sign."""
    with Client() as client:
        body = client.call("POST", f"/v1/webhook-endpoints/{quote(endpoint, safe='')}/rotate-secret")
    if as_json:
        _print(body)
        return
    print(body["secret"])
    typer.echo("The secret is shown only now; the old one stays valid for another 24 hours.", err=True)


def _print(body: dict[str, Any]) -> None:
    print(json.dumps(body, indent=2))


def _endpoints(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("The app has no endpoints; POST /v1/webhook-endpoints makes one.")
        return
    cells = [(r["id"], r["state"], r["payload"], str(len(r["events"])), clean(r["url"])) for r in rows]
    print_columns(("ID", "STATE", "PAYLOAD", "EVENTS", "URL"), cells)
    for row in rows:
        if since := row.get("failing_since"):
            due = f"; is disabled at {row['disables_at']} unless one is acknowledged" if row["disables_at"] else ""
            print(f"{row['id']} has acknowledged nothing since {since} ({row['failed_tries']} tries){due}")


def _messages(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("This job has no messages: it has no webhook, or its webhook wants none of its events.")
        return
    cells = []
    for row in rows:
        last = row["deliveries"][-1] if row["deliveries"] else {}
        result = str(last.get("status_code") or last.get("error") or "-")
        state = row["state"] + (f" until {row['next_try_at']}" if row["state"] == "pending" and last else "")
        cells.append((row["id"], row["type"], state, str(len(row["deliveries"])), result, clean(str(row["url"]))))
    print_columns(("ID", "EVENT", "STATE", "TRIES", "LAST", "URL"), cells)
