"""`vigil audit show`: prints a job's audit trail and proves whether a text is the job's prompt."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from worker.audit.chain import GENESIS, AuditRow
from worker.audit.diagnose import diagnose_chain
from worker.cli.arguments import read_prompt
from worker.cli.audit.trail_access import Json, with_trail
from worker.cli.errors import EXIT_FAILED, CliError
from worker.cli.rendering import clean, print_columns
from worker.clock import Clock
from worker.jobs.ids import job_id_of
from worker.settings_loader import load
from worker.store.audit.trail import Trail
from worker.store.connection.kept_secrets import DIGEST, KeptSecrets, input_digest
from worker.store.connection.pool import Redis
from worker.upstream.call import OWNED_PARAMS


def show(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job's id, job_….")],
    prompt_file: Annotated[
        Path | None,
        typer.Option(help="Check whether this is the job's input: the text of the prompt, or the JSON that was sent."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the audit trail of a job, oldest first.

    With --prompt-file it exits 1 if the file is not the job's input. The trail has only a keyed digest of the input.
    """
    prompt = read_prompt(None, prompt_file) if prompt_file is not None else None
    job_id = job_id_of(job)

    async def work(redis: Redis) -> tuple[list[AuditRow], bytes]:
        clock = Clock()
        return await Trail(redis, clock).of_chain(job_id), await KeptSecrets(redis, clock).get(DIGEST)

    rows, secret = with_trail(load(), work, job=job_id)
    if not rows:
        raise CliError(f"there is no audit trail of {job_id}")
    records = [json.loads(row.record) for row in rows]
    chain_ok = records[0]["seq"] == 1 and diagnose_chain(job_id, rows, GENESIS) is None
    matches = None if prompt is None else _matches(prompt, records[0], secret)
    if as_json:
        data = [{**record, "hash": row.hash} for record, row in zip(records, rows, strict=True)]
        body = {"object": "list", "data": data, "chain_ok": chain_ok}
        print(json.dumps(body if matches is None else {**body, "prompt_matches": matches}, indent=2))
    else:
        _table(records)
        print(
            "every hash follows from the one before"
            if chain_ok
            else "BAD: the chain is broken; run `vigil audit verify`"
        )
        if matches is not None:
            print("the prompt is the submitted one" if matches else "the prompt is NOT the submitted one")
    if not chain_ok or matches is False:
        raise typer.Exit(EXIT_FAILED)


def _matches(prompt: str, first: dict[str, Any], secret: bytes) -> bool:
    """Return whether one of the inputs that the file can mean has the digest of the job's first record."""
    digest = first.get("input_digest")
    if digest is None:
        raise CliError("the trail has no digest of the input")
    model = first["requested_model"]
    return any(
        hmac.compare_digest(input_digest(secret, candidate), digest) for candidate in _candidate_inputs(prompt, model)
    )


def _candidate_inputs(prompt: str, model: str) -> Iterator[dict[str, Any]]:
    """Yield what an app may have sent: the JSON of a submit, or this text with or without an editor's last newline."""
    try:
        body = json.loads(prompt)
    except ValueError:
        body = None
    if isinstance(body, dict) and "input" in body:
        params = body.get("params")
        given = params if isinstance(params, dict) else {}
        passed = {name: value for name, value in given.items() if name not in OWNED_PARAMS}
        named = {"model": body.get("model", model), "input": body["input"], "instructions": body.get("instructions")}
        yield {**named, "params": passed}
        if "user" in given:  # earlier releases passed it on
            yield {**named, "params": passed | {"user": given["user"]}}
    elif isinstance(body, list):
        yield {"model": model, "input": body, "instructions": None, "params": {}}
    for text in dict.fromkeys((prompt, prompt.removesuffix("\n"))):
        yield {"model": model, "input": text, "instructions": None, "params": {}}


def _table(records: list[dict[str, Any]]) -> None:
    cells = []
    for r in records:
        seq, attempt = ("-" if r[name] is None else str(r[name]) for name in ("seq", "attempt"))
        cells.append((seq, r["at"][:23].rstrip("Z"), r["type"], attempt, clean(summary(r))))
    print_columns(("SEQ", "AT", "EVENT", "ATTEMPT", "WHAT"), cells)


def summary(record: dict[str, Any]) -> str:
    """Return what an auditor looks for first: model, outcome, ids, decision, cost."""
    call, decision, data = record.get("call") or {}, record.get("decision") or {}, record["data"]
    parts = [call.get("model"), call.get("outcome"), call.get("request_id")]
    if record["seq"] is None:
        who = data.get("by")
        who = f"{data['by_person']} ({who})" if data.get("by_person") else who
        parts = [who, data.get("kind"), data.get("key_id"), data.get("person"), data.get("scope"), data.get("reason")]
        parts += [
            data.get("safety_identifier"),
            data.get("action"),
            data.get("appeal"),
            data.get("provider_case"),
            data.get("outcome"),
        ]
        parts += [f"{name}: {_short(old)} → {_short(new)}" for name, (old, new) in (data.get("changes") or {}).items()]
    elif record["type"] == "job.queued":
        parts = [f"app {record['app']}", record["key_id"], record["requested_model"]]
    if record["type"].startswith("job.check.") and record.get("checks"):
        parts.append(record["checks"][-1]["evidence"])
    if decision:
        version = f" (policy {decision['policy_version']})" if decision.get("policy_version") else ""
        parts.append(f"decided by {decision['by']}{version}")
    if (cost := record.get("cost")) and cost["total"] is not None:
        parts.append(f"${cost['total']}")
    return " · ".join(str(part) for part in parts if part)


def _short(value: Any) -> str:
    return "default" if value is None else json.dumps(value, separators=(",", ":"))
