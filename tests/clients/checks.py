"""The tiny harness of the Python clients' scripts: features in, one JSON line a feature out.

It runs in the client's own environment, so it imports nothing but the standard library.
"""

import asyncio
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

URL = os.environ["VIGIL_URL"] + "/v1"  # noqa: TID251
KEY = os.environ["VIGIL_API_KEY"]  # noqa: TID251
MODEL = "gpt-5.6-sol"
_MISSING = os.environ.get("VIGIL_MISSING", "").split(",")  # noqa: TID251
_features: list[tuple[str, str, Callable[[], Any]]] = []


def feature(name: str, *, needs: str = "") -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register a function that shows a feature; `needs`: a part of the API that not every Vigil has."""

    def register(function: Callable[[], Any]) -> Callable[[], Any]:
        _features.append((name, needs, function))
        return function

    return register


def run() -> None:
    """Run all features in order and report each."""
    for name, needs, function in _features:
        if needs and needs in _MISSING:
            report(name, f"needs {needs}")
            continue
        try:
            result = function()
            if inspect.isawaitable(result):
                asyncio.run(_finish(result))
        except BaseException as error:  # noqa: BLE001  one feature's failure is a row of the table
            traceback.print_exc(file=sys.stderr)
            report(name, "fail", f"{type(error).__name__}: {error}"[:300])
        else:
            report(name, "pass")


def report(name: str, result: str, detail: str = "") -> None:
    """Print one row for the runner."""
    print(json.dumps({"feature": name, "result": result, "detail": detail}), flush=True)


async def _finish(awaitable: Any) -> Any:
    return await awaitable
