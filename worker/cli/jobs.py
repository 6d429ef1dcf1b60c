"""The commands about jobs: submit, get, wait, watch, list, cancel, delete, retry, over the HTTP API."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import typer

from worker.cli.api_client import Client
from worker.cli.arguments import parse_json, parse_pairs, read_prompt
from worker.cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, CliError
from worker.cli.rendering import (
    clean,
    colour_status,
    dry_run_lines,
    format_cost,
    format_duration,
    job_summary,
    print_columns,
    seconds_between,
)
from worker.cli.watch import JobWatcher
from worker.client import Filters, NewJob
from worker.jobs.states import Status

DEFAULT_MODEL: Final = "gpt-5.6-sol"

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, job_….")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Action = Literal["wait", "offer", "switch", "race", "draft"]


def submit(  # noqa: C901, PLR0912  one branch per option
    prompt: Annotated[str | None, typer.Argument(help="The prompt; `-` or nothing reads stdin.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the prompt from a file.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="The model.")] = DEFAULT_MODEL,
    on_delay: Annotated[Action | None, typer.Option(help="What to do when a safety check delays the answer.")] = None,
    after_seconds: Annotated[
        float | None, typer.Option(min=0, help="… once the check has run for this many seconds.  [45]")
    ] = None,
    silence_seconds: Annotated[
        float | None, typer.Option(min=0, help="… or silence has lasted this many seconds; 0 = ignore silence.  [120]")
    ] = None,
    instructions: Annotated[str | None, typer.Option(help="Instructions for the model, beside the prompt.")] = None,
    param: Annotated[list[str] | None, typer.Option(help="KEY=JSON, passed to the provider; may be repeated.")] = None,
    end_user: Annotated[
        str | None, typer.Option(help="Your id of the end user; the provider gets only a digest of it.")
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="KEY=VALUE to keep with the job; may be repeated.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A second submit with this key returns the first one's job.")
    ] = None,
    max_cost_usd: Annotated[
        float | None, typer.Option(min=0, help="The job fails before it costs more than this.", show_default=False)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end and print the answer.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check and price the job; say what is known of access and queue.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Submit a job. Prints its id, or with --wait its answer, or with --dry-run what it may cost."""
    body: NewJob = {"model": model, "input": read_prompt(prompt, file)}
    rule = {"action": on_delay, "after_seconds": after_seconds, "silence_seconds": silence_seconds}
    rule = {name: value for name, value in rule.items() if value is not None}
    policy: dict[str, Any] = {"on_delay": rule} if rule else {}
    if max_cost_usd is not None:
        policy["max_cost_usd"] = max_cost_usd
    if policy:
        body["policy"] = policy
    if instructions is not None:
        body["instructions"] = instructions
    if param:
        body["params"] = {name: parse_json(name, text) for name, text in parse_pairs("--param", param)}
    if end_user is not None:
        body["end_user"] = end_user
    if metadata:
        body["metadata"] = dict(parse_pairs("--metadata", metadata))
    if idempotency_key is not None:
        if not idempotency_key.isascii() or not idempotency_key.isprintable() or not idempotency_key:
            raise CliError("--idempotency-key must be 1-255 visible ASCII characters", EXIT_USAGE)
        body["idempotency_key"] = idempotency_key
    with Client() as client:
        if dry_run:
            sent = {name: value for name, value in body.items() if name != "idempotency_key"}
            _print_dry_run(client.call("POST", "/v1/jobs?dry_run=true", sent), as_json=as_json)
            return
        job = client.submit(**body)
        if wait:
            _wait_and_print(client, job.id, as_json=as_json)
        elif as_json:
            _print_json(job.raw)
        else:
            print(job.id)
            if sys.stdout.isatty():
                print(f"`vigil watch {job.id}` follows it", file=sys.stderr)


def _print_dry_run(found: dict[str, Any], *, as_json: bool) -> None:
    """Print what a job would do; exit 1 if it would fail."""
    if as_json:
        _print_json(found)
    else:
        for line in dry_run_lines(found):
            print(line)
    if any(one["code"] in ("cost_limit", "effort_refused") for one in found["warnings"]):
        raise typer.Exit(EXIT_FAILED)


def get(job_id: JobId, as_json: Json = False) -> None:
    """Show a job as it is now."""
    with Client() as client:
        job = client.get(job_id).raw
    if as_json:
        _print_json(job)
    else:
        _print_job(job)


def wait(
    job_id: JobId,
    timeout: Annotated[float | None, typer.Option(min=0, help="Give up after this many seconds.")] = None,
    as_json: Json = False,
) -> None:
    """Wait for a job's end and print its answer. Exits 0 if it completed, 1 otherwise."""
    with Client() as client:
        _wait_and_print(client, job_id, as_json=as_json, timeout=timeout)


