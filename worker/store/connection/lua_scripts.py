"""Load the Lua scripts of this package. Each is preceded by the functions of `tolerant_calls.lua`.

Those of a client whose keys have a hash tag begin with `key_tag.lua`.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis

from worker.store.connection.key_tag import tag_of

ALLOW_OOM: Final = "connection/allow_oom"
"""Let a script run although Redis has reached its maxmemory."""
CONTENT_SIZE: Final = "connection/content_size"
"""Give a script `measure` and `measure_due`, which keep the bytes of content that an app holds."""
_COMMANDS: Final = "connection/run_commands"
RUN_COMMANDS: Final = (CONTENT_SIZE, "admission/pace", "connection/job_words", "connection/commit_words", _COMMANDS)
"""Give a script `run_commands`, the interpreter of a commit's commands, and what that needs."""
RUN_NEW_JOB_COMMANDS: Final = (CONTENT_SIZE, "connection/job_words", _COMMANDS)
"""The same for commands that create jobs: a third of the text, and of the functions that each call makes."""
_PRELUDE: Final = "connection/tolerant_calls"
_TAG: Final = "connection/key_tag"


@cache
def _source(*names: str, tagged: bool = False) -> str:
    package = files("worker.store")
    flags = [name for name in names if name == ALLOW_OOM]  # Redis reads a script's flags from its first line only
    parts = (*flags, *([_TAG] if tagged else []), _PRELUDE, *(name for name in names if name != ALLOW_OOM))
    return "".join(package.joinpath(f"{name}.lua").read_text() for name in parts)


def script(redis: Redis, *names: str) -> Any:
    """Return the script made of these files, named by their paths in this package and joined in this order.

    redis-py loads it again when Redis has forgotten it.
    """
    return redis.register_script(_source(*names, tagged=bool(tag_of(redis))))
