"""`vigil audit hold`, `release` and `holds`: legal holds on jobs, end users and apps."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from worker.audit.chain import app_chain
from worker.cli.acting import By, actor_of
from worker.cli.audit.trail_access import Json, with_each_trail, with_trail
from worker.cli.errors import EXIT_USAGE, CliError
from worker.cli.rendering import clean, print_columns
from worker.cli.safety_identifiers import identifier
from worker.clock import Clock
from worker.jobs.ids import job_id_of
from worker.settings import Settings
from worker.settings_loader import load
from worker.store.audit.hold_names import end_user_hold
from worker.store.connection.pool import Redis
from worker.store.jobs.repository import retention_of
from worker.store.lifecycle.legal_holds import LegalHolds

JobOrNone = Annotated[str | None, typer.Argument(metavar="[JOB]", help="The job's id, job_….")]
AppOrNone = Annotated[str | None, typer.Option("--app", help="All jobs of this app instead of one job.")]
EndUserOrNone = Annotated[
    str | None,
    typer.Option("--end-user", help="With --app: only those of this end user, by the app's id or safety identifier."),
]
Reason = Annotated[str, typer.Option("--reason", help="The reason; it is kept in the audit trail.")]


def hold(
    reason: Reason,
    job: JobOrNone = None,
    app: AppOrNone = None,
    end_user: EndUserOrNone = None,
    by: By = "",
    as_json: Json = False,
) -> None:
    """Place a legal hold.

    The audit trail and the content of the job, or of all jobs of the app or of one of its end users, those to come too,
    are kept beyond their time to live.
    """

    async def place(placed: LegalHolds, name: str) -> None:
        await placed.place(name, actor=actor_of(by), why=reason)

    name = _change(place, job, app, end_user)
    text = f"{name} is on hold; `vigil audit release` ends the hold"
    print(json.dumps({"name": name, "held": True}) if as_json else text)


def release(
    reason: Reason,
    job: JobOrNone = None,
    app: AppOrNone = None,
    end_user: EndUserOrNone = None,
    by: By = "",
    as_json: Json = False,
) -> None:
    """Release a legal hold. Expired records and content are removed again."""

    async def lift(placed: LegalHolds, name: str) -> None:
        await placed.release(name, actor=actor_of(by), why=reason)

    name = _change(lift, job, app, end_user)
    print(json.dumps({"name": name, "held": False}) if as_json else f"{name} is no longer on hold")


def holds(as_json: Json = False) -> None:
    """List all legal holds."""
    settings = load()
    found = with_each_trail(settings, lambda redis: _holds(redis, settings).describe())
    rows = [row for _, some in found for row in some]
    if as_json:
        print(json.dumps({"object": "list", "data": rows}, indent=2))
    elif not rows:
        print("There are no legal holds.")
    else:
        cells = [(row["name"], row["since"], clean(row["person"] or row["by"]), clean(row["reason"])) for row in rows]
        print_columns(("HELD", "SINCE", "BY", "REASON"), cells)


def _holds(redis: Redis, settings: Settings) -> LegalHolds:
    return LegalHolds(redis, Clock(), retention_of(settings))


def _change(
    change: Callable[[LegalHolds, str], Awaitable[None]], job: str | None, app: str | None, end_user: str | None
) -> str:
    """Make the change, and return the name of the hold that it was made to."""
    if (job is None) == (app is None):
        raise CliError("give either a job or --app", EXIT_USAGE)
    if end_user is not None and app is None:
        raise CliError("--end-user needs --app: each app names its end users itself", EXIT_USAGE)
    settings = load()

    async def work(redis: Redis) -> str:
        if app is None:
            name = job_id_of(job or "")
        elif end_user is None:
            name = app_chain(app)
        else:
            name = end_user_hold(app, await identifier(redis, settings, app, end_user))
        await change(_holds(redis, settings), name)
        return name

    of_job = job_id_of(job) if job is not None else None
    return with_trail(settings, work, writes=True, app=app, job=of_job)
