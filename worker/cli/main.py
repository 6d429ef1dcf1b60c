"""The `vigil` command: assembles the commands, turns every end into an exit code. It knows what none of them does."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterable
from importlib.metadata import version
from typing import Annotated, Final

import typer

from worker.cli.errors import BAD, INTERRUPTED, USAGE, complain, explain, wants_traceback

ROOMS: Final = {
    "up": ("up",),
    "demo": ("demo",),
    "serve": ("api", "worker", "simulator"),
    "jobs": ("submit", "get", "wait", "watch", "list", "cancel", "delete", "retry"),
    "probe": ("probe",),
    "support": ("support-packet", "status"),
    "webhooks": ("webhooks",),
    "apps": ("apps",),
    "ops": ("pause", "resume", "quarantine"),
    "audit": ("audit",),
    "cost": ("cost",),
    "lab": ("lab",),
    "doctor": ("doctor",),
    "health": ("health",),
    "store": ("store",),
    "keys": ("keys",),
}
"""Which module of this folder has which commands. A command imports its own alone: all of them take twice the time."""

# typer carries its own click; this is the root of its usage errors
_USAGE_ERROR: Final[type[Exception]] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
_NO_ARGUMENTS: Final = "NoArgsIsHelpError"


def _version(wanted: bool) -> None:
    if wanted:
        print(f"vigil {version('vigil-queue')}")
        raise typer.Exit


def assemble(rooms: Iterable[str] = ROOMS) -> typer.Typer:
    """The commands of these modules under `vigil`."""
    app = typer.Typer(
        name="vigil",
        help="An async job queue for long, safety-checked model requests.",
        epilog="First run: `vigil demo` shows what happens to jobs, `vigil up` starts everything on this machine.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # brackets in help texts are brackets
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for room in rooms:
        importlib.import_module(f"worker.cli.{room}").register(app)
    return app


def _rooms_for(arguments: list[str]) -> Iterable[str]:
    """The module that has the command of this line; all of them for help, and for what nobody knows."""
    first = arguments[0] if arguments else ""
    return [room for room, commands in ROOMS.items() if first in commands] or ROOMS


def _root(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code."""
    try:
        command = typer.main.get_command(assemble(_rooms_for(arguments)))
        code = command.main(arguments, prog_name="vigil", standalone_mode=False)
        sys.stdout.flush()
    except _USAGE_ERROR as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # the reader (`head`) has left; nobody is there to be told, and the interpreter must not try again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BAD
    except Exception as error:  # noqa: BLE001  the last door: whatever it is becomes one line and a code
        if wants_traceback():
            traceback.print_exception(error)
        line, code = explain(error)
        complain(line)
        return code
    return code if isinstance(code, int) else 0


def _usage(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "vigil"
    if type(error).__name__ == _NO_ARGUMENTS:
        print(f"{path}: say what to do; `{path} --help` lists the commands", file=sys.stderr)
        return USAGE
    words = error.format_message() if hasattr(error, "format_message") else str(error)
    complain(f"{words} (see `{path} --help`)")
    return USAGE


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
