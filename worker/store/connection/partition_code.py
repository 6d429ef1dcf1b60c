"""The partition that a client of Redis leads to, kept with the client: the ids of its jobs end with its code."""

from __future__ import annotations

from typing import Any


def set_partition_code(redis: Any, code: str) -> None:
    """Have jobs that are created through this client name this partition; "" = home, or the only store."""
    redis.partition_code = code


def partition_code(redis: Any) -> str:
    """Return the code of the partition that this client leads to."""
    code: str = vars(redis).get("partition_code", "")
    return code
