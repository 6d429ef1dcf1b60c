"""`vigil apps`: what each app may have of the workers. Speaks to Redis directly, like `vigil keys`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from worker.cli.errors import USAGE, CliError
from worker.cli.keys import with_apps
from worker.cli.rendering import print_columns
from worker.jobs.errors import Refused
from worker.store.apps import App

room = typer.Typer(
    help="List apps, give them weights and limits.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def register(app: typer.Typer) -> None:
    """Put the commands on the root."""
    app.add_typer(room, name="apps")


@room.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List apps, their weights and limits. An app is what has keys."""
    found = with_apps(lambda apps: apps.list_apps())
    if as_json:
        print(json.dumps({"object": "list", "data": [asdict(one) for one in found]}, indent=2))
    elif not found:
        print("There are no apps; `vigil keys create --app NAME` makes one.")
    else:
        print_columns(("APP", "WEIGHT", "RUNNING AT ONCE"), [(a.name, f"{a.weight:g}", _most(a)) for a in found])


@room.command("set")
def set_(
    name: Annotated[str, typer.Argument(metavar="APP", help="The app's name, as `vigil apps list` shows it.")],
    weight: Annotated[
        float | None,
        typer.Option(help="Its share when workers are short: 2 gets twice the turns of 1.", show_default=False),
    ] = None,
    max_running: Annotated[
        str | None,
        typer.Option(
            metavar="N|default",
            help="Jobs at the same time over all workers, 0 = any number, default = VIGIL_APP_MAX_RUNNING.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Change an app's weight or limit. It counts for every job that is handed out from now on."""
    if weight is None and max_running is None:
        raise CliError("say what to change: --weight or --max-running", USAGE)
    default = max_running == "default"
    if max_running is not None and not default and not max_running.isdecimal():
        raise CliError("--max-running is a whole number or the word default", USAGE)
    most = int(max_running) if max_running is not None and not default else None
    try:
        kept = with_apps(lambda apps: apps.set_limits(name, weight=weight, max_running=most, default_max=default))
    except Refused as error:
        raise CliError(error.detail, USAGE if error.status == 422 else 1) from None  # noqa: PLR2004
    if as_json:
        print(json.dumps(asdict(kept), indent=2))
    else:
        print(f"{kept.name}: weight {kept.weight:g}, running at once: {_most(kept)}")


def _most(app: App) -> str:
    if app.max_running is None:
        return "as the settings say"
    return str(app.max_running) if app.max_running else "any number"
