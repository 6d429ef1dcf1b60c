"""Now: what the deployment does at this moment, and how the provider treats the accounts.

Its parts are read at intervals of their own, each once for all pages that are open: together less than one round trip
to Redis in a second, whoever looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from api.console.charts import histogram, rate_chart
from api.console.console_routes import ConsoleRoutes
from api.console.page_response import Page
from api.console.visit import Visit
from api.jobs.deployment_status import DeploymentStatus, status_view
from api.runtime.context import AppContext
from api.runtime.live_values import LiveValue
from api.runtime.store_deadline import STORE_TIMEOUT_S, with_timeout

routes = ConsoleRoutes()
_REFRESH_S: Final = 3.0
_HISTORY_S: Final = 86_400
_REREAD_S: Final = {
    "queue": 5.0,
    "workers": 12.0,
    "circuits": 30.0,
    "pauses": 30.0,
    "pacing": 30.0,
    "accounts": 60.0,
    "waits": 120.0,
}
"""Of an open page; one that is loaded anew shows what is not older than _FRESH_S."""
_FRESH_S: Final = 1.0
_APPS_S: Final = 120.0


@routes.page("/now")
async def show_now(visit: Visit) -> Page:
    """Show the queue, the workers and the account."""
    parts = _parts(visit.context)
    found = dict(zip(parts, await asyncio.gather(*(_read(visit, *one) for one in parts.items())), strict=True))
    history, durations = found["waits"].value
    read = {name: one.value for name, one in found.items()} | {"durations": durations}
    status = DeploymentStatus(**{name: read[name] for name in DeploymentStatus._fields})
    values: dict[str, Any] = {
        **status_view(visit.context, status, visit.key),
        "rate_chart": rate_chart(history),
        "hold_chart": histogram(durations.all_holds()),
        "call_chart": histogram(durations.calls()),
    }
    return Page("now.html", values, "-".join(one.version for one in found.values()), _REFRESH_S)


def _parts(context: AppContext) -> dict[str, Callable[[], Awaitable[Any]]]:
    deployment = context.deployment

    async def queue() -> Any:
        return await deployment.queue((await context.console.live.read("apps", _APPS_S, deployment.apps)).value)

    async def waits() -> Any:
        return await deployment.history(_HISTORY_S), await deployment.durations()

    return {
        "queue": queue,
        "workers": deployment.workers,
        "circuits": deployment.circuits,
        "pauses": context.pauses.list,
        "pacing": deployment.pacing,
        "accounts": deployment.accounts,
        "waits": waits,
    }


async def _read(visit: Visit, name: str, load: Callable[[], Awaitable[Any]]) -> LiveValue[Any]:
    seconds = _REREAD_S[name] if visit.is_live else _FRESH_S
    return await visit.context.console.live.read(f"now:{name}", seconds, lambda: with_timeout(STORE_TIMEOUT_S, load()))
