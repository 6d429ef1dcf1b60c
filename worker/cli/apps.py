"""`vigil apps`: the weight and the limit of each app. Uses Redis directly, like `vigil keys`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from worker.cli.acting import By
from worker.cli.errors import EXIT_USAGE, CliError
from worker.cli.keys import with_apps
from worker.cli.rendering import print_columns
from worker.jobs.errors import Refused
from worker.store.apps import App

group = typer.Typer(
    help="List apps, set weights and limits.",
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
    found = with_apps(lambda apps: apps.list_apps())
    if as_json:
        print(json.dumps({"object": "list", "data": [asdict(one) for one in found]}, indent=2))
    elif not found:
        print("There are no apps; `vigil keys create --app NAME` makes one.")
    else:
        print_columns(("APP", "WEIGHT", "RUNNING AT ONCE"), [(a.name, f"{a.weight:g}", _limit_text(a)) for a in found])


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
    by: By = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Change an app's weight or limit. It applies to every job that starts from now on."""
    if weight is None and max_running is None:
        raise CliError("nothing to change: give --weight or --max-running", EXIT_USAGE)
    default = max_running == "default"
    if max_running is not None and not default and not max_running.isdecimal():
        raise CliError("--max-running must be a whole number or the word default", EXIT_USAGE)
    limit = int(max_running) if max_running is not None and not default else None
    try:
        app = with_apps(lambda apps: apps.set_limits(name, weight=weight, max_running=limit, default_max=default), by)
    except Refused as error:
        raise CliError(error.detail, EXIT_USAGE if error.status == 422 else 1) from None  # noqa: PLR2004
    if as_json:
        print(json.dumps(asdict(app), indent=2))
    else:
        print(f"{app.name}: weight {app.weight:g}, running at once: {_limit_text(app)}")


def _limit_text(app: App) -> str:
    if app.max_running is None:
        return "as the settings say"
    return str(app.max_running) if app.max_running else "any number"
