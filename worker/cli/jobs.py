"""The commands about jobs: get, wait, watch, cancel, delete, retry, rerun, over the HTTP API."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from worker.cli.api_client import Client
from worker.cli.arguments import check_idempotency_key
from worker.cli.errors import EXIT_FAILED, EXIT_INTERRUPTED
from worker.cli.rendering import (
    billed_summary,
    clean,
    colour_status,
    format_cost,
    job_summary,
)
from worker.cli.watch import JobWatcher
from worker.jobs.states import Status

_WIDTH: Final = 100
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, job_….")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def get(job_id: JobId, as_json: Json = False) -> None:
    """Show a job as it is now."""
    with Client() as client:
        job = client.get(job_id).raw
    if as_json:
        print_json(job)
    else:
        _print_job(job)


def wait(
    job_id: JobId,
    timeout: Annotated[float | None, typer.Option(min=0, help="Give up after this many seconds.")] = None,
    as_json: Json = False,
) -> None:
    """Wait for a job's end and print its answer. Exits 0 if it completed, 1 otherwise."""
    with Client() as client:
        wait_and_print(client, job_id, as_json=as_json, timeout=timeout)


def wait_and_print(client: Client, job_id: str, *, as_json: bool, timeout: float | None = None) -> None:
    try:
        job = JobWatcher(client, job_id).run(timeout)
    except KeyboardInterrupt:
        raise _interrupted(job_id) from None
    if as_json:
        print_json(job)
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


def cancel(job_id: JobId, as_json: Json = False) -> None:
    """Cancel a job. A second cancel changes nothing."""
    with Client() as client:
        job = client.cancel(job_id)
    if as_json:
        print_json(job.raw)
        return
    print(f"{job.status}" + ("; a call to the provider was under way" if job.cancel.upstream_under_way else ""))
    if billed := job.raw.get("billed"):
        print(f"billed    {billed_summary(billed)}")
    elif not job.settled:
        print(f"`vigil wait {job.id}` says once it has stopped; `vigil get` then says whether it is billed")


def why(job_id: JobId, as_json: Json = False) -> None:
    """Say in one paragraph what became of a job.

    What happened, of which model, how long it took, which checks there were, why another model served, what it cost,
    and what can be done.
    """
    with Client() as client:
        found = client.why(job_id)
    if as_json:
        print_json(found.raw)
    else:
        print(textwrap.fill(clean(found.text), _WIDTH, break_on_hyphens=False))


def delete(job_id: JobId, as_json: Json = False) -> None:
    """Delete a job's input and output. Its record and its audit trail stay; a second delete changes nothing."""
    with Client() as client:
        client.request("DELETE", f"/v1/jobs/{quote(job_id, safe='')}")
    if as_json:
        print_json({"id": job_id, "deleted": True})
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
        print_json(job)
    else:
        print(job_summary(job))


def rerun(
    job_id: JobId,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A second rerun with this key returns the first one's job.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a job again, as a new one.

    It must have failed, expired or been cancelled, and its content is sent once more. Prints the new job's id.
    """
    with Client() as client:
        job = client.rerun(job_id, idempotency_key=check_idempotency_key(idempotency_key))
    if as_json:
        print_json(job.raw)
    else:
        print(job.id)


def print_json(body: dict[str, Any]) -> None:
    print(json.dumps(body, indent=2, ensure_ascii=not (sys.stdout.encoding or "").lower().startswith("utf")))


def _print_job(job: dict[str, Any]) -> None:
    print(f"{job['id']}  {colour_status(job['status'], job_summary(job), sys.stdout)}")
    served = job.get("served_model")
    print(f"model     {job['requested_model']}" + (f", served {served}" if served else ""))
    if disclosure := job.get("disclosure"):
        print(f"served by {disclosure['message']}")
    if job.get("unfiltered"):
        print("unfiltered: the provider's safety filter was not available, the answer was not filtered")
    if consent := job.get("consent"):
        version = f", delay policy {consent['policy_version']}" if consent.get("policy_version") else ""
        who = f"by {consent['by']} at {consent['at']}"
        print(f"consent   to {consent['model']} {who}{version}, {consent['terms_digest']}")
    for one in job.get("attempts") or []:
        print(f"attempt {one['number']} {one['model']} {one.get('purpose')}: {one.get('outcome') or 'running'}")
    print(f"cost      {format_cost(job)}")
    if billed := job.get("billed"):
        print(f"billed    {billed_summary(billed)}")
    if answer := job.get("output_text") or job.get("refusal"):
        print(f"\n{clean(answer)}")


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command()(get)
    app.command()(wait)
    app.command()(watch)
    app.command()(why)
    app.command()(cancel)
    app.command()(delete)
    app.command()(retry)
    app.command()(rerun)
