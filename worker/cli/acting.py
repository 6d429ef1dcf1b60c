"""What commands that change something share: who is responsible, by the option --by or the login of this machine."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from worker.store.audit.acts import Actor

By = Annotated[
    str, typer.Option("--by", help="The person responsible; kept in the audit trail.  [your login]", show_default=False)
]


def login() -> str:
    """Return the name of this machine's user, or "unknown"."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def actor_of(by: str) -> Actor:
    """Return who acts: the person of --by, else the login."""
    return Actor(by or login(), via="cli")
