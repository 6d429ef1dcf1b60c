"""Load the Lua scripts of this package. Each is preceded by the functions of `guard.lua`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis

_FLAGS: Final = "connection/allow_oom"
_PRELUDE: Final = "connection/tolerant_calls"


@cache
def _source(*names: str) -> str:
    package = files("worker.store")
    flags = [name for name in names if name == _FLAGS]  # Redis reads a script's flags from its first line only
    parts = (*flags, _PRELUDE, *(name for name in names if name != _FLAGS))
    return "".join(package.joinpath(f"{name}.lua").read_text() for name in parts)


def script(redis: Redis, *names: str) -> Any:
    """Return the script made of these files, named by their paths in this package and joined in this order.

    redis-py loads it again when Redis has forgotten it.
    """
    return redis.register_script(_source(*names))
