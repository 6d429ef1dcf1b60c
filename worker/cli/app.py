"""The `vigil` command: assembles the commands, turns every end into an exit code. It knows what none of them does."""

from __future__ import annotations

import os
import sys
import traceback
from importlib.metadata import version
from typing import Annotated, Final

import typer

from worker.cli import (
    apps,
    audit,
    cost,
    demo,
    doctor,
    health,
    jobs,
    keys,
    lab,
    ops,
    probe,
    serve,
    store,
    support,
    up,
    webhooks,
)
from worker.cli.errors import BAD, INTERRUPTED, USAGE, complain, explain, wants_traceback

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
for room in (up, demo, serve, jobs, probe, support, webhooks, apps, ops, audit, cost, lab, doctor, health, store):
    room.register(app)
app.add_typer(keys.app, name="keys")

# typer carries its own click; this is the root of its usage errors
_USAGE_ERROR: Final[type[Exception]] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
_NO_ARGUMENTS: Final = "NoArgsIsHelpError"


def _version(wanted: bool) -> None:
    if wanted:
        print(f"vigil {version('vigil-queue')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code."""
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="vigil", standalone_mode=False)
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
