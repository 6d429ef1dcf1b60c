"""The schema of the whole store: the number of the last migration that this release knows."""

from __future__ import annotations

from typing import Final

STORE_SCHEMA: Final = 2
"""Raised by one with each entry of `lifecycle/migrations.py`; every process tells it with its heartbeat."""
EARLIER: Final = 0
"""Of a process that does not tell one: its release knows no migrations."""
