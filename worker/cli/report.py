"""`vigil report`: what safety cost, over the HTTP API; with --verify counted again from the audit trail in Redis."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import typer

from worker.cli.api_client import Client
from worker.cli.audit.trail_access import with_each_trail
from worker.cli.errors import EXIT_FAILED, EXIT_USAGE, CliError
from worker.cli.partitions import heading
from worker.cli.rendering import clean, print_columns
from worker.clock import Clock
from worker.jobs.catalogue import dollars
from worker.safety.report_csv import csv_text
from worker.safety.report_weeks import BadWeek, weeks_between
from worker.settings_loader import load
from worker.store.connection.pool import Redis
from worker.store.lifecycle.loss_proof import CountDifference, LossProof, LossVerification

_COLUMNS: Final = ("JOBS", "CHECKED", "BLOCKED", "REPLACED", "LOST", "MINUTES", "EXTRA")
_MAX_PAGES: Final = 100
_MAX_SHOWN: Final = 20


def report(
    first: Annotated[
        str | None, typer.Option("--from", metavar="WEEK", help="First week: 2026-W45, or a day in it.  [4 weeks]")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="WEEK", help="Last week, included.  [the current one]")
    ] = None,
    group_by: Annotated[
        str, typer.Option("--group-by", help="app, week, model, end_user; comma-separated.")
    ] = "week,model",
    app: Annotated[str | None, typer.Option(help="Only this app.  [with the scope ops: all, else the key's]")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only jobs that asked for this model.")] = None,
    end_user: Annotated[str | None, typer.Option(help="Only jobs of this end user.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: all numbers, all pages.")] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Count again from the audit trail in Redis; exit 1 if a number differs."),
    ] = False,
    correct: Annotated[
        bool,
        typer.Option(
            "--correct", help="With --verify: set what differs to what the trail gives (jobs before an upgrade)."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what safety cost, by week and model.

    Money, tokens and minutes were lost to checks, blocks and substitutions. A job counts in the week (UTC, from Monday)
    in which it ended, under the model that it asked for.
    """
    if correct and not verify:
        raise CliError("--correct goes with --verify", EXIT_USAGE)
    if verify:
        if as_csv or model is not None or end_user is not None:
            raise CliError("--verify checks whole weeks: leave out --csv, --model and --end-user", EXIT_USAGE)
        _verify(first, last, app, correct=correct, as_json=as_json)
        return
    parameters = {"from": first, "to": last, "group_by": group_by, "app": app, "model": model, "end_user": end_user}
    found = _read({name: value for name, value in parameters.items() if value is not None})
    if as_json:
        print(json.dumps(found, indent=2))
    elif as_csv:
        sys.stdout.write(csv_text(found["group_by"], found["data"], found["totals"]))
    else:
        _print(found)


def _read(parameters: dict[str, str]) -> dict[str, Any]:
    """Return the report with the rows of all its pages."""
    with Client() as client:
        found = client.call("GET", f"/v1/reports/safety?{urlencode(parameters)}")
        page, pages = found, 1
        while page["next_cursor"] and pages < _MAX_PAGES:
            page = client.call("GET", f"/v1/reports/safety?{urlencode({**parameters, 'cursor': page['next_cursor']})}")
            found["data"] += page["data"]
            pages += 1
    found["next_cursor"] = page["next_cursor"]
    if pages > 1:
        found["rest"] = None  # each page's is of that page
    return found


def _print(found: dict[str, Any]) -> None:
    group_by = found["group_by"]
    rows = [(*(_name(row[name]) for name in group_by), *_cells(row)) for row in found["data"]]
    rest = found["rest"]
    if rest is not None and rest["jobs"]["ended"]:
        rows.append(("(the rest)", *[""] * (len(group_by) - 1), *_cells(rest)))
    rows.append(("total", *[""] * (len(group_by) - 1), *_cells(found["totals"])))
    print_columns((*(name.upper().replace("_", " ") for name in group_by), *_COLUMNS), rows, right=True)
    totals = found["totals"]
    whose = f"app {found['app']}" if found["app"] is not None else "all apps"
    print(f"Weeks {found['first_week']} to {found['last_week']}, {clean(whose)}, in US dollars.")
    lost = totals["lost"]
    if Decimal(lost["estimated_cost"]):
        print(f"Of what was lost ${lost['estimated_cost']} is estimated: the provider told no usage of a cut call.")
    if lost["unpriced_tokens"]:
        print(f"{lost['unpriced_tokens']:,} lost tokens have no price; they are not in it.")
    suspected = totals["checks"]["suspected"]
    if suspected["count"]:
        print(f"Silence looked like a check {suspected['count']:,} times, {_minutes(suspected)} minutes; not in it.")


