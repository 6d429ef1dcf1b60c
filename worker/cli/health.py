"""`vigil health`: whether the process beside us answers; for the healthchecks of containers, which have no curl."""

from __future__ import annotations

import http.client
from typing import Annotated, Final, Literal

import typer

from worker.cli.errors import BAD
from worker.settings_loader import load

_SECONDS: Final = 5.0
_OK: Final = 200
_SIMULATOR_PORT: Final = 8790

What = Literal["api", "worker", "simulator"]


def health(
    what: Annotated[What, typer.Argument(help="api (takes writes), worker (alive) or simulator.")] = "api",
) -> None:
    """Say whether a process of this machine lives. Exits 1 when it doesn't.

    The API at VIGIL_PORT, a worker at VIGIL_WORKER_PORT, the simulator at its usual port.
    """
    settings = load()
    port, path = {
        "api": (settings.port, "/readyz"),
        "worker": (settings.worker_port, "/healthz"),
        "simulator": (_SIMULATOR_PORT, "/sim/healthz"),
    }[what]
    if not port:
        print(f"{what}: no port is set to ask it at (VIGIL_WORKER_PORT)")
        raise typer.Exit(BAD)
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        line.request("GET", path)
        status = line.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"{what}: nothing answers on port {port} ({type(error).__name__})")
        raise typer.Exit(BAD) from None
    finally:
        line.close()
    print(f"{what}: {path} answers {status}")
    if status != _OK:
        raise typer.Exit(BAD)


def register(app: typer.Typer) -> None:
    """Put the command on the app."""
    app.command()(health)
