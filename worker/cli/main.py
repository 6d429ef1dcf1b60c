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

COMMANDS: Final = {
    "up": ("up",),
    "demo.command": ("demo",),
    "processes": ("api", "worker", "simulator"),
    "jobs": ("submit", "get", "wait", "watch", "list", "cancel", "delete", "retry"),
    "probe": ("probe",),
    "support_packet": ("support-packet", "status"),
    "webhooks": ("webhooks",),
    "apps": ("apps",),
    "operations": ("pause", "resume", "quarantine"),
    "audit.commands": ("audit",),
    "cost": ("cost",),
    "lab": ("lab",),
    "doctor.command": ("doctor",),
    "health": ("health",),
    "store": ("store",),
    "keys": ("keys",),
}
"""The commands of each module of this package. A command imports its own module only: importing all takes 1 s."""

# typer carries its own click; this is the root of its usage errors
_USAGE_ERROR: Final[type[Exception]] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
_NO_ARGUMENTS: Final = "NoArgsIsHelpError"


def _version(wanted: bool) -> None:
    if wanted:
        print(f"vigil {version('vigil-queue')}")
        raise typer.Exit


def assemble(modules: Iterable[str] = COMMANDS) -> typer.Typer:
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
    for name in modules:
        importlib.import_module(f"worker.cli.{name}").register(app)
    return app


def _modules_for(arguments: list[str]) -> Iterable[str]:
    """Return the module of this line's command, none for the version, or all for help and unknown commands."""
    if arguments == ["--version"]:
        return ()
    first = arguments[0] if arguments else ""
    return [name for name, commands in COMMANDS.items() if first in commands] or COMMANDS


def _root(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code."""
    try:
        command = typer.main.get_command(assemble(_modules_for(arguments)))
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
