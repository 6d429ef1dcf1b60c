"""`vigil audit show`: one job's trail for a person, and the proof that a prompt is the one that was asked."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from worker.audit.chain import GENESIS, AuditRow
from worker.audit.diagnose import in_chain
from worker.cli.arguments import read_prompt
from worker.cli.audit.trail_access import Json, with_trail
from worker.cli.errors import BAD, CliError
from worker.cli.rendering import clean, print_columns
from worker.clock import Clock
from worker.jobs.ids import job_id_of
from worker.settings_loader import load
from worker.store.audit.trail import Trail
from worker.store.connection.kept_secrets import DIGEST, KeptSecrets, input_digest
from worker.store.connection.pool import Redis
from worker.upstream.call import OWNED


def show(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job's id, job_….")],
    prompt_file: Annotated[
        Path | None,
        typer.Option(help="Prove that this is what was asked: the text of the prompt, or the JSON that was sent."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the audit trail of a job, oldest first.

    With --prompt-file exit code 1 when it is not what was asked. The trail holds a keyed digest of it, nothing else.
    """
    prompt = read_prompt(None, prompt_file) if prompt_file is not None else None
    job_id = job_id_of(job)

    async def work(redis: Redis) -> tuple[list[AuditRow], bytes]:
        clock = Clock()
        return await Trail(redis, clock).of_chain(job_id), await KeptSecrets(redis, clock).get(DIGEST)

    rows, secret = with_trail(load(), work)
    if not rows:
        raise CliError(f"there is no audit trail of {job_id}")
    records = [json.loads(row.record) for row in rows]
    whole = records[0]["seq"] == 1 and in_chain(job_id, rows, GENESIS) is None
    matches = None if prompt is None else _matches(prompt, records[0], secret)
    if as_json:
        data = [{**record, "hash": row.hash} for record, row in zip(records, rows, strict=True)]
        told = {"object": "list", "data": data, "chain_ok": whole}
        print(json.dumps(told if matches is None else {**told, "prompt_matches": matches}, indent=2))
    else:
        _table(records)
        print(
            "every hash follows from the one before" if whole else "BAD: the chain does not hold; `vigil audit verify`"
        )
        if matches is not None:
            print("the prompt is what was asked" if matches else "the prompt is NOT what was asked")
    if not whole or matches is False:
        raise typer.Exit(BAD)


def _matches(prompt: str, first: dict[str, Any], secret: bytes) -> bool:
    """True when one of the readings of the file has the digest of the job's first record."""
    digest = first.get("input_digest")
    if digest is None:
        raise CliError("the trail holds no digest of what was asked")
    model = first["requested_model"]
    return any(hmac.compare_digest(input_digest(secret, asked), digest) for asked in _readings(prompt, model))


def _readings(prompt: str, model: str) -> Iterator[dict[str, Any]]:
    """What an app may have sent: the JSON of a submit, or this text, with or without the newline that editors add."""
    try:
        body = json.loads(prompt)
    except ValueError:
        body = None
    if isinstance(body, dict) and "input" in body:
        params = body.get("params")
        given = params if isinstance(params, dict) else {}
        passed = {name: value for name, value in given.items() if name not in OWNED}
        named = {"model": body.get("model", model), "input": body["input"], "instructions": body.get("instructions")}
        yield {**named, "params": passed}
    elif isinstance(body, list):
        yield {"model": model, "input": body, "instructions": None, "params": {}}
    for text in dict.fromkeys((prompt, prompt.removesuffix("\n"))):
        yield {"model": model, "input": text, "instructions": None, "params": {}}


def _table(records: list[dict[str, Any]]) -> None:
    cells = []
    for r in records:
        seq, attempt = ("-" if r[name] is None else str(r[name]) for name in ("seq", "attempt"))
        cells.append((seq, r["at"][:23].rstrip("Z"), r["type"], attempt, clean(_about(r))))
    print_columns(("SEQ", "AT", "EVENT", "ATTEMPT", "WHAT"), cells)


def _about(record: dict[str, Any]) -> str:
    """What an auditor looks for first, in a few words."""
    call, decision, said = record.get("call") or {}, record.get("decision") or {}, record["data"]
    words = [call.get("model"), call.get("outcome"), call.get("request_id")]
    if record["seq"] is None:
        words = [said.get("by"), said.get("reason")]
    elif record["type"] == "job.queued":
        words = [f"app {record['app']}", record["key_id"], record["requested_model"]]
    if record["type"].startswith("job.check.") and record.get("checks"):
        words.append(record["checks"][-1]["evidence"])
    if decision:
        version = f" (policy {decision['policy_version']})" if decision.get("policy_version") else ""
        words.append(f"decided by {decision['by']}{version}")
    if (cost := record.get("cost")) and cost["total"] is not None:
        words.append(f"${cost['total']}")
    return " · ".join(str(word) for word in words if word)
