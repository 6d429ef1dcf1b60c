"""`vigil appeals`: appeals against blocks and quarantines, as cases, over the HTTP API. The key needs the scope ops."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

import typer

from worker.cli.api_client import Client
from worker.cli.rendering import clean, print_columns

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AppealId = Annotated[str, typer.Argument(metavar="APPEAL", help="The appeal's id, appeal_….")]
State = Literal["open", "sent", "answered", "closed"]
Outcome = Literal["upheld", "overturned", "withdrawn"]

group = typer.Typer(
    help="Open, list, answer and close appeals.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.add_typer(group, name="appeals")


@group.command("open")
def open_(
    reason: Annotated[str, typer.Option(help="What is asked and why; no prompts.", show_default=False)],
    end_user: Annotated[
        str | None, typer.Option(help="The end user's id or safety identifier.", show_default=False)
    ] = None,
    job: Annotated[list[str] | None, typer.Option(help="A job that it is about; may be repeated.")] = None,
    case: Annotated[str | None, typer.Option(help="The provider's case, if there is one.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Open an appeal of an end user, or about jobs."""
    given = {"end_user": end_user, "jobs": job, "provider_case": case}
    body = {"reason": reason, **{name: value for name, value in given.items() if value}}
    with Client() as client:
        made = client.call("POST", "/v1/appeals", body)
    print(json.dumps(made, indent=2) if as_json else f"{made['id']} is open")


@group.command("list")
def list_(
    state: Annotated[State | None, typer.Option(help="Only those in this state.", show_default=False)] = None,
    end_user: Annotated[str | None, typer.Option(help="Only those of this end user.", show_default=False)] = None,
    job: Annotated[str | None, typer.Option(help="Only those about this job.", show_default=False)] = None,
    case: Annotated[str | None, typer.Option(help="Only those of this case.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List appeals of the key's app, newest first."""
    given = {"state": state, "end_user": end_user, "job": job, "provider_case": case, "cursor": cursor}
    query = {name: value for name, value in given.items() if value is not None}
    with Client() as client:
        answer = client.call("GET", f"/v1/appeals?{urlencode({**query, 'limit': limit})}")
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    if not answer["data"]:
        print("No such appeal." if query else "There are no appeals; `vigil appeals open` opens one.")
    else:
        columns = ("APPEAL", "STATE", "OPENED", "CASE", "JOBS", "SAFETY IDENTIFIER")
        print_columns(columns, [_row(row) for row in answer["data"]])
    if answer["next_cursor"]:
        print(f"There may be more: --cursor {answer['next_cursor']}")


@group.command()
def show(appeal: AppealId, as_json: Json = False) -> None:
    """Show an appeal with all its steps."""
    with Client() as client:
        found = client.call("GET", _path(appeal))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['id']}  {_state(found)}  case {clean(found['provider_case'] or '-')}")
    print(f"end user  {found['safety_identifier'] or '-'}")
    for job in found["jobs"]:
        print(f"job       {job['id']}")
    for step in found["steps"]:
        about = [step["outcome"], step["provider_case"] and f"case {step['provider_case']}", step["notice"]]
        named = "".join(f" ({clean(one)})" for one in about if one)
        text = f": {clean(step['text'])}" if step["text"] else ""
        print(f"{step['at']}  {step['kind']} by {step['by_person'] or step['by']}{named}{text}")


@group.command()
def sent(
    appeal: AppealId,
    case: Annotated[str, typer.Option(help="The id of the case at the provider.", show_default=False)],
    note: Annotated[str, typer.Option(help="A note.", show_default=False)] = "",
    as_json: Json = False,
) -> None:
    """Record that it was sent to the provider."""
    _step(appeal, "sent", {"provider_case": case, **({"note": note} if note else {})}, as_json=as_json)


@group.command()
def answer(
    appeal: AppealId,
    text: Annotated[str, typer.Option(help="What the provider answered.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Record the provider's answer. The appeal must have been sent."""
    _step(appeal, "answer", {"answer": text}, as_json=as_json)


@group.command()
def close(
    appeal: AppealId,
    outcome: Annotated[Outcome, typer.Argument(help="upheld (the block stays), overturned or withdrawn.")],
    reason: Annotated[str, typer.Option(help="Why.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Close an appeal. A quarantine is not lifted by it: `vigil quarantine lift` does that."""
    _step(appeal, "outcome", {"outcome": outcome, "reason": reason}, as_json=as_json)


@group.command()
def note(
    appeal: AppealId,
    text: Annotated[str, typer.Option(help="The note; no prompts.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Add a note to an appeal."""
    _step(appeal, "notes", {"text": text}, as_json=as_json)


@group.command()
def link(
    appeal: AppealId,
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of jobs of the key's app.")],
    as_json: Json = False,
) -> None:
    """Add links to further jobs to an appeal."""
    _step(appeal, "jobs", {"jobs": jobs}, as_json=as_json)


def _step(appeal: str, path: str, body: dict[str, Any], *, as_json: bool) -> None:
    with Client() as client:
        after = client.call("POST", f"{_path(appeal)}/{path}", body)
    print(json.dumps(after, indent=2) if as_json else f"{after['id']} is {_state(after)}")


def _path(appeal: str) -> str:
    return f"/v1/appeals/{quote(appeal, safe='')}"


def _state(appeal: dict[str, Any]) -> str:
    return f"{appeal['state']}, {appeal['outcome']}" if appeal["outcome"] else str(appeal["state"])


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    case, person = clean(row["provider_case"] or "-"), row["safety_identifier"] or "-"
    return (row["id"], _state(row), row["opened_at"], case, str(len(row["jobs"])), person)
