"""`vigil console`: prints a link that logs into the console once. Uses Redis directly, as `vigil keys` does."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from worker.cli.errors import CliError
from worker.cli.partitions import chosen, open_stores
from worker.cli.processes import address
from worker.cli.profile import load_profile
from worker.clock import Clock, to_ms
from worker.settings import Settings
from worker.settings_loader import load
from worker.store.apps import ApiKey, Apps
from worker.store.connection.pool import Redis
from worker.store.console_access import LINK_SECONDS, ConsoleAccess


async def console_link(redis: Redis, key: str, base: str) -> str | None:
    """Return a link below `base` that logs in once as this API key; None if the key is not live."""
    found = await Apps(redis, Clock()).find(key)
    return None if found is None or not found.is_live(to_ms(Clock().now())) else await _link(redis, found.id, base)


async def _link(redis: Redis, key_id: str, base: str) -> str:
    token = await ConsoleAccess(redis, Clock()).create_link(key_id)
    return f"{base}/console/login#link={token}"  # what follows # is sent to no server and is in no log


async def _create(settings: Settings, base: str, key: str | None, key_id: str | None) -> tuple[str, ApiKey]:
    async with open_stores(settings, writes=True) as stores:
        for store in chosen(settings, stores):
            apps = Apps(store.redis, Clock())
            found = await apps.find_by_id(key_id) if key_id else await apps.find(key or "")
            if found is not None and found.is_live(to_ms(Clock().now())):
                return await _link(store.redis, found.id, base), found
    raise CliError("there is no such live key; `vigil keys list` shows them, `vigil keys create` makes one")


def console(
    key_id: Annotated[
        str | None, typer.Option("--key", help="Log in as the key with this id.  [default: the key of VIGIL_API_KEY]")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The address of the API as the browser sees it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print a link that opens the console once.

    It lasts ten minutes. The session has the scopes of its key and ends with it. Needs the settings of the API, as
    `vigil keys` does.
    """
    settings, profile = load(), load_profile("")
    if not settings.console:
        raise CliError("the console is off (VIGIL_CONSOLE=0)")
    key = profile.key.get_secret_value() if profile.key else None
    if key is None and key_id is None:
        raise CliError("set VIGIL_API_KEY, or name a key of `vigil keys list` with --key")
    base = (url or profile.url or settings.public_url or address(settings) + settings.root_path).rstrip("/")
    link, found = asyncio.run(_create(settings, base, key, key_id))
    if as_json:
        print(json.dumps({"url": link, "key_id": found.id, "app": found.app, "seconds": LINK_SECONDS}))
        return
    print(f"{link}\n  as {found.app}, {', '.join(found.scopes)}; works once, within {LINK_SECONDS // 60} minutes")


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command()(console)
