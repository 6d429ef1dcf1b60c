"""`vigil support-packet` and `vigil status`: a job's packet for the provider's support, and the state of Vigil."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from worker.cli.api_client import Client
from worker.cli.arguments import read_prompt
from worker.cli.errors import EXIT_USAGE, CliError
from worker.cli.rendering import clean, print_columns

_QUEUE_FIELDS: Final = ("queued", "scheduled", "running", "checking")


def support_packet(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job's id, job_….")],
    description: Annotated[
        str | None, typer.Option(help="What happened, in your own words; secrets are removed.")
    ] = None,
    description_file: Annotated[
        Path | None, typer.Option(help="The same from a file; - reads stdin.", show_default=False)
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Print what is removed from the description, and by which detector.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the packet for the provider's support. It has ids, times and codes, no prompt and no output."""
    if description is not None and description_file is not None:
        raise CliError("give --description or --description-file, not both", EXIT_USAGE)
    if preview and description is None and description_file is None:
        raise CliError("--preview needs --description or --description-file", EXIT_USAGE)
    if description_file is not None:
        description = read_prompt(None, description_file)
    path = f"/v1/jobs/{quote(job, safe='')}/support-packet"
    with Client() as client:
        if description is None:
            packet = client.call("GET", path, accept="application/json")
        else:
            packet = client.call("POST", path, {"description": description}, accept="application/json")
    if as_json:
        print(json.dumps(packet, indent=2))
    elif preview:
        _preview(packet)
    else:
        print(clean(packet["text"]), end="")
        for found in packet["redactions"]:
            print(f"removed from the description: {found['count']} x {found['detector']}", file=sys.stderr)


def _preview(packet: dict[str, Any]) -> None:
    print(clean(packet["description"]))
    print()
    if packet["redactions"]:
        print_columns(("DETECTOR", "FOUND"), [(one["detector"], str(one["count"])) for one in packet["redactions"]])
    else:
        print("nothing was removed")


def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the state of Vigil. Shows queue, workers, the provider's account, pauses, what waits for limits, rates."""
    with Client() as client:
        body = client.call("GET", "/v1/status")
    if as_json:
        print(json.dumps(body, indent=2))
        return
    queue, account, rates = body["queue"], body["account"], body["rates"]
    print("queue    " + ", ".join(f"{queue[name]} {name}" for name in _QUEUE_FIELDS))
    print(f"workers  {len(body['workers'])}")
    because = ", ".join(account["evidence"].get("because") or [])
    print(f"account  {account['state']}" + (f" ({because})" if because else ""))
    for one in body.get("accounts", [])[1:]:
        circuit = (
            "" if one["circuit"] == "closed" else f", circuit {one['circuit']}: {clean(one['circuit_reason'] or '')}"
        )
        print(f"account  {one['name']}: {one['state']}{circuit}")
    shares = (f"{_percentage(rates[name])} {name}" for name in ("checks", "blocks", "substitutions"))
    for pause in body["pauses"]:
        if pause["scope"] == "unreadable":
            what = clean(pause["name"] or "")
            print(f"paused   nothing by {what!r}: it can't be read and stops no job (ops/runbook/RecordsUnreadable.md)")
            continue
        name = "everything" if pause["name"] is None else f"{pause['scope']} {clean(pause['name'])}"
        print(f"paused   {name} since {pause['since']}" + (f": {clean(pause['note'])}" if pause["note"] else ""))
    for meter in body["pacing"]["meters"]:
        if meter["closed_until"] is not None:
            print(f"limited  calls{_limited_model(meter)} by a 429 until {meter['closed_until']}")
    for wait in body["pacing"]["waiting"]:
        next_at = f", the next starts at {wait['next_at']}" if wait["next_at"] else ""
        print(f"waiting  {wait['jobs']} for {wait['reason']}{_limited_model(wait)}{next_at}")
    print(f"rates    {', '.join(shares)} in {rates['window_seconds'] // 60} min")
    rows = [
        (name, row["state"], str(row["requests"]), str(row["checked"]), str(row["suspected"]), str(row["blocked"]))
        for name, row in account["families"].items()
    ]
    if rows:
        print()
        print_columns(("FAMILY", "STATE", "REQUESTS", "CHECKED", "SUSPECTED", "BLOCKED"), rows)
    for row in body.get("silences", ()):
        usual = f"usual {row['usual_seconds']:g} s, " if row["usual_seconds"] is not None else ""
        print(
            f"silence  {clean(row['model'])}: a check is suspected after {row['after_seconds']:g} s "
            f"({usual}{row['samples']} calls measured, {row['suspected']} suspected)"
        )


def _limited_model(row: dict[str, Any]) -> str:
    return "" if row["model"] is None else f" of {clean(row['model'])} (account {clean(row['account'])})"


def _percentage(value: float | None) -> str:
    return "no" if value is None else f"{value:.1%}"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(support_packet)
    app.command()(status)
