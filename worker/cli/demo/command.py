"""`vigil demo`: the command alone. What it does is slow to import (rich, the simulator): fetched when wanted."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from worker.cli.processes import run_until_signal


def demo(as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False) -> None:
    """Show what can happen to a job.

    Runs one per outcome against the simulator, in a throw-away folder. Needs no key and no network; exits 1 when
    a job did not come out as it should.
    """
    run_demo = importlib.import_module("worker.cli.demo.run").run_demo
    run_until_signal(lambda stop: run_demo(stop, as_json=as_json), "stopping")


def register(app: typer.Typer) -> None:
    """Put the command on the app."""
    app.command()(demo)