def _name(value: str | None) -> str:
    return "-" if value is None else clean(value)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    jobs, differences = row["jobs"], row["substitutions"]
    extra = Decimal(differences["extra_cost"]) - Decimal(differences["saved_cost"])
    return (
        *(f"{jobs[name]:,}" for name in ("ended", "checked", "blocked", "substituted")),
        row["lost"]["cost"],
        _minutes(row["lost"]),
        f"-{dollars(-extra)}" if extra < 0 else dollars(extra),
    )


def _minutes(row: dict[str, Any]) -> str:
    return f"{row['seconds'] / 60:,.1f}"


def _verify(first: str | None, last: str | None, app: str | None, *, correct: bool, as_json: bool) -> None:
    settings = load()
    try:
        weeks = weeks_between(Clock().now().date(), first, last)
    except BadWeek as error:
        raise CliError(f"--{error}", EXIT_USAGE) from None

    async def work(redis: Redis) -> LossProof:
        verification = LossVerification(redis, Clock(), weeks, app)
        found = await verification.run()
        if correct and not found.good:
            await verification.correct(found, max(settings.audit_ttl, settings.audit_max_ttl or 0, settings.result_ttl))
        return found

    proofs = with_each_trail(settings, work, writes=correct)
    if as_json:
        dumped = [{"partition": name, **_dump(found, weeks, corrected=correct)} for name, found in proofs]
        one = _dump(proofs[0][1], weeks, corrected=correct)
        print(json.dumps(one if len(proofs) == 1 else {"partitions": dumped}, indent=2))
    else:
        for name, found in proofs:
            print(heading(name, len(proofs)), end="")
            _print_proof(found, weeks, corrected=correct)
    if not (correct or all(found.good for _, found in proofs)):
        raise typer.Exit(EXIT_FAILED)


def _dump(found: LossProof, weeks: list[str], *, corrected: bool) -> dict[str, Any]:
    return {
        "ok": found.good,
        "first_week": weeks[0],
        "last_week": weeks[-1],
        "jobs": found.jobs,
        "compared": found.compared,
        "differences": [_difference(one) for one in found.differences],
        "corrected": corrected and not found.good,
        "removed_weeks": found.removed_weeks,
        "unproven": [{"week": week, "app": app, "jobs": n} for (week, app), n in sorted(found.unproven.items())],
        "steady": found.is_steady,
        "seconds": round(found.seconds, 3),
    }


def _difference(one: CountDifference) -> dict[str, Any]:
    row = {"app": one.app, "week": one.week, "model": one.model, "name": one.name}
    whose = {} if one.end_user is None else {"end_user": one.end_user or None}
    return {**row, **whose, "counted": one.counted, "by_trail": one.by_trail}


def _print_proof(found: LossProof, weeks: list[str], *, corrected: bool) -> None:
    print(
        f"{found.jobs:,} jobs that ended in {weeks[0]} to {weeks[-1]} counted again from their audit records in "
        f"{found.seconds:.1f} s; {found.compared:,} numbers compared"
    )
    for week in found.removed_weeks:
        print(f"{week}: retention has removed audit records of it, so it can't be proven")
    for (week, app), jobs in sorted(found.unproven.items()):
        print(f"{week}, app {clean(app)}: {jobs:,} jobs whose first records are gone, so it can't be proven")
    if not found.is_steady:
        print("jobs ended all the time; their numbers may be ahead of what was read: try again for past weeks")
    for one in found.differences[:_MAX_SHOWN]:
        whose = "" if one.end_user is None else f", end user {clean(one.end_user) or '-'}"
        print(
            f"DIFFERS: {one.week}, app {clean(one.app)}, {clean(one.model)}{whose}: {one.name} is {one.counted:,}, "
            f"by the trail {one.by_trail:,}"
        )
    if len(found.differences) > _MAX_SHOWN:
        print(f"… and {len(found.differences) - _MAX_SHOWN:,} more; --json has all")
    if found.good:
        print("ok: every number follows from the trail; `vigil audit verify` proves the trail itself")
    elif corrected:
        print("corrected: each of these numbers is now what the trail gives")
    else:
        print("BAD: `--verify --correct` sets these numbers right, if `vigil audit verify` finds the trail unaltered")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(report)
