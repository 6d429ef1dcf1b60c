"""The `vigil` command: loads the commands and turns every result or exception into an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterable
from importlib.metadata import version
from typing import Annotated, Final

import typer

from worker.cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, explain, print_error, wants_traceback

COMMANDS: Final = {
    "up": ("up",),
    "demo.command": ("demo",),
    "processes": ("api", "worker", "simulator"),
    "submit": ("submit",),
    "batch": ("batch", "group"),
    "jobs": ("get", "wait", "watch", "why", "cancel", "delete", "retry", "rerun"),
    "job_lists": ("list",),
    "job_actions": ("actions",),
    "probe": ("probe",),
    "support_packet": ("support-packet", "status"),
    "webhooks": ("webhooks",),
    "apps": ("apps",),
    "accounts": ("accounts",),
    "operations": ("pause", "resume", "quarantine"),
    "end_users": ("end-users",),
    "appeals": ("appeals",),
    "audit.commands": ("audit",),
    "cost": ("cost",),
    "report": ("report",),
    "models": ("models",),
    "lab": ("lab",),
    "doctor.command": ("doctor",),
    "health": ("health",),
    "store": ("store",),
    "keys": ("keys",),
    "console": ("console",),
}
"""The commands of each module of this package. A command imports only its own module: importing all takes 1 s."""

# typer has its own copy of click; this is the base of its usage errors
_USAGE_ERROR: Final[type[Exception]] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
_NO_ARGUMENTS: Final = "NoArgsIsHelpError"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vigil {version('vigil-queue')}")
        raise typer.Exit


def assemble(modules: Iterable[str] = COMMANDS) -> typer.Typer:
    """Build the `vigil` command with the commands of these modules."""
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
    app.callback()(_root_options)
    for name in modules:
        importlib.import_module(f"worker.cli.{name}").register(app)
    return app


def _modules_for(arguments: list[str]) -> Iterable[str]:
    """Return the module of the command, none for --version, or all for help and unknown commands."""
    if arguments == ["--version"]:
        return ()
    first = arguments[0] if arguments else ""
    return [name for name, commands in COMMANDS.items() if first in commands] or COMMANDS


def _root_options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Run one command line and return the exit code."""
    try:
        command = typer.main.get_command(assemble(_modules_for(arguments)))
        code = command.main(arguments, prog_name="vigil", standalone_mode=False)
        sys.stdout.flush()
    except _USAGE_ERROR as error:
        return _usage_error(error)
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # the reader, such as `head`, has gone: the interpreter must not flush stdout again when it exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:  # noqa: BLE001  every exception becomes one line and an exit code
        if wants_traceback():
            traceback.print_exception(error)
        line, code = explain(error)
        print_error(line)
        return code
    return code if isinstance(code, int) else 0


def _usage_error(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "vigil"
    if type(error).__name__ == _NO_ARGUMENTS:
        print(f"{path}: name a command; `{path} --help` lists them", file=sys.stderr)
        return EXIT_USAGE
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    message = message.replace("Value error, ", "")  # typer lets a word of pydantic through
    print_error(f"{message} (see `{path} --help`)")
    return EXIT_USAGE


def main() -> None:
    """Run the console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
