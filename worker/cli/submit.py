"""`vigil submit`: submit a job with everything that the HTTP API takes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from worker.cli.api_client import Client
from worker.cli.arguments import check_idempotency_key, parse_json, parse_pairs, read_prompt
from worker.cli.errors import EXIT_FAILED
from worker.cli.jobs import Json, print_json, wait_and_print
from worker.cli.rendering import dry_run_lines
from worker.client import NewJob

DEFAULT_MODEL: Final = "gpt-5.6-sol"

Action = Literal["wait", "offer", "switch", "race", "draft"]
Priority = Literal["low", "default", "high"]
Payload = Literal["thin", "full", "openai"]
NO_FALLBACK: Final = "none"


def submit(
    prompt: Annotated[str | None, typer.Argument(help="The prompt; `-` or nothing reads stdin.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the prompt from a file.")] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="The model.")] = DEFAULT_MODEL,
    on_delay: Annotated[Action | None, typer.Option(help="What to do when a safety check delays the answer.")] = None,
    after_seconds: Annotated[
        float | None, typer.Option(min=0, help="… once the check has run for this many seconds.  [45]")
    ] = None,
    silence_seconds: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="… or silence has lasted this many seconds; 0 = ignore silence.  [what is unusual for the model; 120 "
            "until that is measured]",
        ),
    ] = None,
    delay_model: Annotated[str | None, typer.Option(help="… with this model instead of the provider's choice.")] = None,
    fallback: Annotated[
        list[str] | None,
        typer.Option(help=f"Models to try when access is denied, in order; may be repeated; `{NO_FALLBACK}` = none."),
    ] = None,
    require_model: Annotated[bool, typer.Option("--require-model", help="No other model may answer.")] = False,
    max_attempts: Annotated[int | None, typer.Option(min=1, max=50, help="Calls at most.  [5]")] = None,
    queue_deadline_seconds: Annotated[float | None, typer.Option(min=0, help="It may wait so long to start.")] = None,
    run_deadline_seconds: Annotated[float | None, typer.Option(min=0, help="It may run so long.  [3600]")] = None,
    max_cost_usd: Annotated[
        float | None, typer.Option(min=0, help="The job fails before it costs more than this.", show_default=False)
    ] = None,
    instructions: Annotated[str | None, typer.Option(help="Instructions for the model, beside the prompt.")] = None,
    param: Annotated[list[str] | None, typer.Option(help="KEY=JSON, passed to the provider; may be repeated.")] = None,
    end_user: Annotated[
        str | None, typer.Option(help="Your id of the end user; the provider gets only a digest of it.")
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="KEY=VALUE to keep with the job; may be repeated.")] = None,
    priority: Annotated[Priority | None, typer.Option(help="Among the app's own jobs.  [default]")] = None,
    not_before: Annotated[str | None, typer.Option(metavar="TIME", help="Start no earlier than this.")] = None,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Send the job's events there.")] = None,
    webhook_event: Annotated[
        list[str] | None, typer.Option(help="… only this event; may be repeated.  [how the job ended]")
    ] = None,
    webhook_payload: Annotated[Payload | None, typer.Option(help="… with so much content.  [thin]")] = None,
    no_store: Annotated[
        bool, typer.Option("--no-store", help="Remove input and output once the app has the answer.")
    ] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A second submit with this key returns the first one's job.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end and print the answer.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check and price the job; say what is known of access and queue.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Submit a job. Prints its id, or with --wait its answer, or with --dry-run what it may cost."""
    rule = {"action": on_delay, "after_seconds": after_seconds, "silence_seconds": silence_seconds}
    policy = {
        "on_delay": _given({**rule, "model": delay_model}) or None,
        "fallback": None if fallback is None else [name for name in fallback if name != NO_FALLBACK],
        "require_model": require_model or None,
        "max_attempts": max_attempts,
        "queue_deadline_seconds": queue_deadline_seconds,
        "run_deadline_seconds": run_deadline_seconds,
        "max_cost_usd": max_cost_usd,
    }
    hook = {"url": webhook, "events": webhook_event or None, "payload": webhook_payload}
    body: NewJob = {"model": model, "input": read_prompt(prompt, file)}
    others = {
        "policy": _given(policy) or None,
        "instructions": instructions,
        "params": {name: parse_json(name, text) for name, text in parse_pairs("--param", param or [])} or None,
        "end_user": end_user,
        "metadata": dict(parse_pairs("--metadata", metadata or [])) or None,
        "priority": priority,
        "not_before": not_before,
        "webhook": _given(hook) or None,
        "store": False if no_store else None,
        "idempotency_key": check_idempotency_key(idempotency_key),
    }
    body.update(_given(others))  # type: ignore[typeddict-item]
    with Client() as client:
        if dry_run:
            sent = {name: value for name, value in body.items() if name != "idempotency_key"}
            _print_dry_run(client.call("POST", "/v1/jobs?dry_run=true", sent), as_json=as_json)
            return
        job = client.submit(**body)
        if wait:
            wait_and_print(client, job.id, as_json=as_json)
        elif as_json:
            print_json(job.raw)
        else:
            print(job.id)
            if sys.stdout.isatty():
                print(f"`vigil watch {job.id}` follows it", file=sys.stderr)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _print_dry_run(found: dict[str, Any], *, as_json: bool) -> None:
    """Print what a job would do; exit 1 if it would fail."""
    if as_json:
        print_json(found)
    else:
        for line in dry_run_lines(found):
            print(line)
    if any(one["code"] in ("cost_limit", "effort_refused") for one in found["warnings"]):
        raise typer.Exit(EXIT_FAILED)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(submit)
