"""`vigil apps`: weight, limit and retention of each app, and whether its jobs must name their end users.

Uses Redis directly, like `vigil keys`.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any, Final

import typer

from worker.cli.acting import By, actor_of
from worker.cli.errors import EXIT_USAGE, CliError
from worker.cli.keys import with_app, with_each_apps
from worker.cli.partitions import in_one
from worker.cli.rendering import print_columns
from worker.cli.times import parse_seconds
from worker.clock import Clock
from worker.jobs.errors import Refused
from worker.settings_loader import load
from worker.store.admission.app_retention import KINDS, AppRetention, bounds_of, effective
from worker.store.apps import App
from worker.store.lifecycle.retention_change import RetentionChange
from worker.store.partitions.stores import PartitionStore

_DEFAULT: Final = "default"
group = typer.Typer(
    help="List apps, set weights, limits and retention.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.add_typer(group, name="apps")


@group.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List apps with their weights and limits. Every app with a key is listed."""
    parts = with_each_apps(lambda apps: apps.list_apps())
    found = sorted(((one, name) for name, some in parts for one in some), key=lambda row: row[0].name)
    several = len(parts) > 1
    if as_json:
        data = [_to_json(one) | ({"partition": name} if several else {}) for one, name in found]
        print(json.dumps({"object": "list", "data": data}, indent=2))
    elif not found:
        print("There are no apps; `vigil keys create --app NAME` makes one.")
    else:
        columns = ("APP", "WEIGHT", "RUNNING AT ONCE", "OF AN END USER", "END USER", "PARTITION")
        rows = [
            (
                *(a.name, f"{a.weight:g}", _limit_text(a.max_running), _limit_text(a.end_user_max)),
                *("required" if a.require_end_user else "-", name),
            )
            for a, name in found
        ]
        width = len(columns) - (not several)
        print_columns(columns[:width], [row[:width] for row in rows])


@group.command("set")
def set_(
    name: Annotated[str, typer.Argument(metavar="APP", help="The app's name, as `vigil apps list` shows it.")],
    weight: Annotated[
        float | None,
        typer.Option(
            help="Its share when workers are busy: 2 gets twice as many jobs started as 1.", show_default=False
        ),
    ] = None,
    max_running: Annotated[
        str | None,
        typer.Option(
            metavar="N|default",
            help="Jobs running at once over all workers; 0 = any number, default = VIGIL_APP_MAX_RUNNING.",
            show_default=False,
        ),
    ] = None,
    end_user_max: Annotated[
        str | None,
        typer.Option(
            metavar="N|default",
            help="Jobs of one of its end users running at once; 0 = any number, default = VIGIL_END_USER_MAX_RUNNING.",
            show_default=False,
        ),
    ] = None,
    require_end_user: Annotated[
        bool | None,
        typer.Option(
            "--require-end-user/--no-require-end-user",
            help="Whether each job must name its end user; one that does not is refused.",
            show_default=False,
        ),
    ] = None,
    by: By = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Change an app's weight, limits or rules. It applies to all its jobs within seconds."""
    if (weight, max_running, end_user_max, require_end_user) == (None, None, None, None):
        options = "--weight, --max-running, --end-user-max or --require-end-user"
        raise CliError(f"nothing to change: give {options}", EXIT_USAGE)
    limits: dict[str, Any] = {
        "weight": weight,
        "max_running": _limit("--max-running", max_running),
        "default_max": max_running == _DEFAULT,
        "end_user_max": _limit("--end-user-max", end_user_max),
        "default_end_user_max": end_user_max == _DEFAULT,
    }
    try:
        app = with_app(name, lambda apps: apps.set_limits(name, **limits, require_end_user=require_end_user), by)
    except Refused as error:
        raise CliError(error.detail, EXIT_USAGE if error.status == 422 else 1) from None  # noqa: PLR2004
    if as_json:
        print(json.dumps(_to_json(app), indent=2))
    else:
        of_end_user = "" if app.end_user_max is None else f", of an end user: {_limit_text(app.end_user_max)}"
        required = ", each job must name its end user" if app.require_end_user else ""
        running = f"{_limit_text(app.max_running)}{of_end_user}{required}"
        print(f"{app.name}: weight {app.weight:g}, running at once: {running}")


def _limit(option: str, text: str | None) -> int | None:
    """Return the number of a limit, None for none and for `default`."""
    if text is None or text == _DEFAULT:
        return None
    if not text.isdecimal():
        raise CliError(f"{option} must be a whole number or the word default", EXIT_USAGE)
    return int(text)


@group.command("retention")
def retention(
    name: Annotated[str, typer.Argument(metavar="APP", help="The app's name, as `vigil apps list` shows it.")],
    result: Annotated[
        str | None,
        typer.Option(
            metavar="3d|default", help="How long jobs and answers are kept after the end.", show_default=False
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(metavar="1d|default", help="How long prompts are kept after the end.", show_default=False),
    ] = None,
    audit: Annotated[
        str | None, typer.Option(metavar="400d|default", help="How long audit records are kept.", show_default=False)
    ] = None,
    by: By = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show or set how long an app's data is kept.

    Within the bounds of VIGIL_RESULT_TTL, VIGIL_PROMPT_TTL, VIGIL_AUDIT_TTL and VIGIL_AUDIT_MAX_TTL. It applies to new
    jobs and to those that there are: what is over by the new times is removed at once, unless a legal hold keeps it.
    """
    given = {"result": result, "prompt": prompt, "audit": audit}
    changes = {
        kind: None if text == "default" else parse_seconds(f"--{kind}", text)
        for kind, text in given.items()
        if text is not None
    }
    settings = load()

    async def work(store: PartitionStore) -> AppRetention:
        change = RetentionChange(store.redis, Clock(), settings)
        own = await change.own(name)
        if changes:
            own = replace(own, **changes)
            await change.set(name, own, actor_of(by))
            await change.apply(name, own)
        return own

    try:
        own = in_one(settings, work, writes=True, app=name)
    except Refused as error:
        raise CliError(error.detail, EXIT_USAGE if error.status == 422 else 1) from None  # noqa: PLR2004
    times, bounds = effective(own, settings), bounds_of(settings)
    if as_json:
        shown = {
            kind: {"seconds": times[kind], "own": getattr(own, kind), "minimum": least, "maximum": most}
            for kind, (least, most, _) in bounds.items()
        }
        print(json.dumps({"app": name, **shown}, indent=2))
        return
    print(name)
    for kind in KINDS:
        whose = " (the default)" if getattr(own, kind) is None else ""
        print(f"  {kind:<7} {_time_text(times[kind])}{whose}, at most {_time_text(bounds[kind].most)}")


def _time_text(seconds: int) -> str:
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} seconds"


def _to_json(app: App) -> dict[str, Any]:
    limits = {"weight": app.weight, "max_running": app.max_running, "end_user_max": app.end_user_max}
    return {"name": app.name, **limits, "require_end_user": app.require_end_user}


def _limit_text(limit: int | None) -> str:
    if limit is None:
        return "as the settings say"
    return str(limit) if limit else "any number"
