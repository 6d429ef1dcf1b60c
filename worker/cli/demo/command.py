"""`vigil demo`: the command. `run.py` is imported when it runs: rich and the simulator are slow to import."""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from worker.cli.processes import run_until_signal


def demo(as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False) -> None:
    """Show what can happen to a job.

    Runs one job per outcome against the simulator, in a temporary folder. Needs no key and no network; exits 1 if a job
    did not end as expected.
    """
    run_demo = importlib.import_module("worker.cli.demo.run").run_demo
    run_until_signal(lambda stop: run_demo(stop, as_json=as_json), "stopping")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(demo)
