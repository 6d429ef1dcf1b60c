"""`vigil health`: asks a process on this machine whether it is alive; for healthchecks of containers without curl."""

from __future__ import annotations

import http.client
from typing import Annotated, Final, Literal

import typer

from worker.cli.errors import EXIT_FAILED
from worker.settings_loader import load

_TIMEOUT_S: Final = 5.0
_OK: Final = 200
_SIMULATOR_PORT: Final = 8790

ProcessKind = Literal["api", "worker", "simulator"]


def health(
    what: Annotated[ProcessKind, typer.Argument(help="api (can accept jobs), worker (is alive) or simulator.")] = "api",
) -> None:
    """Check a process on this machine. Exits 1 if it is not healthy.

    The API is asked at VIGIL_PORT, a worker at VIGIL_WORKER_PORT, the simulator at its default port.
    """
    settings = load()
    port, path = {
        "api": (settings.port, "/readyz"),
        "worker": (settings.worker_port, "/healthz"),
        "simulator": (_SIMULATOR_PORT, "/sim/healthz"),
    }[what]
    if not port:
        print(f"{what}: it has no port; set VIGIL_WORKER_PORT")
        raise typer.Exit(EXIT_FAILED)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"{what}: nothing answers on port {port} ({type(error).__name__})")
        raise typer.Exit(EXIT_FAILED) from None
    finally:
        connection.close()
    print(f"{what}: {path} answers {status}")
    if status != _OK:
        raise typer.Exit(EXIT_FAILED)


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(health)
