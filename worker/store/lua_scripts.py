"""How a Lua script of lua/ gets to Redis: with `guard.lua` before it, which each of them stands on."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis

_FLAGS: Final = "allow_full"


@cache
def _source(*names: str) -> str:
    room = files("worker.store").joinpath("lua")
    flags = [name for name in names if name == _FLAGS]  # a script's flags stand in its first line
    files_of_it = (*flags, "guard", *(name for name in names if name != _FLAGS))
    return "".join(room.joinpath(f"{name}.lua").read_text() for name in files_of_it)


def script(redis: Redis, *names: str) -> Any:
    """The script made of these files, in this order; loaded again by itself when Redis forgot it."""
    return redis.register_script(_source(*names))