def _wait_and_print(client: Client, job_id: str, *, as_json: bool, timeout: float | None = None) -> None:
    try:
        job = JobWatcher(client, job_id).run(timeout)
    except KeyboardInterrupt:
        raise _interrupted(job_id) from None
    if as_json:
        _print_json(job)
    elif answer := job.get("output_text") or job.get("refusal"):
        print(clean(answer))
    if job["status"] != Status.COMPLETED:
        raise typer.Exit(EXIT_FAILED)


def watch(
    job_id: JobId,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
) -> None:
    """Follow a job live.

    Shows its progress and its text as they come. Exits 0 if it completed, 1 otherwise.
    """
    with Client() as client:
        try:
            job = JobWatcher(client, job_id, "events" if as_json else "text").run()
        except KeyboardInterrupt:
            raise _interrupted(job_id) from None
    if job["status"] != Status.COMPLETED:
        raise typer.Exit(EXIT_FAILED)


def _interrupted(job_id: str) -> typer.Exit:
    print(f"\nthe job continues; `vigil watch {job_id}` follows it again", file=sys.stderr)
    return typer.Exit(EXIT_INTERRUPTED)


def list_(
    status: Annotated[
        str | None, typer.Option(help=f"Only jobs in this status: {', '.join(Status)}.", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only jobs that requested this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most this many.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Continue where an earlier list ended.")] = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    if status is not None and status not in set(Status):
        raise CliError(f"unknown status {status!r}; known: {', '.join(Status)}", EXIT_USAGE)
    filters: Filters = {"limit": limit}
    if status is not None:
        filters["status"] = status
    if model is not None:
        filters["model"] = model
    if cursor is not None:
        filters["cursor"] = cursor
    with Client() as client:
        page = client.list(**filters).raw
    if as_json:
        _print_json(page)
        return
    if not page["data"]:
        print("no jobs", file=sys.stderr)
        return
    rows = [
        (job["id"], job["status"], job.get("served_model") or job["requested_model"], _age(job), format_cost(job))
        for job in page["data"]
    ]
    print_columns(("ID", "STATUS", "MODEL", "AGE", "COST"), rows)
    if page.get("next_cursor"):
        print(f"more: --cursor {page['next_cursor']}", file=sys.stderr)


def _age(job: dict[str, Any]) -> str:
    return format_duration(seconds_between(job["created_at"]))


def cancel(job_id: JobId, as_json: Json = False) -> None:
    """Cancel a job. A second cancel changes nothing."""
    with Client() as client:
        job = client.cancel(job_id)
    if as_json:
        _print_json(job.raw)
        return
    print(f"{job.status}" + ("; a call to the provider was under way" if job.cancel.upstream_under_way else ""))


def delete(job_id: JobId, as_json: Json = False) -> None:
    """Delete a job's input and output. Its record and its audit trail stay; a second delete changes nothing."""
    with Client() as client:
        client.request("DELETE", f"/v1/jobs/{quote(job_id, safe='')}")
    if as_json:
        _print_json({"id": job_id, "deleted": True})
    else:
        print("deleted")


def retry(
    job_id: JobId,
    model: Annotated[str, typer.Option("--model", "-m", help="The model that the job's open offer names.")],
    as_json: Json = False,
) -> None:
    """Accept a job's open offer of a faster model."""
    with Client() as client:
        job = client.retry(job_id, model).raw
    if as_json:
        _print_json(job)
    else:
        print(job_summary(job))


def _print_json(body: dict[str, Any]) -> None:
    print(json.dumps(body, indent=2, ensure_ascii=not (sys.stdout.encoding or "").lower().startswith("utf")))


def _print_job(job: dict[str, Any]) -> None:
    print(f"{job['id']}  {colour_status(job['status'], job_summary(job), sys.stdout)}")
    served = job.get("served_model")
    print(f"model     {job['requested_model']}" + (f", served {served}" if served else ""))
    if disclosure := job.get("disclosure"):
        print(f"served by {disclosure['message']}")
    for one in job.get("attempts") or []:
        print(f"attempt {one['number']} {one['model']} {one.get('purpose')}: {one.get('outcome') or 'running'}")
    print(f"cost      {format_cost(job)}")
    if answer := job.get("output_text") or job.get("refusal"):
        print(f"\n{clean(answer)}")


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(submit)
    app.command()(get)
    app.command()(wait)
    app.command()(watch)
    app.command("list")(list_)
    app.command()(cancel)
    app.command()(delete)
    app.command()(retry)
