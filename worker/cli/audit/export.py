"""`vigil audit export`: writes the audit trail, or a part of it, with a manifest that proves it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from worker.audit.export import manifest
from worker.cli.acting import By, actor_of
from worker.cli.audit.filters import (
    After,
    App,
    Before,
    EndUser,
    OfActor,
    Types,
    check_filters,
    filter_of,
    noted_filter,
    parse_time_ms,
)
from worker.cli.audit.signing import load_signer, trusted_keys
from worker.cli.audit.trail_access import with_trail
from worker.cli.errors import EXIT_USAGE, CliError
from worker.clock import Clock
from worker.jobs.errors import Refused, StoreUnavailable
from worker.settings import Settings
from worker.settings_loader import load
from worker.store.apps import Apps
from worker.store.audit.acts import DEPLOYMENT, EXPORTED, Acts
from worker.store.audit.export import Export
from worker.store.audit.trail_search import TrailFilter
from worker.store.connection.pool import Redis


def export(
    out: Annotated[
        Path | None, typer.Option("--out", help="Write to this file, and the manifest to FILE.manifest.json.  [stdout]")
    ] = None,
    app: App = None,
    end_user: EndUser = None,
    types: Types = None,
    actor: OfActor = None,
    after: After = None,
    before: Before = None,
    manifest_file: Annotated[Path | None, typer.Option("--manifest", help="Write the manifest to this file.")] = None,
    by: By = "",
) -> None:
    """Export the audit trail as NDJSON.

    Writes one record per line and a manifest with which anyone can verify the export (ops/audit.md). The export is a
    record of the trail itself. A selection with --type or --actor has no manifest: records between were left out.
    """
    settings = load()
    check_filters(app, end_user)
    times = {"after": parse_time_ms("--after", after), "before": parse_time_ms("--before", before)}
    provable = not types and actor is None
    if manifest_file is not None and not provable:
        raise CliError("a selection with --type or --actor can't be proven: it has no manifest", EXIT_USAGE)
    manifest_path = manifest_file or (Path(f"{out}.manifest.json") if out and provable else None)
    signer, public = load_signer(settings), trusted_keys(settings, [])

    async def work(redis: Redis) -> int:
        clock = Clock()
        wanted = await filter_of(redis, settings, app, end_user, types, actor)
        export = Export(redis, clock, wanted, times["after"], times["before"])
        batches = export.lines()
        first: list[bytes] = await anext(
            batches, []
        )  # (read before an earlier export is overwritten: Redis may be away)
        with ExitStack() as stack:
            file: IO[bytes] = stack.enter_context(out.open("wb")) if out is not None else sys.stdout.buffer
            file.writelines(line + b"\n" for line in first)
            async for lines in batches:
                file.writelines(line + b"\n" for line in lines)
            file.flush()
        filters = {**noted_filter(wanted), "after": after, "before": before}
        if manifest_path is not None:
            raw = manifest(export.manifest, export.seals, filters=filters, public=public, signer=signer, at=clock.now())
            manifest_path.write_bytes(raw)
        return export.manifest.digest.count

    async def record(redis: Redis) -> None:
        wanted = await filter_of(redis, settings, app, end_user, types, actor)
        await _record(redis, wanted, by, {"after": after, "before": before})

    unrecorded = _why_refused(settings, record, app)
    try:
        count = with_trail(settings, work, app=app)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise CliError(f"{error.filename} can't be written: {error.strerror}", EXIT_USAGE) from None
    if unrecorded is not None:
        typer.echo(f"this export is not recorded in the trail: {unrecorded}", err=True)
    if out is not None:
        proof = f"; `vigil audit verify --file {out}` verifies them" if provable else ", without a manifest"
        typer.echo(f"{count:,} records in {out}{proof}", err=True)


def _why_refused(settings: Settings, record: Callable[[Redis], Awaitable[None]], app: str | None) -> str | None:
    """Write the record; return why not if it can't be written: a copy that takes no writes is exported all the same."""
    try:
        with_trail(settings, record, writes=True, app=app)
    except (StoreUnavailable, Refused) as error:
        return str(error)
    return None


async def _record(redis: Redis, wanted: TrailFilter, by: str, times: dict[str, Any]) -> None:
    """Record who exports what: in the trail of the app, or of the deployment for all apps or an unknown one."""
    noted = {name: value for name, value in {**noted_filter(wanted), **times}.items() if value}
    known = wanted.app is not None and await _exists(redis, wanted.app)
    app, of = (noted.pop("app"), {}) if known else (DEPLOYMENT, {"of_app": noted.pop("app", None)})
    await Acts(redis, Clock(), actor_of(by)).record(EXPORTED, app=app, **of, **noted)


async def _exists(redis: Redis, app: str) -> bool:
    try:
        await Apps(redis, Clock()).app(app)
    except Refused:
        return False
    return True
