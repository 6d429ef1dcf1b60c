"""The scenarios of the simulator, if that is the provider: Try it offers them to pick.

Only a provider on this machine is asked, for a list that the real one does not have; nothing of a job is sent.
"""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import httpx2

from api.runtime.context import AppContext

_REREAD_S: Final = 60.0
_TIMEOUT_S: Final = 1.0
_MAX_BYTES: Final = 512 * 1024
_MAX_SCENARIOS: Final = 300


class ScenarioChoice(NamedTuple):
    """A scenario to pick. `holds`: it has a check or a silence whose length can be set."""

    name: str
    description: str
    holds: bool


async def scenario_choices(context: AppContext) -> list[ScenarioChoice]:
    """Return the simulator's scenarios; none if the provider is another or does not answer."""
    base = context.settings.openai_base_url
    if base is None or not _is_local(base):
        return []
    found = await context.console.live.read("scenarios", _REREAD_S, lambda: _fetch(base))
    return found.value


def _is_local(base: str) -> bool:
    host = urlsplit(base).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


async def _fetch(base: str) -> list[ScenarioChoice]:
    address = base.rstrip("/").removesuffix("/v1") + "/sim/scenarios"
    try:
        async with (
            httpx2.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client,
            client.stream("GET", address, headers={"Accept": "application/json"}) as response,
        ):
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_BYTES or response.status_code != 200:  # noqa: PLR2004  success of HTTP
                    return []
        rows = json.loads(bytes(body))
        rows = rows["data"] if isinstance(rows, dict) else rows
        return [_choice(row) for row in rows[:_MAX_SCENARIOS]]
    except (httpx2.HTTPError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []  # another server listens there


def _choice(row: dict[str, object]) -> ScenarioChoice:
    options = row["options"]
    return ScenarioChoice(str(row["name"]), str(row["description"]), isinstance(options, dict) and "hold" in options)
