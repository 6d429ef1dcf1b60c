"""The filters of `vigil audit list` and `export`: app, end user, type, actor and time, as over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from worker.cli.errors import EXIT_USAGE, CliError
from worker.cli.safety_identifiers import identifier
from worker.clock import to_ms
from worker.settings import Settings
from worker.store.audit.trail_search import TrailFilter
from worker.store.connection.pool import Redis

App = Annotated[str | None, typer.Option("--app", help="Only this app's records.")]
EndUser = Annotated[
    str | None,
    typer.Option("--end-user", help="Only this end user's, with --app: the app's id, or the safety identifier."),
]
Types = Annotated[
    list[str] | None,
    typer.Option("--type", help="Only this type, such as key.created, or a family: key.*. May be repeated."),
]
OfActor = Annotated[str | None, typer.Option("--actor", help="Only acts by this key's id or person, or this login.")]
After = Annotated[str | None, typer.Option(help="Only records from this time on, ISO 8601.")]
Before = Annotated[str | None, typer.Option(help="Only records before this time, ISO 8601.")]


async def filter_of(
    redis: Redis, settings: Settings, app: str | None, end_user: str | None, types: list[str] | None, actor: str | None
) -> TrailFilter:
    """Return the filter that the options mean; what must be known in Redis is read."""
    person = None if end_user is None else await identifier(redis, settings, app or "", end_user)
    return TrailFilter(app, tuple(types or ()), person, actor)


def check_filters(app: str | None, end_user: str | None) -> None:
    """Raise CliError for an end user without an app."""
    if end_user is not None and app is None:
        raise CliError("--end-user needs --app: each app names its end users itself", EXIT_USAGE)


def noted_filter(wanted: TrailFilter) -> dict[str, Any]:
    """Return what a record of the trail, or a manifest, says of the filter."""
    parts = {"app": wanted.app, "end_user": wanted.end_user, "types": list(wanted.types) or None, "actor": wanted.actor}
    return {name: value for name, value in parts.items() if value is not None}


def parse_time_ms(option: str, text: str | None) -> int | None:
    """Return the time in ms, or None without one. Raise CliError for what is no time."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        return max(0, to_ms(at if at.tzinfo else at.replace(tzinfo=UTC)))
    except (ValueError, OverflowError):
        raise CliError(f"{option} takes a time such as 2026-07-01T12:00:00Z, not {text!r}", EXIT_USAGE) from None
