"""`vigil audit list`: shows records of the trail, by app, end user, type, actor and time."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from worker.audit.chain import AuditRow
from worker.cli.audit.filters import (
    After,
    App,
    Before,
    EndUser,
    OfActor,
    Types,
    check_filters,
    filter_of,
    parse_time_ms,
)
from worker.cli.audit.show import summary
from worker.cli.audit.trail_access import Json, with_trail
from worker.cli.rendering import clean, print_columns
from worker.clock import Clock
from worker.settings_loader import load
from worker.store.audit.trail_search import TrailSearch
from worker.store.connection.pool import Redis


def list_(
    app: App = None,
    end_user: EndUser = None,
    types: Types = None,
    actor: OfActor = None,
    after: After = None,
    before: Before = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Show at most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List records of the trail, oldest first.

    Acts of people are among them: who made or revoked a key, changed a limit, paused, held, exported or looked at what.
    """
    settings = load()
    check_filters(app, end_user)
    start, end = parse_time_ms("--after", after), parse_time_ms("--before", before)

    async def work(redis: Redis) -> tuple[list[AuditRow], bool]:
        wanted, search = await filter_of(redis, settings, app, end_user, types, actor), TrailSearch(redis, Clock())
        found, low = list[AuditRow](), "-" if start is None else str(start)
        high = "+" if end is None else str(max(1, end) - 1)
        while len(found) < limit:
            rows, last = await search.page(wanted, low, high, limit - len(found))
            found += rows
            if last is None:
                return found, False
            low = f"({last}"
        return found, True

    rows, more = with_trail(settings, work, app=app)
    records = [{**json.loads(row.record), "hash": row.hash} for row in rows]
    if as_json:
        print(json.dumps({"object": "list", "data": records, "more": more}, indent=2))
        return
    if not records:
        print("There are no such records.")
        return
    print_columns(("AT", "APP", "JOB", "TYPE", "WHAT"), [_cells(record) for record in records])
    if more:
        print(f"there may be more: --after {records[-1]['at']} goes on, --limit shows more at once")


def _cells(record: dict[str, Any]) -> tuple[str, ...]:
    at = str(record["at"])[:19] + "Z"
    return (at, clean(record["app"]), record["job_id"] or "-", record["type"], clean(summary(record)))
